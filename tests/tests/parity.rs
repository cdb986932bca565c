//! The forward pass against transformers (float32, eager attention) on tiny seeded models, longer than the window.

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
fn thirty_two_greedy_tokens_equal_transformers() {
    for case in CASES.iter().filter(|c| c.golden.ends_with("/golden.safetensors") && !c.golden.contains("nf4")) {
        let model = load(&fixture(case.model));
        let golden = Golden::open(&fixture(case.golden));
        let (tokens, want) = (golden.ids("tokens"), golden.ids("greedy"));
        assert_eq!(want.len(), 32);
        let mut session = session(&model, limits(2));
        session.prompt(&tokens[..40], &mut always).unwrap();
        let mut got = vec![argmax(session.last_logits())];
        while got.len() < want.len() {
            got.push(argmax(session.decode(*got.last().unwrap()).unwrap()));
        }
        assert_eq!(got, want, "{}", case.model);
    }
}
