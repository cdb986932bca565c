//! Which modules of CUDA kernels a model needs, by what the ops say of theirs.

use super::attention::KvFormat;
use super::kernel_module::{Files, KernelModule, Role};
use crate::formats::Format;

// FOLDERS: the folders below src/ops that hold .cu files, with their `MODULES`.
include!(concat!(env!("OUT_DIR"), "/kernel_folders.rs"));

/// True for the modules that a model with weights of these formats and a cache of keys and values of that one launches, by
/// name: for [`Cuda::prepare`](crate::cuda::Cuda::prepare). What it leaves out is loaded when it is launched after all.
pub fn modules_for(formats: &[Format], kv: KvFormat) -> impl Fn(&str) -> bool {
    modules_of_answers(formats, kv, false)
}

/// The same for a batch, whose keys and values lie in pages. An H100 compiles the products for mma.sync too, which it does not
/// launch where it has those for wgmma.
pub fn modules_for_batch(formats: &[Format], kv: KvFormat) -> impl Fn(&str) -> bool {
    modules_of_answers(formats, kv, true)
}

fn modules_of_answers(formats: &[Format], kv: KvFormat, in_batch: bool) -> impl Fn(&str) -> bool {
    let formats = on_gpu(formats);
    move |module| {
        declared(module)
            .is_some_and(|d| d.role.answers(in_batch) && d.serves(&formats) && d.cache.is_none_or(|cache| cache == kv))
    }
}

/// The same for training a model with weights of these formats. Who lets it answer too wants those of [`modules_for`] beside.
pub fn modules_for_training(formats: &[Format]) -> impl Fn(&str) -> bool {
    let mut formats = on_gpu(formats);
    if formats.iter().any(|format| *format != Format::F32) {
        // Transposes, and what is decoded once, are multiplied as F16.
        formats.push(Format::F16);
    }
    move |module| declared(module).is_some_and(|d| d.role.trains() && d.serves(&formats))
}

fn on_gpu(formats: &[Format]) -> Vec<Format> {
    formats.iter().map(|format| format.on_gpu()).collect()
}

/// What is said of a module: it serves all formats where it names none.
struct Declared {
    role: Role,
    weights: Option<Format>,
    cache: Option<KvFormat>,
}

impl Declared {
    fn serves(&self, weights: &[Format]) -> bool {
        self.weights.is_none_or(|format| weights.contains(&format))
    }
}

/// Of a module, `matmul/decode/decode_q8_0`.
fn declared(module: &str) -> Option<Declared> {
    let (folder, file) = module.rsplit_once('/')?;
    let (_, modules) = FOLDERS.iter().find(|(name, _)| *name == folder)?;
    modules.iter().find_map(|module| of_file(module, file))
}

/// What `module` says of the file `name` of its folder; `None` where it speaks of others.
fn of_file(module: &KernelModule, name: &str) -> Option<Declared> {
    let format = name.strip_prefix(module.name)?;
    let (weights, cache) = match (module.files, format.strip_prefix('_')) {
        (Files::One, None) if format.is_empty() => (None, None),
        (Files::PerWeights, Some(format)) => {
            (Some(Format::ALL.into_iter().find(|f| f.to_string().to_lowercase() == format)?), None)
        }
        (Files::PerCache, Some(format)) => (None, Some(cache_format(format)?)),
        _ => return None,
    };
    Some(Declared { role: module.role, weights, cache })
}

fn cache_format(name: &str) -> Option<KvFormat> {
    match name {
        "f32" => Some(KvFormat::F32),
        "f16" => Some(KvFormat::F16),
        "i8" => Some(KvFormat::I8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::module_names;

    const NAMES: [&str; 21] = [
        "matmul/decode/decode_f32",
        "matmul/decode/decode_bf16",
        "matmul/decode/decode_q8_0",
        "matmul/decode/decode_nf4",
        "matmul/prefill/prefill_q8_0",
        "matmul/prefill/prefill_f16",
        "matmul/prefill/prefill_bf16",
        "attention/cache/decode_f32",
        "attention/cache/decode_f16",
        "attention/cache/pages_f16",
        "attention/cache/prefill_mma_f16",
        "attention/cache/prefill_mma_i8",
        "attention/cache/prepare",
        "bandwidth/bandwidth",
        "rmsnorm/rmsnorm",
        "rmsnorm/backward",
        "attention/train/forward",
        "attention/train/backward_mma",
        "adamw/adamw",
        "matmul/backward/transpose_q8_0",
        "sampling/sampling",
    ];

    /// Those of [`NAMES`] that are wanted, without the three that always are.
    fn wanted(formats: &[Format], kv: KvFormat) -> Vec<&'static str> {
        let (wants, always) =
            (modules_for(formats, kv), ["attention/cache/prepare", "rmsnorm/rmsnorm", "sampling/sampling"]);
        assert!(always.iter().all(|name| wants(name)));
        NAMES.into_iter().filter(|name| wants(name) && !always.contains(name)).collect()
    }

    #[test]
    fn a_format_is_in_the_name() {
        let q8_0 = ["matmul/decode/decode_q8_0", "matmul/prefill/prefill_q8_0"];
        let f16 = ["attention/cache/decode_f16", "attention/cache/prefill_mma_f16"];
        assert_eq!(wanted(&[Format::Q8_0], KvFormat::F16), [q8_0, f16].concat());
        assert_eq!(wanted(&[Format::F32], KvFormat::F32), ["matmul/decode/decode_f32", "attention/cache/decode_f32"]);
        let bf16 = ["matmul/decode/decode_bf16", "matmul/prefill/prefill_bf16", "attention/cache/prefill_mma_i8"];
        assert_eq!(wanted(&[Format::BF16], KvFormat::I8), bf16);
    }

    #[test]
    fn training_leaves_out_what_answers_need() {
        let wanted = |formats: &[Format]| {
            let wants = modules_for_training(formats);
            NAMES.into_iter().filter(|name| wants(name)).collect::<Vec<_>>()
        };
        let attention = ["attention/train/forward", "attention/train/backward_mma"];
        let always = [&["rmsnorm/rmsnorm", "rmsnorm/backward"], &attention[..], &["adamw/adamw"]].concat();
        let q8_0 = [
            &["matmul/prefill/prefill_q8_0", "matmul/prefill/prefill_f16"],
            &always[..],
            &["matmul/backward/transpose_q8_0"],
        ]
        .concat();
        assert_eq!(wanted(&[Format::Q8_0]), q8_0);
        // Weights of f32 are multiplied by GEMM, and by nothing of answers.
        assert_eq!(wanted(&[Format::F32]), always);
    }

    #[test]
    fn a_batch_has_pages_in_the_place_of_rings() {
        let (wants, pages) = (modules_for_batch(&[Format::F32], KvFormat::F16), "attention/cache/pages_f16");
        assert!(wants(pages) && !wants("attention/cache/decode_f16") && wants("attention/cache/prefill_mma_f16"));
        assert!(!modules_for(&[Format::F32], KvFormat::F16)(pages) && !wants("attention/cache/pages_i8"));
    }

    #[test]
    fn every_module_is_known() {
        let computed: Vec<Format> = Format::ALL.into_iter().filter(|f| f.is_computed()).collect();
        for (arch, name) in module_names() {
            let kvs = [KvFormat::F32, KvFormat::F16, KvFormat::I8];
            let of_answers =
                kvs.into_iter().any(|kv| modules_for(&computed, kv)(name) || modules_for_batch(&computed, kv)(name));
            let of_training = modules_for_training(&computed)(name);
            let role = declared(name).unwrap_or_else(|| panic!("{name} for {arch}: no MODULES has it")).role;
            assert_eq!(of_answers || of_training, role != Role::Bench, "{name} for {arch}");
            assert!(!(of_answers && role == Role::Training), "{name} for {arch}");
        }
    }

    #[test]
    fn other_formats_are_left_out() {
        let of = |name: &str| modules_for(&[Format::Q8_0], KvFormat::F16)(name);
        let others = module_names().filter(|(_, name)| name.starts_with("matmul/") && !of(name));
        let of_others = others.filter(|(_, name)| !name.ends_with("q8_0") && !name.ends_with("prepare")).count();
        assert!(of_others >= 6 * module_names().filter(|(_, name)| name.ends_with("decode_q8_0")).count());
    }

    /// What sessions, batches and training launch, whatever the formats: a change here changes what a device compiles at its
    /// first start.
    #[test]
    fn each_pass_has_its_modules() {
        let every = ["activation/activation", "embedding/embedding", "lora/lora", "matmul/prefill/", "rmsnorm/rmsnorm"];
        let answers = ["attention/cache/prefill_", "attention/cache/prepare", "matmul/decode/", "sampling/"];
        let training = [
            "activation/backward",
            "adamw/",
            "attention/train/",
            "cross_entropy/",
            "dropout/",
            "embedding/backward",
            "encode/",
            "matmul/backward/",
            "matmul/gemm/",
            "residual/",
            "rmsnorm/backward",
            "rope/",
            "rows/",
            "sum_of_squares/",
        ];
        let groups: [(&[&str], [bool; 3]); 6] = [
            (&every, [true; 3]),
            (&answers, [true, true, false]),
            (&["attention/cache/decode_"], [true, false, false]),
            (&["attention/cache/pages_", "matmul/batch/"], [false, true, false]),
            (&training, [false, false, true]),
            (&["bandwidth/"], [false; 3]),
        ];
        let computed: Vec<Format> = Format::ALL.into_iter().filter(|f| f.is_computed()).collect();
        let kvs = [KvFormat::F32, KvFormat::F16, KvFormat::I8];
        for (arch, name) in module_names() {
            let has_name = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
            let mut found = groups.iter().filter(|(prefixes, _)| has_name(prefixes));
            let (_, expected) = found.next().unwrap_or_else(|| panic!("{name} for {arch} is new"));
            assert!(found.next().is_none(), "{name} for {arch} is of two groups");
            let of_session = kvs.into_iter().any(|kv| modules_for(&computed, kv)(name));
            let of_batch = kvs.into_iter().any(|kv| modules_for_batch(&computed, kv)(name));
            let got = [of_session, of_batch, modules_for_training(&computed)(name)];
            assert_eq!(got, *expected, "{name} for {arch}");
        }
    }

    #[test]
    fn every_declared_module_is_there() {
        // Without a compiler there are none.
        let names: Vec<&str> = module_names().map(|(_, name)| name).collect();
        for (folder, modules) in FOLDERS.iter().filter(|_| !names.is_empty()) {
            for module in *modules {
                let there = names.iter().any(|name| {
                    name.rsplit_once('/').is_some_and(|(f, file)| f == *folder && of_file(module, file).is_some())
                });
                assert!(there, "{folder}: {module:?} has no .cu file");
            }
        }
    }
}
