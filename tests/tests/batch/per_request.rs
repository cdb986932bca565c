//! What a request has of its own: an adapter, and a tenant.

use std::sync::Arc;

use lichen_kernels::formats::float;
use lichen_kernels::{Format, Matrix, SharedBytes};
use lichen_runtime::engine::answer::Answer;
use lichen_runtime::engine::request::{AdapterChoice, Request, SamplingOverrides};
use lichen_runtime::engine::{Engine, Event};
use lichen_runtime::files::adapter_file::{AdapterFile, AdapterTarget, Tables};
use lichen_runtime::files::model_source::PartShape;
use lichen_runtime::limits::BatchLimits;
use lichen_runtime::memory_plan::Limits;
use lichen_runtime::model::adapter::{Adapter, TargetModule};
use lichen_runtime::ModelConfig;

use crate::subject::{Random, Subject};

/// An adapter of random pairs beside some matrices, strong enough to change what is said.
fn adapter(subject: &Subject, seed: u64, rank: usize, modules: &[TargetModule]) -> Arc<Adapter> {
    let config = &subject.model.config;
    let file = AdapterFile::of(pairs(config, seed, rank, modules));
    Arc::new(Adapter::new(file, config, 1.0, &subject.device).unwrap_or_else(|e| panic!("{e}")))
}

fn pairs(config: &ModelConfig, seed: u64, rank: usize, modules: &[TargetModule]) -> Vec<AdapterTarget> {
    let mut random = Random(seed);
    let mut values = |n: usize| (0..n).map(|_| (random.below(2001) as f32 - 1000.0) * 2e-4).collect::<Vec<f32>>();
    let mut targets = Vec::new();
    for layer in 0..config.n_layers {
        for module in modules {
            let PartShape::Matrix(outputs, inputs) = module.part().shape(config) else { panic!("a matrix") };
            let (a, b) = (values(rank * inputs), values(outputs * rank));
            targets.push(AdapterTarget { part: module.part(), layer, rank, scale: 1.0, a, b });
        }
    }
    targets
}

/// One beside every matrix.
#[allow(dead_code)]
pub fn any_adapter(subject: &Subject) -> Arc<Adapter> {
    adapter(subject, 1, 4, &TargetModule::ALL)
}

/// One with an embedding of its own, a head, or both; each table in a format of its own.
fn with_tables(subject: &Subject, seed: u64, embedding: Option<Format>, head: Option<Format>) -> Arc<Adapter> {
    let config = &subject.model.config;
    let mut random = Random(seed);
    let mut table = |format: Option<Format>| {
        let format = format?;
        let values: Vec<f32> =
            (0..config.vocab_size * config.dim).map(|_| (random.below(2001) as f32 - 1000.0) * 1e-3).collect();
        let mut bytes = Vec::new();
        match format {
            Format::BF16 => float::encode_bf16(&values, &mut bytes),
            Format::F16 => float::encode_f16(&values, &mut bytes),
            _ => bytes.extend_from_slice(bytemuck::cast_slice(&values)),
        }
        Some(Matrix::new(format, config.vocab_size, config.dim, SharedBytes::from_vec(bytes)))
    };
    let tables = Tables { embedding: table(embedding), head: table(head) };
    let file = AdapterFile { tables, ..AdapterFile::of(pairs(config, seed, 2, &[TargetModule::Q])) };
    Arc::new(Adapter::new(file, config, 1.0, &subject.device).unwrap_or_else(|e| panic!("{e}")))
}

/// Adapters of different ranks beside different matrices, some with tables of their own.
fn adapters(subject: &Subject) -> Vec<(String, Arc<Adapter>)> {
    use TargetModule::{Down, Gate, Q, V};
    let of = |name: &str, adapter| (name.to_string(), adapter);
    vec![
        of("all", adapter(subject, 1, 4, &TargetModule::ALL)),
        of("attention", adapter(subject, 2, 3, &[Q, V])),
        of("feed-forward", adapter(subject, 3, 7, &[Gate, Down])),
        of("head", with_tables(subject, 4, None, Some(Format::BF16))),
        of("tables", with_tables(subject, 5, Some(Format::F32), Some(Format::F16))),
    ]
}

pub fn add_all(engine: &mut Engine, subject: &Subject) {
    for (name, adapter) in adapters(subject) {
        engine.add_adapter(&name, adapter).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Logits of every token of one request, and its answer, while others are under way.
fn watched(engine: &mut Engine, watched: &Request, others: &[Request]) -> (Answer, Vec<Vec<u32>>) {
    others.iter().for_each(|r| assert!(engine.submit(r.clone()).is_ok()));
    let id = engine.submit(watched.clone()).unwrap_or_else(|e| panic!("{e}"));
    let (mut done, mut logits) = (None, Vec::new());
    loop {
        let went_on = engine.step(&mut |event| match event {
            Event::Done { id: of, answer } if of == id => done = Some(answer),
            Event::Failed { error, .. } => panic!("{error}"),
            _ => {}
        });
        assert!(went_on.unwrap());
        if let Some(answer) = done {
            return (answer, logits);
        }
        logits.extend(engine.logits(id).unwrap().map(|row| row.iter().map(|v| v.to_bits()).collect::<Vec<_>>()));
    }
}

/// Rows of several adapters in one step: each has the bits that it has alone, and adapters change what is said.
pub fn check_adapters(subject: &Subject, limits: Limits, n_new: usize) {
    let mut random = Random(5);
    let prompt = subject.prompt(&mut random, 20);
    let names = [None, Some("all"), Some("attention"), Some("feed-forward"), Some("head"), Some("tables")];
    let choice = |name: Option<&str>| name.map_or(AdapterChoice::Base, |name| AdapterChoice::Named(name.to_string()));
    let ask = |name| Request {
        sampling: SamplingOverrides::greedy(),
        max_new_tokens: Some(n_new),
        ignore_eos: true,
        adapter: choice(name),
        ..Request::tokens(prompt.clone())
    };
    let mut engine = subject.batch(limits, BatchLimits { n_slots: 6, n_contexts: 6 });
    add_all(&mut engine, subject);
    let mut said = Vec::new();
    for name in names {
        engine.clear();
        let alone = watched(&mut engine, &ask(name), &[]);
        let others: Vec<Request> = [4, 1, 3, 2, 5].map(|i| Request { stop_tokens: vec![], ..ask(names[i]) }).to_vec();
        engine.clear();
        let among = watched(&mut engine, &ask(name), &others);
        while engine.step(&mut |_| {}).unwrap() {}
        assert_eq!(among.0.token_ids, alone.0.token_ids, "{}: {name:?}", subject.name);
        assert!(among.1 == alone.1, "{}: logits of {name:?} among others", subject.name);
        said.push(alone.1);
    }
    for i in 0..said.len() {
        assert!((0..i).all(|j| said[i] != said[j]), "{}: an adapter that changes nothing", subject.name);
    }
}

/// What one adapter computed does not serve another, nor one tenant another; what the same ones did, does.
pub fn check_reuse(subject: &Subject, limits: Limits) {
    let mut random = Random(9);
    let prompt = subject.prompt(&mut random, 30);
    let mut engine = subject.batch(limits, BatchLimits { n_slots: 4, n_contexts: 4 });
    add_all(&mut engine, subject);
    let mut reused = |adapter: AdapterChoice, tenant: u64| {
        let sampling = SamplingOverrides::greedy();
        let request = Request { adapter, tenant, sampling, max_new_tokens: Some(3), ..Request::tokens(prompt.clone()) };
        engine.run(request, &mut |_| {}, &mut || false).unwrap().1.timings.reused_tokens
    };
    let all = || AdapterChoice::Named("all".to_string());
    assert_eq!([reused(AdapterChoice::Base, 0), reused(AdapterChoice::Base, 0)], [0, 29]);
    assert_eq!([reused(all(), 0), reused(all(), 0)], [0, 29]);
    assert_eq!([reused(AdapterChoice::Base, 1), reused(AdapterChoice::Base, 1)], [0, 29]);
    assert_eq!([reused(AdapterChoice::Base, 0), reused(all(), 0)], [29, 29]);
}
