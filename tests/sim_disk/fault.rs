//! The n-th call fails, once or from then on.

use std::io;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    DiskFull,
    Broken,
    /// Half of what was asked for is moved.
    Short,
    Interrupted,
}

#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub kind: FaultKind,
    /// Counted from 0 since the fault was set.
    pub at: usize,
    pub is_sticky: bool,
}

/// What a call does, as far as faults go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Reads data.
    Moves,
    /// Writes data.
    MovesIn,
    /// Changes names or flushes: a full disk may refuse.
    TakesRoom,
    Other,
}

#[derive(Debug, Clone, Default)]
pub struct Faults {
    pub fault: Option<Fault>,
    pub n_calls: usize,
    pub n_hits: usize,
}

/// A system call is not interrupted for ever.
const INTERRUPTIONS_MAX: usize = 20;

impl Faults {
    /// Counts a call. True when it shall move half of its bytes.
    pub fn call(&mut self, call: Call) -> io::Result<bool> {
        let number = self.n_calls;
        self.n_calls += 1;
        let Some(fault) = self.fault else { return Ok(false) };
        if number < fault.at || (number > fault.at && !fault.is_sticky) {
            return Ok(false);
        }
        let moves = matches!(call, Call::Moves | Call::MovesIn);
        let applies = match fault.kind {
            FaultKind::DiskFull => matches!(call, Call::MovesIn | Call::TakesRoom),
            FaultKind::Broken => true,
            FaultKind::Short => moves,
            FaultKind::Interrupted => self.n_hits < INTERRUPTIONS_MAX,
        };
        if !applies {
            return Ok(false);
        }
        self.n_hits += 1;
        match fault.kind {
            FaultKind::DiskFull => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            FaultKind::Broken => Err(io::Error::from_raw_os_error(libc::EIO)),
            FaultKind::Interrupted => Err(io::Error::from_raw_os_error(libc::EINTR)),
            FaultKind::Short => Ok(true),
        }
    }
}
