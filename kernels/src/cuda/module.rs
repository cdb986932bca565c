//! Loads the kernels of one architecture: machine code from the cache, or from the driver's compiler.
//!
//! All of them, when a device is opened: a launch inside a recording must not load, a fault in a kernel shows at the start
//! and not in the middle of an answer, and from the cache a module takes about a millisecond.

use std::collections::HashMap;
use std::ffi::CString;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use super::context::Context;
use super::cubin_cache::Entry;
use super::driver::{dotted, Handle};
use super::embed::key;
use super::launch::Kernel;
use super::ptx::{Arch, Module};
use super::DeviceError;

pub(super) struct Loaded {
    pub kernels: HashMap<&'static str, Kernel>,
    pub modules: Vec<Handle>,
    /// Modules that the cache did not have.
    pub n_compiled: usize,
}

/// A module on its way: where its machine code is cached, and that code once it is there.
struct Piece {
    module: &'static Module,
    entry: Option<Entry>,
    cubin: Option<Vec<u8>>,
}

pub(super) fn load(context: &Context, arch: &'static Arch, folder: Option<&Path>) -> Result<Loaded, DeviceError> {
    let mut pieces: Vec<Piece> = arch.modules.iter().map(|module| piece(context, module, folder)).collect();
    let mut n_compiled = compile_missing(context, &mut pieces, folder)?;
    let mut loaded = Loaded { kernels: HashMap::new(), modules: Vec::new(), n_compiled: 0 };
    for piece in &mut pieces {
        let cubin = piece.cubin.take().expect("compiled above");
        let handle = match context.driver.load_module(&cubin) {
            Ok(handle) => handle,
            // Whole, and yet not for this driver: it is made anew, once.
            Err(_) => {
                n_compiled += 1;
                let cubin = compile(context, piece)?;
                let doing = format!("loading the CUDA kernels of {}", piece.module.name);
                context.run(&doing, || context.driver.load_module(&cubin))?
            }
        };
        loaded.modules.push(handle);
        for info in piece.module.kernels {
            let name = CString::new(info.name).expect("an identifier");
            let doing = format!("looking for the kernel {}", info.name);
            let function = context.run(&doing, || context.driver.function(handle, &name))?;
            loaded.kernels.insert(info.name, Kernel::new(info, function));
        }
    }
    Ok(Loaded { n_compiled, ..loaded })
}

/// The key has all that the machine code depends on.
fn piece(context: &Context, module: &'static Module, folder: Option<&Path>) -> Piece {
    let info = &context.info;
    let device = format!("{} {} {}", info.name, info.capability, context.driver.version);
    let key = key(&[&module.key.to_le_bytes(), device.as_bytes()]);
    let entry = folder.map(|folder| Entry::new(folder, module.name, key));
    let cubin = entry.as_ref().and_then(Entry::read);
    Piece { module, entry, cubin }
}

/// Compiles what the cache did not have, a module a thread, and says so: a small board needs its time for it.
fn compile_missing(context: &Context, pieces: &mut [Piece], folder: Option<&Path>) -> Result<usize, DeviceError> {
    let missing: Vec<Mutex<&mut Piece>> = pieces.iter_mut().filter(|p| p.cubin.is_none()).map(Mutex::new).collect();
    if missing.is_empty() {
        return Ok(0);
    }
    let cached = folder.map_or("not cached: no cache folder is known".into(), |f| format!("cached in {}", f.display()));
    let (name, version) = (&context.info.name, dotted(context.driver.version));
    log::warn!("compiling CUDA kernels for {name}, driver {version} (once; {cached})");
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), DeviceError> {
        while let Some(piece) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut piece = piece.lock().expect("each is taken once");
            piece.cubin = Some(compile(context, &piece)?);
        }
        Ok(())
    };
    let n_threads = thread::available_parallelism().map_or(1, usize::from).min(missing.len());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|t| t.join().expect("compiling does not panic")).collect::<Result<Vec<()>, _>>()
    })?;
    log::warn!("compiled {} CUDA modules in {:.1} s", missing.len(), began.elapsed().as_secs_f32());
    Ok(missing.len())
}

fn compile(context: &Context, piece: &Piece) -> Result<Vec<u8>, DeviceError> {
    let name = CString::new(piece.module.name).expect("a path without zeros");
    let doing = format!("compiling the CUDA kernels of {}", piece.module.name);
    // Not in the context's turn: the threads compile side by side.
    context.make_current().map_err(|code| context.explain(code, &doing))?;
    let ptx = CString::new(piece.module.ptx()).expect("PTX has no zero bytes");
    let cubin = context.driver.compile(&ptx, &name).map_err(|(code, log)| {
        if !log.is_empty() {
            log::warn!("{doing}: {log}");
        }
        context.explain(code, &doing)
    })?;
    if let Some(entry) = &piece.entry {
        if let Err(e) = entry.write(&cubin) {
            log::warn!("CUDA kernels are compiled anew at every start: {e}");
        }
    }
    Ok(cubin)
}
