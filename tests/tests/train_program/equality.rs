//! What is trained depends on the job alone: not on threads, on whether layers are recomputed, on who runs it or where it
//! was interrupted; and on how a batch is cut only as far as sums in f32 do.

use lichen_runtime::files::formats::safetensors::SafeTensors;
use lichen_tests::sim_disk::SimDisk;
use lichen_trainer::job::{Ending, Job, MemorySettings};
use lichen_trainer::metrics::StepRow;
use lichen_trainer::plan::Recompute;

use crate::library::{self, finish, job, open, run};
use crate::support::{flags, run as run_program, TempDir, Trained, MODELS};

const N_STEPS: u64 = 12;

fn trained(job: Job) -> Trained {
    finish(&mut open(job), &SimDisk::new())
}

#[test]
fn threads_and_recomputation_leave_no_trace() {
    for model in MODELS {
        // Two samples a micro-batch, so that attention has more than one sequence.
        let base = || {
            let mut job = Job { gradient_accumulation_steps: 2, ..job(model, N_STEPS) };
            job.memory.micro_batch_size = 2;
            job
        };
        let want = trained(base()).without_device();
        for (threads, recompute) in [(1, Recompute::Off), (4, Recompute::Off), (2, Recompute::On), (1, Recompute::On)] {
            let mut other = base();
            (other.memory.checkpoint_activations, other.memory.threads) = (recompute, Some(threads));
            let got = trained(other).without_device();
            got.assert_equals(&want, &format!("{model}, {threads} threads, {recompute:?}"));
        }
        // And where only some layers fit: a byte too little for all of them.
        let mut other = base();
        other.memory.checkpoint_activations = Recompute::Off;
        let all_kept = open(other).plan.total_bytes();
        let mut other = base();
        other.memory.memory_budget = Some(all_kept - 1);
        let mut opened = open(other);
        let (kept, n_layers) = (opened.plan.rows.kept_layers, opened.source.config().n_layers);
        assert!(0 < kept && kept < n_layers, "{model}: {kept} of {n_layers}");
        finish(&mut opened, &SimDisk::new()).without_device().assert_equals(&want, &format!("{model}, {kept} layers"));
    }
}

#[test]
fn the_program_and_the_library_train_the_same() {
    for model in MODELS {
        let folder = TempDir::new(&format!("same-{model}"));
        let out = folder.path("run");
        run_program(&flags(model, &out, N_STEPS)).ok();
        Trained::read(&out, N_STEPS).assert_equals(&trained(job(model, N_STEPS)), model);
    }
}

#[test]
fn a_run_that_stops_after_any_step_goes_on_as_if_it_had_not() {
    for model in MODELS {
        let mut opened = open(job(model, N_STEPS));
        let want = finish(&mut opened, &SimDisk::new());
        for stop_at in 0..N_STEPS {
            let disk = SimDisk::new();
            let stopped = run(&mut opened, &disk, Some(stop_at)).outcome.unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((&stopped.ending, stopped.step), (&Ending::Stopped, stop_at), "{model}");
            // Another stop at the same place costs nothing.
            let again = run(&mut opened, &disk, Some(0)).outcome.unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((again.resumed, again.step), (Some(stop_at), stop_at), "{model}");
            finish(&mut opened, &disk).assert_equals(&want, &format!("{model}, stopped after {stop_at}"));
        }
    }
}

/// Adam's small constant, and how far adapters may be apart as a share of their tensor's largest entry. With a large one an
/// update is in proportion to the gradient, and what rounding does to it stays small. With the usual one the update is a sign:
/// a gradient that is itself hardly more than rounding (1e-7 of the largest) moves by a thousandth of its size, and so does
/// its parameter: 1e-4 was seen after one step, less after more.
const EPS_AND_BOUND: [(f64, f64); 2] = [(1e-2, 1e-5), (1e-8, 3e-4)];

/// Eight micro-batches of one sample, and one of eight: the same sums, in another order.
#[test]
fn a_batch_may_be_cut_in_pieces() {
    for (model, (eps, bound)) in MODELS.into_iter().flat_map(|m| EPS_AND_BOUND.map(|e| (m, e))) {
        let ((rows, pieces), (rows_at_once, at_once)) = (cut(model, eps, 1, 8), cut(model, eps, 8, 1));
        let mut worst_loss = 0.0f64;
        for (a, b) in rows.iter().zip(&rows_at_once) {
            let losses = [(a.loss, b.loss), (a.eval_loss.expect("measured"), b.eval_loss.expect("measured"))];
            for (a, b) in losses {
                let off = (a - b).abs() / b;
                assert!(off <= 1e-5, "{model}, eps {eps}: a loss of {a}, and {b} at once");
                worst_loss = worst_loss.max(off);
            }
        }
        assert_eq!((rows.len(), rows_at_once.len()), (6, 6));
        let worst = worst_of_tensors(&pieces, &at_once);
        println!("{model}, eps {eps}: losses off by {worst_loss:.1e}, adapters by {worst:.1e} of their largest entry");
        assert!(worst <= bound, "{model}, eps {eps}: {worst:.1e}");
    }
}

/// Six steps of a batch of eight, in so many pieces.
fn cut(model: &str, eps: f64, batch: usize, accumulate: usize) -> (Vec<StepRow>, Trained) {
    let job = job(model, 6);
    // Which inputs are dropped depends on the place in the micro-batch.
    let memory = MemorySettings { micro_batch_size: batch, dropout: 0.0, ..job.memory };
    let job = Job { memory, gradient_accumulation_steps: accumulate, eval_every: Some(1), adam_eps: eps, ..job };
    let disk = SimDisk::new();
    let done = run(&mut open(job), &disk, None);
    done.outcome.unwrap_or_else(|e| panic!("{e}"));
    (done.rows, library::trained(&disk, 6))
}

/// The largest difference in any tensor of the two adapters, as a share of that tensor's largest entry.
fn worst_of_tensors(a: &Trained, b: &Trained) -> f64 {
    let tensors = |t: &Trained| {
        let bytes = t.files["adapter_model.safetensors"].clone();
        SafeTensors::parse(std::sync::Arc::new(bytes)).unwrap_or_else(|e| panic!("{e}"))
    };
    let (a, b) = (tensors(a), tensors(b));
    let numbers = |file: &SafeTensors, name: &str| -> Vec<f32> {
        let bytes = file.tensor_slice(file.tensor(name).expect("in both"));
        bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect()
    };
    assert_eq!(a.tensors().len(), b.tensors().len());
    let worst = |name: &str| {
        let (got, want) = (numbers(&a, name), numbers(&b, name));
        let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let differences = got.iter().zip(&want).map(|(g, w)| f64::from((g - w).abs() / largest));
        differences.fold(0.0, |m: f64, d| if d.is_nan() { f64::INFINITY } else { m.max(d) })
    };
    a.tensors().iter().map(|t| worst(&t.name)).fold(0.0, f64::max)
}
