//! Which modules of CUDA kernels a model needs. Those of one format say so in the last word of their names
//! (`matmul/prefill/prefill_q8_0`); the others are for every model. What training alone launches is in files of its own: an
//! op's way back is its `backward.cu`.

use super::attention::KvFormat;
use crate::formats::Format;

/// Measures a device; no model has it.
const BENCHES: [&str; 1] = ["bandwidth/"];
/// Folders whose kernels training alone launches.
const OF_TRAINING: [&str; 9] = [
    "adamw/",
    "cross_entropy/",
    "dropout/",
    "encode/",
    "matmul/combine/",
    "residual/",
    "rope/",
    "rows/",
    "sum_of_squares/",
];
/// Words in the name of a module that say the same in other folders.
const WORDS_OF_TRAINING: [&str; 3] = ["backward", "train", "training"];
/// Folders whose kernels only answers need, beside the attention over a cache: training multiplies many rows.
const OF_ANSWERS: [&str; 3] = ["sampling/", "matmul/decode/", "matmul/batch/"];

/// True for the modules that a model with weights of these formats and a cache of keys and values of that one launches, by
/// name: for [`Cuda::prepare`](crate::cuda::Cuda::prepare). What it leaves out is loaded when it is launched after all.
pub fn modules_for(formats: &[Format], kv: KvFormat) -> impl Fn(&str) -> bool {
    let wanted = modules_of(formats, kv);
    move |module| wanted(module) && !is_in(module, &OF_BATCHES)
}

/// The same for a batch, whose keys and values lie in pages. An H100 compiles the products for mma.sync too, which it does not
/// launch where it has those for wgmma.
pub fn modules_for_batch(formats: &[Format], kv: KvFormat) -> impl Fn(&str) -> bool {
    let wanted = modules_of(formats, kv);
    move |module| wanted(module) && !module.starts_with(RINGS)
}

/// What batches alone launch, and in its place sessions.
const OF_BATCHES: [&str; 2] = ["attention/pages_", "matmul/batch/"];
const RINGS: &str = "attention/decode_";

fn modules_of(formats: &[Format], kv: KvFormat) -> impl Fn(&str) -> bool {
    let formats = formats.to_vec();
    move |module| {
        if is_in(module, &BENCHES) || is_of_training(module) {
            return false;
        }
        if module.starts_with("attention/") {
            return kv_is_served(module, kv);
        }
        format_of(module).is_none_or(|format| formats.contains(&format))
    }
}

/// The same for training a model with weights of these formats. Who lets it answer too wants those of [`modules_for`] beside.
pub fn modules_for_training(formats: &[Format]) -> impl Fn(&str) -> bool {
    let mut formats = formats.to_vec();
    if formats.iter().any(|format| *format != Format::F32) {
        // Transposes, and what is decoded once, are multiplied as F16.
        formats.push(Format::F16);
    }
    move |module| {
        let is_of_answers = is_in(module, &OF_ANSWERS) || module.starts_with("attention/");
        if is_in(module, &BENCHES) || (is_of_answers && !is_of_training(module)) {
            return false;
        }
        // The attention of training has no cache, so a format in its name is not one of weights.
        module.starts_with("attention/") || format_of(module).is_none_or(|format| formats.contains(&format))
    }
}

fn is_in(module: &str, folders: &[&str]) -> bool {
    folders.iter().any(|folder| module.starts_with(folder))
}

fn is_of_training(module: &str) -> bool {
    is_in(module, &OF_TRAINING) || module.split(['/', '_']).any(|word| WORDS_OF_TRAINING.contains(&word))
}

/// The format of weights in a module's name.
fn format_of(module: &str) -> Option<Format> {
    Format::ALL.into_iter().find(|format| module.ends_with(&format!("_{}", format.to_string().to_lowercase())))
}

/// Those without a format in their name serve every cache.
fn kv_is_served(module: &str, kv: KvFormat) -> bool {
    let own = match kv {
        KvFormat::F32 => "_f32",
        KvFormat::F16 => "_f16",
        KvFormat::I8 => "_i8",
    };
    let is_of_one = ["_f32", "_f16", "_i8"].iter().any(|suffix| module.ends_with(suffix));
    !is_of_one || module.ends_with(own)
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
        "attention/decode_f32",
        "attention/decode_f16",
        "attention/pages_f16",
        "attention/prefill_mma_f16",
        "attention/prefill_mma_i8",
        "attention/prepare",
        "bandwidth/bandwidth",
        "rmsnorm/rmsnorm",
        "rmsnorm/backward",
        "attention/train_forward",
        "attention/train_backward_f32",
        "adamw/adamw",
        "matmul/combine/combine_q8_0",
        "sampling/sampling",
    ];

    /// Those of [`NAMES`] that are wanted, without the three that always are.
    fn wanted(formats: &[Format], kv: KvFormat) -> Vec<&'static str> {
        let (wants, always) = (modules_for(formats, kv), ["attention/prepare", "rmsnorm/rmsnorm", "sampling/sampling"]);
        assert!(always.iter().all(|name| wants(name)));
        NAMES.into_iter().filter(|name| wants(name) && !always.contains(name)).collect()
    }

    #[test]
    fn a_format_is_in_the_name() {
        let q8_0 = ["matmul/decode/decode_q8_0", "matmul/prefill/prefill_q8_0"];
        let f16 = ["attention/decode_f16", "attention/prefill_mma_f16"];
        assert_eq!(wanted(&[Format::Q8_0], KvFormat::F16), [q8_0, f16].concat());
        assert_eq!(wanted(&[Format::F32], KvFormat::F32), ["matmul/decode/decode_f32", "attention/decode_f32"]);
        let bf16 = ["matmul/decode/decode_bf16", "matmul/prefill/prefill_bf16", "attention/prefill_mma_i8"];
        assert_eq!(wanted(&[Format::BF16], KvFormat::I8), bf16);
    }

    #[test]
    fn training_leaves_out_what_answers_need() {
        let wanted = |formats: &[Format]| {
            let wants = modules_for_training(formats);
            NAMES.into_iter().filter(|name| wants(name)).collect::<Vec<_>>()
        };
        let attention = ["attention/train_forward", "attention/train_backward_f32"];
        let always = [&["rmsnorm/rmsnorm", "rmsnorm/backward"], &attention[..], &["adamw/adamw"]].concat();
        let q8_0 = [
            &["matmul/prefill/prefill_q8_0", "matmul/prefill/prefill_f16"],
            &always[..],
            &["matmul/combine/combine_q8_0"],
        ]
        .concat();
        assert_eq!(wanted(&[Format::Q8_0]), q8_0);
        // Weights of f32 are multiplied by what combines rows, and by nothing of answers.
        assert_eq!(wanted(&[Format::F32]), always);
    }

    #[test]
    fn a_batch_has_pages_in_the_place_of_rings() {
        let (wants, pages) = (modules_for_batch(&[Format::F32], KvFormat::F16), "attention/pages_f16");
        assert!(wants(pages) && !wants("attention/decode_f16") && wants("attention/prefill_mma_f16"));
        assert!(!modules_for(&[Format::F32], KvFormat::F16)(pages) && !wants("attention/pages_i8"));
    }

    #[test]
    fn every_module_is_known() {
        let computed: Vec<Format> = Format::ALL.into_iter().filter(|f| f.is_computed()).collect();
        for (arch, name) in module_names() {
            let kvs = [KvFormat::F32, KvFormat::F16, KvFormat::I8];
            let of_answers =
                kvs.into_iter().any(|kv| modules_for(&computed, kv)(name) || modules_for_batch(&computed, kv)(name));
            let of_training = modules_for_training(&computed)(name);
            assert_eq!(of_answers || of_training, !is_in(name, &BENCHES), "{name} for {arch}");
            assert!(!(of_answers && is_of_training(name)), "{name} for {arch}");
        }
    }

    #[test]
    fn other_formats_are_left_out() {
        let of = |name: &str| modules_for(&[Format::Q8_0], KvFormat::F16)(name);
        let others = module_names().filter(|(_, name)| name.starts_with("matmul/") && !of(name));
        let of_others = others.filter(|(_, name)| !name.ends_with("q8_0") && !name.ends_with("prepare")).count();
        assert!(of_others >= 6 * module_names().filter(|(_, name)| name.ends_with("decode_q8_0")).count());
    }
}
