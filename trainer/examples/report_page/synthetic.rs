//! A run that never was, shaped like one on a Jetson Nano: noise, warm-up, heat, a power cut, two skipped steps.

use super::{RunSummary, StepRow};

/// Rows of `n_steps` steps; the same for every call.
pub fn rows(n_steps: u64) -> Vec<StepRow> {
    let mut draw = Draw(1);
    let mut temperature = 41.0;
    let n = n_steps.max(1) as f64;
    let row = |step: u64| {
        let progress = step as f64 / n;
        let warm_up = (step as f64 / (0.05 * n)).min(1.0);
        let is_skipped = step == n_steps / 3 || step == n_steps / 3 + 9;
        let loss = 1.35 + 1.9 * (-6.0 * progress).exp() + 0.22 * draw.normal() * (1.2 - 0.5 * progress);
        let eval = 1.48 + 1.75 * (-5.5 * progress).exp() + 0.1 * (progress - 0.6).max(0.0);
        let is_hot = temperature > 85.0;
        temperature += 0.02 * (88.0 - temperature) * (400.0 / n).min(5.0) + 0.25 * draw.normal();
        let seconds = 5.6 + 0.2 * draw.normal().abs() + if is_hot { 2.5 } else { 0.0 };
        let tokens = (900.0 + 90.0 * draw.normal()) as u64;
        let spike = if is_skipped { 40.0 } else { 1.0 };
        StepRow {
            step,
            loss: if step == n_steps / 3 { f64::NAN } else { loss },
            eval_loss: step.is_multiple_of((n_steps / 12).max(1)).then_some(eval),
            learning_rate: 2e-4 * warm_up * (0.5 + 0.5 * (std::f64::consts::PI * progress).cos()),
            grad_norm: (0.4 + 1.3 * (-8.0 * progress).exp()) * (1.0 + 0.25 * draw.normal()).abs() * spike,
            tokens,
            labelled_tokens: tokens * 2 / 5,
            overflows: None,
            skipped: is_skipped.then(|| "gradient of blk.7.attn_q lora_a is not finite".into()),
            seconds,
            tokens_per_s: tokens as f64 / 5.7 * (1.0 + 0.02 * draw.normal()) * if is_hot { 0.9 } else { 1.0 },
            rss_bytes: 1_890_000_000 + 40_000_000 * (step > n_steps / 10) as u64 + (3e6 * draw.normal().abs()) as u64,
            gpu_bytes: None,
            temperature_c: Some(temperature as f32),
            power_mw: Some((8_300.0 + 350.0 * draw.normal() - if is_hot { 1500.0 } else { 0.0 }) as u32),
        }
    };
    (1..=n_steps).map(row).collect()
}

pub fn summary() -> RunSummary {
    let pair = |(a, b): (&str, &str)| (a.to_string(), b.to_string());
    let triple = |(a, b, c): (&str, &str, &str)| (a.to_string(), b.to_string(), c.to_string());
    RunSummary {
        title: "Greenhouse assistant: LoRA of Gemma 3 270M".into(),
        settings: [
            ("model", "gemma-3-270m-it-q8_0.gguf"),
            ("base fingerprint", "sha256:6f0f3d1f1b0a7f4f7e0c5e2a9d8b7c6a5f4e3d2c1b0a99887766554433221100"),
            ("data", "greenhouse.jsonl: 4,812 examples, 240 held out"),
            ("method", "LoRA, rank 8, alpha 16, on q, k, v, o, gate, up, down"),
            ("batch", "4 x 256 tokens, 4 micro-batches"),
            ("optimiser", "AdamW, 2e-4, betas 0.9 and 0.999, weight decay 0.01, clip 1"),
            ("schedule", "cosine, 5% warm-up"),
            ("seed", "7"),
            ("device", "NVIDIA Jetson Nano Developer Kit, CPU, 4 threads"),
        ]
        .map(pair)
        .to_vec(),
        memory: [
            ("weights (mapped)", "278 MiB"),
            ("adapter and its gradient", "14.5 MiB"),
            ("optimiser state", "14.5 MiB"),
            ("activations", "1,204 MiB"),
            ("scratch", "212 MiB"),
            ("total", "1,723 MiB of 2,048 MiB"),
        ]
        .map(pair)
        .to_vec(),
        scores: [("eval loss", "3.312", "1.504"), ("perplexity", "27.4", "4.50"), ("exact answers", "3 of 60", "51 of 60")]
            .map(triple)
            .to_vec(),
        answers: [
            (
                "The soil sensor in bed 3 says 11%. What now?",
                "I am a large text model and cannot see your bed. Beds are furniture. Please consult <b>a specialist</b> & rest.",
                "Open valve 3 for 4 minutes, then measure again:\n\n  water bed=3 minutes=4\n\n11% is below the 18% that tomatoes need.",
            ),
            ("What time is it?", "", "I have no clock. Ask `status`, which shows the controller's time."),
        ]
        .map(triple)
        .to_vec(),
        notes: vec![
            "Resumed at step 240 after a power cut; 3 steps were run again.".into(),
            "--power-budget 9000: the job rested 11% of the time.".into(),
        ],
    }
}

/// Sums of uniform draws: near enough to a normal one, and the same on every machine.
struct Draw(u64);

impl Draw {
    fn normal(&mut self) -> f64 {
        let mut sum = -6.0;
        for _ in 0..12 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sum += (self.0 >> 11) as f64 / (1u64 << 53) as f64;
        }
        sum
    }
}
