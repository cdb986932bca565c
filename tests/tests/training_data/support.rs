//! Encoders of the small models, and files of rows.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use lichen_runtime::text::chat_template::{ChatTemplate, JinjaTemplate};
use lichen_runtime::text::tokenizer::Tokenizer;
use lichen_runtime::{Architecture, ModelSource};
use lichen_tests::fixture;
use lichen_tests::formats::corpus::TempDir;
use lichen_trainer::data::{DataOptions, Dataset, Sample, TextEncoder, IGNORED};

/// Rows of the small models' embeddings.
pub const VOCAB: usize = 320;

/// A tokenizer and the template it is used with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chat {
    /// The model's own template.
    Gemma,
    GemmaBuiltIn,
    Qwen,
    QwenBuiltIn,
}

impl Chat {
    pub const ALL: [Chat; 4] = [Chat::Gemma, Chat::GemmaBuiltIn, Chat::Qwen, Chat::QwenBuiltIn];

    pub fn is_gemma(self) -> bool {
        matches!(self, Chat::Gemma | Chat::GemmaBuiltIn)
    }

    pub fn tokenizer(self) -> Arc<Tokenizer> {
        self.files().0.clone()
    }

    pub fn encoder(self) -> TextEncoder {
        let (tokenizer, template) = self.files();
        let own = matches!(self, Chat::Gemma | Chat::Qwen).then_some(template.as_str());
        let architecture = if self.is_gemma() { Architecture::Gemma3 } else { Architecture::Qwen2 };
        let template = ChatTemplate::new(own, architecture, tokenizer).expect("a template");
        assert_eq!(matches!(template, ChatTemplate::Jinja(_)), own.is_some());
        TextEncoder::new(tokenizer.clone(), template)
    }

    /// The tokenizer and the template of the model, read once.
    fn files(self) -> &'static (Arc<Tokenizer>, String) {
        static GEMMA: OnceLock<(Arc<Tokenizer>, String)> = OnceLock::new();
        static QWEN: OnceLock<(Arc<Tokenizer>, String)> = OnceLock::new();
        let (files, name) = if self.is_gemma() { (&GEMMA, "tiny-gemma3") } else { (&QWEN, "tiny-qwen2-tied") };
        files.get_or_init(|| {
            let folder = fixture(name);
            let tokenizer = Tokenizer::from_json(&folder.join("tokenizer.json"), VOCAB).expect("a fixture");
            let source = ModelSource::open(&folder).expect("a fixture");
            (Arc::new(tokenizer), source.chat_template().expect("a template"))
        })
    }
}

/// Gemma's tokenizer with a template of the test's own.
pub fn with_template(source: &str) -> TextEncoder {
    let template = JinjaTemplate::new(source, "<bos>", "<eos>").expect("a template");
    TextEncoder::new(Chat::Gemma.tokenizer(), ChatTemplate::Jinja(Box::new(template)))
}

/// In the file's order, nothing kept for evaluation.
pub fn plain() -> DataOptions {
    DataOptions { shuffle: false, max_seq: 4096, ..DataOptions::default() }
}

/// Opens rows that are written to a file named `data.jsonl`; an error has `DIR` for its folder.
pub fn open(bytes: &[u8], encoder: Option<TextEncoder>, options: &DataOptions) -> Result<Dataset, String> {
    let dir = TempDir::new();
    let path = dir.write("data.jsonl", bytes);
    // The file stays readable after its folder is gone.
    open_at(&path, encoder, options).map_err(|e| e.replace(&dir.path().display().to_string(), "DIR"))
}

pub fn open_at(path: &Path, encoder: Option<TextEncoder>, options: &DataOptions) -> Result<Dataset, String> {
    Dataset::open(path, encoder, VOCAB, options).map_err(|e| e.message().to_string())
}

/// Every training sample of the first epoch.
pub fn samples(dataset: &Dataset) -> Vec<Sample> {
    (0..dataset.n_train()).map(|i| dataset.train(0, i).unwrap_or_else(|e| panic!("{e}"))).collect()
}

/// The texts of the runs of labelled ids, control tokens spelled out. A label must be the id it stands at.
pub fn labelled(tokenizer: &Tokenizer, sample: &Sample) -> Vec<String> {
    assert_eq!(sample.ids.len(), sample.labels.len());
    assert_eq!(sample.labels[0], IGNORED);
    let mut runs: Vec<Vec<u32>> = Vec::new();
    let mut is_open = false;
    for (&id, &label) in sample.ids.iter().zip(&sample.labels) {
        if label == IGNORED {
            is_open = false;
            continue;
        }
        assert_eq!(label, id as i32);
        if !std::mem::replace(&mut is_open, true) {
            runs.push(Vec::new());
        }
        runs.last_mut().expect("just pushed").push(id);
    }
    runs.iter().map(|ids| tokenizer.decode_with_markers(ids)).collect()
}
