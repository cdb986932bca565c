//! The driver layer against a driver: the emulator, or the machine's own. What only the emulator can be told to do runs in
//! a process of its own, because it reads its environment once.

#[path = "common/again.rs"]
mod again;
#[path = "driver/loading.rs"]
mod loading;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::{env, thread};

use again::with_environment;
use lichen_kernels::cuda::{Arena, Arg, Cuda, CudaOptions, DeviceError, DevicePtr, LaunchShape, NOT_COMPILED};
use lichen_kernels::ops::bandwidth;

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn options() -> CudaOptions {
    CudaOptions { cache_dir: Some(scratch("cubins")), ..CudaOptions::default() }
}

/// Without clang there are no kernels: that is said, and refused where LICHEN_REQUIRE_CUDA is set.
fn has_kernels() -> bool {
    let Some(why) = NOT_COMPILED else { return true };
    assert!(env::var_os("LICHEN_REQUIRE_CUDA").is_none(), "{why}");
    eprintln!("NOT TESTED: {why}");
    false
}

fn open() -> Cuda {
    Cuda::open(&options()).unwrap_or_else(|e| panic!("{e}"))
}

fn bytes(n: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks_exact(4).map(|w| u32::from_ne_bytes([w[0], w[1], w[2], w[3]]));
    words.fold(0, u32::wrapping_add)
}

#[test]
fn a_device_opens_as_it_is_listed() {
    if !has_kernels() {
        return;
    }
    let list = Cuda::list().unwrap_or_else(|e| panic!("{e}"));
    let cuda = open();
    assert_eq!(cuda.info(), &list[0]);
    let info = cuda.info();
    assert!(cuda.arch() <= info.capability && info.capability >= 53, "{info:?}");
    assert!(info.n_sms >= 1 && info.max_shared_bytes >= 48 << 10 && info.driver_version >= 10020, "{info:?}");
    assert!(cuda.free_bytes().unwrap() <= info.total_bytes);
    let beyond = CudaOptions { ordinal: list.len(), ..options() };
    let error = Cuda::open(&beyond).err().expect("no such device");
    assert!(matches!(error, DeviceError::NoDevice(_)), "{error}");
    assert!(error.to_string().starts_with(&format!("no CUDA device {}: there", list.len())), "{error}");
}

#[test]
fn every_byte_is_read() {
    if !has_kernels() {
        return;
    }
    let cuda = open();
    for n in [16, 16 * 255, 16 * 257, 16 * 2048, (1 << 20) + 16] {
        let data = bytes(n, n as u32);
        let pass = bandwidth::read_pass(&cuda, &data).unwrap();
        assert_eq!(pass.sum, sum(&data), "{n} bytes");
        assert!(pass.ms >= 0.0, "{n} bytes in {} ms", pass.ms);
    }
    assert!(bandwidth::read_gb_per_s(&cuda, 1 << 20).unwrap() > 0.0);
}

#[test]
fn a_wrong_launch_panics_and_the_next_one_runs() {
    if !has_kernels() {
        return;
    }
    let cuda = open();
    let shape = LaunchShape { grid: [1, 1, 1], block: 256, shared_bytes: 0 };
    let null = Arg::from(DevicePtr::NULL);
    let cases: [(&'static str, LaunchShape, Vec<Arg>, &str); 4] = [
        ("read_nothing", shape, vec![], "no kernel read_nothing for CUDA architecture"),
        ("read_bandwidth", shape, vec![null], "kernel read_bandwidth: parameters of [8, 8, 8] bytes, arguments of [8]"),
        ("read_bandwidth", shape, vec![null, 1u32.into(), null], "arguments of [8, 4, 8]"),
        (
            "read_bandwidth",
            LaunchShape { block: 512, ..shape },
            vec![null, 1u64.into(), null],
            "a block of 512 threads",
        ),
    ];
    for (kernel, shape, args, expected) in cases {
        let panic = catch_unwind(AssertUnwindSafe(|| cuda.launch(kernel, shape, &args))).expect_err("a wrong launch");
        let text = panic.downcast_ref::<String>().expect("a message");
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(bandwidth::read_pass(&cuda, &[1; 16]).unwrap().sum, 0x0404_0404);
}

#[test]
fn memory_that_is_not_there_is_refused_with_numbers() {
    if !has_kernels() {
        return;
    }
    let cuda = open();
    let wanted = 1 << 46;
    match cuda.alloc(wanted).err() {
        Some(DeviceError::OutOfMemory { needed, free }) => {
            assert_eq!(needed, wanted);
            assert!(free > 0 && free <= cuda.info().total_bytes, "{free} free");
        }
        other => panic!("{other:?}"),
    }
    assert!(cuda.arena(wanted).is_err());
    cuda.check().expect("no failure that stays");
    cuda.alloc(1 << 20).expect("room for a mebibyte");
}

#[test]
fn copies_go_where_they_should() {
    if !has_kernels() {
        return;
    }
    let cuda = open();
    let mut memory = cuda.alloc(1000).unwrap();
    memory.fill_zero().unwrap();
    memory.write(10, &[1, 2, 3]).unwrap();
    let mut out = [9; 5];
    memory.read(9, &mut out).unwrap();
    assert_eq!(out, [0, 1, 2, 3, 0]);

    let mut pinned = cuda.alloc_pinned(64).unwrap();
    assert_eq!(pinned.as_slice(), [0; 64]);
    pinned.as_mut_slice().copy_from_slice(&bytes(64, 1));
    cuda.copy_from_pinned(&memory, 100, &pinned, 8..24);
    cuda.copy_on_device(memory.ptr().offset(200), memory.ptr().offset(100), 16);
    cuda.copy_to_pinned(&mut pinned, 40, &memory, 200..216);
    // Looking at it waits.
    assert_eq!(pinned.as_slice()[40..56], bytes(64, 1)[8..24]);
    assert_eq!(pinned.as_slice()[..40], bytes(64, 1)[..40]);

    let empty = cuda.alloc(0).unwrap();
    empty.read(0, &mut []).unwrap();
    for (at, len) in [(998, 3), (usize::MAX, 2)] {
        let mut out = vec![0; len];
        assert!(catch_unwind(AssertUnwindSafe(|| memory.read(at, &mut out))).is_err(), "{len} bytes at {at}");
    }
}

fn parts_of_an_arena() {
    let cuda = open();
    let sizes = [1, 256, 257, 1000];
    let total: usize = sizes.iter().map(|n| Arena::padded(*n)).sum();
    let mut arena = cuda.arena(total).unwrap();
    let mut parts: Vec<_> = sizes.iter().map(|n| arena.alloc(*n).unwrap()).collect();
    assert_eq!(arena.alloc(1).err(), Some(DeviceError::OutOfMemory { needed: 1, free: 0 }));
    drop(arena);
    for (i, part) in parts.iter_mut().enumerate() {
        part.write(0, &bytes(part.len_bytes(), i as u32)).unwrap();
    }
    for (i, part) in parts.iter().enumerate() {
        let mut out = vec![0; part.len_bytes()];
        part.read(0, &mut out).unwrap();
        assert!(out == bytes(out.len(), i as u32), "part {i}");
    }
}

#[test]
fn an_arena_hands_out_each_part_once() {
    if !has_kernels() {
        return;
    }
    parts_of_an_arena();
}

#[test]
fn an_arena_may_be_many_allocations() {
    if !has_kernels() {
        return;
    }
    if with_environment("an_arena_may_be_many_allocations", &[("LICHEN_CUDA_ARENA", "off")]) {
        parts_of_an_arena();
    }
}

#[test]
fn a_recording_reads_its_memory_anew() {
    if !has_kernels() {
        return;
    }
    let cuda = open();
    cuda.prepare(&|module| module == "bandwidth/bandwidth").unwrap();
    let n = 4096;
    let data = cuda.alloc(n).unwrap();
    let sums = cuda.alloc(4).unwrap();
    let mut staged = cuda.alloc_pinned(n).unwrap();
    let mut found = cuda.alloc_pinned(4).unwrap();
    let shape = LaunchShape { grid: [1, 1, 1], block: 256, shared_bytes: 0 };
    let args = [data.ptr().into(), (n as u64 / 16).into(), sums.ptr().into()];
    let mut n_records = 0;
    let recorded = cuda.capture(&mut || {
        n_records += 1;
        cuda.copy_from_pinned(&data, 0, &staged, 0..n);
        cuda.launch("read_bandwidth", shape, &args);
        cuda.copy_to_pinned(&mut found, 0, &sums, 0..4);
        let error = cuda.synchronize().expect_err("nothing runs that could be waited for");
        assert!(error.to_string().contains("recorded"), "{error}");
        assert!(cuda.capture(&mut || ()).is_err());
    });
    let Some(graph) = recorded.unwrap() else {
        assert!(!cuda.info().is_emulated() && n_records == 0, "the emulator records");
        return;
    };
    assert_eq!((n_records, found.as_slice()), (1, [0; 4].as_slice()));
    for seed in 0..3 {
        staged.as_mut_slice().copy_from_slice(&bytes(n, seed));
        graph.launch();
        assert_eq!(found.as_slice(), sum(&bytes(n, seed)).to_ne_bytes(), "seed {seed}");
    }
}

#[test]
fn a_recording_that_panics_ends() {
    if !has_kernels() {
        return;
    }
    let cuda = open();
    assert!(
        catch_unwind(AssertUnwindSafe(|| cuda.capture(&mut || panic!("on purpose")))).is_err()
            || !cuda.info().is_emulated()
    );
    assert_eq!(bandwidth::read_pass(&cuda, &[1; 16]).unwrap().sum, 0x0404_0404);
}

#[test]
fn threads_share_a_device() {
    if !has_kernels() {
        return;
    }
    let cuda = open();
    thread::scope(|scope| {
        for seed in 0..4u32 {
            let cuda = cuda.clone();
            scope.spawn(move || {
                for n in [16, 1600, 16 * 3000] {
                    let data = bytes(n, seed);
                    assert_eq!(bandwidth::read_pass(&cuda, &data).unwrap().sum, sum(&data), "{n} bytes of {seed}");
                }
            });
        }
        // Recordings in between hold nothing of the others'.
        for _ in 0..3 {
            let graph = cuda.capture(&mut || thread::yield_now()).unwrap();
            graph.iter().for_each(|g| g.launch());
        }
    });
    cuda.synchronize().unwrap();
}

#[test]
fn an_architecture_can_be_asked_for() {
    if !has_kernels() {
        return;
    }
    let forced = |arch| Cuda::open(&CudaOptions { arch: Some(arch), ..options() });
    let cuda = forced(53).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(cuda.arch(), 53);
    assert_eq!(bandwidth::read_pass(&cuda, &[1; 16]).unwrap().sum, 0x0404_0404);
    let error = forced(61).err().expect("not embedded").to_string();
    assert!(error.starts_with("no kernels for CUDA architecture 61: there are 53"), "{error}");
    if cuda.info().capability < 90 {
        let error = forced(90).err().expect("above the device").to_string();
        assert!(error.starts_with("kernels for CUDA architecture 90 do not run here: "), "{error}");
    }
}

#[test]
fn the_environment_asks_for_an_architecture() {
    if !has_kernels() {
        return;
    }
    let variables = [("LICHEN_CUDA_ARCH", "53"), ("LICHEN_EMULATOR_DEVICES", "90,80")];
    if with_environment("the_environment_asks_for_an_architecture", &variables) {
        assert_eq!(open().arch(), 53);
        let best = Cuda::open(&CudaOptions { arch: Some(80), ordinal: 1, ..options() });
        assert!(best.is_ok_and(|c| c.arch() == 80) || !open().info().is_emulated());
    }
}

#[test]
fn a_lost_device_stays_lost() {
    if !has_kernels() {
        return;
    }
    let variables = [("LICHEN_EMULATOR_LOSE_AFTER", "2")];
    if !with_environment("a_lost_device_stays_lost", &variables) {
        return;
    }
    let cuda = open();
    if !cuda.info().is_emulated() {
        return;
    }
    let mut memory = cuda.alloc(16).unwrap();
    assert_eq!(bandwidth::read_pass(&cuda, &[1; 16]).unwrap().sum, 0x0404_0404);
    let lost = bandwidth::read_pass(&cuda, &[1; 16]).expect_err("the second launch is lost");
    assert!(matches!(lost, DeviceError::Lost(_)), "{lost:?}");
    assert!(lost.to_string().contains("while launching read_bandwidth"), "{lost}");
    assert!(lost.to_string().ends_with("the program must be restarted"), "{lost}");
    assert_eq!(cuda.check().err().as_ref(), Some(&lost));
    assert_eq!(cuda.synchronize().err().as_ref(), Some(&lost));
    assert_eq!(cuda.alloc(16).err().as_ref(), Some(&lost));
    assert_eq!(memory.write(0, &[1]).err().as_ref(), Some(&lost));
    assert_eq!(cuda.capture(&mut || panic!("not called")).err().as_ref(), Some(&lost));
    let shape = LaunchShape { grid: [1, 1, 1], block: 256, shared_bytes: 0 };
    cuda.launch("read_bandwidth", shape, &[memory.ptr().into(), 1u64.into(), DevicePtr::NULL.into()]);
    drop((memory, cuda));
    // A new context may well work: this program has nothing left on the old one.
    assert!(Cuda::open(&options()).is_ok());
}

#[test]
fn an_old_driver_is_named() {
    if !has_kernels() {
        return;
    }
    let variables = [("LICHEN_EMULATOR_DRIVER", "9010")];
    if with_environment("an_old_driver_is_named", &variables) {
        let error = Cuda::list().err().map(|e| e.to_string());
        let expected = "the CUDA driver is version 9.1: a driver of CUDA 10.2 or later is needed";
        assert!(error.as_deref() == Some(expected) || !open().info().is_emulated(), "{error:?}");
    }
}

#[test]
fn a_machine_without_a_driver_says_so() {
    if !has_kernels() {
        return;
    }
    // Where cargo put the emulator is all that leads to it.
    let variables = [("LD_LIBRARY_PATH", "")];
    if with_environment("a_machine_without_a_driver_says_so", &variables) {
        match Cuda::open(&options()) {
            Err(error) => {
                assert_eq!(error.to_string(), "no CUDA driver on this machine (libcuda.so was not found)");
                assert_eq!(Cuda::list().err(), Some(DeviceError::NoDriver));
            }
            Ok(cuda) => assert!(!cuda.info().is_emulated(), "the emulator was found without its folder"),
        }
    }
}
