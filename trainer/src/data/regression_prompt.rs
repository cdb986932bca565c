//! Questions that an adapter must still answer: what a run checks before it calls a checkpoint its best.

use std::path::Path;

use lichen_runtime::escape::escape;
use lichen_runtime::files::formats::json_file::Fields;
use lichen_runtime::files::mapped_file::open_regular;
use lichen_runtime::{Error, Result};
use serde_json::Value;

use super::row::{not_json, utf8};
use super::row_reader::{Extent, RowReader, ROW_BYTES_MAX};

/// Most questions of a file: each costs an answer at every check.
pub const REGRESSION_PROMPTS_MAX: usize = 1000;

/// A question, and what its greedy answer must contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegressionPrompt {
    pub prompt: String,
    pub expect: String,
    /// Where it stands in its file; the first line is 1.
    pub line: usize,
}

impl RegressionPrompt {
    /// Whether `answer` contains what is expected, in capitals or not.
    pub fn is_met_by(&self, answer: &str) -> bool {
        answer.to_lowercase().contains(&self.expect.to_lowercase())
    }
}

/// Reads a file of `{"prompt": "..", "expect": ".."}`, one per line; other keys are ignored, the last of equal keys
/// counts. BOM, CRLF, blank lines and a missing last line end are accepted.
///
/// # Errors
/// The first row that is not one; none, or more than [`REGRESSION_PROMPTS_MAX`]. A check that cannot fail, or that silently
/// lost some of its questions, would be worse than none.
pub fn read_regression_prompts(path: &Path) -> Result<Vec<RegressionPrompt>> {
    let (file, _) = open_regular(path)?;
    let mut reader = RowReader::new(&file, path)?;
    let mut prompts = Vec::new();
    while let Some(place) = reader.next_row()? {
        let fault = |line: usize, what: &str| Error::input(format!("line {line}: {}", escape(what))).in_file(path);
        match place.extent {
            Extent::Blank => continue,
            Extent::TooLong => return Err(fault(place.line, &format!("longer than {} MiB", ROW_BYTES_MAX >> 20))),
            Extent::Whole if prompts.len() == REGRESSION_PROMPTS_MAX => {
                return Err(fault(place.line, &format!("more than {REGRESSION_PROMPTS_MAX} regression prompts")));
            }
            Extent::Whole => {}
        }
        let value = utf8(reader.bytes(), place.column)
            .and_then(|text| serde_json::from_str::<Value>(text).map_err(|e| not_json(&e, text, place.column)));
        let value = value.map_err(|f| fault(place.line + f.lines_below, &f.what))?;
        prompts.push(regression_prompt(&value, place.line).map_err(|e| fault(place.line, e.message()))?);
    }
    if prompts.is_empty() {
        return Err(Error::input("holds no regression prompts: {\"prompt\": \"..\", \"expect\": \"..\"} on each line")
            .in_file(path));
    }
    Ok(prompts)
}

fn regression_prompt(value: &Value, line: usize) -> Result<RegressionPrompt> {
    let fields = Fields::of(value, "a regression prompt")?;
    let text = |name: &str| match fields.string(name)? {
        None => Err(Error::input(format!("\"{name}\" is missing"))),
        Some(text) if text.trim().is_empty() => Err(Error::input(format!("\"{name}\" is empty"))),
        Some(text) => Ok(text.to_string()),
    };
    Ok(RegressionPrompt { prompt: text("prompt")?, expect: text("expect")?, line })
}
