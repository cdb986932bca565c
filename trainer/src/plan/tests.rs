use lichen_runtime::model::presets;
use lichen_runtime::model::synthetic;

use super::*;
use crate::layers::Layers;
use crate::lora::Lora;

const GIB: usize = 1 << 30;

/// A LoRA job on all matrices of a released shape.
fn plan(name: &str, format: Format, rank: usize, batch: usize, max_seq: usize, machine: &Machine) -> TrainPlan {
    plan_of(name, format, &Layers::default(), rank, batch, max_seq, machine)
}

/// The same on some layers.
fn plan_of(
    name: &str,
    format: Format,
    layers: &Layers,
    rank: usize,
    batch: usize,
    max_seq: usize,
    machine: &Machine,
) -> TrainPlan {
    let config = presets::config(name).unwrap();
    let (device, heap) = synthetic::gpu_bytes(&config, format).unwrap();
    let bytes = match machine.gpu {
        Some(_) => ModelBytes { device, heap, ..ModelBytes::default() },
        None => ModelBytes { heap: synthetic::weights_bytes(&config, format).unwrap(), ..ModelBytes::default() },
    };
    let lora = Lora::new(&config, [true; 7], layers, rank, 16.0);
    let size = JobSize {
        n_parameters: lora.n_parameters(),
        first_layer: lora.first_layer(),
        full_format: None,
        batch,
        max_seq,
        rank,
        has_dropout: false,
        regression_prompts: HostAndGpu::default(),
    };
    TrainPlan::new(&config, bytes, &size, machine, Recompute::Auto, None)
}

/// What the README promises of released shapes.
#[test]
fn released_shapes_fit_their_machines() {
    let (nano, data_centre) = (Machine::with_gpu(4 * GIB, true), Machine::with_gpu(80_000_000_000, false));
    let small = Machine::with_gpu(24 * GIB, false);
    // (shape, format, rank, batch, tokens, machine, layers kept at least, GPU memory in MiB at most)
    for (name, format, rank, batch, max_seq, machine, kept, mib_at_most) in [
        ("gemma-3-1b", Format::Q8_0, 8, 1, 256, nano, 26, 2048),
        ("qwen2.5-0.5b", Format::Q8_0, 8, 1, 256, nano, 24, 1536),
        ("qwen2.5-7b", Format::NF4, 32, 16, 512, data_centre, 28, 70 << 10),
        ("qwen2.5-7b", Format::NF4, 32, 1, 512, small, 28, 16 << 10),
    ] {
        let plan = plan(name, format, rank, batch, max_seq, &machine);
        println!("{name} {format}, {batch} x {max_seq}, {}\n{plan}\n", plan.describe_layers());
        plan.check(None).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(plan.rows.kept_layers >= kept, "{name}: {}", plan.describe_layers());
        let gpu = plan.bytes_in(&[Place::Device]);
        assert!(gpu <= mib_at_most << 20, "{name}: {}", mib(gpu));
    }
}

/// The last eight of 26 layers: parameters, what is kept and what is recomputed follow, whatever is trained of them.
#[test]
fn a_job_on_the_last_layers_takes_less() {
    let machine = Machine::default();
    let of = |layers: &str| plan_of("gemma-3-1b", Format::Q8_0, &Layers::parse(layers).unwrap(), 8, 1, 256, &machine);
    let (all, last) = (of("all"), of("18-25"));
    let line = |plan: &TrainPlan, name: &str| plan.items.iter().find(|i| i.name == name).unwrap().bytes;
    assert_eq!(line(&last, "trained parameters") * 26, line(&all, "trained parameters") * 8);
    // The inputs of the layers, the last norm's and the stream's gradient; outputs and saved activations of each layer.
    assert_eq!(line(&last, "inputs of the layers") * 28, line(&all, "inputs of the layers") * 10);
    for name in ["outputs of the layers", "saved activations"] {
        assert_eq!(line(&last, name) * 26, line(&all, name) * 8, "{name}");
    }
    assert_eq!(all.describe_layers(), "all layers kept");
    assert_eq!(last.describe_layers(), "the last 8 of 26 layers walked back, all kept");
    assert!(last.total_bytes() < all.total_bytes());
    // What lies between is walked through, trained or not.
    let (ends, first) = (of("18,25"), of("0"));
    assert_eq!(line(&ends, "saved activations"), line(&last, "saved activations"));
    assert_eq!(line(&ends, "trained parameters") * 4, line(&last, "trained parameters"));
    assert_eq!(first.describe_layers(), "all layers kept");
    println!("all {}\n18-25 {}", mib(all.total_bytes()), mib(last.total_bytes()));
}

#[test]
fn layers_are_recomputed_before_a_job_is_refused() {
    let mut n_refused = 0;
    let mut kept = usize::MAX;
    // From plenty to less than the weights alone.
    for mib in [4096, 2048, 1800, 1600, 1400, 1024] {
        let plan = plan("gemma-3-1b", Format::Q8_0, 8, 1, 256, &Machine::with_gpu(mib << 20, false));
        assert!(plan.rows.kept_layers <= kept, "{mib} MiB: {}", plan.rows.kept_layers);
        kept = plan.rows.kept_layers;
        match plan.check(None) {
            Ok(()) => assert!(plan.bytes_in(&[Place::Device]) <= mib << 20),
            Err(e) => {
                n_refused += 1;
                let text = e.to_string();
                assert!(text.contains("the GPU has left") && text.contains("device cpu"), "{text}");
            }
        }
    }
    assert!(n_refused >= 1 && kept == 0);
}

/// Gradients of weights as products of bf16 take room of their own, which no other device and no F32 weights need.
#[test]
fn only_gradients_in_bf16_have_room_to_be_transposed_in() {
    let config = presets::config("qwen2.5-0.5b").unwrap();
    let rows = |trained_weights| ActivationSizes {
        rows: 8192,
        longest: 512,
        rank: 0,
        has_dropout: false,
        trained_weights,
        loss_rows: 16,
        kept_layers: 0,
        first_layer: 0,
    };
    // A step that is all matrices and no head, on a board's shares of memory.
    let bytes = |trained, has_bf16| {
        let gpu = Gpu { has_bf16, ..Machine::with_gpu(4 * GIB, false).gpu.unwrap() };
        let plan = Activations::plan_lines(&config, &rows(trained), &Machine { gpu: Some(gpu), ..Machine::default() });
        plan.iter().find(|(name, ..)| *name == "matrix workspace").unwrap().1
    };
    let (new, old) = (bytes(Some(Format::BF16), true), bytes(Some(Format::BF16), false));
    assert!(new > old + (4 << 20), "{} {}", mib(new), mib(old));
    assert_eq!([bytes(None, true), bytes(None, false)], [old; 2]);
    // Nothing is rounded on the way: sums of parts alone, and the counter of overflows.
    assert_eq!([true, false].map(|has_bf16| bytes(Some(Format::F32), has_bf16)), [(8 << 20) + 16; 2]);
}

#[test]
fn a_refusal_says_whose_memory_it_is_and_the_way_out() {
    let shape = |machine: &Machine| plan("gemma-3-1b", Format::Q8_0, 8, 1, 256, machine);
    let host = Machine { host_bytes: Some(1 << 20), ..Machine::default() };
    let board = Machine { host_bytes: Some(1 << 20), ..Machine::with_gpu(4 * GIB, true) };
    let (budget, gpu) = ("a larger memory_budget", "device cpu");
    for (machine, limit, whose, way_out) in [
        (Machine::default(), Some(1 << 20), "and the budget is 1.0 MiB:", budget),
        (host, None, "and the system has left 1.0 MiB:", budget),
        (board, None, "and the system has left 1.0 MiB:", budget),
        (Machine::with_gpu(1 << 20, false), None, "and the GPU has left 1.0 MiB:", gpu),
    ] {
        let text = shape(&machine).check(limit).unwrap_err().to_string();
        assert!(text.contains(whose) && text.ends_with(&format!("or {way_out}")), "{text}");
    }
}

/// A board's memory is one: what does not fit beside the host's part is refused too.
#[test]
fn a_shared_memory_is_counted_once() {
    let (alone, shared) = (Machine::with_gpu(4 * GIB, false), Machine::with_gpu(4 * GIB, true));
    let held = |machine: &Machine| {
        let plan = plan("qwen2.5-1.5b", Format::Q8_0, 8, 1, 256, machine);
        (plan.rows.kept_layers, plan.total_bytes(), plan.bytes_in(&[Place::Device]))
    };
    let (alone, shared) = (held(&alone), held(&shared));
    assert!(shared.0 <= alone.0);
    assert!(shared.1 <= 4 * GIB - 4 * GIB / SHARE_LEFT, "{}", mib(shared.1));
    assert!(alone.2 <= 4 * GIB - 4 * GIB / GPU_SHARE_LEFT, "{}", mib(alone.2));
}

#[test]
fn logits_take_a_share_of_the_memory() {
    let rows = |bytes, vocab| Machine::with_gpu(bytes, false).loss_rows(vocab);
    assert_eq!(rows(4 * GIB, 262_144), 64);
    assert_eq!(rows(80_000_000_000, 262_144), 1152);
    assert_eq!(rows(80_000_000_000, 152_064), 2048);
    assert_eq!(rows(141_000_000_000, 320), 4096);
    assert_eq!(rows(1 << 20, 262_144), 16);
    assert_eq!(Machine::default().loss_rows(320), crate::machine::LOSS_ROWS);
}
