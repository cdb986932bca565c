//! Small models in tests: where fixtures live, how a model is opened, how numbers are compared.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lichen_kernels::ops::attention::KvFormat;
use lichen_kernels::{Device, Isa};
use lichen_runtime::files::formats::safetensors::SafeTensors;
use lichen_runtime::files::mapped_file::MappedFile;
use lichen_runtime::memory_plan::{Limits, MemoryPlan, ModelBytes};
use lichen_runtime::model::session::Session;
use lichen_runtime::model::Model;
use lichen_runtime::ModelSource;

/// A file or folder below tests/fixtures, or below the folder that LICHEN_TEST_FIXTURES names where there is no checkout.
pub fn fixture(name: &str) -> PathBuf {
    let copied = std::env::var_os("LICHEN_TEST_FIXTURES").map(PathBuf::from);
    copied.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")).join(name)
}

/// Loads a model, whatever its format; panics with the product's own message.
pub fn load(path: &Path) -> Arc<Model> {
    let source = ModelSource::open(path).unwrap_or_else(|e| panic!("{e}"));
    let device = Device::cpu(1).expect("a thread");
    Arc::new(Model::load(&source, &device).unwrap_or_else(|e| panic!("{e}")))
}

/// Limits for small models: chunks shorter than most prompts, so that chunk borders are crossed.
pub fn limits(n_threads: usize) -> Limits {
    Limits { context: 128, chunk: 16, logit_rows: 5, kv_format: KvFormat::F32, n_threads, max_rank: 0 }
}

/// A session on the best instruction set.
pub fn session(model: &Arc<Model>, limits: Limits) -> Session {
    session_on(model, limits, Isa::detect())
}

/// A session on a given instruction set.
pub fn session_on(model: &Arc<Model>, limits: Limits, isa: Isa) -> Session {
    let plan = MemoryPlan::new(&model.config, ModelBytes::default(), limits);
    let device = Device::cpu_with_isa(limits.n_threads, isa).expect("available");
    Session::new(model.clone(), Arc::new(device), &plan).unwrap_or_else(|e| panic!("{e}"))
}

/// Logits of every token, (tokens, vocab_size), through the prefill.
pub fn logits(session: &mut Session, tokens: &[u32]) -> Vec<f32> {
    let mut all = Vec::new();
    session
        .evaluate(tokens, &mut |row| {
            all.extend_from_slice(row);
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
    all
}

/// The first maximum.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, v) in logits.iter().enumerate() {
        assert!(!v.is_nan(), "logit {i} is NaN");
        if *v > logits[best] {
            best = i;
        }
    }
    best as u32
}

/// Largest absolute difference; NaN anywhere gives NaN, which no bound accepts.
pub fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m })
}

/// A golden file: named tensors of f32 or i64.
pub struct Golden(SafeTensors);

impl Golden {
    pub fn open(path: &Path) -> Golden {
        let file = MappedFile::open(path).unwrap_or_else(|e| panic!("{e}"));
        Golden(SafeTensors::parse(file).unwrap_or_else(|e| panic!("{e}")))
    }

    pub fn f32(&self, name: &str) -> Vec<f32> {
        let tensor = self.0.tensor(name).unwrap_or_else(|| panic!("no tensor {name}"));
        let bytes = self.0.tensor_slice(tensor);
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// An i64 tensor of token ids.
    pub fn ids(&self, name: &str) -> Vec<u32> {
        let tensor = self.0.tensor(name).unwrap_or_else(|| panic!("no tensor {name}"));
        let bytes = self.0.tensor_slice(tensor);
        bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("eight bytes")) as u32).collect()
    }
}

/// Never stops a prefill.
pub fn always() -> std::ops::ControlFlow<()> {
    std::ops::ControlFlow::Continue(())
}

/// An empty folder of this test, below the system's temporary folder.
pub fn temp_dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("lichen-{name}-{}", std::process::id()));
    // A leftover of an earlier run with the same process id.
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a temporary folder");
    dir
}

/// One token more, and its logits.
pub fn decode(session: &mut Session, token: u32) -> Vec<f32> {
    session.decode(token).unwrap_or_else(|e| panic!("{e}"));
    session.last_logits().unwrap_or_else(|e| panic!("{e}")).to_vec()
}
