//! The signals of all programs. A library installs none: its user's process is not ours. Signal handlers may only touch
//! atomics and call the few functions POSIX names, so all of it is here.
//!
//! SIGTERM is treated as SIGINT (Ctrl-C). Work that saves and resumes catches the first one ([`CatchInterrupts`]), finishes
//! its unit and ends with exit code 0. Work that is lost (an answer, a conversion, a benchmark) ends with 130: at once where
//! nothing is to be cleaned up, else as soon as it is. A second one ends any program at once with 130. SIGPIPE is ignored in
//! programs, as Rust's start-up code has it, and a write to a reader that left is an error like others.
#![allow(unsafe_code)]

use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering};

/// Exit code when the pages of a mapped file are gone (EX_IOERR of sysexits.h).
pub const EXIT_LOST_FILE: i32 = 74;
/// Exit code of a program that SIGINT or SIGTERM ended: 128 + SIGINT.
pub const EXIT_INTERRUPTED: i32 = 130;

/// Maps that can be named. A model of more shards than this is read all the same; a fault in the others is reported
/// without a name.
const N_MAPS: usize = 256;

/// A mapped range and its file's name. Names are leaked: a handler cannot know when a map goes.
struct NamedMap {
    start: AtomicUsize,
    len: AtomicUsize,
    name: AtomicPtr<u8>,
    name_len: AtomicUsize,
}

#[allow(clippy::declare_interior_mutable_const)]
const EMPTY: NamedMap = NamedMap {
    start: AtomicUsize::new(0),
    len: AtomicUsize::new(0),
    name: AtomicPtr::new(std::ptr::null_mut()),
    name_len: AtomicUsize::new(0),
};
static MAPS: [NamedMap; N_MAPS] = [EMPTY; N_MAPS];
static N_NAMED: AtomicUsize = AtomicUsize::new(0);
static HANDLING: AtomicBool = AtomicBool::new(false);

/// The signals that ask a program to end.
const STOP_SIGNALS: [libc::c_int; 2] = [libc::SIGINT, libc::SIGTERM];
/// Whether work is under way that ends by itself after the first of them.
static CATCHING: AtomicBool = AtomicBool::new(false);
/// Which of them came first since [`CatchInterrupts`] was made; 0 for none.
static INTERRUPTED_BY: AtomicI32 = AtomicI32::new(0);
/// What the first one is answered with on standard error; null for nothing.
static NOTE: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static NOTE_LEN: AtomicUsize = AtomicUsize::new(0);

/// What a program does about signals from its start on: SIGINT and SIGTERM end it with exit code 130, and lost files are
/// reported ([`report_lost_files`]). A SIGINT that whoever started the program told it to ignore, as shells do with what runs
/// in the background, stays ignored until [`CatchInterrupts`] asks for it.
pub fn install_in_program() {
    report_lost_files();
    for signal in STOP_SIGNALS {
        if action_of(signal).sa_sigaction != libc::SIG_IGN {
            install(signal, on_stop as *const () as libc::sighandler_t, libc::SA_RESTART);
        }
    }
}

/// Ends the program with code 74 and a sentence that names the file when a page of a mapped file cannot be read: the file
/// was cut short, or its medium was pulled. There is no way back from there.
pub fn report_lost_files() {
    HANDLING.store(true, Ordering::Relaxed);
    install(libc::SIGBUS, on_lost_page as *const () as libc::sighandler_t, libc::SA_SIGINFO);
}

/// Tells the handler what a range of memory is. Does nothing in programs that did not ask for [`report_lost_files`].
pub(crate) fn name_map(path: &Path, bytes: &[u8]) {
    if !HANDLING.load(Ordering::Relaxed) {
        return;
    }
    let i = N_NAMED.fetch_add(1, Ordering::Relaxed);
    let Some(map) = MAPS.get(i) else { return };
    let name = Box::leak(crate::escape::escape(&String::from_utf8_lossy(path.as_os_str().as_bytes())).into_boxed_str());
    map.start.store(bytes.as_ptr() as usize, Ordering::Relaxed);
    map.name_len.store(name.len(), Ordering::Relaxed);
    map.name.store(name.as_mut_ptr(), Ordering::Relaxed);
    // The length makes the entry valid, so it is stored last.
    map.len.store(bytes.len(), Ordering::Release);
}

/// While one lives, the first SIGINT or SIGTERM sets a flag, and the second ends the program with exit code 130. One lives at
/// a time. Afterwards both signals do what they did before.
pub struct CatchInterrupts {
    before: [libc::sigaction; STOP_SIGNALS.len()],
}

impl CatchInterrupts {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        INTERRUPTED_BY.store(0, Ordering::Relaxed);
        CATCHING.store(true, Ordering::Relaxed);
        let before = STOP_SIGNALS.map(action_of);
        for signal in STOP_SIGNALS {
            install(signal, on_stop as *const () as libc::sighandler_t, libc::SA_RESTART);
        }
        CatchInterrupts { before }
    }

    /// The same, and the first signal is answered at once with a line on standard error.
    pub fn with_note(note: &'static str) -> Self {
        // A line of progress may stand where it is written.
        let clear = if std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
        // Leaked, as a handler cannot know when it goes: a program asks for one.
        let line = Box::leak(format!("{clear}{note}\n").into_boxed_str());
        NOTE_LEN.store(line.len(), Ordering::Relaxed);
        NOTE.store(line.as_mut_ptr(), Ordering::Release);
        CatchInterrupts::new()
    }

    /// Whether a signal came since the guard was made.
    pub fn interrupted(&self) -> bool {
        INTERRUPTED_BY.load(Ordering::Relaxed) != 0
    }

    /// Whether it was SIGTERM: meant for the program, where Ctrl-C may be meant for what it is doing.
    pub fn terminated(&self) -> bool {
        INTERRUPTED_BY.load(Ordering::Relaxed) == libc::SIGTERM
    }
}

impl Drop for CatchInterrupts {
    fn drop(&mut self) {
        for (signal, action) in STOP_SIGNALS.iter().zip(&self.before) {
            set_action(*signal, action);
        }
        NOTE.store(std::ptr::null_mut(), Ordering::Relaxed);
        CATCHING.store(false, Ordering::Relaxed);
    }
}

/// What the process does about a signal now.
fn action_of(signal: libc::c_int) -> libc::sigaction {
    // SAFETY:
    // - All zeros is a valid sigaction: no flags, an empty mask, the default handler.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY:
    // - No new action is given, and the old one is written to a live value.
    unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
    action
}

fn install(signal: libc::c_int, handler: libc::sighandler_t, flags: libc::c_int) {
    // SAFETY:
    // - All zeros is a valid sigaction: no flags, an empty mask, the default handler.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    set_action(signal, &action);
}

fn set_action(signal: libc::c_int, action: &libc::sigaction) {
    // SAFETY:
    // - `action` is initialised and outlives the call; the old action is not asked for.
    // - All handlers of this file call async-signal-safe functions only.
    unsafe { libc::sigaction(signal, action, std::ptr::null_mut()) };
}

extern "C" fn on_stop(signal: libc::c_int) {
    let is_first = INTERRUPTED_BY.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    if !is_first || !CATCHING.load(Ordering::Relaxed) {
        // SAFETY:
        // - _exit is async-signal-safe.
        unsafe { libc::_exit(EXIT_INTERRUPTED) };
    }
    let note = NOTE.load(Ordering::Acquire);
    if !note.is_null() {
        // SAFETY:
        // - errno is this thread's own. Whoever was interrupted may be about to read it, and a write changes it.
        let errno = unsafe { *libc::__errno_location() };
        // SAFETY:
        // - The pointer is that of a leaked string, whose length was stored before it.
        write_stderr(unsafe { std::slice::from_raw_parts(note, NOTE_LEN.load(Ordering::Relaxed)) });
        // SAFETY:
        // - The same.
        unsafe { *libc::__errno_location() = errno };
    }
}

extern "C" fn on_lost_page(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY:
    // - The kernel passes a valid siginfo to a handler installed with SA_SIGINFO, and SIGBUS fills the address.
    let address = unsafe { (*info).si_addr() } as usize;
    write_stderr(b"error: ");
    let found = MAPS.iter().find(|map| {
        let (len, start) = (map.len.load(Ordering::Acquire), map.start.load(Ordering::Relaxed));
        address >= start && address - start < len
    });
    match found {
        Some(map) => {
            let (name, len) = (map.name.load(Ordering::Relaxed), map.name_len.load(Ordering::Relaxed));
            // SAFETY:
            // - The entry is valid (its length is not 0), so name and name_len are those of one leaked string.
            write_stderr(unsafe { std::slice::from_raw_parts(name, len) });
        }
        None => write_stderr(b"a mapped file"),
    }
    write_stderr(b": was cut short or became unreadable while it was in use\n");
    // SAFETY:
    // - _exit is async-signal-safe and does not return.
    unsafe { libc::_exit(EXIT_LOST_FILE) };
}

fn write_stderr(bytes: &[u8]) {
    // SAFETY:
    // - The pointer and length are those of a live slice.
    // - write is async-signal-safe. Whether it succeeds does not matter: the program ends.
    unsafe { libc::write(2, bytes.as_ptr().cast(), bytes.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raise(signal: libc::c_int) {
        // SAFETY:
        // - A signal to this process, which handles it.
        unsafe { libc::raise(signal) };
    }

    #[test]
    fn the_first_signal_is_caught_and_the_actions_return() {
        let before = STOP_SIGNALS.map(|signal| action_of(signal).sa_sigaction);
        for signal in STOP_SIGNALS {
            let interrupts = CatchInterrupts::new();
            assert!(!interrupts.interrupted());
            raise(signal);
            assert!(interrupts.interrupted());
            assert_eq!(interrupts.terminated(), signal == libc::SIGTERM);
            drop(interrupts);
            assert_eq!(STOP_SIGNALS.map(|signal| action_of(signal).sa_sigaction), before);
        }
    }
}
