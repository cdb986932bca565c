//! A training job from its settings (`definition.rs`, `settings.rs`, `job_file.rs`) to a published adapter: checked
//! (`validate.rs`), prepared within a memory plan (`prepare.rs`), run step by step (`run.rs`), saved (`files.rs`, `state.rs`)
//! and compared with the start (`evaluation.rs`).

mod definition;
mod evaluation;
mod files;
mod job_file;
mod observer;
mod outcome;
mod outlook;
mod prepare;
mod run;
mod settings;
mod state;
mod state_format_1;
mod summary;
mod validate;
mod value;

pub use crate::note::Note;
pub use definition::{Job, MemorySettings, Method};
pub use evaluation::{Answer, Scores, Verdict};
pub use job_file::JobFile;
pub use observer::Observer;
pub use outcome::{Ending, Outcome};
pub use prepare::{check_layers, model_bytes, plan_of, PreparedJob};
pub use settings::{JobSetting, JOB_SETTINGS};
pub use state::{State, STATE_FILE};
pub use value::{quoted, targets as parse_targets};

/// The rows of a run, in its folder.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// What the rows do not say of it.
pub const SUMMARY_FILE: &str = "summary.json";
/// Where an adapter comes from and what it was worth, in its checkpoint.
pub const ADAPTER_FILE: &str = "adapter.json";
