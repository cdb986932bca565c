//! The device's primary context and the one stream: who may use them when, and the first failure, which stays.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

use super::driver::{Code, Driver, Handle};
use super::{DeviceError, DeviceInfo};

thread_local! {
    /// The number of the context that is current on this thread; 0 is none. A number and not the driver's handle: a
    /// context opened after this one was released may get the same handle.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

pub(super) struct Context {
    pub driver: &'static Driver,
    pub info: DeviceInfo,
    pub stream: Handle,
    device: i32,
    handle: Handle,
    number: u64,
    failure: OnceLock<DeviceError>,
    turn: Turn,
    /// Things the stream was given, and how many of them were there when it was last waited for.
    n_given: AtomicU64,
    n_waited: AtomicU64,
    /// Waits for something.
    n_waits: AtomicU64,
    is_recording: AtomicBool,
}

impl Context {
    pub fn open(driver: &'static Driver, info: DeviceInfo) -> Result<Context, DeviceError> {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let explain = |code| driver.error(code, "opening the GPU");
        let device = driver.device(info.ordinal).map_err(explain)?;
        // On a small board a wait that spins takes a core from the rest of the program.
        let blocking = info.is_integrated || info.n_sms == 1;
        let handle = driver.retain_context(device, blocking).map_err(explain)?;
        let mut context = Context {
            driver,
            info,
            stream: 0,
            device,
            handle,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            failure: OnceLock::new(),
            turn: Turn::default(),
            n_given: AtomicU64::new(0),
            n_waited: AtomicU64::new(0),
            n_waits: AtomicU64::new(0),
            is_recording: AtomicBool::new(false),
        };
        context.make_current().map_err(explain)?;
        context.stream = driver.create_stream().map_err(explain)?;
        Ok(context)
    }

    /// Makes the context this thread's. Whoever else switches contexts on this thread switches back.
    pub fn make_current(&self) -> Result<(), Code> {
        if CURRENT.get() != self.number {
            self.driver.set_current(self.handle)?;
            CURRENT.set(self.number);
        }
        Ok(())
    }

    /// Runs `work` with the context current and the stream for this thread alone; not after a failure.
    pub fn run<T>(&self, doing: &str, work: impl FnOnce() -> Result<T, Code>) -> Result<T, DeviceError> {
        self.check()?;
        let _turn = self.turn.take();
        self.make_current().and_then(|()| work()).map_err(|code| self.explain(code, doing))
    }

    /// As [`run`](Context::run), for work that the stream gets, whose failure stays.
    pub fn give(&self, doing: impl Fn() -> String, work: impl FnOnce() -> Result<(), Code>) {
        if self.failure.get().is_some() {
            return;
        }
        let _turn = self.turn.take();
        self.n_given.fetch_add(1, Ordering::Relaxed);
        if let Err(code) = self.make_current().and_then(|()| work()) {
            let error = self.driver.error(code, &doing());
            let _ = self.failure.set(error);
        }
    }

    /// What the stream was to get cannot be given to it: that stays.
    pub fn fail(&self, error: DeviceError) {
        let _ = self.failure.set(error);
    }

    /// The sentence for a code. That the context is lost stays, wherever it is noticed.
    pub fn explain(&self, code: Code, doing: &str) -> DeviceError {
        let error = self.driver.error(code, doing);
        if matches!(error, DeviceError::Lost(_)) {
            return self.failure.get_or_init(|| error).clone();
        }
        error
    }

    /// Keeps the stream's order to this thread for as long as the guard lives.
    pub fn take_turn(&self) -> TurnGuard<'_> {
        self.turn.take()
    }

    pub fn check(&self) -> Result<(), DeviceError> {
        self.failure.get().map_or(Ok(()), |e| Err(e.clone()))
    }

    /// Waits for all that the stream was given. Work that fails on the device is noticed here.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.check()?;
        // For the whole wait: a recording that another thread began meanwhile would be spoilt by it.
        let _turn = self.turn.take();
        if self.is_recording() {
            return Err(DeviceError::Other("the GPU cannot be waited for while launches are recorded".into()));
        }
        let n_given = self.n_given.load(Ordering::Relaxed);
        let waited = self.make_current().and_then(|()| self.driver.wait_for_stream(self.stream));
        waited.map_err(|code| {
            let error = self.driver.error(code, "waiting for the GPU");
            self.failure.get_or_init(|| error).clone()
        })?;
        if self.n_waited.fetch_max(n_given, Ordering::Relaxed) < n_given {
            self.n_waits.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// How often the stream was waited for while it had something to do.
    pub fn n_waits(&self) -> u64 {
        self.n_waits.load(Ordering::Relaxed)
    }

    /// Waits if there is anything to wait for, but not inside a recording; what fails is [`check`](Context::check)'s to tell.
    pub fn settle(&self) {
        if self.n_given.load(Ordering::Relaxed) == self.n_waited.load(Ordering::Relaxed) {
            return;
        }
        // A recording of another thread is over when this one gets its turn.
        let turn = self.turn.take();
        let is_recording = self.is_recording();
        drop(turn);
        if !is_recording {
            let _ = self.synchronize();
        }
    }

    /// Something the stream got in a [`run`](Context::run).
    pub fn count_given(&self) {
        self.n_given.fetch_add(1, Ordering::Relaxed);
    }

    pub fn is_recording(&self) -> bool {
        self.is_recording.load(Ordering::Relaxed)
    }

    pub fn set_recording(&self, is: bool) {
        self.is_recording.store(is, Ordering::Relaxed);
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.stream != 0 && self.make_current().is_ok() {
            let _ = self.driver.destroy_stream(self.stream);
        }
        let _ = self.driver.release_context(self.device);
    }
}

/// A lock that its thread may take again: launches inside a recording take it too, and those of other threads wait, or
/// they would be recorded.
#[derive(Default)]
struct Turn {
    holder: Mutex<Option<(ThreadId, u32)>>,
    freed: Condvar,
}

pub(super) struct TurnGuard<'a>(&'a Turn);

impl Turn {
    fn take(&self) -> TurnGuard<'_> {
        let me = thread::current().id();
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match *holder {
                None => *holder = Some((me, 1)),
                Some((thread, depth)) if thread == me => *holder = Some((me, depth + 1)),
                Some(_) => {
                    holder = self.freed.wait(holder).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            }
            return TurnGuard(self);
        }
    }
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        let mut holder = self.0.holder.lock().unwrap_or_else(PoisonError::into_inner);
        *holder = match *holder {
            Some((thread, depth)) if depth > 1 => Some((thread, depth - 1)),
            _ => None,
        };
        if holder.is_none() {
            self.0.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_for_one_thread_and_may_be_taken_twice() {
        let turn = Turn::default();
        let order = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let outer = turn.take();
            scope.spawn(|| {
                let _turn = turn.take();
                order.lock().unwrap().push("other");
            });
            drop(turn.take());
            thread::sleep(std::time::Duration::from_millis(20));
            order.lock().unwrap().push("first");
            drop(outer);
        });
        assert_eq!(*order.lock().unwrap(), ["first", "other"]);
    }
}
