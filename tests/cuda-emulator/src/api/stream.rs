//! Streams and events. Everything has happened by the time a call returns, so waiting is only a check.

use std::ffi::c_int;
use std::sync::Mutex;
use std::time::Instant;

use super::{answer, put};
use crate::error::{Error, Result};
use crate::state::{self, Event, Stream, EVENTS, STREAMS};

const EVENT_DISABLE_TIMING: u32 = 2;

#[no_mangle]
pub extern "C" fn cuStreamCreate(stream: *mut usize, flags: u32) -> u32 {
    answer(|| {
        let context = state::working()?;
        if flags > 1 {
            return Err(Error::INVALID_VALUE);
        }
        put(stream, STREAMS.insert(Stream { context: context.handle(), capture: Mutex::new(None) }))
    })
}

#[no_mangle]
pub extern "C" fn cuStreamCreateWithPriority(stream: *mut usize, flags: u32, _priority: c_int) -> u32 {
    cuStreamCreate(stream, flags)
}

#[no_mangle]
pub extern "C" fn cuStreamDestroy_v2(stream: usize) -> u32 {
    answer(|| {
        state::check_ready()?;
        STREAMS.remove(stream).map(|_| ())
    })
}

/// A stream that records cannot be waited for.
fn check_idle(stream: usize) -> Result<()> {
    state::working()?;
    if stream <= 2 {
        return state::check_no_capture();
    }
    let stream = STREAMS.get(stream)?;
    if state::lock(&stream.capture).is_some() {
        state::break_capture(&stream);
        return Err(Error::STREAM_CAPTURE_UNSUPPORTED);
    }
    Ok(())
}

#[no_mangle]
pub extern "C" fn cuStreamSynchronize(stream: usize) -> u32 {
    answer(|| check_idle(stream))
}

#[no_mangle]
pub extern "C" fn cuStreamQuery(stream: usize) -> u32 {
    answer(|| check_idle(stream))
}

#[no_mangle]
pub extern "C" fn cuStreamWaitEvent(stream: usize, event: usize, _flags: u32) -> u32 {
    answer(|| {
        state::working()?;
        EVENTS.get(event)?;
        if stream > 2 {
            STREAMS.get(stream)?;
        }
        Ok(())
    })
}

#[no_mangle]
pub extern "C" fn cuEventCreate(event: *mut usize, flags: u32) -> u32 {
    answer(|| {
        state::working()?;
        let is_timed = flags & EVENT_DISABLE_TIMING == 0;
        put(event, EVENTS.insert(Event { recorded: Mutex::new(None), is_timed }))
    })
}

#[no_mangle]
pub extern "C" fn cuEventDestroy_v2(event: usize) -> u32 {
    answer(|| {
        state::check_ready()?;
        EVENTS.remove(event).map(|_| ())
    })
}

#[no_mangle]
pub extern "C" fn cuEventRecord(event: usize, stream: usize) -> u32 {
    answer(|| {
        state::working()?;
        let event = EVENTS.get(event)?;
        if stream > 2 && state::lock(&STREAMS.get(stream)?.capture).is_some() {
            return Ok(());
        }
        *state::lock(&event.recorded) = Some(Instant::now());
        Ok(())
    })
}

#[no_mangle]
pub extern "C" fn cuEventQuery(event: usize) -> u32 {
    answer(|| {
        state::working()?;
        EVENTS.get(event).map(|_| ())
    })
}

#[no_mangle]
pub extern "C" fn cuEventSynchronize(event: usize) -> u32 {
    cuEventQuery(event)
}

#[no_mangle]
pub extern "C" fn cuEventElapsedTime(ms: *mut f32, start: usize, end: usize) -> u32 {
    answer(|| {
        state::working()?;
        let time = |event: usize| {
            let event = EVENTS.get(event)?;
            let recorded = *state::lock(&event.recorded);
            recorded.filter(|_| event.is_timed).ok_or(Error::INVALID_HANDLE)
        };
        let (start, end) = (time(start)?, time(end)?);
        put(ms, end.saturating_duration_since(start).as_secs_f32() * 1e3)
    })
}
