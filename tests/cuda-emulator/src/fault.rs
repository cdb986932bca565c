//! Signals of kernels: accesses outside memory, traps of the compiler's checks.
//!
//! A fault is reported with the kernel, block, thread and address; then the process is aborted. With
//! LICHEN_EMULATOR_FAULT=sticky the thread that faulted is led to [`land`] instead, and the launch fails.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Once;

use crate::block::{self, Thread, Worker};
use crate::environment::environment;
use crate::error::Error;
use crate::{foreign, memory};

const SIGNALS: [c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];
const MISALIGNED: &str = "an access at an address that is no multiple of its size";
const STACK_BYTES: usize = 64 * 1024;

/// What the process did with these signals before.
static mut BEFORE: [Option<libc::sigaction>; 32] = [None; 32];
/// The error of the last fault, where faults stick.
static LAST: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The worker of this thread, while it runs blocks.
    static WORKER: Cell<*const Worker> = const { Cell::new(ptr::null()) };
    /// Where this thread handles signals: a fiber's stack may be what overflowed.
    static STACK: RefCell<Option<HandlerStack>> = const { RefCell::new(None) };
}

struct HandlerStack {
    bytes: Box<[u8]>,
    before: libc::stack_t,
}

impl HandlerStack {
    fn install() -> Self {
        let mut bytes = vec![0u8; STACK_BYTES].into_boxed_slice();
        let stack = libc::stack_t { ss_sp: bytes.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK_BYTES };
        // SAFETY:
        // - The stack lives until `drop` puts the former one back.
        let before = unsafe {
            let mut before = mem::zeroed();
            libc::sigaltstack(&stack, &mut before);
            before
        };
        HandlerStack { bytes, before }
    }
}

impl Drop for HandlerStack {
    fn drop(&mut self) {
        // SAFETY:
        // - The former stack is the thread's own and outlives its thread-local values. No signal is being handled.
        unsafe {
            let mut now: libc::stack_t = mem::zeroed();
            libc::sigaltstack(ptr::null(), &mut now);
            if now.ss_sp == self.bytes.as_mut_ptr().cast() {
                libc::sigaltstack(&self.before, ptr::null_mut());
            }
        }
    }
}

/// Before a thread runs blocks.
pub fn prepare_thread(worker: *const Worker) {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(install);
    STACK.with(|stack| stack.borrow_mut().get_or_insert_with(HandlerStack::install).bytes.len());
    WORKER.with(|cell| cell.set(worker));
}

pub fn leave_thread() {
    WORKER.with(|cell| cell.set(ptr::null()));
}

/// The error of the last fault.
pub fn last() -> Option<Error> {
    Some(LAST.load(Ordering::Relaxed)).filter(|code| *code != 0).map(Error)
}

fn install() {
    for signal in SIGNALS {
        // SAFETY:
        // - The handler touches what is its own, and hands on what is not.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            let mut before = mem::zeroed();
            libc::sigaction(signal, &action, &mut before);
            BEFORE[signal as usize] = Some(before);
        }
    }
}

unsafe extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY:
    // - The slot is this thread's; while it is not null a kernel runs on a fiber of this thread.
    let thread: *mut Thread = unsafe { (*foreign::thread_slot()).cast() };
    if thread.is_null() {
        // SAFETY:
        // - What came is what this handler was given.
        return unsafe { hand_on(signal, info, context) };
    }
    // SAFETY:
    // - The kernel gives the message for the signals of [`SIGNALS`].
    let address = unsafe { (*info).si_addr() } as usize;
    // SAFETY:
    // - The context of a signal handler with SA_SIGINFO.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    // SAFETY:
    // - As above.
    let code = unsafe { (*info).si_code };
    let (error, what) = explain(signal, code, address, context);
    // SAFETY:
    // - The thread runs here.
    eprintln!("lichen emulator: {}: {what}", unsafe { block::place_of(thread) });
    if !environment().faults_stick {
        std::process::abort();
    }
    LAST.store(error.0, Ordering::Relaxed);
    go_to(context, land as *const () as u64);
}

fn explain(signal: c_int, code: c_int, address: usize, context: &libc::ucontext_t) -> (Error, String) {
    // An x86 instruction for aligned operands gives no address.
    const SI_KERNEL: c_int = 128;
    if signal == libc::SIGBUS || (signal == libc::SIGSEGV && code == SI_KERNEL && address == 0) {
        return (Error::MISALIGNED_ADDRESS, MISALIGNED.to_string());
    }
    if signal == libc::SIGSEGV {
        let worker = WORKER.with(Cell::get);
        // SAFETY:
        // - Set while this thread runs blocks.
        if unsafe { worker.as_ref() }.is_some_and(|w| w.is_guard(address)) {
            return (Error::LAUNCH_FAILED, "the stack of its fiber is full".to_string());
        }
        return (Error::ILLEGAL_ADDRESS, format!("access to {address:#x}: {}", memory::describe(address)));
    }
    // The compiler's checks say which they are in the trap's operand.
    match trap_kind(context) {
        Some(18) => (Error::LAUNCH_FAILED, "an index outside its array".to_string()),
        Some(20) => (Error::LAUNCH_FAILED, "a shift by more bits than there are".to_string()),
        Some(22) => (Error::MISALIGNED_ADDRESS, MISALIGNED.to_string()),
        Some(3) => (Error::LAUNCH_FAILED, "an integer division by zero".to_string()),
        _ => (Error::LAUNCH_FAILED, format!("a trap (signal {signal})")),
    }
}

/// The operand of `ud1l kind(%eax), %eax`.
#[cfg(target_arch = "x86_64")]
fn trap_kind(context: &libc::ucontext_t) -> Option<u32> {
    let at = context.uc_mcontext.gregs[libc::REG_RIP as usize] as *const u8;
    // SAFETY:
    // - The instruction that trapped; text is followed by more text or by the unwind tables.
    let bytes = unsafe { std::slice::from_raw_parts(at, 5) };
    (bytes[..4] == [0x67, 0x0f, 0xb9, 0x40]).then(|| u32::from(bytes[4]))
}

/// The operand of `brk #0x5500 + kind`.
#[cfg(target_arch = "aarch64")]
fn trap_kind(context: &libc::ucontext_t) -> Option<u32> {
    // SAFETY:
    // - The instruction that trapped.
    let word = unsafe { *(context.uc_mcontext.pc as *const u32) };
    (word & 0xffe0_001f == 0xd420_0000 && word >> 13 & 0xff == 0x55).then(|| word >> 5 & 0xff)
}

/// The handler returns into `function`, on the stack of the fiber.
#[cfg(target_arch = "x86_64")]
fn go_to(context: &mut libc::ucontext_t, function: u64) {
    let registers = &mut context.uc_mcontext.gregs;
    registers[libc::REG_RIP as usize] = function as i64;
    // Below the red zone, and as a call would leave it.
    let stack = &mut registers[libc::REG_RSP as usize];
    *stack = ((*stack - 256) & !15) - 8;
}

#[cfg(target_arch = "aarch64")]
fn go_to(context: &mut libc::ucontext_t, function: u64) {
    context.uc_mcontext.pc = function;
    context.uc_mcontext.sp = (context.uc_mcontext.sp - 256) & !15;
}

/// Where a fiber that faulted ends.
unsafe extern "C" fn land() -> ! {
    // SAFETY:
    // - The slot's thread runs here, and no switch comes back to it.
    unsafe {
        let thread: *mut Thread = (*foreign::thread_slot()).cast();
        block::give_up(thread);
    }
    std::process::abort()
}

/// What the process would have done without the emulator.
unsafe fn hand_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY:
    // - Written once, before any signal could come here.
    unsafe {
        let Some(before) = BEFORE[signal as usize] else { return };
        match before.sa_sigaction {
            libc::SIG_DFL | libc::SIG_IGN => {
                // The instruction runs again, and the signal takes its course.
                libc::sigaction(signal, &before, ptr::null_mut());
            }
            handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
                let handler: unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = mem::transmute(handler);
                handler(signal, info, context);
            }
            handler => {
                let handler: unsafe extern "C" fn(c_int) = mem::transmute(handler);
                handler(signal);
            }
        }
    }
}
