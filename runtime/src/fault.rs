//! For programs, not for the library's users: what happens when a mapped file is cut short under us, and when somebody
//! presses Ctrl-C. Signal handlers may only touch atomics and call the few functions POSIX names, so all of it is here.
#![allow(unsafe_code)]

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// Exit code when the pages of a mapped file are gone (EX_IOERR of sysexits.h).
pub const EXIT_LOST_FILE: i32 = 74;
/// Exit code of a program ended by Ctrl-C.
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
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

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
    let name =
        Box::leak(crate::display::escape(&String::from_utf8_lossy(path.as_os_str().as_bytes())).into_boxed_str());
    map.start.store(bytes.as_ptr() as usize, Ordering::Relaxed);
    map.name_len.store(name.len(), Ordering::Relaxed);
    map.name.store(name.as_mut_ptr(), Ordering::Relaxed);
    // The length makes the entry valid, so it is stored last.
    map.len.store(bytes.len(), Ordering::Release);
}

/// While one lives, Ctrl-C sets a flag; a second one before the flag was taken ends the program. Without one, Ctrl-C
/// ends the program.
pub struct CatchInterrupts(());

impl CatchInterrupts {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        INTERRUPTED.store(false, Ordering::Relaxed);
        install(libc::SIGINT, on_interrupt as *const () as libc::sighandler_t, libc::SA_RESTART);
        CatchInterrupts(())
    }

    /// Whether Ctrl-C was pressed since the guard was made.
    pub fn interrupted(&self) -> bool {
        INTERRUPTED.load(Ordering::Relaxed)
    }
}

impl Drop for CatchInterrupts {
    fn drop(&mut self) {
        install(libc::SIGINT, libc::SIG_DFL, 0);
    }
}

fn install(signal: libc::c_int, handler: libc::sighandler_t, flags: libc::c_int) {
    // SAFETY:
    // - All zeros is a valid sigaction: no flags, an empty mask, the default handler.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY:
    // - `action` is initialised and outlives the call; the old action is not asked for.
    // - Both handlers call async-signal-safe functions only.
    unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
}

extern "C" fn on_interrupt(_: libc::c_int) {
    if INTERRUPTED.swap(true, Ordering::Relaxed) {
        // SAFETY:
        // - _exit is async-signal-safe.
        unsafe { libc::_exit(EXIT_INTERRUPTED) };
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
