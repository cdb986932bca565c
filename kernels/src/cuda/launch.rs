//! Kernels are launched by name, their arguments checked against the parameters in the PTX.

/// An address on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevicePtr(pub u64);

impl DevicePtr {
    pub const NULL: DevicePtr = DevicePtr(0);

    pub fn offset(self, bytes: usize) -> DevicePtr {
        DevicePtr(self.0 + bytes as u64)
    }

    pub fn is_null(self) -> bool {
        self.0 == 0
    }
}

/// One kernel argument.
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

/// How many threads run a kernel. Blocks are one-dimensional.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchShape {
    pub grid: [u32; 3],
    pub block: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
}
