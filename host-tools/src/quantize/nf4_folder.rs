//! The NF4 folder: which tensor goes into which file, and the files around them.

use std::collections::HashMap;
use std::path::Path;

use lichen_kernels::Format;
use lichen_runtime::files::disk::{refuse_full, NewFile, NewFolder};
use lichen_runtime::files::formats::safetensors::Dtype;
use lichen_runtime::files::formats::safetensors_write::{DataWriter, Layout, NewTensor};
use lichen_runtime::files::model_source::{Origin, PartShape};
use lichen_runtime::{Error, ModelConfig, Part, Result};

use super::hf_files;
use super::nf4_layer::Nf4Layer;
use super::report::{Report, Sums, Tally};
use super::rows::{convert, Input, Weight};
use super::{Options, Progress};

/// One weight of the model under its name in the folder.
struct Module {
    part: Part,
    layer: Option<usize>,
    name: String,
    shape: PartShape,
}

impl Module {
    /// Linear layers are NF4; bitsandbytes leaves the embedding, the head, norms and biases as they are.
    fn is_nf4(&self) -> bool {
        matches!(self.shape, PartShape::Matrix(..)) && !matches!(self.part, Part::TokenEmbedding | Part::Output)
    }

    fn dims(&self) -> (usize, usize) {
        match self.shape {
            PartShape::Vector(n) => (1, n),
            PartShape::Matrix(rows, cols) => (rows, cols),
        }
    }

    fn n_values(&self) -> u64 {
        let (rows, cols) = self.dims();
        (rows * cols) as u64
    }

    fn estimated_bytes(&self) -> u64 {
        match self.is_nf4() {
            true => Nf4Layer::estimated_bytes(self.dims().0, self.dims().1),
            false => 2 * self.n_values(),
        }
    }

    fn weight<'a>(&'a self, model: &'a Path) -> Weight<'a> {
        Weight { part: self.part, layer: self.layer, name: &self.name, model }
    }
}

/// Where the bytes of a tensor come from.
enum Content {
    Ready(Vec<u8>),
    /// The nibbles of a module.
    Nibbles(usize),
    /// A module as bf16.
    Plain(usize),
}

pub fn write(input: Input, options: &Options, progress: &mut dyn Progress) -> Result<Report> {
    let source = input.source;
    let dir = refuse_unsuitable(input, options)?;
    let modules = modules(&input.config());
    let groups = group(&modules, options.shard_bytes_max);
    let copied = hf_files::present(dir)?;
    let copied_bytes: u64 = copied.iter().map(|(_, bytes)| bytes).sum();
    // Headers take about 200 bytes per tensor, six tensors per layer.
    let headers = modules.len() as u64 * 6 * 200;
    let estimate = modules.iter().map(Module::estimated_bytes).sum::<u64>() + copied_bytes + headers;
    refuse_full(&options.out, estimate)?;
    progress.start(modules.iter().map(|m| m.n_values() * if m.is_nf4() { 2 } else { 1 }).sum());
    let folder = NewFolder::create(&options.out)?;
    let mut tally = Tally::default();
    let mut weight_map = Vec::new();
    let mut out_bytes = 0;
    for (index, group) in groups.iter().enumerate() {
        let file_name = match groups.len() {
            1 => "model.safetensors".to_string(),
            n => format!("model-{:05}-of-{n:05}.safetensors", index + 1),
        };
        let shard = Shard { input, modules: group, options };
        let layout = shard.write(&folder.path().join(&file_name), &mut tally, progress)?;
        out_bytes += layout.file_bytes();
        weight_map.extend(layout.tensors().iter().map(|t| (t.name.clone(), t.size_bytes(), file_name.clone())));
    }
    source.mapped_files().iter().try_for_each(|file| file.check_length())?;
    if groups.len() > 1 {
        out_bytes += hf_files::write_index(folder.path(), weight_map)?;
    }
    out_bytes += hf_files::write_all(folder.path(), dir, &copied, input, options)?;
    folder.publish_new()?;
    Ok(Report {
        model: options.model.clone(),
        out: options.out.clone(),
        parts: groups.len(),
        format: options.target.name(),
        source_bytes: source.weights_bytes() as u64,
        out_bytes,
        formats: tally.reports(),
        seconds: 0.0,
        peak_rss_bytes: None,
        notes: Vec::new(),
        merge: None,
    })
}

/// The source's folder. # Errors: a GGUF file, or a folder that is NF4 already and stays as it is.
fn refuse_unsuitable<'a>(input: Input<'a>, options: &Options) -> Result<&'a Path> {
    let source = input.source;
    let refuse = |message: &str| Err(Error::input(message).in_file(&options.model));
    let dir = match source.origin() {
        Origin::HuggingFace(dir) => dir,
        Origin::Gguf(_) => {
            return refuse(
                "an NF4 folder needs the config.json and tokenizer.json of a Hugging Face folder, which a GGUF file \
                 does not hold: start from the folder the file was made of",
            );
        }
    };
    let nf4_already = source.plain_format(Part::AttnQ, Some(0))?.is_none()
        && source.matrix(Part::AttnQ, Some(0))?.format() == Format::NF4;
    match nf4_already && input.merge.is_none() {
        true => refuse("is NF4 already: copy the folder"),
        false => Ok(dir),
    }
}

fn modules(config: &ModelConfig) -> Vec<Module> {
    let module = |(part, layer): (Part, Option<usize>)| {
        let name = part.hf_name(config.architecture, layer);
        let name = if part == Part::Output { name } else { format!("model.{name}") };
        Module { part, layer, name, shape: part.shape(config) }
    };
    Part::of_model(config).map(module).collect()
}

/// Consecutive modules that fit in one file; a module larger than the limit has a file of its own.
fn group(modules: &[Module], bytes_max: u64) -> Vec<&[Module]> {
    let mut groups = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, module) in modules.iter().enumerate() {
        let more = module.estimated_bytes();
        if at > start && bytes + more > bytes_max {
            groups.push(&modules[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += more;
    }
    groups.push(&modules[start..]);
    groups
}

/// One file of weights.
struct Shard<'a> {
    input: Input<'a>,
    modules: &'a [Module],
    options: &'a Options,
}

impl Shard<'_> {
    fn write(&self, path: &Path, tally: &mut Tally, progress: &mut dyn Progress) -> Result<Layout> {
        let layers = self.read_layers(progress)?;
        let mut tensors = Vec::new();
        let mut contents = HashMap::new();
        for (at, module) in self.modules.iter().enumerate() {
            match &layers[at] {
                Some(layer) => {
                    for (tensor, bytes) in layer.tensors(&module.name) {
                        let content = bytes.map_or(Content::Nibbles(at), Content::Ready);
                        contents.insert(tensor.name.clone(), content);
                        tensors.push(tensor);
                    }
                }
                None => {
                    let shape: &[usize] = match module.shape {
                        PartShape::Vector(n) => &[n],
                        PartShape::Matrix(rows, cols) => &[rows, cols],
                    };
                    tensors.push(NewTensor::new(&module.name, Dtype::BF16, shape));
                    contents.insert(module.name.clone(), Content::Plain(at));
                }
            }
        }
        let layout = Layout::new(tensors, &[])?;
        let mut file = NewFile::create(path)?;
        let mut data = layout.start(&mut file).map_err(|e| Error::io(&self.options.out, &e))?;
        for tensor in layout.tensors() {
            match &contents[&tensor.name] {
                Content::Ready(bytes) => data.write(bytes).map_err(|e| Error::io(&self.options.out, &e))?,
                Content::Nibbles(at) | Content::Plain(at) => {
                    let module = &self.modules[*at];
                    let sums = self.write_module(module, layers[*at].as_ref(), &mut data, progress)?;
                    match module.is_nf4() {
                        true => tally.add(Format::NF4, module.estimated_bytes(), sums),
                        false => tally.add(Format::BF16, 2 * module.n_values(), sums),
                    }
                }
            }
        }
        data.finish();
        file.publish_new()?;
        Ok(layout)
    }

    /// The first pass over the linear layers; `None` for the other modules.
    fn read_layers(&self, progress: &mut dyn Progress) -> Result<Vec<Option<Nf4Layer>>> {
        let read = |module: &Module| {
            let weight = module.weight(&self.options.model);
            module.is_nf4().then(|| Nf4Layer::read(self.input, weight, module.dims(), progress)).transpose()
        };
        self.modules.iter().map(read).collect()
    }

    fn write_module(
        &self,
        module: &Module,
        layer: Option<&Nf4Layer>,
        data: &mut DataWriter,
        progress: &mut dyn Progress,
    ) -> Result<Sums> {
        let weight = module.weight(&self.options.model);
        let write = |bytes: &[u8]| data.write(bytes).map_err(|e| Error::io(&self.options.out, &e));
        match layer {
            Some(layer) => layer.write_nibbles(self.input, weight, progress, write),
            None => convert(self.input, weight, Format::BF16, progress, write),
        }
    }
}
