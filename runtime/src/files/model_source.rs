//! A model on disk, whatever its format: one place to ask for its config, its weights and its tokenizer.

mod fingerprint;
mod gguf_model;
mod hf_model;
mod identity;
mod locate;
mod part;
mod rows;
mod transcode;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;

use lichen_kernels::{Format, Matrix, SharedBytes};

use crate::error::Result;
use crate::files::formats::gguf::BytesOwner;
use crate::files::mapped_file::MappedFile;
use crate::model_config::ModelConfig;
use crate::sampler::SamplingOverrides;
use crate::text::tokenizer::TokenizerArrays;
use gguf_model::GgufModel;
use hf_model::HfModel;

pub use identity::{hex, ModelIdentity, SameModel};
pub use locate::{folder_name, locate};
pub use part::{Part, PartShape};
pub use rows::Origin;

/// An opened model: its files are mapped, its config is known, and every weight the config implies is there in the
/// shape it implies. No weight has been read yet.
pub struct ModelSource {
    backing: Backing,
    /// Formats that [`ModelSource::matrix`] turned into Q8_0, with the number of matrices.
    transcoded: Mutex<Vec<(Format, usize)>>,
    heap_bytes: AtomicUsize,
}

enum Backing {
    Gguf(GgufModel),
    HuggingFace(HfModel),
}

/// Where the tokenizer comes from.
pub enum TokenizerSource {
    /// A Hugging Face folder with its `tokenizer.json`.
    Json(PathBuf),
    /// The arrays of a GGUF file.
    Arrays(TokenizerArrays),
}

/// Memory the weights take once every matrix has been asked for, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightBytes {
    /// Pages of the files, shared with the page cache.
    pub mapped: usize,
    /// Matrices and vectors that are converted on the way.
    pub heap: usize,
}

/// A weight as it lies in a file.
struct Stored {
    format: Format,
    bytes: SharedBytes,
}

impl ModelSource {
    /// Opens a model: a GGUF file (of a split one any part), a Hugging Face folder (bf16, f16, f32, or bitsandbytes NF4), a
    /// folder that holds one GGUF model, or a model of the Hugging Face cache by its folder there or by its name.
    ///
    /// # Errors
    /// What is missing, malformed or not supported, in one sentence that names the file.
    pub fn open(path: &Path) -> Result<ModelSource> {
        let source = ModelSource::open_to_convert(path)?;
        if let Backing::HuggingFace(model) = &source.backing {
            model.refuse_int8()?;
        }
        Ok(source)
    }

    /// The same, with the int8 folders (LLM.int8, quanto) that are read only to be converted: their matrices are F32.
    pub fn open_to_convert(path: &Path) -> Result<ModelSource> {
        let path = locate(path)?;
        Ok(ModelSource::new(match path.is_dir() {
            true => Backing::HuggingFace(HfModel::open(&path)?),
            false => Backing::Gguf(GgufModel::open(&path)?),
        }))
    }

    /// A GGUF file in memory, such as the one embedded in the program; `name` stands for its path.
    pub fn from_bytes(name: &str, bytes: BytesOwner) -> Result<ModelSource> {
        let model = GgufModel::from_bytes(name, bytes).map_err(|e| e.in_file(Path::new(name)))?;
        Ok(ModelSource::new(Backing::Gguf(model)))
    }

    fn new(backing: Backing) -> ModelSource {
        ModelSource { backing, transcoded: Mutex::new(Vec::new()), heap_bytes: AtomicUsize::new(0) }
    }

    pub fn config(&self) -> &ModelConfig {
        match &self.backing {
            Backing::Gguf(model) => &model.config,
            Backing::HuggingFace(model) => &model.config,
        }
    }

    /// A weight matrix `(rows, cols)` of [`Part::shape`]: over the file's own bytes where the format is computed with
    /// directly, else converted (K-quants and their like to Q8_0, counted in [`ModelSource::transcoded`]; NF4 rows that
    /// are not whole blocks, and int8, to F32). Panics when the model has no such part.
    ///
    /// # Errors
    /// The weights hold something that only shows when they are read: NF4 scales that are not finite.
    pub fn matrix(&self, part: Part, layer: Option<usize>) -> Result<Matrix> {
        let PartShape::Matrix(rows, cols) = part.shape(self.config()) else { panic!("{part:?} is a vector") };
        let stored = match &self.backing {
            Backing::Gguf(model) => model.stored(part, layer)?,
            Backing::HuggingFace(model) => match model.quantized(part, layer, rows, cols)? {
                Some(matrix) => {
                    self.count_heap(self.part_memory(part, layer)?.heap);
                    return Ok(matrix);
                }
                None => model.stored(part, layer)?,
            },
        };
        if stored.format.is_computed() {
            return Ok(Matrix::new(stored.format, rows, cols, stored.bytes));
        }
        self.count_transcoded(stored.format);
        self.count_heap(self.part_memory(part, layer)?.heap);
        Ok(transcode::to_q8_0(stored.format, rows, cols, stored.bytes.as_slice(), |done| {
            self.drop_pages(&stored, done)
        }))
    }

    /// The same matrix as Q8_0 on the heap when it is F32, F16 or BF16 with rows of whole blocks of 32: converted row
    /// block by row block, the file's pages given back behind. Any other matrix as [`ModelSource::matrix`] gives it.
    pub fn matrix_q8_0(&self, part: Part, layer: Option<usize>) -> Result<Matrix> {
        let matrix = self.matrix(part, layer)?;
        if !matrix.format().is_float() || !matrix.cols().is_multiple_of(Format::Q8_0.block_len()) {
            return Ok(matrix);
        }
        let stored = match &self.backing {
            Backing::Gguf(model) => model.stored(part, layer)?,
            Backing::HuggingFace(model) if model.is_plain(part, layer) => model.stored(part, layer)?,
            Backing::HuggingFace(_) => return Ok(matrix),
        };
        let (rows, cols) = (matrix.rows(), matrix.cols());
        self.count_heap(rows * Format::Q8_0.row_bytes(cols).expect("checked above"));
        Ok(transcode::to_q8_0(stored.format, rows, cols, stored.bytes.as_slice(), |done| {
            self.drop_pages(&stored, done)
        }))
    }

    /// A norm or bias, `[n]` of [`Part::shape`], ready to use: norms are factors of the normalised value (where the
    /// files of Gemma store `w` for a factor `1 + w`, the 1 is added, in f32). Panics when the model has no such part.
    pub fn vector(&self, part: Part, layer: Option<usize>) -> Result<Vec<f32>> {
        let PartShape::Vector(n) = part.shape(self.config()) else { panic!("{part:?} is a matrix") };
        let stored = match &self.backing {
            Backing::Gguf(model) => model.stored(part, layer)?,
            Backing::HuggingFace(model) => model.stored(part, layer)?,
        };
        let mut values = vec![0.0; n];
        lichen_kernels::formats::decode(stored.format, stored.bytes.as_slice(), &mut values);
        if let Backing::HuggingFace(model) = &self.backing {
            if part.is_norm() && model.norms_are_offsets() {
                values.iter_mut().for_each(|v| *v += 1.0);
            }
        }
        Ok(values)
    }

    /// # Errors: the arrays of a GGUF file hold text that is not UTF-8.
    pub fn tokenizer(&self) -> Result<TokenizerSource> {
        match &self.backing {
            Backing::Gguf(model) => {
                model.tokenizer_keys().arrays().map(TokenizerSource::Arrays).map_err(|e| e.in_file(&model.paths[0]))
            }
            Backing::HuggingFace(model) => Ok(TokenizerSource::Json(model.dir.clone())),
        }
    }

    /// The template the model's files carry.
    pub fn chat_template(&self) -> Option<String> {
        match &self.backing {
            Backing::Gguf(model) => model.tokenizer_keys().chat_template().map(str::to_string),
            Backing::HuggingFace(model) => model.chat_template.clone(),
        }
    }

    /// Ids that end an answer, ascending.
    pub fn stop_ids(&self) -> Vec<u32> {
        match &self.backing {
            Backing::Gguf(model) => model.tokenizer_keys().stop_ids(),
            Backing::HuggingFace(model) => model.stop_ids.clone(),
        }
    }

    /// How the model's makers sample from it, as far as its files say.
    pub fn sampling(&self) -> SamplingOverrides {
        match &self.backing {
            Backing::Gguf(model) => model.sampling,
            Backing::HuggingFace(model) => model.sampling,
        }
    }

    /// The id the files name as the beginning of a text. Qwen names one that is not put in front of anything.
    pub fn bos_id(&self) -> Option<u32> {
        match &self.backing {
            Backing::Gguf(model) => model.tokenizer_keys().bos_id(),
            Backing::HuggingFace(model) => model.bos_id,
        }
    }

    /// Formats that were turned into Q8_0 so far, with the number of matrices.
    pub fn transcoded(&self) -> Vec<(Format, usize)> {
        self.transcoded.lock().expect("no panic while held").clone()
    }

    /// Bytes of the matrices that were converted onto the heap so far.
    pub fn heap_bytes(&self) -> usize {
        self.heap_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of all weights as the files hold them.
    pub fn weights_bytes(&self) -> usize {
        Part::of_model(self.config())
            .map(|(part, layer)| match &self.backing {
                Backing::Gguf(model) => model.file_bytes(part, layer),
                Backing::HuggingFace(model) => model.file_bytes(part, layer),
            })
            .sum()
    }

    /// Memory the weights will take; no weight is read to say so.
    pub fn weight_memory(&self) -> Result<WeightBytes> {
        let mut total = WeightBytes::default();
        for (part, layer) in Part::of_model(self.config()) {
            let one = self.part_memory(part, layer)?;
            total.mapped += one.mapped;
            total.heap += one.heap;
        }
        Ok(total)
    }

    /// Memory one weight will take.
    pub fn part_memory(&self, part: Part, layer: Option<usize>) -> Result<WeightBytes> {
        let (rows, cols) = match part.shape(self.config()) {
            PartShape::Vector(n) => return Ok(WeightBytes { mapped: 0, heap: n * 4 }),
            PartShape::Matrix(rows, cols) => (rows, cols),
        };
        let stored = match &self.backing {
            Backing::Gguf(model) => model.stored(part, layer)?,
            Backing::HuggingFace(model) => match model.quantized_memory(part, layer, rows, cols)? {
                Some(bytes) => return Ok(bytes),
                None => model.stored(part, layer)?,
            },
        };
        if stored.format.is_computed() {
            return Ok(WeightBytes { mapped: stored.bytes.as_slice().len(), heap: 0 });
        }
        let row_bytes = Format::Q8_0.row_bytes(cols).expect("quantised rows are whole blocks of 32");
        Ok(WeightBytes { mapped: 0, heap: rows * row_bytes })
    }

    /// The files the model consists of, weights first.
    pub fn files(&self) -> Vec<PathBuf> {
        match &self.backing {
            Backing::Gguf(model) => model.paths.clone(),
            Backing::HuggingFace(model) => model.files(),
        }
    }

    /// The mapped weight files; empty for a model in memory.
    pub fn mapped_files(&self) -> Vec<&MappedFile> {
        match &self.backing {
            Backing::Gguf(model) => model.files.iter().map(|file| &**file).collect(),
            Backing::HuggingFace(model) => model.weights.shards().iter().map(|s| &*s.file).collect(),
        }
    }

    /// Identifies the model: sha256 over the config, the table of weights (name, format, length) and the first, middle
    /// and last 4 KiB of each. Reads about 12 KiB per weight, so it is cheap on a large file; it tells models and
    /// fine-tunes apart, but a file changed only between the samples passes as the same.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint::of(self)
    }

    fn count_heap(&self, bytes: usize) {
        self.heap_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn count_transcoded(&self, format: Format) {
        let mut counts = self.transcoded.lock().expect("no panic while held");
        match counts.iter_mut().find(|(f, _)| *f == format) {
            Some((_, n)) => *n += 1,
            None => counts.push((format, 1)),
        }
    }

    /// Releases the pages of the first `done` bytes of a weight that has been converted.
    fn drop_pages(&self, stored: &Stored, done: std::ops::Range<usize>) {
        self.release(&stored.bytes.as_slice()[done]);
    }

    /// Releases the pages of a part of a mapped file that has been copied elsewhere; nothing happens for other memory.
    pub(crate) fn release(&self, done: &[u8]) {
        let at = done.as_ptr() as usize;
        for file in self.mapped_files() {
            let bytes = file.as_ref();
            let start = bytes.as_ptr() as usize;
            if (start..start + bytes.len()).contains(&at) {
                file.advise_dont_need(at - start..at - start + done.len());
            }
        }
    }
}
