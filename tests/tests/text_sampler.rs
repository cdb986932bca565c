//! The sampler against a slow reference in f64, its distribution, and stop strings.

#[path = "text_support/mod.rs"]
mod text_support;

use lichen_runtime::sampler::{Sampler, SamplerConfig};
use lichen_runtime::setting::as_flag;
use lichen_runtime::text::stop::{StopIds, StopStrings};
use text_support::Random;

/// Whole sorts, no tricks: the tokens that are left with their probabilities, by id.
fn reference(logits: &[f32], recent: &[u32], config: &SamplerConfig) -> Vec<(u32, f64)> {
    let mut scored: Vec<(u32, f64)> = Vec::new();
    let window = &recent[recent.len().saturating_sub(config.repeat_last_n)..];
    for (id, &logit) in logits.iter().enumerate() {
        let mut logit = logit;
        if config.repeat_penalty != 1.0 && window.contains(&(id as u32)) {
            logit = if logit > 0.0 { logit / config.repeat_penalty } else { logit * config.repeat_penalty };
        }
        if !logit.is_nan() && logit != f32::NEG_INFINITY {
            scored.push((id as u32, f64::from(logit)));
        }
    }
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if config.temperature == 0.0 {
        return vec![(scored[0].0, 1.0)];
    }
    // As transformers: temperature before everything that chooses.
    let best = scored[0].1;
    let temperature = f64::from(config.temperature);
    let weight = |logit: f64| ((logit - best) / temperature).exp();
    if config.top_k > 0 {
        scored.truncate(config.top_k);
    }
    if config.top_p < 1.0 {
        let total: f64 = scored.iter().map(|&(_, logit)| weight(logit)).sum();
        let mut sum = 0.0;
        let n = scored.iter().position(|&(_, logit)| {
            sum += weight(logit) / total;
            sum >= f64::from(config.top_p)
        });
        scored.truncate(n.map_or(scored.len(), |n| n + 1));
    }
    scored.retain(|&(_, logit)| weight(logit) >= f64::from(config.min_p));
    let total: f64 = scored.iter().map(|&(_, logit)| weight(logit)).sum();
    let mut left: Vec<(u32, f64)> = scored.iter().map(|&(id, logit)| (id, weight(logit) / total)).collect();
    left.sort_by_key(|&(id, _)| id);
    left
}

fn logits(random: &mut Random, n: usize) -> Vec<f32> {
    (0..n).map(|_| (random.below(16_000) as f32 - 8_000.0) / 1000.0).collect()
}

fn config(temperature: f32, top_k: usize, top_p: f32, min_p: f32, repeat_penalty: f32) -> SamplerConfig {
    SamplerConfig { temperature, top_k, top_p, min_p, repeat_penalty, repeat_last_n: 8, seed: 42 }
}

const CASES: [(f32, usize, f32, f32, f32); 12] = [
    (0.0, 0, 1.0, 0.0, 1.0),
    (0.0, 0, 1.0, 0.0, 1.3),
    (1.0, 0, 1.0, 0.0, 1.0),
    (0.7, 1, 1.0, 0.0, 1.0),
    (0.7, 5, 1.0, 0.0, 1.0),
    (0.7, 0, 0.9, 0.0, 1.0),
    (0.7, 0, 0.0, 0.0, 1.0),
    (1.5, 0, 1.0, 0.1, 1.0),
    (1.5, 0, 1.0, 1.0, 1.0),
    (1.0, 40, 0.95, 0.05, 1.1),
    (0.05, 64, 0.99, 0.0, 2.0),
    (5.0, 100_000, 0.5, 0.001, 0.5),
];

#[test]
fn draws_follow_the_reference() {
    let mut random = Random::new(1);
    for (temperature, top_k, top_p, min_p, repeat_penalty) in CASES {
        let config = config(temperature, top_k, top_p, min_p, repeat_penalty);
        for n in [1, 2, 31, 1000, 3000] {
            let logits = logits(&mut random, n);
            let recent: Vec<u32> = (0..12).map(|_| random.below(n + 1) as u32).collect();
            let left = reference(&logits, &recent, &config);
            let mut sampler = Sampler::new(config, n).unwrap();
            let n_draws = 4000;
            let mut counts = std::collections::HashMap::new();
            for _ in 0..n_draws {
                *counts.entry(sampler.sample(&mut logits.clone(), &recent).unwrap()).or_insert(0) += 1;
            }
            for id in counts.keys() {
                assert!(left.iter().any(|(kept, _)| kept == id), "{config:?} n {n}: drew {id}, not in {left:?}");
            }
            for (id, probability) in left {
                let share = f64::from(*counts.get(&id).unwrap_or(&0)) / f64::from(n_draws);
                // Five standard deviations: 60 cases with up to 3000 tokens each stay quiet, a wrong filter does not.
                let bound = 5.0 * (probability * (1.0 - probability) / f64::from(n_draws)).sqrt() + 1e-3;
                assert!((share - probability).abs() <= bound, "{config:?} n {n} id {id}: {share} of {probability}");
            }
        }
    }
}

/// Four tokens with probabilities 0.643, 0.237, 0.087 and 0.032: a half-sum nucleus holds one at temperature 1; at 2 the
/// probabilities are 0.456, 0.276, 0.168 and 0.102, and it holds two. Temperature last would leave one.
#[test]
fn temperature_comes_before_the_nucleus() {
    for (temperature, top_p, min_p, want) in
        [(1.0, 0.5, 0.0, 1), (2.0, 0.5, 0.0, 2), (1.0, 1.0, 0.3, 2), (2.0, 1.0, 0.3, 3), (0.5, 0.8, 0.0, 1)]
    {
        let mut sampler = Sampler::new(config(temperature, 0, top_p, min_p, 1.0), 4).unwrap();
        let mut drawn: Vec<u32> = (0..500).map(|_| sampler.sample(&mut [3.0, 2.0, 1.0, 0.0], &[]).unwrap()).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), want, "temperature {temperature}, top_p {top_p}, min_p {min_p}: {drawn:?}");
    }
}

#[test]
fn seed_and_step_are_all_the_state() {
    let mut random = Random::new(2);
    let logits = logits(&mut random, 500);
    let config = config(1.2, 50, 0.95, 0.0, 1.1);
    let run = |sampler: &mut Sampler, n: usize| -> Vec<u32> {
        (0..n).map(|_| sampler.sample(&mut logits.clone(), &[1, 2, 3]).unwrap()).collect()
    };
    let whole = run(&mut Sampler::new(config, 500).unwrap(), 200);
    assert_eq!(whole, run(&mut Sampler::new(config, 500).unwrap(), 200));
    let mut resumed = Sampler::new(config, 500).unwrap();
    resumed.set_step(120);
    assert_eq!(whole[120..], run(&mut resumed, 80));
    assert_eq!(resumed.step(), 200);
    let other = run(&mut Sampler::new(SamplerConfig { seed: 43, ..config }, 500).unwrap(), 200);
    assert_ne!(whole, other);
}

#[test]
fn greedy_takes_the_first_maximum_and_nan_is_no_token() {
    let mut greedy = Sampler::new(SamplerConfig::greedy(), 4).unwrap();
    assert_eq!(greedy.sample(&mut [1.0, 3.0, 3.0, f32::NAN], &[]).unwrap(), 1);
    assert_eq!(greedy.sample(&mut [f32::NAN, f32::NEG_INFINITY, -7.0, f32::NAN], &[]).unwrap(), 2);
    for config in [SamplerConfig::greedy(), SamplerConfig::default()] {
        let mut sampler = Sampler::new(config, 3).unwrap();
        assert_eq!(sampler.sample(&mut [f32::NEG_INFINITY, f32::INFINITY, 3.0], &[]).unwrap(), 1);
        for _ in 0..100 {
            assert_eq!(sampler.sample(&mut [f32::NAN, 0.5, f32::NEG_INFINITY], &[]).unwrap(), 1);
        }
        for nothing in [[f32::NAN; 3], [f32::NEG_INFINITY; 3]] {
            let error = sampler.sample(&mut nothing.clone(), &[]).unwrap_err();
            let want = "the model's logits are all NaN or minus infinity: no token can be chosen";
            assert_eq!(error.message(), want);
        }
    }
}

#[test]
fn values_out_of_range_are_named() {
    let base = SamplerConfig::default();
    let cases = [
        (SamplerConfig { top_p: 2.0, ..base }, "--top-p is 2; 0 to 1"),
        (SamplerConfig { temperature: -1.0, ..base }, "--temperature is -1; 0 to 5"),
        (SamplerConfig { temperature: f32::NAN, ..base }, "--temperature is NaN; 0 to 5"),
        (SamplerConfig { temperature: f32::INFINITY, ..base }, "--temperature is inf; 0 to 5"),
        (SamplerConfig { min_p: 1.5, ..base }, "--min-p is 1.5; 0 to 1"),
        (SamplerConfig { repeat_penalty: 0.0, ..base }, "--repeat-penalty is 0; 0.1 to 10"),
        (SamplerConfig { top_k: usize::MAX, ..base }, "--top-k is 18446744073709551615; 0 to 16777216"),
    ];
    for (config, want) in cases {
        assert_eq!(config.check().unwrap_err().spelled(&as_flag), want);
        assert!(Sampler::new(config, 10).is_err());
    }
    assert!(Sampler::new(base, 0).is_err());
}

/// What a person sees, by the definition: text up to the stop string that is complete first, never a piece of one before it is ruled out.
#[test]
fn stop_strings_never_show() {
    let mut random = Random::new(4);
    let stops = ["END", "E\n", "ನ್ನಡ", "\nUser:", "abcabd", "bca", "</s>"];
    let parts = ["END", "EN", "E", "\n", "ನ್", "ನಡ", "ನ್ನಡ", "\nUser", ":", "abc", "abd", "</s", ">", "x", "हिन्दी", " "];
    for _ in 0..3000 {
        let strings: Vec<String> = stops.iter().filter(|_| random.below(2) == 0).map(|s| s.to_string()).collect();
        let pieces: Vec<&str> = (0..random.below(12)).map(|_| parts[random.below(parts.len())]).collect();
        let text = pieces.concat();
        let found = strings
            .iter()
            .filter_map(|string| Some((text.find(string.as_str())? + string.len(), text.find(string.as_str())?)));
        let end = found.min().map(|(_, start)| start);
        let mut stop = StopStrings::new(strings.clone()).unwrap();
        let mut shown = String::new();
        for piece in &pieces {
            shown.push_str(&stop.push(piece));
            let legal = text.len() - end.unwrap_or(text.len()) == 0 || shown.len() <= end.unwrap_or(0);
            assert!(legal && text.starts_with(&shown), "{strings:?} {pieces:?}: {shown:?}");
        }
        shown.push_str(&stop.finish());
        assert_eq!(shown, text[..end.unwrap_or(text.len())], "{strings:?} {pieces:?}");
        assert_eq!(stop.stopped(), end.is_some());
    }
}

#[test]
fn stop_strings_hold_back_only_what_could_become_one() {
    let mut stop = StopStrings::new(vec!["stop".to_string()]).unwrap();
    assert_eq!(stop.push("a st"), "a ");
    assert_eq!(stop.push("ay sto"), "stay ");
    assert_eq!(stop.push("p here"), "");
    assert!(stop.stopped());
    assert_eq!((stop.push("more"), stop.finish()), (String::new(), String::new()));
    stop.reset();
    assert_eq!(stop.push("s"), "");
    assert_eq!(stop.finish(), "s");
    let error = StopStrings::new(vec![String::new()]).unwrap_err();
    assert_eq!(error.spelled(&as_flag), "--stop is 0 bytes long; 1 to 1024");
    assert!(StopStrings::new(vec!["x".to_string(); 17]).is_err());
}

#[test]
fn every_named_end_stops() {
    let arrays = text_support::spm_arrays();
    let rows = arrays.tokens.len();
    let tokenizer = lichen_runtime::text::tokenizer::Tokenizer::from_arrays(arrays, rows).unwrap();
    let ids = StopIds::from_tokenizer(&tokenizer, &[1, 77]);
    assert_eq!(ids.ids(), [1, tokenizer.token_id("<end_of_turn>").unwrap(), 77]);
    assert!(ids.contains(77) && !ids.contains(2));
}
