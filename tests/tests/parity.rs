//! The forward pass against transformers (float32, eager attention) on tiny seeded models, longer than the window.

use std::sync::Arc;

use lichen_kernels::Device;
use lichen_runtime::files::adapter_file::AdapterFile;
use lichen_runtime::model::adapter::Adapter;
use lichen_tests::models::*;

struct Case {
    /// Folder or file below fixtures.
    model: &'static str,
    golden: &'static str,
    /// Largest difference of a logit that is accepted.
    bound: f32,
}

/// Peers differ by 8e-6 among themselves on these models; a wrong epsilon shows at 2e-4. Q8_0 weights multiply activations
/// of 16 bits: the difference that makes is bounded by measurement, half of the bound.
const CASES: [Case; 9] = [
    Case { model: "tiny-gemma3", golden: "tiny-gemma3/golden.safetensors", bound: 1e-4 },
    Case { model: "tiny-gemma3/tiny-gemma3-f32.gguf", golden: "tiny-gemma3/golden.safetensors", bound: 1e-4 },
    Case { model: "tiny-gemma3/tiny-gemma3-q8_0.gguf", golden: "tiny-gemma3/golden-q8_0.safetensors", bound: 3e-3 },
    Case { model: "tiny-gemma3-nf4", golden: "tiny-gemma3-nf4/golden.safetensors", bound: 1e-4 },
    Case { model: "tiny-qwen2-tied", golden: "tiny-qwen2-tied/golden.safetensors", bound: 1e-4 },
    Case {
        model: "tiny-qwen2-tied/tiny-qwen2-tied-f32.gguf",
        golden: "tiny-qwen2-tied/golden.safetensors",
        bound: 1e-4,
    },
    Case {
        model: "tiny-qwen2-tied/tiny-qwen2-tied-q8_0.gguf",
        golden: "tiny-qwen2-tied/golden-q8_0.safetensors",
        bound: 3e-3,
    },
    Case { model: "tiny-qwen2-untied", golden: "tiny-qwen2-untied/golden.safetensors", bound: 1e-4 },
    Case {
        model: "tiny-qwen2-untied/tiny-qwen2-untied-q8_0.gguf",
        golden: "tiny-qwen2-untied/golden-q8_0.safetensors",
        bound: 3e-3,
    },
];

#[test]
fn logits_equal_transformers() {
    for case in &CASES {
        let model = load(&fixture(case.model));
        let golden = Golden::open(&fixture(case.golden));
        let mut session = session(&model, limits(2));
        let difference = max_difference(&logits(&mut session, &golden.ids("tokens")), &golden.f32("logits"));
        println!("{}: largest logit difference {difference:.1e}", case.model);
        assert!(difference <= case.bound, "{}: {difference} > {}", case.model, case.bound);
    }
}

#[test]
fn logits_with_an_adapter_equal_peft() {
    for (base, folder) in [("tiny-gemma3", "tiny-gemma3-lora"), ("tiny-qwen2-tied", "tiny-qwen2-tied-lora")] {
        let model = load(&fixture(base));
        let golden = Golden::open(&fixture(&format!("{folder}/golden.safetensors")));
        let (tokens, want) = (golden.ids("tokens"), golden.f32("logits"));
        let file = AdapterFile::open(&fixture(folder), &model.config).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(file.targets.len(), 7 * model.config.n_layers);
        let mut session = session(&model, limits(2));
        let plain = logits(&mut session, &tokens);
        let device = Device::cpu(1).expect("a thread");
        let adapter = Adapter::new(file, &model.config, 1.0, &device).unwrap_or_else(|e| panic!("{e}"));
        session.set_adapter(Some(Arc::new(adapter))).unwrap_or_else(|e| panic!("{e}"));
        let adapted = logits(&mut session, &tokens);
        let difference = max_difference(&adapted, &want);
        println!("{folder}: largest logit difference {difference:.1e}");
        assert!(difference <= 1e-4, "{folder}: {difference}");
        assert!(max_difference(&plain, &adapted) > 0.1, "the adapter changes nothing");
        session.set_adapter(None).unwrap();
        assert_eq!(logits(&mut session, &tokens), plain, "taking it off leaves no trace");
    }
}

#[test]
fn thirty_two_greedy_tokens_equal_transformers() {
    for case in CASES.iter().filter(|c| c.golden.ends_with("/golden.safetensors") && !c.golden.contains("nf4")) {
        let model = load(&fixture(case.model));
        let golden = Golden::open(&fixture(case.golden));
        let (tokens, want) = (golden.ids("tokens"), golden.ids("greedy"));
        assert_eq!(want.len(), 32);
        let mut session = session(&model, limits(2));
        session.prompt(&tokens[..40], &mut always).unwrap();
        let mut got = vec![argmax(session.last_logits().unwrap())];
        while got.len() < want.len() {
            session.decode(*got.last().unwrap()).unwrap();
            got.push(argmax(session.last_logits().unwrap()));
        }
        assert_eq!(got, want, "{}", case.model);
    }
}
