//! The driver's symbols as they are, found in the libcuda.so that cargo just built, and PTX that names kernels of
//! the folder kernels.

use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::process::Command;
use std::ptr;
use std::sync::OnceLock;

fn library() -> usize {
    static LIBRARY: OnceLock<usize> = OnceLock::new();
    *LIBRARY.get_or_init(|| {
        crate::newest::renew();
        // SAFETY:
        // - Loading the library runs its constructors alone.
        let library = unsafe { libc::dlopen(c"libcuda.so".as_ptr(), libc::RTLD_NOW) };
        // SAFETY:
        // - dlerror gives a string when dlopen gave null.
        assert!(!library.is_null(), "{}", unsafe { CStr::from_ptr(libc::dlerror()) }.to_string_lossy());
        library as usize
    })
}

pub fn symbol(name: &str) -> *mut c_void {
    let text = CString::new(name).expect("no zero byte");
    // SAFETY:
    // - The library stays loaded.
    let found = unsafe { libc::dlsym(library() as *mut c_void, text.as_ptr()) };
    assert!(!found.is_null(), "no symbol {name}");
    found
}

/// `call!(cuName: fn(A, B), a, b)` calls a symbol and gives its CUresult.
#[macro_export]
macro_rules! call {
    ($name:ident: fn($($kind:ty),*), $($value:expr),*) => {{
        // SAFETY:
        // - The types are those of cuda.h; what a call does with its pointers is the caller's to know.
        let f: extern "C" fn($($kind),*) -> u32 = unsafe { std::mem::transmute($crate::raw::symbol(stringify!($name))) };
        f($($value),*)
    }};
}

/// The same, and the result must be 0.
#[macro_export]
macro_rules! ok {
    ($name:ident: fn($($kind:ty),*), $($value:expr),*) => {
        assert_eq!($crate::call!($name: fn($($kind),*), $($value),*), 0, stringify!($name))
    };
}

/// The devices of these tests: ordinal and capability.
pub const DEVICES: [(c_int, u32); 5] = [(0, 53), (1, 72), (2, 80), (3, 87), (4, 90)];

/// True when the emulator is there, with kernels. Without clang there is nothing to test, which is said, or refused where
/// LICHEN_REQUIRE_CUDA is set; a machine's own driver is not what these tests are about.
pub fn is_ready() -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    *READY.get_or_init(|| {
        if std::env::var_os("LICHEN_EMULATOR_DEVICES").is_none() {
            std::env::set_var("LICHEN_EMULATOR_DEVICES", "53,72,80,87,90");
        }
        let rc = call!(cuInit: fn(u32), 0);
        if rc != 0 {
            assert!(std::env::var_os("LICHEN_REQUIRE_CUDA").is_none(), "cuInit: {}", error_string(rc));
            eprintln!("NOT RUN: {}", error_string(rc));
            return false;
        }
        let mut name = [0 as c_char; 64];
        ok!(cuDeviceGetName: fn(*mut c_char, c_int, c_int), name.as_mut_ptr(), 64, 0);
        // SAFETY:
        // - The driver ends the name with a zero byte.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy();
        let is_emulated = name.starts_with("Lichen emulated");
        if !is_emulated {
            eprintln!("NOT RUN: the driver is {name}'s, not the emulator");
        }
        is_emulated
    })
}

pub fn error_string(code: u32) -> String {
    let mut text: *const c_char = ptr::null();
    call!(cuGetErrorString: fn(u32, *mut *const c_char), code, &mut text);
    if text.is_null() {
        return format!("error {code}");
    }
    // SAFETY:
    // - The driver's strings are constants.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// True in the process that [`child`] started for this test.
pub fn is_child(test: &str) -> bool {
    std::env::var("LICHEN_TEST_AGAIN").is_ok_and(|name| name == test)
}

/// Runs a test of this program again with other variables: the emulator reads its environment once, and some of what it
/// promises ends the process. Gives whether it succeeded, and what it wrote.
pub fn child(test: &str, variables: &[(&str, &str)]) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", test, "--nocapture"]).env("LICHEN_TEST_AGAIN", test).envs(variables.iter().copied());
    let output = command.output().expect("this program starts");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// A device with its context current on this thread.
#[derive(Clone, Copy)]
pub struct Device {
    pub arch: u32,
}

impl Device {
    pub fn open(ordinal: c_int) -> Device {
        assert!(is_ready());
        let mut context = 0usize;
        ok!(cuDevicePrimaryCtxRetain: fn(*mut usize, c_int), &mut context, ordinal);
        ok!(cuCtxSetCurrent: fn(usize), context);
        Device { arch: DEVICES[ordinal as usize].1 }
    }

    pub fn alloc(&self, bytes: usize) -> u64 {
        let mut pointer = 0;
        ok!(cuMemAlloc_v2: fn(*mut u64, usize), &mut pointer, bytes);
        pointer
    }

    pub fn upload<T: bytemuck::Pod>(&self, values: &[T]) -> u64 {
        let pointer = self.alloc(std::mem::size_of_val(values));
        self.write(pointer, values);
        pointer
    }

    pub fn write<T: bytemuck::Pod>(&self, to: u64, values: &[T]) {
        let from = values.as_ptr().cast();
        ok!(cuMemcpyHtoD_v2: fn(u64, *const c_void, usize), to, from, std::mem::size_of_val(values));
    }

    pub fn download<T: bytemuck::Pod>(&self, from: u64, n: usize) -> Vec<T> {
        let mut values = vec![T::zeroed(); n];
        let rc = self.try_download(from, &mut values);
        assert_eq!(rc, 0, "cuMemcpyDtoH_v2");
        values
    }

    pub fn try_download<T: bytemuck::Pod>(&self, from: u64, to: &mut [T]) -> u32 {
        let bytes = std::mem::size_of_val(to);
        call!(cuMemcpyDtoH_v2: fn(*mut c_void, u64, usize), to.as_mut_ptr().cast(), from, bytes)
    }

    pub fn load(&self, ptx: &str) -> usize {
        let text = CString::new(ptx).expect("no zero byte");
        let mut module = 0;
        ok!(cuModuleLoadData: fn(*mut usize, *const c_char), &mut module, text.as_ptr());
        module
    }

    /// A kernel for the device's architecture; `params` are the types of its parameters in the PTX.
    pub fn kernel(&self, name: &str, params: &str) -> usize {
        let module = self.load(&ptx(self.arch, name, params));
        let name = CString::new(name).expect("no zero byte");
        let mut function = 0;
        ok!(cuModuleGetFunction: fn(*mut usize, usize, *const c_char), &mut function, module, name.as_ptr());
        function
    }

    /// Launches and waits; both must succeed.
    pub fn run(&self, function: usize, grid: u32, block: u32, shared: u32, args: &[Arg]) {
        assert_eq!(self.launch(function, grid, block, shared, args), 0);
        ok!(cuCtxSynchronize: fn(),);
    }

    pub fn launch(&self, function: usize, grid: u32, block: u32, shared: u32, args: &[Arg]) -> u32 {
        self.launch_on(0, function, grid, block, shared, args)
    }

    pub fn launch_on(&self, stream: usize, function: usize, grid: u32, block: u32, shared: u32, args: &[Arg]) -> u32 {
        let mut params: Vec<*const c_void> = args.iter().map(Arg::address).collect();
        params.push(ptr::null());
        call!(cuLaunchKernel: fn(usize, u32, u32, u32, u32, u32, u32, u32, usize, *const *const c_void, *const *const c_void),
            function, grid, 1, 1, block, 1, 1, shared, stream, params.as_ptr(), ptr::null())
    }
}

pub enum Arg {
    Ptr(u64),
    U32(u32),
    F32(f32),
}

impl Arg {
    fn address(&self) -> *const c_void {
        match self {
            Arg::Ptr(v) => ptr::from_ref(v).cast(),
            Arg::U32(v) => ptr::from_ref(v).cast(),
            Arg::F32(v) => ptr::from_ref(v).cast(),
        }
    }
}

/// A module as clang writes it, without its instructions. `params`: `u64 f32 u32`.
pub fn ptx(arch: u32, name: &str, params: &str) -> String {
    let version = match arch {
        ..80 => "6.3",
        80..87 => "7.0",
        87..90 => "7.4",
        _ => "7.8",
    };
    let list: Vec<String> =
        params.split_whitespace().enumerate().map(|(i, p)| format!("\t.param .{p} {name}_param_{i}")).collect();
    format!(
        "//\n// Generated by LLVM NVPTX Back-End\n//\n\n.version {version}\n.target sm_{arch}\n.address_size 64\n\n\
         \t// .globl\t{name}\n.visible .entry {name}(\n{}\n)\n.maxntid 256, 1, 1\n{{\n\tret;\n}}\n",
        list.join(",\n")
    )
}
