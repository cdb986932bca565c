//! Modules are compiled once, and only those that are wanted; a launch loads what nobody prepared.

use std::path::PathBuf;
use std::time::Duration;
use std::{fs, process, thread};

use lichen_kernels::cuda::{Cuda, CudaOptions, DevicePtr, LaunchShape};
use lichen_kernels::ops::attention::KvFormat;
use lichen_kernels::ops::{bandwidth, modules_for};
use lichen_kernels::Format;

use super::{has_kernels, scratch};

/// A cache of its own, empty, and gone after the test.
struct Cache(PathBuf);

impl Cache {
    fn new(name: &str) -> Cache {
        let folder = scratch(&format!("{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&folder);
        Cache(folder)
    }

    fn open(&self) -> Cuda {
        let options = CudaOptions { cache_dir: Some(self.0.clone()), ..CudaOptions::default() };
        Cuda::open(&options).unwrap_or_else(|e| panic!("{e}"))
    }

    fn files(&self) -> Vec<String> {
        let files = fs::read_dir(&self.0).into_iter().flatten();
        files.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn launch(cuda: &Cuda) {
    let shape = LaunchShape { grid: [1, 1, 1], block: 256, shared_bytes: 0 };
    let sums = cuda.alloc(4).unwrap();
    cuda.launch("read_bandwidth", shape, &[DevicePtr::NULL.into(), 0u64.into(), sums.ptr().into()]);
}

#[test]
fn machine_code_is_made_once() {
    if !has_kernels() {
        return;
    }
    let cache = Cache::new("once");
    let n_compiled = || {
        let cuda = cache.open();
        cuda.prepare(&|_| true).unwrap();
        assert_eq!(bandwidth::read_pass(&cuda, &[1; 16]).unwrap().sum, 0x0404_0404);
        assert_eq!(cuda.n_late(), 0);
        cuda.n_compiled()
    };
    let all = n_compiled();
    let files = cache.files();
    assert!(all > 0 && files.len() == all, "{all} modules, {files:?}");
    assert_eq!(n_compiled(), 0);
    let file = cache.0.join(&files[0]);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(n_compiled(), 1, "a file cut in half");
    assert_eq!(n_compiled(), 0);
    // Where no folder can be.
    fs::remove_dir_all(&cache.0).unwrap();
    fs::write(&cache.0, b"").unwrap();
    assert_eq!(n_compiled(), all);
    fs::remove_file(&cache.0).unwrap();
}

#[test]
fn only_what_is_wanted_is_compiled() {
    if !has_kernels() {
        return;
    }
    let cache = Cache::new("wanted");
    let cuda = cache.open();
    assert_eq!((cuda.n_compiled(), cache.files()), (0, vec![]));
    cuda.prepare(&|_| false).unwrap();
    assert_eq!((cuda.n_compiled(), cache.files()), (0, vec![]));
    cuda.prepare(&|module| module == "bandwidth/bandwidth").unwrap();
    let files = cache.files();
    assert!(files.len() == 1 && files[0].starts_with("bandwidth-bandwidth-"), "{files:?}");
    cuda.prepare(&modules_for(&[Format::Q8_0], KvFormat::F16)).unwrap();
    let files = cache.files();
    let has = |name: &str| files.iter().any(|f| f.contains(name));
    assert!(has("matmul-decode-decode_q8_0-") && has("matmul-prefill-prefill_q8_0-"), "{files:?}");
    assert!(has("rmsnorm-rmsnorm-") && has("attention-"), "{files:?}");
    assert!(!has("nf4") && !has("q4_0") && !has("float") && !has("bf16"), "{files:?}");
    assert_eq!(cuda.n_compiled(), files.len());
    // Once more is nothing, here and in the next program.
    cuda.prepare(&modules_for(&[Format::Q8_0], KvFormat::F16)).unwrap();
    assert_eq!(cuda.n_compiled(), files.len());
    let next = cache.open();
    next.prepare(&modules_for(&[Format::Q8_0], KvFormat::F16)).unwrap();
    assert_eq!(next.n_compiled(), 0);
}

#[test]
fn a_launch_loads_what_nobody_prepared() {
    if !has_kernels() {
        return;
    }
    let cache = Cache::new("late");
    let cuda = cache.open();
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(|| launch(&cuda)))));
    cuda.synchronize().unwrap();
    assert_eq!((cuda.n_compiled(), cuda.n_late()), (1, 1));
    assert_eq!(cache.files().len(), 1);
    cuda.prepare(&|module| module == "bandwidth/bandwidth").unwrap();
    assert_eq!((cuda.n_compiled(), cuda.n_late()), (1, 1));
}

#[test]
fn a_recording_loads_nothing() {
    if !has_kernels() {
        return;
    }
    let cache = Cache::new("recording");
    let cuda = cache.open();
    let sums = cuda.alloc(4).unwrap();
    let shape = LaunchShape { grid: [1, 1, 1], block: 256, shared_bytes: 0 };
    let recorded = cuda.capture(&mut || {
        let error = cuda.prepare(&|module| module == "bandwidth/bandwidth").expect_err("a recording");
        assert!(error.to_string().contains("while launches are recorded"), "{error}");
        cuda.launch("read_bandwidth", shape, &[DevicePtr::NULL.into(), 0u64.into(), sums.ptr().into()]);
    });
    let error = match recorded {
        Err(error) => error,
        Ok(graph) => return assert!(graph.is_none() && !cuda.info().is_emulated(), "the emulator records"),
    };
    let expected =
        "the CUDA kernels of bandwidth/bandwidth cannot be loaded while launches are recorded: they must be \
                    prepared, or launched once, before";
    assert_eq!(error.to_string(), expected);
    assert_eq!(cuda.check().err(), Some(error));
    assert_eq!((cuda.n_compiled(), cache.files()), (0, vec![]));
    drop(sums);
    // Another device of the same machine has nothing to do with it.
    let cuda = cache.open();
    launch(&cuda);
    cuda.synchronize().unwrap();
}

#[test]
fn a_launch_waits_for_the_recording_of_another_thread() {
    if !has_kernels() {
        return;
    }
    let cache = Cache::new("waiting");
    let cuda = cache.open();
    thread::scope(|scope| {
        let recorded = cuda.capture(&mut || {
            scope.spawn(|| launch(&cuda));
            thread::sleep(Duration::from_millis(50));
            assert_eq!(cuda.n_late(), 0, "loaded while another thread records");
        });
        recorded.unwrap();
    });
    assert!(cuda.n_late() == 1 || !cuda.info().is_emulated());
}
