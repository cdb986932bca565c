//! The settings of a request, a line each: flags of `chat` and `generate` and keys of a line of prompts.

use super::Request;
use crate::limits::COUNT_MAX;
use crate::sampler::{REPEAT_PENALTY_MAX, REPEAT_PENALTY_MIN, TEMPERATURE_MAX};
use crate::setting::table::Entry;
use crate::setting::{
    IGNORE_EOS, MAX_NEW_TOKENS, MIN_P, PARSE_SPECIAL, REPEAT_LAST_N, REPEAT_PENALTY, SEED, STOP, SYSTEM, TEMPERATURE,
    TOP_K, TOP_P,
};
use crate::setting_access as access;

/// Every setting of a request beside its prompt, in the order of help.
#[rustfmt::skip]
pub static REQUEST_SETTINGS: [Entry<Request>; 12] = [
    Entry::new(SEED, "N", "Random seed [default: another one every time]", access!(optional_number sampling.seed, 0, u64::MAX)),
    Entry::new(TEMPERATURE, "T", "Divides the logits, before top-k, top-p and min-p in that order, as in transformers; 0 takes the most probable token every time [default: the model's own, as in generation_config.json, else its family's]", access!(optional_number sampling.temperature, 0.0, TEMPERATURE_MAX)),
    Entry::new(TOP_K, "K", "Choose among the K most probable tokens; 0 for all", access!(optional_number sampling.top_k, 0, COUNT_MAX)),
    Entry::new(TOP_P, "P", "Choose among the most probable tokens that together have this probability; 1 for all", access!(optional_number sampling.top_p, 0.0, 1.0)),
    Entry::new(MIN_P, "P", "Drop tokens less probable than this fraction of the most probable; 0 for none", access!(optional_number sampling.min_p, 0.0, 1.0)),
    Entry::<Request>::new(REPEAT_PENALTY, "X", "Make recent tokens less probable, before all else; 1 does nothing", access!(optional_number sampling.repeat_penalty, REPEAT_PENALTY_MIN, REPEAT_PENALTY_MAX)).was(&["repetition_penalty"]),
    Entry::new(REPEAT_LAST_N, "N", "How many of the last tokens are recent [default: 64]", access!(optional_number sampling.repeat_last_n, 0, COUNT_MAX)),
    Entry::<Request>::new(MAX_NEW_TOKENS, "N", "Longest answer [default: 512]", access!(optional_number max_new_tokens, 0, COUNT_MAX)).was(&["max_tokens", "max_completion_tokens"]),
    Entry::new(IGNORE_EOS, "", "The model's end tokens do not end the answer", access!(switch ignore_eos)),
    Entry::new(SYSTEM, "TEXT", "Instructions in front of the conversation", access!(text system, |text| Ok::<_, String>(Some(text.to_string())), |it| it.clone())),
    Entry::new(STOP, "TEXT", "End the answer at this text, or at the control token that is written so; may be given several times", access!(texts stop)),
    Entry::new(PARSE_SPECIAL, "", "Control tokens written out in the prompt are tokens, and not text: for prompts that are trusted", access!(switch parse_special)),
];
