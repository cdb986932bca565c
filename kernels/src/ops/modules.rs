//! Which modules of CUDA kernels a model needs. Those of one format say so in the last word of their names
//! (`matmul/prefill/prefill_q8_0`); the others are for every model.

use super::attention::KvFormat;
use crate::formats::Format;

/// Measures a device; no model has it.
const BENCHES: [&str; 1] = ["bandwidth/"];

/// True for the modules that a model with weights of these formats and a cache of keys and values of that one launches, by
/// name: for [`Cuda::prepare`](crate::cuda::Cuda::prepare). What it leaves out is loaded when it is launched after all.
pub fn modules_for(formats: &[Format], kv: KvFormat) -> impl Fn(&str) -> bool {
    let wanted = modules_of(formats, kv);
    move |module| wanted(module) && !module.starts_with(PAGES)
}

/// The same for a batch, whose keys and values lie in pages.
pub fn modules_for_batch(formats: &[Format], kv: KvFormat) -> impl Fn(&str) -> bool {
    let wanted = modules_of(formats, kv);
    move |module| wanted(module) && !module.starts_with(RINGS)
}

/// Decode's attention, of a batch and of a session.
const PAGES: &str = "attention/pages_";
const RINGS: &str = "attention/decode_";

fn modules_of(formats: &[Format], kv: KvFormat) -> impl Fn(&str) -> bool {
    let formats = formats.to_vec();
    move |module| {
        let file = module.rsplit('/').next().unwrap_or(module);
        if BENCHES.iter().any(|bench| module.starts_with(bench)) {
            return false;
        }
        if module.starts_with("attention/") {
            return kv_is_served(file, kv);
        }
        let is_of = |format: &Format| file.ends_with(&format!("_{}", format.to_string().to_lowercase()));
        match Format::ALL.into_iter().find(is_of) {
            Some(format) => formats.contains(&format),
            None => true,
        }
    }
}

/// Those without a format in their name serve every cache.
fn kv_is_served(file: &str, kv: KvFormat) -> bool {
    let own = match kv {
        KvFormat::F32 => "_f32",
        KvFormat::F16 => "_f16",
        KvFormat::I8 => "_i8",
    };
    let is_of_one = ["_f32", "_f16", "_i8"].iter().any(|suffix| file.ends_with(suffix));
    !is_of_one || file.ends_with(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::module_names;

    const NAMES: [&str; 15] = [
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
    ];

    /// Those of [`NAMES`] that are wanted, without the two that always are.
    fn wanted(formats: &[Format], kv: KvFormat) -> Vec<&'static str> {
        let (wants, always) = (modules_for(formats, kv), ["attention/prepare", "rmsnorm/rmsnorm"]);
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
    fn a_batch_has_pages_in_the_place_of_rings() {
        let (wants, pages) = (modules_for_batch(&[Format::F32], KvFormat::F16), "attention/pages_f16");
        assert!(wants(pages) && !wants("attention/decode_f16") && wants("attention/prefill_mma_f16"));
        assert!(!modules_for(&[Format::F32], KvFormat::F16)(pages) && !wants("attention/pages_i8"));
    }

    #[test]
    fn every_module_is_known() {
        let computed: Vec<Format> = Format::ALL.into_iter().filter(|f| f.is_computed()).collect();
        for (arch, name) in module_names() {
            let is_bench = BENCHES.iter().any(|bench| name.starts_with(bench));
            let kvs = [KvFormat::F32, KvFormat::F16, KvFormat::I8];
            let some =
                kvs.into_iter().any(|kv| modules_for(&computed, kv)(name) || modules_for_batch(&computed, kv)(name));
            assert_eq!(some, !is_bench, "{name} for {arch}");
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
