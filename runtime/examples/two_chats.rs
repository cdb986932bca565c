//! Two chats with an adapter each, token by token on one engine. One is cancelled in the middle; the other says what it says
//! alone.

use std::sync::Arc;

use lichen_runtime::engine::request::{AdapterChoice, Request, SamplingOverrides};
use lichen_runtime::engine::{Engine, EngineOptions, Event};
use lichen_runtime::files::adapter_file::{AdapterFile, AdapterTarget};
use lichen_runtime::model::adapter::Adapter;
use lichen_runtime::{Part, Result};

fn main() -> Result<()> {
    // The model inside the program, with two slots. `load_adapter` takes adapters from files; these are made up.
    let mut engine = Engine::open(&EngineOptions { parallel: Some(2), ..EngineOptions::default() })?;
    for (seed, name) in [(1, "left"), (2, "right")] {
        engine.add_adapter(name, made_up(&engine, seed)?)?;
    }
    let ask = |adapter: &str| Request {
        adapter: AdapterChoice::Named(adapter.to_string()),
        sampling: SamplingOverrides::greedy(),
        max_new_tokens: Some(24),
        ..Request::text("What is the capital of India?")
    };
    let (_, alone) = engine.run(ask("left"), &mut |_| {}, &mut || false)?;
    engine.clear();
    let (left, right) = (engine.submit(ask("left"))?, engine.submit(ask("right"))?);
    let mut together = None;
    let mut on_event = |event: Event<'_>| match event {
        Event::Text { id, text, .. } => println!("{} {text:?}", if id == left { "left " } else { "right" }),
        Event::Done { id, answer } if id == left => together = Some(answer),
        Event::Done { answer, .. } => println!("right ends: {}", answer.finish_reason.name()),
        Event::Started { .. } | Event::Failed { .. } => {}
    };
    for step in 0.. {
        if step == 6 {
            engine.cancel(right, &mut on_event);
        }
        if !engine.step(&mut on_event)? {
            break;
        }
    }
    let together = together.expect("an answer");
    assert_eq!(together.text.as_bytes(), alone.text.as_bytes());
    println!("left, alone and beside right: {:?}", together.text);
    Ok(())
}

/// Small pseudo-random pairs beside every query matrix.
fn made_up(engine: &Engine, seed: u32) -> Result<Arc<Adapter>> {
    let (config, device) = (&engine.model().model.config, &engine.model().device);
    let value = |i: usize| ((i as u32 ^ seed).wrapping_mul(2_654_435_761) >> 20) as f32 / 4096.0 - 0.5;
    let values = |n: usize| (0..4 * n).map(|i| 0.1 * value(i)).collect::<Vec<f32>>();
    let (a, b) = (values(config.dim), values(config.q_dim()));
    let pair = |layer| AdapterTarget { part: Part::AttnQ, layer, rank: 4, scale: 1.0, a: a.clone(), b: b.clone() };
    let file = AdapterFile::of((0..config.n_layers).map(pair).collect());
    Ok(Arc::new(Adapter::new(file, config, 1.0, device)?))
}
