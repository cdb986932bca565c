//! Functions of modules, and their launch.

use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::{answer, complain, put};
use crate::error::{Error, Result};
use crate::graph::Work;
use crate::launch::Launch;
use crate::state::{self, Context, Function, FUNCTIONS};
use crate::{device, state::enqueue};

const BLOCK_MAX: u64 = 1024;
/// Static and dynamic shared memory together of a kernel that has not asked for more.
const SHARED_UNASKED: u32 = 48 << 10;
const GRID_YZ_MAX: u32 = 65535;
const REGISTERS: u32 = 65536;

#[no_mangle]
pub extern "C" fn cuFuncGetAttribute(value: *mut c_int, attribute: c_int, function: usize) -> u32 {
    answer(|| {
        let context = state::working()?;
        let function = FUNCTIONS.get(function)?;
        let kernel = function.kernel;
        let target = device::capability(context.ordinal)? as c_int;
        put(
            value,
            match attribute {
                0 => kernel.max_threads as c_int,
                4 => (REGISTERS / (kernel.max_threads * kernel.min_blocks.max(1)).max(1)).min(255) as c_int,
                5 => function.ptx_version as c_int,
                6 => target,
                8 => function.max_dynamic_shared.load(Ordering::Relaxed) as c_int,
                9 => -1,
                1..=3 | 7 => 0,
                _ => return Err(Error::INVALID_VALUE),
            },
        )
    })
}

#[no_mangle]
pub extern "C" fn cuFuncSetAttribute(function: usize, attribute: c_int, value: c_int) -> u32 {
    const MAX_DYNAMIC_SHARED: c_int = 8;
    const CARVEOUT: c_int = 9;
    answer(|| {
        let context = state::working()?;
        let function = FUNCTIONS.get(function)?;
        let limit = device::shared_optin(device::capability(context.ordinal)?);
        match (attribute, u32::try_from(value)) {
            (MAX_DYNAMIC_SHARED, Ok(bytes)) if bytes <= limit => {
                function.max_dynamic_shared.store(bytes, Ordering::Relaxed);
                function.has_asked_for_shared.store(true, Ordering::Relaxed);
                Ok(())
            }
            (CARVEOUT, Ok(0..=100)) => Ok(()),
            (CARVEOUT, _) if value == -1 => Ok(()),
            _ => Err(Error::INVALID_VALUE),
        }
    })
}

/// Blocks that fit a multiprocessor by their threads.
#[no_mangle]
pub extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    n_blocks: *mut c_int,
    function: usize,
    block: c_int,
    _shared_bytes: usize,
) -> u32 {
    answer(|| {
        state::working()?;
        FUNCTIONS.get(function)?;
        put(n_blocks, if (1..=1024).contains(&block) { 2048 / block } else { 0 })
    })
}

/// A launch as the driver would check it, and as no driver checks it: parameter by parameter.
unsafe fn check_params(function: &Function, params: *const *const c_void) -> Result<()> {
    let (name, ptx, ours) = (function.kernel.name(), &function.param_bytes, function.kernel.param_bytes());
    if ptx != ours {
        return Err(complain(&format!(
            "{name}: parameters of {ptx:?} bytes in the PTX, {ours:?} in the emulator's build"
        )));
    }
    if params.is_null() {
        return if ours.is_empty() { Ok(()) } else { Err(complain(&format!("{name}: no parameters"))) };
    }
    // SAFETY:
    // - The list ends with a null pointer, and reading stops there.
    let n = (0..=ours.len()).find(|i| unsafe { (*params.add(*i)).is_null() });
    if n == Some(ours.len()) {
        return Ok(());
    }
    let found = n.map_or_else(|| format!("more than {}", ours.len()), |n| n.to_string());
    Err(complain(&format!("{name}: {found} arguments; the kernel has {} parameters", ours.len())))
}

fn check_shape(function: &Function, grid: [u32; 3], block: [u32; 3], shared_bytes: u32) -> Result<u32> {
    let name = function.kernel.name();
    let threads = block.iter().map(|n| u64::from(*n)).product::<u64>();
    let max = u64::from(function.kernel.max_threads);
    if threads == 0 || grid.contains(&0) || grid[0] > i32::MAX as u32 || grid[1].max(grid[2]) > GRID_YZ_MAX {
        return Err(complain(&format!("{name}: grid {grid:?} of blocks {block:?}")));
    }
    if threads > BLOCK_MAX.min(max) || block[1] != 1 || block[2] != 1 {
        return Err(complain(&format!("{name}: block {block:?}; at most {max} threads in one dimension")));
    }
    let room = function.max_dynamic_shared.load(Ordering::Relaxed);
    if shared_bytes > room {
        return Err(complain(&format!("{name}: {shared_bytes} bytes of shared memory; its attribute allows {room}")));
    }
    Ok(block[0])
}

#[no_mangle]
pub unsafe extern "C" fn cuLaunchKernel(
    function: usize,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared_bytes: u32,
    stream: usize,
    params: *const *const c_void,
    extra: *const *const c_void,
) -> u32 {
    answer(|| {
        let context: &Context = state::working()?;
        let function = FUNCTIONS.get(function)?;
        if function.context != context.handle() {
            return Err(Error::INVALID_CONTEXT);
        }
        if !extra.is_null() {
            return Err(Error::NOT_SUPPORTED);
        }
        let block = check_shape(&function, [grid_x, grid_y, grid_z], [block_x, block_y, block_z], shared_bytes)?;
        // SAFETY:
        // - The caller gives a list that ends with null.
        unsafe { check_params(&function, params) }?;
        let limit = match function.has_asked_for_shared.load(Ordering::Relaxed) {
            true => device::shared_optin(device::capability(context.ordinal)?),
            false => SHARED_UNASKED,
        };
        let shape = [grid_x, grid_y, grid_z, block, shared_bytes];
        // SAFETY:
        // - There are as many parameters as the kernel has, by the check above.
        let launch = unsafe { Launch::new(function.kernel, params, shape, limit) };
        enqueue(stream, context, Work::Launch(Arc::new(launch)))
    })
}
