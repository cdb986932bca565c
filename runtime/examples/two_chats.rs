//! Two chats with an adapter each, token by token on one engine. One is cancelled in the middle; the other says what it says
//! alone.

use std::sync::Arc;

use lichen_runtime::engine::request::{AdapterChoice, Request, SamplingOverrides};
use lichen_runtime::engine::{Engine, EngineOptions, Event};
use lichen_runtime::files::adapter_file::{AdapterFile, AdapterTarget};
use lichen_runtime::files::model_source::PartShape;
use lichen_runtime::model::adapter::{Adapter, TargetModule};
use lichen_runtime::Result;

fn main() -> Result<()> {
    // The model inside the program, with two slots. `load_adapter` takes adapters from files; these are made up.
    let mut engine = Engine::open(&EngineOptions { parallel: Some(2), ..EngineOptions::default() })?;
    for (seed, name) in [(1, "left"), (2, "right")] {
        let adapter = made_up(&engine, seed)?;
        engine.add_adapter(name, adapter)?;
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
    let (mut n_right, mut together) = (0, None);
    let mut on_event = |event: Event<'_>| match event {
        Event::Text { id, text, .. } if id == left => println!("left   {text:?}"),
        Event::Text { text, .. } => (n_right += 1, println!("right  {text:?}")).1,
        Event::Done { id, answer } if id == left => together = Some(answer),
        Event::Done { answer, .. } => println!("right  ends: {}", answer.finish_reason.name()),
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
    println!("\nleft, alone and beside {n_right} pieces of right: {:?}", together.text);
    Ok(())
}

/// Small pseudo-random pairs beside every query and value matrix.
fn made_up(engine: &Engine, seed: u32) -> Result<Arc<Adapter>> {
    let (model, rank) = (engine.model(), 4);
    let value = |i: usize| ((i as u32 + seed).wrapping_mul(2_654_435_761) >> 20) as f32 / 4096.0 - 0.5;
    let parts = (0..model.model.config.n_layers)
        .flat_map(|layer| [TargetModule::Q, TargetModule::V].map(|m| (layer, m.part())));
    let target = |(layer, part): (usize, lichen_runtime::Part)| match part.shape(&model.model.config) {
        PartShape::Matrix(outputs, inputs) => {
            let [a, b] = [rank * inputs, outputs * rank].map(|n| (0..n).map(|i| 0.2 * value(i)).collect());
            AdapterTarget { part, layer, rank, scale: 1.0, a, b }
        }
        _ => unreachable!("targets are matrices"),
    };
    let file = AdapterFile { targets: parts.map(target).collect(), base_name: None };
    Ok(Arc::new(Adapter::new(file, &model.model.config, 1.0, &model.device)?))
}
