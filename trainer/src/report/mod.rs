//! What a run looks like: a page for a browser, event files for TensorBoard, a curve for a terminal. All from the rows of
//! `metrics.jsonl` and `summary.json`.

mod charts;
pub mod curve;
mod escape;
pub mod html;
mod scale;
mod svg;
pub mod tensorboard;

use serde::{Deserialize, Serialize};

/// What the rows do not say of a run: `summary.json` in its folder. Text is as it came; the page escapes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSummary {
    pub title: String,
    /// (name, value) of the job.
    pub settings: Vec<(String, String)>,
    /// (what, how much) of the memory plan.
    pub memory: Vec<(String, String)>,
    /// (name, before, after).
    pub scores: Vec<(String, String, String)>,
    /// (prompt, before, after).
    pub answers: Vec<(String, String, String)>,
    pub notes: Vec<String>,
}
