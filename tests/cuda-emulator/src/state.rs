//! What the driver keeps: contexts, and tables of what it gave handles for.
//!
//! A handle is a number that points nowhere: one that was never given, or was given back, is found out and refused.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Instant;

use crate::environment::environment;
use crate::error::{Error, Result};
use crate::foreign::Kernel;
use crate::graph::Work;
use crate::memory;
use crate::ptx::Ptx;

/// The primary context of a device; its handle is its address.
pub struct Context {
    pub ordinal: usize,
    retained: AtomicUsize,
    /// An error that every later call gives; 0 is none.
    sticky: AtomicU32,
}

pub struct Module {
    pub context: usize,
    pub target: u32,
    pub ptx: Ptx,
}

pub struct Function {
    pub kernel: &'static Kernel,
    pub context: usize,
    pub ptx_version: u32,
    /// What the PTX says, held against the kernel at launch.
    pub param_bytes: Vec<u32>,
    pub max_dynamic_shared: AtomicU32,
    /// Without this the kernel's own arrays count too, and all of it has 48 KiB.
    pub has_asked_for_shared: AtomicBool,
}

pub struct Link {
    pub ptx: Mutex<Option<String>>,
    /// What cuLinkComplete gave: it lives as long as the link.
    pub image: Mutex<Vec<u8>>,
}

#[derive(Default)]
pub struct Stream {
    pub context: usize,
    /// Work recorded so far; `Err` once the capture was broken.
    pub capture: Mutex<Option<Capture>>,
}

pub struct Capture {
    pub works: Result<Vec<Work>>,
    /// The thread whose calls can break it; `None`: those of every thread.
    pub thread: Option<ThreadId>,
    /// The relaxed mode: no call does.
    pub is_relaxed: bool,
    pub id: u64,
}

#[derive(Default)]
pub struct Event {
    pub recorded: Mutex<Option<Instant>>,
    pub is_timed: bool,
}

/// A graph, or one that was made ready.
pub struct Graph(pub Vec<Work>);

/// Things with handles.
pub struct Table<T> {
    entries: Mutex<BTreeMap<usize, Arc<T>>>,
}

impl<T> Table<T> {
    const fn new() -> Self {
        Table { entries: Mutex::new(BTreeMap::new()) }
    }

    pub fn insert(&self, value: T) -> usize {
        // One count for all tables: a module's handle is no stream's.
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let handle = 0x7e00_0000_0000 + 16 * NEXT.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(handle, Arc::new(value));
        handle
    }

    pub fn get(&self, handle: usize) -> Result<Arc<T>> {
        self.lock().get(&handle).cloned().ok_or(Error::INVALID_HANDLE)
    }

    pub fn remove(&self, handle: usize) -> Result<Arc<T>> {
        self.lock().remove(&handle).ok_or(Error::INVALID_HANDLE)
    }

    pub fn find(&self, mut test: impl FnMut(&T) -> bool) -> Option<Arc<T>> {
        self.lock().values().find(|value| test(value)).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Arc<T>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub static MODULES: Table<Module> = Table::new();
pub static FUNCTIONS: Table<Function> = Table::new();
pub static LINKS: Table<Link> = Table::new();
pub static STREAMS: Table<Stream> = Table::new();
pub static EVENTS: Table<Event> = Table::new();
pub static GRAPHS: Table<Graph> = Table::new();
pub static EXECS: Table<Graph> = Table::new();

static READY: AtomicBool = AtomicBool::new(false);
static N_LAUNCHES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static CURRENT: Cell<Option<&'static Context>> = const { Cell::new(None) };
}

fn contexts() -> &'static [Context] {
    static CONTEXTS: OnceLock<Vec<Context>> = OnceLock::new();
    CONTEXTS.get_or_init(|| {
        let new = |ordinal| Context { ordinal, retained: AtomicUsize::new(0), sticky: AtomicU32::new(0) };
        (0..environment().devices.len()).map(new).collect()
    })
}

pub fn set_ready() {
    READY.store(true, Ordering::Release);
}

/// Fails before cuInit.
pub fn check_ready() -> Result<()> {
    READY.load(Ordering::Acquire).then_some(()).ok_or(Error::NOT_INITIALIZED)
}

impl Context {
    pub fn of(ordinal: usize) -> Result<&'static Context> {
        check_ready()?;
        contexts().get(ordinal).ok_or(Error::INVALID_DEVICE)
    }

    /// The context of a handle that is retained.
    pub fn from_handle(handle: usize) -> Result<&'static Context> {
        let found = contexts().iter().find(|c| c.handle() == handle && c.n_retained() > 0);
        found.ok_or(Error::INVALID_CONTEXT)
    }

    pub fn handle(&self) -> usize {
        self as *const Context as usize
    }

    pub fn n_retained(&self) -> usize {
        self.retained.load(Ordering::Relaxed)
    }

    pub fn retain(&self) {
        self.retained.fetch_add(1, Ordering::Relaxed);
    }

    /// The last release gives everything back, and forgets the error.
    pub fn release(&self) -> Result<()> {
        match self.retained.load(Ordering::Relaxed) {
            0 => return Err(Error::INVALID_CONTEXT),
            1 => self.reset(),
            n => self.retained.store(n - 1, Ordering::Relaxed),
        }
        Ok(())
    }

    pub fn reset(&self) {
        self.retained.store(0, Ordering::Relaxed);
        self.sticky.store(0, Ordering::Relaxed);
        memory::free_all(self.ordinal);
    }

    pub fn break_with(&self, error: Error) {
        self.sticky.store(error.0, Ordering::Relaxed);
    }

    /// The error that sticks to the context.
    pub fn check(&self) -> Result<()> {
        match self.sticky.load(Ordering::Relaxed) {
            0 => Ok(()),
            code => Err(Error(code)),
        }
    }
}

pub fn set_current(context: Option<&'static Context>) {
    CURRENT.with(|current| current.set(context));
}

pub fn current() -> Option<&'static Context> {
    CURRENT.with(Cell::get)
}

/// The context of this thread, if it has one that works.
pub fn working() -> Result<&'static Context> {
    check_ready()?;
    let context = current().filter(|c| c.n_retained() > 0).ok_or(Error::INVALID_CONTEXT)?;
    context.check()?;
    Ok(context)
}

/// Counts a launch; true for the one that is to lose the device.
pub fn launch_is_lost() -> bool {
    N_LAUNCHES.fetch_add(1, Ordering::Relaxed) + 1 == environment().lose_after
}

/// A call that may not be made while a stream captures, unless in the relaxed mode: it breaks the capture.
pub fn check_no_capture() -> Result<()> {
    let me = thread::current().id();
    let minds = |c: &Capture| !c.is_relaxed && c.thread.is_none_or(|thread| thread == me);
    match STREAMS.find(|s| lock(&s.capture).as_ref().is_some_and(minds)) {
        None => Ok(()),
        Some(stream) => {
            break_capture(&stream);
            Err(Error::STREAM_CAPTURE_UNSUPPORTED)
        }
    }
}

pub fn break_capture(stream: &Stream) {
    if let Some(capture) = lock(&stream.capture).as_mut() {
        capture.works = Err(Error::STREAM_CAPTURE_INVALIDATED);
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does the work, or adds it to the capture of the stream. Null, 1 and 2 are the streams that need no creating.
pub fn enqueue(stream: usize, context: &Context, work: Work) -> Result<()> {
    if stream > 2 {
        let stream = STREAMS.get(stream)?;
        if stream.context != context.handle() {
            return Err(Error::INVALID_CONTEXT);
        }
        let mut capture = lock(&stream.capture);
        if let Some(capture) = capture.as_mut() {
            let works = capture.works.as_mut().map_err(|_| Error::STREAM_CAPTURE_INVALIDATED)?;
            works.push(work);
            return Ok(());
        }
    } else if let Some(capturing) = STREAMS.find(|s| lock(&s.capture).is_some()) {
        break_capture(&capturing);
        return Err(Error::STREAM_CAPTURE_IMPLICIT);
    }
    run(context, &work)
}

/// What a kernel does wrong shows in the calls after the launch, as it would on a device.
pub fn run(context: &Context, work: &Work) -> Result<()> {
    if matches!(work, Work::Launch(_)) && launch_is_lost() {
        context.break_with(Error::LAUNCH_FAILED);
        return Err(Error::LAUNCH_FAILED);
    }
    // SAFETY:
    // - Whoever made the work checked its addresses.
    if let Err(error) = unsafe { work.run() } {
        context.break_with(error);
    }
    Ok(())
}
