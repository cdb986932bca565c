//! Batches against sessions: an answer is the same alone and in any company, and nobody is let down half-way.

mod equality;
mod pages;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use lichen_kernels::Device;
use lichen_runtime::batch::{Batch, BatchLimits, BatchRequest};
use lichen_runtime::generation::{generate, Answer, Request};
use lichen_runtime::memory_plan::{Limits, MemoryPlan, ModelBytes};
use lichen_runtime::model::Model;
use lichen_runtime::sampler::{Sampler, SamplerConfig};
use lichen_runtime::session::Session;
use lichen_runtime::stop::StopIds;
use lichen_runtime::tokenizer::Tokenizer;
use lichen_runtime::{demo, ModelSource, TokenizerSource};
use lichen_tests::models::fixture;

/// A model on a device, and what answers need.
struct Subject {
    name: String,
    device: Arc<Device>,
    model: Arc<Model>,
    tokenizer: Option<Tokenizer>,
    stop_ids: StopIds,
}

impl Subject {
    fn of(source: &ModelSource, name: &str, device: &Arc<Device>) -> Subject {
        let model = Arc::new(Model::load(source, device).unwrap_or_else(|e| panic!("{e}")));
        let tokenizer = match source.tokenizer().unwrap_or_else(|e| panic!("{e}")) {
            TokenizerSource::Arrays(arrays) => Some(Tokenizer::from_arrays(arrays, model.config.vocab_size).unwrap()),
            TokenizerSource::Json(_) => None,
        };
        // A model of random weights has no turn ends: a few tokens of its vocabulary do for them.
        let some_ids = || (0..model.config.vocab_size as u32).filter(|id| id % 16 == 5).collect();
        let stop_ids = if tokenizer.is_some() { source.stop_ids() } else { some_ids() };
        Subject {
            name: format!("{name} on {}", device.describe()),
            device: device.clone(),
            model,
            stop_ids: StopIds::new(stop_ids),
            tokenizer,
        }
    }

    /// The demo model, on two threads of the CPU.
    fn demo() -> Subject {
        Subject::of(&demo::source().unwrap(), "demo", &cpu())
    }

    fn fixture(name: &str, device: &Arc<Device>) -> Subject {
        let source = ModelSource::open(Path::new(&fixture(name))).unwrap_or_else(|e| panic!("{e}"));
        Subject::of(&source, name, device)
    }

    fn batch(&self, limits: Limits, batch: BatchLimits) -> Batch<'_> {
        let bytes = ModelBytes::default();
        let plan = MemoryPlan::on(&self.device, &self.model.config, bytes, limits, Some(batch));
        let (model, device) = (self.model.clone(), self.device.clone());
        Batch::new(model, device, None, &plan, self.tokenizer.as_ref(), self.stop_ids.clone())
            .unwrap_or_else(|e| panic!("{e}"))
    }

    fn session(&self, limits: Limits) -> Session {
        let plan = MemoryPlan::on(&self.device, &self.model.config, ModelBytes::default(), limits, None);
        Session::new(self.model.clone(), self.device.clone(), &plan).unwrap_or_else(|e| panic!("{e}"))
    }

    /// What a session answers.
    fn alone(&self, session: &mut Session, request: &BatchRequest) -> Answer {
        session.reset();
        let mut sampler = Sampler::new(request.sampling, self.model.config.vocab_size).unwrap();
        let request = Request {
            prompt: &request.prompt,
            max_new_tokens: request.max_new_tokens,
            stop_ids: &self.stop_ids,
            stop: &request.stop,
        };
        let go_on = &mut |_: &str| ControlFlow::Continue(());
        generate(session, self.tokenizer.as_ref(), &mut sampler, &request, go_on).unwrap_or_else(|e| panic!("{e}"))
    }

    /// A prompt without end tokens.
    fn prompt(&self, random: &mut Random, n: usize) -> Vec<u32> {
        let vocab_size = self.model.config.vocab_size;
        let ids = std::iter::repeat_with(|| random.below(vocab_size) as u32);
        ids.filter(|id| !self.stop_ids.contains(*id)).take(n).collect()
    }
}

fn cpu() -> Arc<Device> {
    Arc::new(Device::cpu(2).expect("threads"))
}

/// Draws from a seed: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// Greedy, random, narrowed, penalised: whatever samplers do, by turns.
fn sampling(i: usize) -> SamplerConfig {
    let plain = SamplerConfig { seed: i as u64, ..SamplerConfig::default() };
    match i % 5 {
        0 => SamplerConfig::greedy(),
        1 => plain,
        2 => SamplerConfig { temperature: 0.7, top_k: 20, top_p: 0.8, repeat_penalty: 1.05, ..plain },
        3 => SamplerConfig { top_k: 64, top_p: 0.95, ..plain },
        _ => SamplerConfig { repeat_penalty: 1.3, min_p: 0.05, ..plain },
    }
}

/// Everything that a batch answers, by id.
fn run(batch: &mut Batch<'_>, requests: &[BatchRequest]) -> Vec<Answer> {
    let mut answers: Vec<Option<Answer>> = requests.iter().map(|_| None).collect();
    let mut waiting = requests.iter().cloned();
    loop {
        while batch.wants_more() {
            let Some(request) = waiting.next() else { break };
            batch.submit(request).unwrap_or_else(|e| panic!("{e}"));
        }
        let mut done = |answer: lichen_runtime::batch::BatchAnswer| {
            let slot = &mut answers[answer.id as usize];
            assert!(slot.is_none(), "request {} is answered twice", answer.id);
            *slot = Some(answer.result.unwrap_or_else(|e| panic!("{e}")));
        };
        if !batch.step(&mut done).unwrap_or_else(|e| panic!("{e}")) && batch.n_waiting() == 0 {
            break;
        }
    }
    answers.into_iter().map(|a| a.expect("every request is answered")).collect()
}
