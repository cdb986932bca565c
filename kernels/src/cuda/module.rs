//! The kernels of one architecture: machine code from the cache, or from the driver's compiler.
//!
//! A module is loaded when it is wanted: by [`prepare`](Modules::prepare), which compiles what the cache lacks on all cores,
//! or by the first launch of one of its kernels. To compile all of sm_53's takes an x86 core 4 s, and a Jetson Nano's
//! several times that; a model of one weight format needs half of it. From the cache a module takes about a millisecond.

use std::collections::HashMap;
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Instant;

use super::context::Context;
use super::cubin_cache::{self, Entry};
use super::driver::{dotted, Handle};
use super::embed::key;
use super::launch::Kernel;
use super::ptx::{Arch, KernelInfo, Module};
use super::{DeviceError, DeviceInfo};

pub(super) struct Modules {
    slots: Vec<Slot>,
    kernels: HashMap<&'static str, Place>,
    folder: Option<PathBuf>,
    n_compiled: AtomicUsize,
    n_late: AtomicUsize,
}

/// A module, and what became of it. It is filled by whoever has the context's turn.
struct Slot {
    module: &'static Module,
    loaded: OnceLock<Loaded>,
}

struct Loaded {
    handle: Handle,
    /// In the module's order.
    kernels: Vec<Kernel>,
}

/// Of sm_90a in PTX 8.0: WGMMA of build.rs.
fn is_wgmma(module: &Module) -> bool {
    module.name.rsplit('/').next().is_some_and(|file| file.starts_with("wgmma_"))
}

/// An H100 or H200, not what came later; and not CUDA 11.8's driver, the one that knows them and not that PTX.
fn runs_wgmma(device: &DeviceInfo) -> bool {
    device.capability == 90 && !(11_000..12_000).contains(&device.driver_version)
}

/// Where a kernel is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    slot: usize,
    index: usize,
    pub info: &'static KernelInfo,
}

/// A module on its way: where its machine code is cached, and that code once it is there.
struct Piece<'a> {
    slot: &'a Slot,
    entry: Option<Entry>,
    cubin: Option<Vec<u8>>,
}

impl Modules {
    /// Loads nothing. Modules that the device or its driver does not take are left out.
    pub fn new(arch: &'static Arch, folder: Option<PathBuf>, device: &DeviceInfo) -> Modules {
        let usable: Vec<&'static Module> = arch.modules.iter().filter(|m| !is_wgmma(m) || runs_wgmma(device)).collect();
        let slots = usable.iter().map(|module| Slot { module, loaded: OnceLock::new() }).collect();
        let places = usable.iter().enumerate().flat_map(|(slot, module)| {
            let kernels = module.kernels.iter().enumerate();
            kernels.map(move |(index, info)| (info.name, Place { slot, index, info }))
        });
        let (n_compiled, n_late) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Modules { slots, kernels: places.collect(), folder, n_compiled, n_late }
    }

    pub fn find(&self, kernel: &str) -> Option<Place> {
        self.kernels.get(kernel).copied()
    }

    /// Modules that the cache did not have.
    pub fn n_compiled(&self) -> usize {
        self.n_compiled.load(Ordering::Relaxed)
    }

    /// Modules that a launch had to load.
    pub fn n_late(&self) -> usize {
        self.n_late.load(Ordering::Relaxed)
    }

    /// The kernel, its module loaded if it was not.
    pub fn kernel(&self, context: &Context, place: Place) -> Result<&Kernel, DeviceError> {
        let slot = &self.slots[place.slot];
        if slot.loaded.get().is_none() {
            context.check()?;
            // In the turn, also while it compiles: the order of launches is that of the calls, and a recording of another
            // thread is over.
            let _turn = context.take_turn();
            if slot.loaded.get().is_none() {
                self.load(context, &[slot])?;
                self.n_late.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(&slot.loaded.get().expect("loaded above").kernels[place.index])
    }

    /// Loads the modules whose names are wanted.
    pub fn prepare(&self, context: &Context, wanted: &dyn Fn(&str) -> bool) -> Result<(), DeviceError> {
        let slots: Vec<&Slot> = self.slots.iter().filter(|s| wanted(s.module.name)).collect();
        self.load(context, &slots)
    }

    fn load(&self, context: &Context, slots: &[&Slot]) -> Result<(), DeviceError> {
        context.check()?;
        let missing = slots.iter().filter(|s| s.loaded.get().is_none());
        let mut pieces: Vec<Piece> = missing.map(|slot| self.piece(context, slot)).collect();
        let Some(first) = pieces.first() else { return Ok(()) };
        refuse_recording(context, first.slot.module)?;
        self.compile_missing(context, &mut pieces)?;
        let _turn = context.take_turn();
        // What the cache had was not compiled on this thread, which may not have met the context yet.
        context.make_current().map_err(|code| context.explain(code, "loading CUDA kernels"))?;
        for piece in &mut pieces {
            // Another thread may have been first.
            if piece.slot.loaded.get().is_none() {
                refuse_recording(context, piece.slot.module)?;
                let loaded = self.load_piece(context, piece)?;
                assert!(piece.slot.loaded.set(loaded).is_ok(), "filled outside the turn");
            }
        }
        Ok(())
    }

    fn load_piece(&self, context: &Context, piece: &mut Piece) -> Result<Loaded, DeviceError> {
        let module = piece.slot.module;
        let cubin = piece.cubin.take().expect("compiled before");
        let handle = match context.driver.load_module(&cubin) {
            Ok(handle) => handle,
            // Whole, and yet not for this driver: it is made anew, once.
            Err(_) => {
                self.n_compiled.fetch_add(1, Ordering::Relaxed);
                let cubin = compile(context, piece)?;
                let doing = format!("loading the CUDA kernels of {}", module.name);
                context.run(&doing, || context.driver.load_module(&cubin))?
            }
        };
        let function = |info: &'static KernelInfo| {
            let name = CString::new(info.name).expect("an identifier");
            let doing = format!("looking for the kernel {}", info.name);
            context.run(&doing, || context.driver.function(handle, &name)).map(|function| Kernel::new(info, function))
        };
        let kernels = module.kernels.iter().map(function).collect::<Result<Vec<_>, _>>();
        match kernels {
            Ok(kernels) => Ok(Loaded { handle, kernels }),
            Err(error) => {
                let _ = context.driver.unload_module(handle);
                Err(error)
            }
        }
    }

    /// The context is current.
    pub fn unload(&mut self, context: &Context) {
        for loaded in self.slots.iter_mut().filter_map(|s| s.loaded.take()) {
            let _ = context.driver.unload_module(loaded.handle);
        }
    }

    /// The key has all that the machine code depends on.
    fn piece<'a>(&self, context: &Context, slot: &'a Slot) -> Piece<'a> {
        let info = &context.info;
        let device = format!("{} {} {}", info.name, info.capability, context.driver.version);
        let key = key(&[&slot.module.key.to_le_bytes(), device.as_bytes()]);
        let entry = self.folder.as_ref().map(|folder| Entry::new(folder, slot.module.name, key));
        let cubin = entry.as_ref().and_then(Entry::read);
        Piece { slot, entry, cubin }
    }

    /// Compiles what the cache did not have, a module a thread, and says so: a small board needs its time for it.
    fn compile_missing(&self, context: &Context, pieces: &mut [Piece]) -> Result<(), DeviceError> {
        let mut missing: Vec<&mut Piece> = pieces.iter_mut().filter(|p| p.cubin.is_none()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        // The longest first, so that the last ones to finish are short.
        missing.sort_by_key(|p| std::cmp::Reverse(p.slot.module.stored_bytes));
        let what = match missing.as_slice() {
            [one] => format!(" ({})", one.slot.module.name),
            _ => String::new(),
        };
        let missing: Vec<Mutex<&mut Piece>> = missing.into_iter().map(Mutex::new).collect();
        let cached = match &self.folder {
            Some(folder) => format!("cached in {}", folder.display()),
            None => "not cached: no cache folder is known".into(),
        };
        let (name, version) = (&context.info.name, dotted(context.driver.version));
        log::warn!("compiling CUDA kernels{what} for {name}, driver {version} (once; {cached})");
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
        let (n, s) = (missing.len(), began.elapsed().as_secs_f32());
        log::warn!("compiled {n} CUDA module{} in {s:.1} s", if n == 1 { "" } else { "s" });
        self.n_compiled.fetch_add(n, Ordering::Relaxed);
        if let Some(folder) = &self.folder {
            cubin_cache::sweep(folder);
        }
        Ok(())
    }
}

/// The driver loads nothing while this thread records. With a turn, this thread is the only one that could.
fn refuse_recording(context: &Context, module: &Module) -> Result<(), DeviceError> {
    let _turn = context.take_turn();
    if !context.is_recording() {
        return Ok(());
    }
    Err(DeviceError::Other(format!(
        "the CUDA kernels of {} cannot be loaded while launches are recorded: they must be prepared, or launched once, \
         before",
        module.name
    )))
}

fn compile(context: &Context, piece: &Piece) -> Result<Vec<u8>, DeviceError> {
    let module = piece.slot.module;
    let name = CString::new(module.name).expect("a path without zeros");
    let doing = format!("compiling the CUDA kernels of {}", module.name);
    // Not in the context's turn: the threads compile side by side.
    context.make_current().map_err(|code| context.explain(code, &doing))?;
    let ptx = CString::new(module.ptx()).expect("PTX has no zero bytes");
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
