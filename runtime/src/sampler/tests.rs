//! The draw from a few candidates against the draw from all logits.

use lichen_kernels::ops::sampling::TopK;
use lichen_kernels::{Device, View};

use super::*;

/// Logits of 400 tokens, different for every seed, with some ties.
fn logits(seed: u64) -> Vec<f32> {
    (0..400).map(|i| (uniform(seed, i) * 160.0).round() as f32 / 10.0 - 8.0).collect()
}

#[test]
fn a_few_candidates_decide_as_all_logits_do() {
    let device = Device::cpu(1).unwrap();
    let mut top = TopK::new(&device, 400, 1).unwrap();
    let plain = SamplerConfig { seed: 5, ..SamplerConfig::default() };
    let configs = [
        SamplerConfig { temperature: 0.0, ..plain },
        SamplerConfig { temperature: 0.0, repeat_penalty: 1.5, ..plain },
        SamplerConfig { top_k: 20, top_p: 0.8, repeat_penalty: 1.05, ..plain },
        SamplerConfig { top_k: 40, top_p: 0.95, min_p: 0.05, temperature: 0.7, ..plain },
        SamplerConfig { top_k: 64, repeat_penalty: 2.0, repeat_last_n: 40, ..plain },
    ];
    let (mut n_decided, mut n_open) = (0, 0);
    for config in configs {
        let (mut few, mut all) = (Sampler::new(config, 400).unwrap(), Sampler::new(config, 400).unwrap());
        let mut recent = vec![3, 17, 399, 17];
        for draw in 0..200 {
            let mut logits = logits(draw);
            // In a batch another row may ask for more.
            let n = if draw % 3 == 0 { 64 } else { few.candidates_needed().unwrap() };
            top.find(&device, View::new(&logits, [1, 400]), n).unwrap();
            // The most probable ones are recent too: the penalty has something to do.
            recent.extend(top.of_row(0).iter().take(draw as usize % 4).map(|(id, _)| *id));
            let got = few.sample_top(top.of_row(0), &recent).unwrap();
            let want = all.sample(&mut logits, &recent).unwrap();
            match got {
                Some(token) => assert_eq!(token, want, "{config:?}, draw {draw}"),
                // Nothing was drawn: the other way does it.
                None => few.resume(config, all.step()),
            }
            (n_decided, n_open) = (n_decided + got.is_some() as usize, n_open + got.is_none() as usize);
            assert_eq!(few.step(), all.step());
            recent.push(want);
        }
    }
    assert!(n_decided > 700 && n_open > 0, "{n_decided} decided, {n_open} left open");
}

#[test]
fn some_settings_need_all_logits() {
    let plain = SamplerConfig { top_k: 20, ..SamplerConfig::default() };
    for (config, needed) in [
        (plain, Some(20)),
        (SamplerConfig { top_k: 0, ..plain }, None),
        (SamplerConfig { top_k: 65, ..plain }, None),
        (SamplerConfig { repeat_penalty: 0.9, ..plain }, None),
        (SamplerConfig { repeat_penalty: 1.1, ..plain }, Some(64)),
        (SamplerConfig { temperature: 0.0, top_k: 0, ..plain }, Some(1)),
    ] {
        assert_eq!(Sampler::new(config, 100).unwrap().candidates_needed(), needed, "{config:?}");
    }
}
