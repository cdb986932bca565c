//! The GGUF file: which tensor in which format, and the order they are written in.

use lichen_kernels::Format;
use lichen_runtime::escape::thousands;
use lichen_runtime::files::disk::{refuse_full, NewFile, NewFolder};
use lichen_runtime::files::formats::gguf_write::{DataWriter, Head};
use lichen_runtime::files::model_source::PartShape;
use lichen_runtime::{Error, ModelConfig, Part, Result};

use super::gguf_parts::{self, FilePart};
use super::report::{Report, Sums, Tally};
use super::rows::{convert, Input, Weight};
use super::{gguf_metadata, Options, Progress, Target};

/// One tensor of the file.
pub(super) struct Entry {
    part: Part,
    layer: Option<usize>,
    pub name: String,
    pub format: Format,
    /// Row-major.
    pub shape: Vec<usize>,
}

impl Entry {
    fn n_values(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64
    }

    pub fn data_bytes(&self) -> u64 {
        self.n_values() / self.format.block_len() as u64 * self.format.block_bytes() as u64
    }
}

/// Writes the file, or its parts where it is to be split.
pub fn write(input: Input, options: &Options, progress: &mut dyn Progress) -> Result<Report> {
    let source = input.source;
    let mut notes = Vec::new();
    let entries = entries(&input.config(), options.target);
    let mut metadata = Head::default();
    let in_model = |e: Error| e.in_file(&options.model);
    gguf_metadata::add(&mut metadata, source, options, &mut notes).map_err(in_model)?;
    let n_f16 = entries.iter().filter(|e| e.format == Format::F16).count();
    if n_f16 > 0 && options.target != Target::F16 {
        notes.push(format!("{n_f16} matrices are F16: their rows are not whole blocks of 32"));
    }
    let parts = gguf_parts::cut(metadata, &entries, options.split_bytes_max).map_err(in_model)?;
    let out_bytes = parts.iter().map(|part| part.head.file_bytes()).sum();
    let longest = parts.iter().map(|part| part.head.file_bytes()).max().unwrap_or(0);
    if options.split_bytes_max.is_some_and(|max| longest > max) {
        let longest = thousands(longest);
        notes.push(format!("the longest part has {longest} bytes: no tensor is cut, and the first has the metadata"));
    }
    refuse_full(&options.out, out_bytes)?;
    progress.start(entries.iter().map(Entry::n_values).sum());
    let mut tally = Tally::default();
    // A source that was cut while it was read would have ended the program; one that was replaced says so here.
    let check_source = || source.mapped_files().iter().try_for_each(|file| file.check_length());
    let names = gguf_parts::names(&options.out, parts.len());
    match &parts[..] {
        [whole] => {
            let mut file = NewFile::create(&options.out)?;
            write_part(input, whole, &mut file, &mut tally, progress, options)?;
            check_source()?;
            file.publish_new()?;
        }
        _ => {
            let folder = NewFolder::create(&options.out)?;
            for (part, name) in parts.iter().zip(&names) {
                let mut file = NewFile::create(&folder.path().join(name))?;
                write_part(input, part, &mut file, &mut tally, progress, options)?;
                file.publish()?;
            }
            check_source()?;
            folder.publish_files(&names)?;
        }
    }
    Ok(Report {
        model: options.model.clone(),
        out: options.out.with_file_name(&names[0]),
        parts: parts.len(),
        format: options.target.name(),
        source_bytes: source.weights_bytes() as u64,
        out_bytes,
        formats: tally.reports(),
        seconds: 0.0,
        peak_rss_bytes: None,
        notes,
        merge: None,
    })
}

/// One file with its metadata, its table and its tensors.
fn write_part(
    input: Input,
    part: &FilePart,
    file: &mut NewFile,
    tally: &mut Tally,
    progress: &mut dyn Progress,
    options: &Options,
) -> Result<()> {
    let mut data = part.head.start(file).map_err(|e| Error::io(&options.out, &e))?;
    for entry in part.entries {
        let sums = write_tensor(input, entry, &mut data, progress, options)?;
        tally.add(entry.format, entry.data_bytes(), sums);
    }
    data.finish();
    Ok(())
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
