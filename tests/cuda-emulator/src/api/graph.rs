//! Capture of a stream, and graphs made of it.

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::{answer, put};
use crate::error::Error;
use crate::state::{self, Capture, Graph, EXECS, GRAPHS, STREAMS};

const CAPTURE_GLOBAL: c_int = 0;
const CAPTURE_RELAXED: c_int = 2;

#[no_mangle]
pub extern "C" fn cuStreamBeginCapture_v2(stream: usize, mode: c_int) -> u32 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    answer(|| {
        state::working()?;
        if !(CAPTURE_GLOBAL..=CAPTURE_RELAXED).contains(&mode) {
            return Err(Error::INVALID_VALUE);
        }
        if stream <= 2 {
            return Err(Error::STREAM_CAPTURE_UNSUPPORTED);
        }
        let stream = STREAMS.get(stream)?;
        let mut capture = state::lock(&stream.capture);
        if capture.is_some() {
            return Err(Error::INVALID_VALUE);
        }
        *capture = Some(Capture {
            works: Ok(Vec::new()),
            thread: (mode != CAPTURE_GLOBAL).then(|| thread::current().id()),
            is_relaxed: mode == CAPTURE_RELAXED,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
        });
        Ok(())
    })
}

#[no_mangle]
pub extern "C" fn cuStreamEndCapture(stream: usize, graph: *mut usize) -> u32 {
    answer(|| {
        put(graph, 0)?;
        let stream = STREAMS.get(stream)?;
        let capture = state::lock(&stream.capture).take().ok_or(Error::INVALID_VALUE)?;
        put(graph, GRAPHS.insert(Graph(capture.works?)))
    })
}

/// 0: none, 1: active, 2: broken.
fn status(stream: usize) -> Result<(c_int, u64), Error> {
    state::working()?;
    if stream <= 2 {
        return Ok((0, 0));
    }
    let stream = STREAMS.get(stream)?;
    let capture = state::lock(&stream.capture);
    Ok(capture.as_ref().map_or((0, 0), |c| (if c.works.is_ok() { 1 } else { 2 }, c.id)))
}

#[no_mangle]
pub extern "C" fn cuStreamIsCapturing(stream: usize, is_capturing: *mut c_int) -> u32 {
    answer(|| put(is_capturing, status(stream)?.0))
}

#[no_mangle]
pub extern "C" fn cuStreamGetCaptureInfo(stream: usize, is_capturing: *mut c_int, id: *mut u64) -> u32 {
    answer(|| {
        let (found, number) = status(stream)?;
        put(is_capturing, found)?;
        put(id, number)
    })
}

/// The 10.2 form: a node and a log for what went wrong.
#[no_mangle]
pub extern "C" fn cuGraphInstantiate(
    exec: *mut usize,
    graph: usize,
    _error_node: *mut usize,
    _log: *mut c_char,
    _log_bytes: usize,
) -> u32 {
    answer(|| {
        state::working()?;
        let works = GRAPHS.get(graph)?.0.clone();
        put(exec, EXECS.insert(Graph(works)))
    })
}

#[no_mangle]
pub extern "C" fn cuGraphLaunch(exec: usize, stream: usize) -> u32 {
    answer(|| {
        let context = state::working()?;
        let exec = EXECS.get(exec)?;
        for work in &exec.0 {
            state::enqueue(stream, context, work.clone())?;
        }
        Ok(())
    })
}

#[no_mangle]
pub extern "C" fn cuGraphDestroy(graph: usize) -> u32 {
    answer(|| {
        state::check_ready()?;
        GRAPHS.remove(graph).map(|_| ())
    })
}

#[no_mangle]
pub extern "C" fn cuGraphExecDestroy(exec: usize) -> u32 {
    answer(|| {
        state::check_ready()?;
        EXECS.remove(exec).map(|_| ())
    })
}
