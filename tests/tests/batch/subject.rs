//! A model on a device, and what it answers in a batch and alone.
#![allow(dead_code)]

use std::path::Path;
use std::sync::Arc;

use lichen_kernels::Device;
use lichen_runtime::engine::answer::Answer;
use lichen_runtime::engine::request::Request;
use lichen_runtime::engine::{Engine, Event, LoadedModel, RequestId};
use lichen_runtime::limits::BatchLimits;
use lichen_runtime::loader::demo;
use lichen_runtime::memory_plan::{Limits, MemoryPlan, ModelBytes};
use lichen_runtime::model::session::Session;
use lichen_runtime::model::Model;
use lichen_runtime::sampler::SamplerConfig;
use lichen_runtime::text::stop::StopIds;
use lichen_runtime::text::tokenizer::Tokenizer;
use lichen_runtime::{ModelSource, TokenizerSource};
use lichen_tests::models::fixture;

pub const MODELS: [&str; 5] = [
    "tiny-gemma3",
    "tiny-gemma3/tiny-gemma3-q8_0.gguf",
    "tiny-gemma3-nf4",
    "tiny-qwen2-tied",
    "tiny-qwen2-untied/tiny-qwen2-untied-q8_0.gguf",
];

/// A model on a device, and what answers need.
pub struct Subject {
    pub name: String,
    pub device: Arc<Device>,
    pub model: Arc<Model>,
    pub tokenizer: Option<Arc<Tokenizer>>,
    pub stop_ids: StopIds,
}

impl Subject {
    pub fn of(source: &ModelSource, name: &str, device: &Arc<Device>) -> Subject {
        let model = Arc::new(Model::load(source, device).unwrap_or_else(|e| panic!("{e}")));
        let tokenizer = match source.tokenizer().unwrap_or_else(|e| panic!("{e}")) {
            TokenizerSource::Arrays(arrays) => {
                Some(Arc::new(Tokenizer::from_arrays(arrays, model.config.vocab_size).unwrap()))
            }
            TokenizerSource::Json(_) => None,
        };
        Subject {
            name: format!("{name} on {}", device.describe()),
            device: device.clone(),
            model,
            stop_ids: StopIds::new(source.stop_ids()),
            tokenizer,
        }
    }

    /// The demo model.
    pub fn demo(device: &Arc<Device>) -> Subject {
        Subject::of(&demo::source().unwrap(), "demo", device)
    }

    pub fn fixture(name: &str, device: &Arc<Device>) -> Subject {
        let source = ModelSource::open(Path::new(&fixture(name))).unwrap_or_else(|e| panic!("{e}"));
        let mut subject = Subject::of(&source, name, device);
        // A model of random weights hardly ever ends a turn: a few more tokens of its vocabulary do so.
        subject.stop_ids =
            StopIds::new((0..subject.model.config.vocab_size as u32).filter(|id| id % 16 == 5).collect());
        subject
    }

    /// An engine of some slots over pages; of one over a ring without.
    pub fn engine(&self, limits: Limits, batch: Option<BatchLimits>) -> Engine {
        Subject::start(self.loaded(limits, batch))
    }

    pub fn start(model: LoadedModel) -> Engine {
        Engine::new(Arc::new(model)).unwrap_or_else(|e| panic!("{e}"))
    }

    /// What an engine is made from.
    pub fn loaded(&self, limits: Limits, batch: Option<BatchLimits>) -> LoadedModel {
        let plan = MemoryPlan::on(&self.device, &self.model.config, ModelBytes::default(), limits, batch);
        let mut model = LoadedModel::of(self.model.clone(), self.device.clone(), plan);
        model.tokenizer.clone_from(&self.tokenizer);
        model.stop_ids = self.stop_ids.clone();
        model
    }

    pub fn batch(&self, limits: Limits, batch: BatchLimits) -> Engine {
        self.engine(limits, Some(batch))
    }

    pub fn session(&self, limits: Limits) -> Session {
        let plan = MemoryPlan::on(&self.device, &self.model.config, ModelBytes::default(), limits, None);
        Session::new(self.model.clone(), self.device.clone(), &plan).unwrap_or_else(|e| panic!("{e}"))
    }

    /// True where a batch computes the bits of a session.
    pub fn is_exact(&self) -> bool {
        matches!(*self.device, Device::Cpu(_))
    }

    /// How far a batch's logits may be from a session's, as a share of the largest. In f32, sums cut elsewhere leave less than
    /// a thousandth. Products of halves round two factors by 2^-11: 4e-4 of a product's usual size, 3e-3 after the forty of
    /// a small model, and four times that at the worst of some thousand logits, whose largest is three times the usual.
    pub fn deviation(&self) -> f32 {
        match &*self.device {
            Device::Cuda(cuda) if cuda.arch() >= 80 => 1e-2,
            _ => 1e-3,
        }
    }

    /// What each request gets for itself: from a session, or where its bits are others, from a batch of one slot.
    pub fn one_by_one(&self, limits: Limits, requests: &[Request]) -> Vec<Answer> {
        let batch = (!self.is_exact()).then_some(BatchLimits { n_slots: 1, n_contexts: 1 });
        let mut engine = self.engine(limits, batch);
        let one = |request: &Request| {
            engine.clear();
            run(&mut engine, std::slice::from_ref(request)).remove(0)
        };
        requests.iter().map(one).collect()
    }

    /// A prompt without end tokens.
    pub fn prompt(&self, random: &mut Random, n: usize) -> Vec<u32> {
        let vocab_size = self.model.config.vocab_size;
        let ids = std::iter::repeat_with(|| random.below(vocab_size) as u32);
        ids.filter(|id| !self.stop_ids.contains(*id)).take(n).collect()
    }
}

pub fn cpu() -> Arc<Device> {
    Arc::new(Device::cpu(2).expect("threads"))
}

/// Draws from a seed: splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// Greedy, random, narrowed, penalised: whatever samplers do, by turns.
pub fn sampling(i: usize) -> SamplerConfig {
    let plain = SamplerConfig { seed: i as u64, ..SamplerConfig::default() };
    match i % 5 {
        0 => SamplerConfig::greedy(),
        1 => plain,
        2 => SamplerConfig { temperature: 0.7, top_k: 20, top_p: 0.8, repeat_penalty: 1.05, ..plain },
        3 => SamplerConfig { top_k: 64, top_p: 0.95, ..plain },
        _ => SamplerConfig { repeat_penalty: 1.3, min_p: 0.05, ..plain },
    }
}

/// A request for some tokens after a prompt.
pub fn request(prompt: Vec<u32>, max_new_tokens: usize, sampling: SamplerConfig) -> Request {
    Request { max_new_tokens: Some(max_new_tokens), sampling: sampling.into(), ..Request::tokens(prompt) }
}

/// Everything that an engine answers, in order of the requests.
pub fn run(engine: &mut Engine, requests: &[Request]) -> Vec<Answer> {
    let mut answers: Vec<Option<Answer>> = requests.iter().map(|_| None).collect();
    let mut ids: Vec<RequestId> = Vec::new();
    let mut waiting = requests.iter().cloned();
    loop {
        while engine.wants_more() {
            let Some(request) = waiting.next() else { break };
            ids.push(engine.submit(request).unwrap_or_else(|e| panic!("{e}")));
        }
        let mut on_event = |event: Event<'_>| match event {
            Event::Done { id, answer } => {
                let i = ids.iter().position(|i| *i == id).expect("a request of ours");
                assert!(answers[i].is_none(), "request {i} is answered twice");
                answers[i] = Some(answer);
            }
            Event::Failed { error, .. } => panic!("{error}"),
            Event::Started { .. } | Event::Text { .. } => {}
        };
        if !engine.step(&mut on_event).unwrap_or_else(|e| panic!("{e}")) && engine.n_waiting() == 0 {
            break;
        }
    }
    answers.into_iter().map(|a| a.expect("every request is answered")).collect()
}
