//! What can go wrong with a device, each as one sentence.

use std::fmt;

use super::driver::{Code, Driver};

const OUT_OF_MEMORY: Code = 2;
const STUB_LIBRARY: Code = 34;
const NO_DEVICE: Code = 100;
const UNSUPPORTED_PTX_VERSION: Code = 222;
const SYSTEM_DRIVER_MISMATCH: Code = 803;
/// After these nothing works in the context any more: memory errors, illegal instructions, asserts, time-outs, launch
/// failures, uncorrectable ECC errors, a context that is gone.
const LOST: [Code; 11] = [214, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719];

/// A device's failure; it displays as one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceError {
    OutOfMemory {
        needed: usize,
        free: usize,
    },
    NoDriver,
    NoDevice(String),
    OldDriver(String),
    /// Everything on the device is gone, and stays so while the program runs.
    Lost(String),
    Other(String),
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            DeviceError::OutOfMemory { needed, free } => {
                write!(f, "the GPU's memory does not suffice: {} wanted, {} free", sized(*needed), sized(*free))
            }
            DeviceError::NoDriver => f.write_str("no CUDA driver on this machine (libcuda.so was not found)"),
            DeviceError::NoDevice(why)
            | DeviceError::OldDriver(why)
            | DeviceError::Lost(why)
            | DeviceError::Other(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for DeviceError {}

fn sized(bytes: usize) -> String {
    if bytes < 1 << 20 {
        format!("{bytes} bytes")
    } else {
        format!("{:.1} MiB ({bytes} bytes)", bytes as f64 / (1 << 20) as f64)
    }
}

impl Driver {
    /// The sentence for a call that failed; `doing` is what was tried: `launching rmsnorm`. Running out of memory is
    /// [`out_of_memory`](Driver::out_of_memory)'s where the size is known.
    pub(super) fn error(&self, code: Code, doing: &str) -> DeviceError {
        let cause = self.describe(code);
        match code {
            NO_DEVICE => DeviceError::NoDevice("no CUDA device on this machine".into()),
            UNSUPPORTED_PTX_VERSION => {
                let version = super::driver::dotted(self.version);
                DeviceError::OldDriver(format!("{doing}: the CUDA driver, version {version}, is too old for it: {cause}"))
            }
            _ if LOST.contains(&code) => DeviceError::Lost(format!(
                "the GPU stopped working for this program while {doing} ({cause}): what it held is gone, and the program \
                 must be restarted"
            )),
            _ => DeviceError::Other(format!("{doing} failed: {cause}")),
        }
    }

    pub(super) fn is_out_of_memory(code: Code) -> bool {
        code == OUT_OF_MEMORY
    }

    /// Why cuInit failed.
    pub(super) fn start_error(&self, code: Code) -> DeviceError {
        match code {
            STUB_LIBRARY => DeviceError::Other(
                "the libcuda.so that was found is the CUDA toolkit's stub, not a driver: take its folder out of \
                 LD_LIBRARY_PATH"
                    .into(),
            ),
            SYSTEM_DRIVER_MISMATCH => DeviceError::Other(
                "libcuda.so and the NVIDIA driver in the kernel are of different versions: restart the machine".into(),
            ),
            _ => self.error(code, "starting the CUDA driver"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_say_what_is_there() {
        let cases = [
            (DeviceError::NoDriver, "no CUDA driver on this machine (libcuda.so was not found)"),
            (
                DeviceError::OutOfMemory { needed: 3 << 29, free: 512 },
                "the GPU's memory does not suffice: 1536.0 MiB (1610612736 bytes) wanted, 512 bytes free",
            ),
            (DeviceError::Other("launching f failed: CUDA error 1".into()), "launching f failed: CUDA error 1"),
        ];
        for (error, sentence) in cases {
            assert_eq!(error.to_string(), sentence);
        }
    }
}
