//! `metrics.jsonl`: one JSON object a line for each step, the source of every report. What a step computed comes first
//! and is the same however a run was interrupted; what it cost comes last and is not.

#[cfg(test)]
mod tests;

use std::io::BufReader;
use std::path::Path;

use lichen_runtime::files::formats::json_file;
use lichen_runtime::files::jsonl::{at_line, JsonLines, Line};
use lichen_runtime::files::mapped_file::open_regular;
use lichen_runtime::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// A row is about 300 bytes; only `skipped` has no bound of its own.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Measurements of time and machine, which differ between two runs of one job.
const MEASUREMENTS: [&str; 6] = ["seconds", "tokens_per_s", "rss_bytes", "gpu_bytes", "temperature_c", "power_mw"];

/// One optimiser step. Numbers that are not finite are `null` in the file, and NaN when read back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    /// Counted from 1.
    pub step: u64,
    /// Mean over the labelled tokens of the step.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// Of the eval rows, where this step measured it.
    pub eval_loss: Option<f64>,
    #[serde(deserialize_with = "null_is_nan")]
    pub learning_rate: f64,
    /// Before clipping.
    #[serde(deserialize_with = "null_is_nan")]
    pub grad_norm: f64,
    /// In this step, padding left out.
    pub tokens: u64,
    /// Those of them that the loss is over.
    pub labelled_tokens: u64,
    /// Why the weights were left as they were, with the tensor.
    pub skipped: Option<String>,
    /// Of a GPU: how often a number was infinite or NaN where a product takes f16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overflows: Option<u32>,
    /// From the end of the step before to the end of this one, rests included: they add up to the time of the run.
    #[serde(deserialize_with = "null_is_nan")]
    pub seconds: f64,
    /// Of the step alone, without rests.
    #[serde(deserialize_with = "null_is_nan")]
    pub tokens_per_s: f64,
    pub rss_bytes: u64,
    /// What the run has taken of a GPU's memory, where one computes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_bytes: Option<u64>,
    pub temperature_c: Option<f32>,
    pub power_mw: Option<u32>,
}

impl StepRow {
    /// The row as it stands in the file, with its line break.
    pub fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("numbers and strings");
        line.push('\n');
        line
    }
}

/// Reads every row. A last line without a line break that is not a whole row was cut off while it was written, and is left
/// out.
///
/// # Errors
/// A line is not a row; its number is in the message.
pub fn read(path: &Path) -> Result<Vec<StepRow>> {
    let (file, _) = open_regular(path)?;
    // The line feed counts as a byte of the line.
    let mut lines = JsonLines::new(BufReader::new(file), path, LINE_BYTES_MAX - 1);
    let mut rows = Vec::new();
    while let Some(line) = lines.next()? {
        match parse(&line) {
            Ok(row) => rows.push(row),
            Err(_) if !line.has_line_feed && !line.is_too_long => break,
            Err(what) => return Err(at_line(path, line.number, Error::input(what))),
        }
    }
    Ok(rows)
}

/// A line without what was measured: equal for an interrupted run and one that was not. A line that is no object is
/// returned as it is.
pub fn without_time(line: &str) -> String {
    match serde_json::from_str(line) {
        Ok(Value::Object(fields)) => {
            let kept = fields.into_iter().filter(|(name, _)| !MEASUREMENTS.contains(&name.as_str()));
            Value::Object(kept.collect()).to_string()
        }
        _ => line.to_string(),
    }
}

fn parse(line: &Line) -> std::result::Result<StepRow, String> {
    if line.is_too_long {
        return Err(format!("is longer than {LINE_BYTES_MAX} bytes; a row of metrics is about 300"));
    }
    let text = std::str::from_utf8(line.bytes).map_err(|e| format!("is not UTF-8 from byte {}", e.valid_up_to()))?;
    serde_json::from_str(text.trim_end()).map_err(|e| format!("is not a row of metrics: {}", in_line(&e)))
}

/// `column 9: expected value`; the line of the error is counted in the file.
fn in_line(error: &serde_json::Error) -> String {
    let text = json_file::describe(error);
    text.strip_prefix("line 1 ").map(str::to_string).unwrap_or(text)
}

fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
