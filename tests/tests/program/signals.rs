//! SIGINT and SIGTERM where work is lost: the program ends with 130, whichever it was, and is not killed by it.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::Duration;

use lichen_tests::programs::{fixture, send, spawn, wait_at_most, Run};

use crate::command;

/// From the signal to the end: a token of this model takes a few milliseconds.
const END_MAX: Duration = Duration::from_secs(20);

#[test]
fn an_answer_that_is_lost_ends_with_130() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut child = spawn(command(&["chat", "--threads", "1", "--device", "cpu"]).stdin(Stdio::piped()));
        // More questions than are answered before the signal comes; it finds the program in an answer or between two.
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all("What is the capital of India?\n".repeat(1000).as_bytes()).expect("a pipe holds as much");
        child.stdout.as_mut().expect("piped").read_exact(&mut [0; 8]).expect("an answer");
        send(&child, signal);
        assert!(wait_at_most(&mut child, END_MAX), "it does not end");
        let ended = Run::from(child.wait_with_output().expect("our child"));
        assert_eq!((ended.code, ended.signal), (Some(130), None), "{ended:?}");
        drop(stdin);
    }
}

#[test]
fn a_benchmark_that_is_lost_ends_with_130() {
    let model = fixture("tiny-gemma3/tiny-gemma3-q8_0.gguf");
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut command =
            command(&["bench", "--model", &model, "--threads", "1", "--repeat", "1000", "--device", "cpu"]);
        let mut child = spawn(command.args(["--prompt-tokens", "200", "--new-tokens", "200"]));
        // Long enough to have begun, and far from done.
        assert!(!wait_at_most(&mut child, Duration::from_millis(500)), "it was over before the signal");
        send(&child, signal);
        assert!(wait_at_most(&mut child, END_MAX), "it does not end");
        let ended = Run::from(child.wait_with_output().expect("our child"));
        assert_eq!((ended.code, ended.signal, ended.stdout.as_str()), (Some(130), None, ""), "{ended:?}");
    }
}
