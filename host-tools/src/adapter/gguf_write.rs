//! The GGUF adapter as llama.cpp reads it: `<tensor of the base>.lora_a` (rank, inputs) and `.lora_b` (outputs, rank), by
//! layer, then in the order blocks use the matrices.

use lichen_kernels::formats::{decode, float};
use lichen_kernels::Format;
use lichen_runtime::files::disk::{refuse_full, NewFile};
use lichen_runtime::files::formats::gguf_write::{Head, NewValue};
use lichen_runtime::{Error, ModelConfig, Result};

use super::one_alpha::OneAlpha;
use super::{failed, Options};
use crate::quantize::{Progress, Sums};

/// One of the two matrices of a pair.
struct Half<'a> {
    name: String,
    /// Row-major.
    shape: [usize; 2],
    values: &'a [f32],
}

/// What the file says of the model.
#[derive(Clone, Copy)]
pub struct About<'a> {
    pub base_name: Option<&'a str>,
    /// Entries by which the base is known again.
    pub base: &'a [(&'static str, String)],
    pub config: &'a ModelConfig,
}

/// Returns the bytes written, and the error that made.
pub fn write(
    one: &OneAlpha,
    about: About,
    format: Format,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<(u64, Sums)> {
    let halves = halves(one);
    let About { base_name, base, config } = about;
    let name = options.out.file_stem().map_or_else(|| "adapter".into(), |name| name.to_string_lossy());
    let mut head = Head::default();
    head.entry("general.architecture", NewValue::String(config.architecture.gguf_name()));
    head.entry("general.type", NewValue::String("adapter"));
    head.entry("general.name", NewValue::String(&name));
    head.entry("general.file_type", NewValue::U32(if format == Format::F16 { 1 } else { 0 }));
    if let Some(base) = base_name {
        head.entry("general.base_model.count", NewValue::U32(1));
        head.entry("general.base_model.0.name", NewValue::String(base));
    }
    for (key, text) in base {
        head.entry(key, NewValue::String(text));
    }
    head.entry("adapter.type", NewValue::String("lora"));
    head.entry("adapter.lora.alpha", NewValue::F32(one.alpha));
    for half in &halves {
        head.tensor(&half.name, format, &half.shape).map_err(|e| e.in_file(&options.out))?;
    }
    refuse_full(&options.out, head.file_bytes())?;
    let mut file = NewFile::create(&options.out)?;
    let mut data = head.start(&mut file).map_err(failed(&options.out))?;
    let (mut sums, mut encoded, mut decoded) = (Sums::default(), Vec::new(), Vec::new());
    for half in &halves {
        encoded.clear();
        match format {
            Format::F16 => float::encode_f16(half.values, &mut encoded),
            _ => encoded.extend_from_slice(bytemuck::cast_slice(half.values)),
        }
        decoded.resize(half.values.len(), 0.0);
        decode(format, &encoded, &mut decoded);
        if decoded.iter().any(|v| !v.is_finite()) {
            let message = format!("\"{}\" holds values too large for {format}: take --out-type f32", half.name);
            return Err(Error::input(message).in_file(&options.adapter));
        }
        sums.add(half.values, &decoded);
        data.write(&encoded).map_err(failed(&options.out))?;
        progress.advance(half.values.len() as u64)?;
    }
    data.finish();
    file.publish_new()?;
    Ok((head.file_bytes(), sums))
}

fn halves(one: &OneAlpha) -> Vec<Half<'_>> {
    let mut halves = Vec::with_capacity(2 * one.targets.len());
    for target in &one.targets {
        let base = target.part.gguf_name(Some(target.layer));
        let (inputs, outputs) = (target.a.len() / target.rank, target.b.len() / target.rank);
        halves.push(Half { name: format!("{base}.lora_a"), shape: [target.rank, inputs], values: &target.a });
        halves.push(Half { name: format!("{base}.lora_b"), shape: [outputs, target.rank], values: &target.b });
    }
    halves
}
