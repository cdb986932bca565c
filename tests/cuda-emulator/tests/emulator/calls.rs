//! The driver's calls: what they refuse, and captured graphs.

use std::ffi::{c_char, c_int, c_void, CString};
use std::ptr;

use crate::raw::{self, Arg, Device};

const INVALID_VALUE: u32 = 1;
const OUT_OF_MEMORY: u32 = 2;

#[test]
fn arguments_are_counted_and_measured() {
    if !raw::is_ready() {
        return;
    }
    let device = Device::open(0);
    let out = device.alloc(1024);
    let kernel = device.kernel("emulator_poke", "u64 u32");
    let right = [Arg::Ptr(out), Arg::U32(0)];
    device.run(kernel, 1, 64, 0, &right);
    assert_eq!(device.launch(kernel, 1, 64, 0, &right[..1]), INVALID_VALUE);
    assert_eq!(device.launch(kernel, 1, 64, 0, &[Arg::Ptr(out), Arg::U32(0), Arg::U32(0)]), INVALID_VALUE);
    for params in ["u64", "u64 u64", "u64 u32 u32", "u32 u32", ""] {
        let other = device.kernel("emulator_poke", params);
        assert_eq!(device.launch(other, 1, 64, 0, &right), INVALID_VALUE, "({params})");
    }
}

#[test]
fn shapes_are_checked() {
    if !raw::is_ready() {
        return;
    }
    let device = Device::open(1);
    let out = device.alloc(1024);
    let kernel = device.kernel("emulator_poke", "u64 u32");
    let args = [Arg::Ptr(out), Arg::U32(0)];
    for (grid, block, shared) in [(0, 64, 0), (1, 0, 0), (1, 65, 0), (1, 2048, 0), (1, 64, (48 << 10) + 16)] {
        assert_eq!(device.launch(kernel, grid, block, shared, &args), INVALID_VALUE, "{grid} {block} {shared}");
    }
    const MAX_DYNAMIC_SHARED: c_int = 8;
    let set = |bytes| call!(cuFuncSetAttribute: fn(usize, c_int, c_int), kernel, MAX_DYNAMIC_SHARED, bytes);
    assert_eq!(set((96 << 10) + 4), INVALID_VALUE);
    assert_eq!(set(96 << 10), 0);
    device.run(kernel, 1, 64, 96 << 10, &args);
}

fn attribute(ordinal: c_int, attribute: c_int) -> Result<c_int, u32> {
    let mut value = -1;
    match call!(cuDeviceGetAttribute: fn(*mut c_int, c_int, c_int), &mut value, attribute, ordinal) {
        0 => Ok(value),
        code => Err(code),
    }
}

#[test]
fn devices_are_those_asked_for() {
    if !raw::is_ready() {
        return;
    }
    let (mut version, mut count) = (0, 0);
    ok!(cuDriverGetVersion: fn(*mut c_int), &mut version);
    ok!(cuDeviceGetCount: fn(*mut c_int), &mut count);
    assert_eq!((version, count), (10020, 5));
    let shared = [48, 96, 163, 163, 227];
    for (ordinal, arch) in raw::DEVICES {
        assert_eq!(attribute(ordinal, 75), Ok((arch / 10) as c_int));
        assert_eq!(attribute(ordinal, 76), Ok((arch % 10) as c_int));
        assert_eq!(attribute(ordinal, 18), Ok(matches!(arch, 53 | 72 | 87) as c_int));
        assert_eq!(attribute(ordinal, 97), Ok(shared[ordinal as usize] << 10));
        assert_eq!(attribute(ordinal, 10), Ok(32));
        // What a 10.2 driver has not heard of.
        assert_eq!(attribute(ordinal, 106), Err(INVALID_VALUE));
        assert_eq!(attribute(ordinal, 115), Err(INVALID_VALUE));
    }
    assert_eq!(attribute(5, 10), Err(101));
    assert_eq!(attribute(0, 0), Err(INVALID_VALUE));
}

#[test]
fn memory_is_as_much_as_was_said() {
    const ME: &str = "calls::memory_is_as_much_as_was_said";
    if !raw::is_ready() {
        return;
    }
    if !raw::is_child(ME) {
        let (is_ok, said) = raw::child(ME, &[("LICHEN_EMULATOR_MEMORY_MIB", "8"), ("LICHEN_EMULATOR_FAIL_ALLOC", "4")]);
        assert!(is_ok, "{said}");
        return;
    }
    let device = Device::open(0);
    let alloc = |bytes| {
        let mut pointer = 0;
        let rc = call!(cuMemAlloc_v2: fn(*mut u64, usize), &mut pointer, bytes);
        (rc, pointer)
    };
    let free = || {
        let (mut free, mut total) = (0usize, 0usize);
        ok!(cuMemGetInfo_v2: fn(*mut usize, *mut usize), &mut free, &mut total);
        assert_eq!(total, 8 << 20);
        free
    };
    let first = device.alloc(6 << 20);
    assert_eq!(alloc(3 << 20).0, OUT_OF_MEMORY);
    assert_eq!(free(), 2 << 20);
    ok!(cuMemFree_v2: fn(u64), first);
    let third = device.alloc(8 << 20);
    ok!(cuMemFree_v2: fn(u64), third);
    // The fourth is to fail, and only that one.
    assert_eq!(alloc(16).0, OUT_OF_MEMORY);
    assert_eq!(alloc(16).0, 0);
    // This board's GPU shares the CPU's memory: pinned memory counts.
    let mut pinned: *mut c_void = ptr::null_mut();
    ok!(cuMemHostAlloc: fn(*mut *mut c_void, usize, u32), &mut pinned, 1 << 20, 0);
    assert_eq!(free(), (7 << 20) - 16);
    assert_eq!(call!(cuMemFree_v2: fn(u64), pinned as u64), INVALID_VALUE);
    ok!(cuMemFreeHost: fn(*mut c_void), pinned);
    assert_eq!(call!(cuMemFreeHost: fn(*mut c_void), pinned), INVALID_VALUE);
}

#[test]
fn copies_stay_inside() {
    if !raw::is_ready() {
        return;
    }
    let device = Device::open(0);
    let at = device.upload(&[1u32, 2, 3, 4]);
    let mut more = [0u32; 5];
    assert_eq!(device.try_download(at, &mut more), INVALID_VALUE);
    assert_eq!(device.try_download(at + 4, &mut more[..3]), 0);
    assert_eq!(more[..3], [2, 3, 4]);
    assert_eq!(device.try_download(at - 4, &mut more[..1]), INVALID_VALUE);
    ok!(cuMemsetD32_v2: fn(u64, u32, usize), at + 4, 9, 2);
    ok!(cuMemsetD8_v2: fn(u64, u8, usize), at, 1, 2);
    assert_eq!(device.download::<u32>(at, 4), [0x101, 9, 9, 4]);
    assert_eq!(call!(cuMemsetD32_v2: fn(u64, u32, usize), at + 2, 9, 1), INVALID_VALUE);
    assert_eq!(call!(cuMemsetD32_v2: fn(u64, u32, usize), at, 9, 5), INVALID_VALUE);
}

fn load(ptx: &str) -> (u32, usize, String) {
    let text = CString::new(ptx).expect("no zero byte");
    let mut log = [0u8; 256];
    let options: [c_int; 2] = [5, 6];
    let values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), log.len() as *mut c_void];
    let mut module = 0;
    let rc = call!(cuModuleLoadDataEx: fn(*mut usize, *const c_char, u32, *const c_int, *const *mut c_void),
        &mut module, text.as_ptr(), 2, options.as_ptr(), values.as_ptr());
    let end = log.iter().position(|b| *b == 0).expect("a zero byte");
    (rc, module, String::from_utf8_lossy(&log[..end]).into_owned())
}

#[test]
fn modules_are_read_as_a_driver_would() {
    if !raw::is_ready() {
        return;
    }
    const INVALID_PTX: u32 = 218;
    Device::open(0);
    let (rc, _, said) = load(&raw::ptx(72, "emulator_poke", "u64 u32"));
    assert_eq!((rc, said.contains("sm_72")), (INVALID_PTX, true), "{said}");
    let newer = raw::ptx(53, "emulator_poke", "u64 u32").replace(".version 6.3", ".version 7.0");
    let (rc, _, said) = load(&newer);
    assert_eq!((rc, said.contains(".version")), (INVALID_PTX, true), "{said}");
    assert_eq!(load("no ptx").0, INVALID_PTX);
    // Older kernels run on a newer device.
    Device::open(4);
    let (rc, module, _) = load(&raw::ptx(53, "emulator_poke", "u64 u32"));
    assert_eq!(rc, 0);
    let find = |module: usize, name: &str| {
        let (name, mut function) = (CString::new(name).expect("no zero byte"), 0);
        call!(cuModuleGetFunction: fn(*mut usize, usize, *const c_char), &mut function, module, name.as_ptr())
    };
    assert_eq!(find(module, "emulator_poke"), 0);
    assert_eq!(find(module, "emulator_axpy"), 500);
    ok!(cuModuleUnload: fn(usize), module);
    assert_eq!(find(module, "emulator_poke"), 400);
}

#[test]
fn linked_images_are_for_one_device() {
    if !raw::is_ready() {
        return;
    }
    Device::open(1);
    let ptx = CString::new(raw::ptx(53, "emulator_poke", "u64 u32")).expect("no zero byte");
    let (mut link, none) = (0usize, ptr::null::<c_int>());
    ok!(cuLinkCreate_v2: fn(u32, *const c_int, *const *mut c_void, *mut usize), 0, none, ptr::null(), &mut link);
    ok!(cuLinkAddData_v2: fn(usize, c_int, *const c_void, usize, *const c_char, u32, *const c_int, *const *mut c_void),
        link, 1, ptx.as_ptr().cast(), ptx.as_bytes_with_nul().len(), c"a".as_ptr(), 0, none, ptr::null());
    let (mut image, mut bytes) = (ptr::null_mut(), 0usize);
    ok!(cuLinkComplete: fn(usize, *mut *mut c_void, *mut usize), link, &mut image, &mut bytes);
    // SAFETY:
    // - The linker's image lives as long as the link.
    let image = unsafe { std::slice::from_raw_parts(image.cast::<u8>(), bytes) }.to_vec();
    ok!(cuLinkDestroy: fn(usize), link);
    let image = CString::from_vec_with_nul(image).expect("one zero byte, at its end");
    let text = image.to_str().expect("text");
    assert_eq!(load(text).0, 0);
    Device::open(0);
    assert_eq!(load(text).0, 209);
}

#[test]
fn calls_need_a_context() {
    if !raw::is_ready() {
        return;
    }
    Device::open(0);
    ok!(cuCtxSetCurrent: fn(usize), 0);
    let mut pointer = 0u64;
    assert_eq!(call!(cuMemAlloc_v2: fn(*mut u64, usize), &mut pointer, 16), 201);
    assert_eq!(call!(cuCtxSetCurrent: fn(usize), 1234), 201);
    assert_eq!(call!(cuDevicePrimaryCtxRetain: fn(*mut u64, c_int), &mut pointer, 9), 101);
}

fn stream() -> usize {
    let mut stream = 0;
    ok!(cuStreamCreate: fn(*mut usize, u32), &mut stream, 1);
    stream
}

#[test]
fn a_captured_graph_replays() {
    const ME: &str = "calls::a_captured_graph_replays";
    if !raw::is_ready() {
        return;
    }
    // In a process of its own: while it records, calls of other threads would break it.
    if !raw::is_child(ME) {
        let (is_ok, said) = raw::child(ME, &[]);
        assert!(is_ok, "{said}");
        return;
    }
    let device = Device::open(0);
    let stream = stream();
    let (out, at_x) = (device.alloc(64 * 4), device.upload(&[1.0f32; 64]));
    let axpy = device.kernel("emulator_axpy", "u64 u64 u64 f32 u32");
    ok!(cuMemsetD8_v2: fn(u64, u8, usize), out, 0, 256);
    ok!(cuStreamBeginCapture_v2: fn(usize, c_int), stream, 0);
    let args = [Arg::Ptr(out), Arg::Ptr(out), Arg::Ptr(at_x), Arg::F32(2.0), Arg::U32(64)];
    assert_eq!(device.launch_on(stream, axpy, 1, 64, 0, &args), 0);
    let mut graph = 0usize;
    ok!(cuStreamEndCapture: fn(usize, *mut usize), stream, &mut graph);
    assert_eq!(device.download::<f32>(out, 64), [0.0; 64]);
    let mut exec = 0usize;
    ok!(cuGraphInstantiate: fn(*mut usize, usize, *mut usize, *mut c_char, usize),
        &mut exec, graph, ptr::null_mut(), ptr::null_mut(), 0);
    ok!(cuGraphDestroy: fn(usize), graph);
    for _ in 0..3 {
        ok!(cuGraphLaunch: fn(usize, usize), exec, stream);
    }
    ok!(cuStreamSynchronize: fn(usize), stream);
    assert_eq!(device.download::<f32>(out, 64), [6.0; 64]);
    ok!(cuGraphExecDestroy: fn(usize), exec);
    assert_eq!(call!(cuGraphLaunch: fn(usize, usize), exec, stream), 400);
}

#[test]
fn what_cannot_be_captured_breaks_the_capture() {
    const ME: &str = "calls::what_cannot_be_captured_breaks_the_capture";
    if !raw::is_ready() {
        return;
    }
    if !raw::is_child(ME) {
        let (is_ok, said) = raw::child(ME, &[]);
        assert!(is_ok, "{said}");
        return;
    }
    const UNSUPPORTED: u32 = 900;
    let device = Device::open(0);
    let (stream, out) = (stream(), device.alloc(1024));
    let kernel = device.kernel("emulator_poke", "u64 u32");
    let begin_as = |mode| ok!(cuStreamBeginCapture_v2: fn(usize, c_int), stream, mode);
    let begin = || begin_as(0);
    let end = || {
        let mut graph = 0usize;
        call!(cuStreamEndCapture: fn(usize, *mut usize), stream, &mut graph)
    };
    let mut pointer = 0u64;
    type Call<'a> = &'a dyn Fn(&mut u64) -> u32;
    let refused: [(&str, Call, u32); 4] = [
        ("an allocation", &|p| call!(cuMemAlloc_v2: fn(*mut u64, usize), p, 16), UNSUPPORTED),
        ("waiting", &|_| call!(cuStreamSynchronize: fn(usize), stream), UNSUPPORTED),
        ("a synchronous copy", &|_| device.try_download(out, &mut [0u32]), UNSUPPORTED),
        ("a launch on stream 0", &|_| device.launch(kernel, 1, 1, 0, &[Arg::Ptr(out), Arg::U32(0)]), 906),
    ];
    for (name, call, code) in refused {
        begin();
        assert_eq!(call(&mut pointer), code, "{name}");
        assert_eq!(end(), 901, "{name}");
    }
    // Of this thread alone; and of none.
    let alloc_on_another = || {
        let other = std::thread::spawn(|| {
            Device::open(0);
            call!(cuMemAlloc_v2: fn(*mut u64, usize), &mut 0, 16)
        });
        other.join().expect("no panic")
    };
    for (mode, here, there, ends) in [(0, UNSUPPORTED, UNSUPPORTED, 901), (1, UNSUPPORTED, 0, 901), (2, 0, 0, 0)] {
        begin_as(mode);
        assert_eq!(alloc_on_another(), there, "mode {mode}");
        assert_eq!(call!(cuMemAlloc_v2: fn(*mut u64, usize), &mut pointer, 16), here, "mode {mode}");
        assert_eq!(end(), ends, "mode {mode}");
    }
    begin();
    assert_eq!(end(), 0);
    assert_eq!(end(), INVALID_VALUE);
    assert_eq!(call!(cuStreamBeginCapture_v2: fn(usize, c_int), 0, 0), UNSUPPORTED);
}
