//! Kernels are launched by name, their arguments compared with the parameters that the PTX declares.

use std::sync::atomic::{AtomicU32, Ordering};

use super::context::Context;
use super::driver::Handle;
use super::ptx::KernelInfo;

/// An address on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevicePtr(pub u64);

impl DevicePtr {
    pub const NULL: DevicePtr = DevicePtr(0);

    #[must_use]
    pub fn offset(self, bytes: usize) -> DevicePtr {
        DevicePtr(self.0 + bytes as u64)
    }

    pub fn is_null(self) -> bool {
        self.0 == 0
    }
}

/// One argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    Ptr(DevicePtr),
    U32(u32),
    I32(i32),
    U64(u64),
    F32(f32),
}

macro_rules! from {
    ($($t:ty => $variant:ident),*) => {
        $(impl From<$t> for Arg {
            fn from(v: $t) -> Arg {
                Arg::$variant(v)
            }
        })*
    };
}
from!(DevicePtr => Ptr, u32 => U32, i32 => I32, u64 => U64, f32 => F32);

impl Arg {
    fn size(self) -> u32 {
        match self {
            Arg::Ptr(_) | Arg::U64(_) => 8,
            Arg::U32(_) | Arg::I32(_) | Arg::F32(_) => 4,
        }
    }

    /// The value in the first bytes of a word, where the driver reads it.
    fn word(self) -> u64 {
        let small = |b: [u8; 4]| u64::from_ne_bytes([b[0], b[1], b[2], b[3], 0, 0, 0, 0]);
        match self {
            Arg::Ptr(DevicePtr(v)) | Arg::U64(v) => v,
            Arg::U32(v) => small(v.to_ne_bytes()),
            Arg::I32(v) => small(v.to_ne_bytes()),
            Arg::F32(v) => small(v.to_ne_bytes()),
        }
    }
}

/// How many threads run a kernel. Blocks are one-dimensional.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchShape {
    pub grid: [u32; 3],
    pub block: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
}

/// Dynamic shared memory that a kernel may have without asking. The driver's limit is 48 KiB together with the kernel's
/// own arrays; beside dynamic memory those take up to 5 KiB.
const SHARED_BYTES_UNASKED: u32 = 32 << 10;
/// What any device gives a block, so that nothing needs to be asked for in the end.
const SHARED_BYTES_COMMON: u32 = 48 << 10;

/// A kernel that was loaded.
pub(super) struct Kernel {
    pub info: &'static KernelInfo,
    pub function: Handle,
    /// What was asked for so far.
    shared_bytes: AtomicU32,
}

impl Kernel {
    pub fn new(info: &'static KernelInfo, function: Handle) -> Kernel {
        Kernel { info, function, shared_bytes: AtomicU32::new(SHARED_BYTES_UNASKED) }
    }

    /// The shape and the arguments have been [checked](check_args). `is_pdl`: as
    /// [`Cuda::launch_pdl`](super::Cuda::launch_pdl) gives it.
    pub fn launch(&self, context: &Context, shape: LaunchShape, args: &[Arg], is_pdl: bool) {
        let mut words: [u64; ARGS_MAX] = [0; ARGS_MAX];
        for (word, arg) in words.iter_mut().zip(args) {
            *word = arg.word();
        }
        let LaunchShape { grid, block, shared_bytes } = shape;
        let doing = || format!("launching {} (grid {grid:?}, block {block})", self.info.name);
        context.give(doing, || {
            if shared_bytes > self.shared_bytes.load(Ordering::Relaxed) {
                let asked = context.driver.allow_shared_bytes(self.function, shared_bytes);
                // Where it was not necessary a refusal does no harm: the launch itself says whether it was.
                asked.or_else(|code| if shared_bytes > SHARED_BYTES_COMMON { Err(code) } else { Ok(()) })?;
                self.shared_bytes.store(shared_bytes, Ordering::Relaxed);
            }
            let words = &mut words[..args.len()];
            context.driver.launch(self.function, shape, is_pdl, context.stream, words)
        });
    }
}

/// Three products at once have 34.
pub(super) const ARGS_MAX: usize = 40;

/// A launch that does not fit its kernel is a fault of this program.
pub(super) fn check_args(kernel: &KernelInfo, shape: LaunchShape, args: &[Arg]) {
    let name = kernel.name;
    let given: Vec<u32>;
    let same =
        kernel.param_bytes.len() == args.len() && kernel.param_bytes.iter().zip(args).all(|(b, a)| *b == a.size());
    if !same {
        given = args.iter().map(|a| a.size()).collect();
        panic!("kernel {name}: parameters of {:?} bytes, arguments of {given:?}", kernel.param_bytes);
    }
    assert!(args.len() <= ARGS_MAX, "kernel {name}: {} arguments; at most {ARGS_MAX}", args.len());
    let LaunchShape { grid, block, .. } = shape;
    let block_fits = (1..=kernel.threads_max).contains(&block);
    assert!(block_fits, "kernel {name}: a block of {block} threads; 1 to {}", kernel.threads_max);
    // The driver's own limits of y and z; an empty grid would be its error too.
    let grid_fits = grid[0] >= 1 && (1..=65535).contains(&grid[1]) && (1..=65535).contains(&grid[2]);
    assert!(grid_fits && grid[0] <= i32::MAX as u32, "kernel {name}: a grid of {grid:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: KernelInfo =
        KernelInfo { name: "f", param_bytes: &[8, 4], threads_max: 256, blocks_per_sm: 1, static_shared_bytes: 0 };
    const SHAPE: LaunchShape = LaunchShape { grid: [1, 1, 1], block: 256, shared_bytes: 0 };

    fn complaint(shape: LaunchShape, args: &[Arg]) -> String {
        let args = args.to_vec();
        let caught = std::panic::catch_unwind(move || check_args(&KERNEL, shape, &args));
        caught.err().and_then(|e| e.downcast_ref::<String>().cloned()).unwrap_or_default()
    }

    #[test]
    fn launches_are_compared_with_the_kernel() {
        let null = Arg::from(DevicePtr::NULL);
        let cases = [
            (SHAPE, vec![null, 1u32.into()], ""),
            (SHAPE, vec![Arg::U64(1), 1f32.into()], ""),
            (SHAPE, vec![null], "kernel f: parameters of [8, 4] bytes, arguments of [8]"),
            (SHAPE, vec![null, 1u64.into()], "kernel f: parameters of [8, 4] bytes, arguments of [8, 8]"),
            (
                LaunchShape { block: 257, ..SHAPE },
                vec![null, 1i32.into()],
                "kernel f: a block of 257 threads; 1 to 256",
            ),
            (LaunchShape { grid: [0, 1, 1], ..SHAPE }, vec![null, 1i32.into()], "kernel f: a grid of [0, 1, 1]"),
            (
                LaunchShape { grid: [1, 65536, 1], ..SHAPE },
                vec![null, 1i32.into()],
                "kernel f: a grid of [1, 65536, 1]",
            ),
        ];
        for (shape, args, expected) in cases {
            assert_eq!(complaint(shape, &args), expected, "{shape:?} {args:?}");
        }
    }

    #[test]
    fn small_values_stand_in_the_first_bytes() {
        assert_eq!(Arg::I32(-2).word().to_ne_bytes()[..4], (-2i32).to_ne_bytes());
        assert_eq!(Arg::F32(1.5).word().to_ne_bytes()[..4], 1.5f32.to_ne_bytes());
    }
}
