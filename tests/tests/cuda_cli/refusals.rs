//! What `--device cuda` cannot do, said in one sentence.

use lichen_tests::programs::{fixture, is_machine, Run};

use crate::support::{any_machine, has_kernels, Machine};

const GENERATE: [&str; 7] = ["generate", "--prompt", "hello", "--max-new-tokens", "2", "--temperature", "0"];

fn on_cuda(machine: &Machine) -> Run {
    machine.lichen(&[&GENERATE[..], &["--device", "cuda"]].concat())
}

/// A machine with a driver has it in the system's own folders.
#[test]
fn no_driver() {
    if !has_kernels() || is_machine() {
        return;
    }
    on_cuda(&Machine::without_driver()).refuses(&["libcuda"]);
    // Left to itself, the program computes where it can.
    let run = Machine::without_driver().lichen(&GENERATE);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

#[test]
fn a_device_that_is_not_there() {
    if has_kernels() {
        any_machine().lichen(&[&GENERATE[..], &["--device", "cuda:7"]].concat()).refuses(&["7"]);
    }
}

#[test]
fn an_architecture_that_is_not_there() {
    if !has_kernels() {
        return;
    }
    for (value, words) in [("banana", ["LICHEN_CUDA_ARCH", "banana"]), ("75", ["architecture", "75"])] {
        on_cuda(&any_machine().with("LICHEN_CUDA_ARCH", value)).refuses(&words);
    }
    if !is_machine() {
        on_cuda(&Machine::emulated(&[53]).with("LICHEN_CUDA_ARCH", 90)).refuses(&["90"]);
    }
}

#[test]
fn a_device_that_is_too_small() {
    if !has_kernels() || is_machine() {
        return;
    }
    on_cuda(&Machine::emulated(&[53]).with("LICHEN_EMULATOR_MEMORY_MIB", 2)).refuses(&[
        "weights, gpu",
        "the GPU has",
        "use --device cpu",
    ]);
}

#[test]
fn a_budget_that_is_too_small() {
    if has_kernels() {
        let args = [&GENERATE[..], &["--device", "cuda", "--memory-budget", "1MiB"]].concat();
        any_machine().lichen(&args).refuses(&["budget"]);
    }
}

/// Files are checked before the device is asked for memory.
#[test]
fn a_model_that_is_not_there() {
    if has_kernels() {
        let missing = fixture("no-such-model.gguf");
        any_machine()
            .lichen(&["generate", "--device", "cuda", "--prompt", "x", "--model", &missing])
            .refuses(&["no-such-model"]);
    }
}
