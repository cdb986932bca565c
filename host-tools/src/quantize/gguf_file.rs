//! The GGUF file: which tensor in which format, and the order they are written in.

use lichen_kernels::Format;
use lichen_runtime::files::disk::{refuse_full, NewFile};
use lichen_runtime::files::formats::gguf_write::{DataWriter, Head};
use lichen_runtime::files::model_source::PartShape;
use lichen_runtime::{Error, ModelConfig, Part, Result};

use super::report::{Report, Sums, Tally};
use super::rows::{convert, Input, Weight};
use super::{gguf_metadata, Options, Progress, Target};

/// One tensor of the file.
struct Entry {
    part: Part,
    layer: Option<usize>,
    name: String,
    format: Format,
    /// Row-major.
    shape: Vec<usize>,
}

impl Entry {
    fn n_values(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64
    }
}

pub fn write(input: Input, options: &Options, progress: &mut dyn Progress) -> Result<Report> {
    let source = input.source;
    let mut notes = Vec::new();
    let entries = entries(&input.config(), options.target);
    let mut head = Head::default();
    let in_model = |e: Error| e.in_file(&options.model);
    gguf_metadata::add(&mut head, source, options, &mut notes).map_err(in_model)?;
    for entry in &entries {
        head.tensor(&entry.name, entry.format, &entry.shape).map_err(in_model)?;
    }
    let n_f16 = entries.iter().filter(|e| e.format == Format::F16).count();
    if n_f16 > 0 && options.target != Target::F16 {
        notes.push(format!("{n_f16} matrices are F16: their rows are not whole blocks of 32"));
    }
    refuse_full(&options.out, head.file_bytes())?;
    progress.start(entries.iter().map(Entry::n_values).sum());
    let mut file = NewFile::create(&options.out)?;
    let mut tally = Tally::default();
    let io = |e: std::io::Error| Error::io(&options.out, &e);
    let mut data = head.start(&mut file).map_err(io)?;
    for entry in &entries {
        let sums = write_tensor(input, entry, &mut data, progress, options)?;
        let bytes = entry.n_values() / entry.format.block_len() as u64 * entry.format.block_bytes() as u64;
        tally.add(entry.format, bytes, sums);
    }
    data.finish();
    // A source that was cut while it was read would have ended the program; one that was replaced says so here.
    source.mapped_files().iter().try_for_each(|file| file.check_length())?;
    file.publish_new()?;
    Ok(Report {
        model: options.model.clone(),
        out: options.out.clone(),
        format: options.target.name(),
        source_bytes: source.weights_bytes() as u64,
        out_bytes: head.file_bytes(),
        formats: tally.reports(),
        seconds: 0.0,
        peak_rss_bytes: None,
        notes,
        merge: None,
    })
}

fn entries(config: &ModelConfig, target: Target) -> Vec<Entry> {
    let entry = |(part, layer): (Part, Option<usize>)| {
        let (format, shape) = match part.shape(config) {
            PartShape::Vector(n) => (Format::F32, vec![n]),
            PartShape::Matrix(rows, cols) => (matrix_format(target, part, cols), vec![rows, cols]),
        };
        Entry { part, layer, name: part.gguf_name(layer), format, shape }
    };
    Part::of_model(config).map(entry).collect()
}

/// Embedding and head stay Q8_0 in a file of 4 or 5 bits: their error reaches every logit, and the head is read once per token.
fn matrix_format(target: Target, part: Part, cols: usize) -> Format {
    let quantised = match (target, part) {
        (Target::Q4_0 | Target::Q5_0, Part::TokenEmbedding | Part::Output) | (Target::Q8_0, _) => Format::Q8_0,
        (Target::Q5_0, _) => Format::Q5_0,
        (Target::Q4_0, _) => Format::Q4_0,
        (Target::F16, _) => return Format::F16,
        (Target::Bf16, _) => return Format::BF16,
        (Target::F32, _) => return Format::F32,
        (Target::Nf4, _) => unreachable!("GGUF has no NF4"),
    };
    match cols.is_multiple_of(quantised.block_len()) {
        true => quantised,
        false => Format::F16,
    }
}

fn write_tensor(
    input: Input,
    entry: &Entry,
    data: &mut DataWriter,
    progress: &mut dyn Progress,
    options: &Options,
) -> Result<Sums> {
    let io = |e: std::io::Error| Error::io(&options.out, &e);
    let weight = Weight { part: entry.part, layer: entry.layer, name: &entry.name, model: &options.model };
    if let [n] = entry.shape[..] {
        let values = input.source.vector(entry.part, entry.layer)?;
        weight.check_finite(&values, 0, n)?;
        data.write(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()).map_err(io)?;
        progress.advance(n as u64)?;
        let mut sums = Sums::default();
        sums.add(&values, &values);
        return Ok(sums);
    }
    convert(input, weight, entry.format, progress, |bytes| data.write(bytes).map_err(io))
}
