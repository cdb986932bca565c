//! The devices the emulator pretends to have.

use crate::environment::environment;
use crate::error::{Error, Result};

/// The first attribute that a CUDA 10.2 driver does not know.
const FIRST_AFTER_10_2: i32 = 106;

/// Compute capability of a device: 53 is 5.3.
pub fn capability(ordinal: usize) -> Result<u32> {
    environment().devices.get(ordinal).copied().ok_or(Error::INVALID_DEVICE)
}

pub fn name(ordinal: usize) -> Result<String> {
    Ok(format!("Lichen emulated sm_{}", capability(ordinal)?))
}

/// Boards whose GPU shares the memory of the CPU.
pub fn is_integrated(capability: u32) -> bool {
    matches!(capability, 53 | 62 | 72 | 87)
}

/// Shared memory a block may ask for.
pub fn shared_optin(capability: u32) -> u32 {
    match capability {
        0..=69 => 48 << 10,
        70..=74 => 96 << 10,
        75..=79 => 64 << 10,
        86 | 89 => 99 << 10,
        80..=89 => 163 << 10,
        90..=119 => 227 << 10,
        _ => 99 << 10,
    }
}

/// Few, so that what is launched once per multiprocessor stays quick.
fn n_sms(capability: u32) -> i32 {
    match capability {
        0..=69 => 1,
        70..=79 => 2,
        80..=87 => 3,
        _ => 4,
    }
}

/// CUdevice_attribute.
pub fn attribute(ordinal: usize, attribute: i32) -> Result<i32> {
    let cc = capability(ordinal)?;
    if attribute >= FIRST_AFTER_10_2 {
        return later_attribute(attribute);
    }
    Ok(match attribute {
        1 => 1024,
        2 | 3 => 1024,
        4 => 64,
        5 => i32::MAX,
        6 | 7 => 65535,
        8 => 48 << 10,
        9 => 64 << 10,
        10 => 32,
        11 => i32::MAX,
        12 if cc == 53 => 32768,
        12 | 82 => 65536,
        13 => 921_600,
        14 => 512,
        15 => 1,
        16 => n_sms(cc),
        18 => is_integrated(cc).into(),
        19 => 1,
        31 => 1,
        33 | 34 => 0,
        36 => 1_600_000,
        37 => {
            if is_integrated(cc) {
                64
            } else {
                5120
            }
        }
        38 => {
            if cc < 80 {
                256 << 10
            } else {
                4 << 20
            }
        }
        39 => {
            if cc == 87 {
                1536
            } else {
                2048
            }
        }
        40 => 1,
        41 => 1,
        75 => (cc / 10) as i32,
        76 => (cc % 10) as i32,
        78..=80 => 1,
        81 => shared_optin(cc).max(64 << 10) as i32 + if cc >= 80 { 1 << 10 } else { 0 },
        83 => 1,
        87 => 32,
        91 | 95 => 1,
        97 => shared_optin(cc) as i32,
        ..1 => return Err(Error::INVALID_VALUE),
        // Known, and of no use here.
        _ => 0,
    })
}

/// Known to the drivers that would serve such a device, when the environment asks for one of them.
fn later_attribute(attribute: i32) -> Result<i32> {
    match attribute {
        // Blocks per multiprocessor, bytes a block keeps for the system.
        106 if environment().driver_version >= 11000 => Ok(16),
        111 if environment().driver_version >= 11000 => Ok(1 << 10),
        107..=120 if environment().driver_version >= 11020 => Ok(0),
        _ => Err(Error::INVALID_VALUE),
    }
}
