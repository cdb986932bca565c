//! What an engine tells of its requests.

use crate::engine::answer::{Answer, Clamped, TokenLogprobs};
use crate::error::Error;

/// The engine's name for a request; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What happens to a request, in this order: `Started`, any number of `Text`, then `Done` or `Failed`. One that is cancelled
/// or fails before its turn comes, or asks for no tokens, has the last alone.
#[derive(Debug)]
pub enum Event<'a> {
    /// It has a slot, and its prompt is being computed.
    Started {
        id: RequestId,
        prompt_tokens: usize,
        /// Of these, how many were held from before.
        reused_tokens: usize,
        clamped: &'a [Clamped],
    },
    /// Text that is certain: whole characters, no part of a stop string.
    Text {
        id: RequestId,
        text: &'a str,
        /// Of the tokens since the text before, where they were asked for.
        logprobs: &'a [TokenLogprobs],
    },
    Done {
        id: RequestId,
        answer: Answer,
    },
    /// This request alone cannot go on; the others do.
    Failed {
        id: RequestId,
        error: Error,
    },
}

/// Where events go.
pub type OnEvent<'a> = dyn FnMut(Event<'_>) + 'a;
