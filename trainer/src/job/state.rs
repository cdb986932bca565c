//! `state.json`: where a run stands, and what it was started with. Without times, so that equal runs have equal files.

use lichen_runtime::files::adapter_file::BaseRecord;
use lichen_runtime::files::model_source::{ModelIdentity, SameModel};
use lichen_runtime::setting::{ALLOW_OTHER_BASE, MODEL};
use lichen_runtime::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::evaluation::Scores;
use super::settings::JOB_SETTINGS;
use super::state_format_1;
use super::value::loss_on_name;
use crate::data::LossOn;
use crate::setting::{ALLOW_CHANGED_DATA, DATA, LEARNING_RATE, LOSS_ON, PARSE_SPECIAL, RESTART, TRAIN_ON_PROMPT};

pub const STATE_FILE: &str = "state.json";
/// Settings are keyed by their names. Format 1, which keyed them by flags, is read.
const FORMAT: u32 = 2;

/// The state at an optimiser step's end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub format: u32,
    /// Steps taken, skipped ones included.
    pub step: u64,
    /// Updates of the optimiser: steps that were not skipped.
    pub updates: u64,
    /// Samples seen: the next one is this one's turn.
    pub samples: u64,
    pub skips: Skips,
    /// Running mean of the loss.
    pub loss_average: Option<f64>,
    /// The best eval loss so far, and its step.
    pub best: Option<(f64, u64)>,
    /// What the start was worth.
    pub before: Scores,
    /// What must be the same for a run to go on.
    pub base_sha256: String,
    /// What the base is whatever its format; earlier versions did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_identity: Option<String>,
    pub data_sha256: String,
    pub settings: Map<String, Value>,
    /// For people: who computed.
    pub device: String,
    pub version: String,
}

impl State {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = serde_json::to_string_pretty(self).expect("plain data");
        text.push('\n');
        text.into_bytes()
    }

    /// # Errors
    /// Not this program's format.
    pub fn parse(bytes: &[u8]) -> Result<State> {
        let state: State =
            serde_json::from_slice(bytes).map_err(|e| Error::input(format!("{STATE_FILE} cannot be read: {e}")))?;
        let with = |settings| State { format: FORMAT, settings: with_later_settings(settings), ..state.clone() };
        match state.format {
            FORMAT => Ok(with(state.settings.clone())),
            1 => Ok(with(state_format_1::settings(state.settings.clone()))),
            other => Err(Error::input(format!("{STATE_FILE} has format {other}; 1 and {FORMAT} are supported"))),
        }
    }

    pub fn new(
        before: Scores,
        base: &BaseRecord,
        data_sha256: String,
        settings: Map<String, Value>,
        device: String,
    ) -> State {
        State {
            format: FORMAT,
            step: 0,
            updates: 0,
            samples: 0,
            skips: Skips::default(),
            loss_average: None,
            best: None,
            before,
            base_sha256: base.sha256.clone().unwrap_or_default(),
            base_identity: base.identity.as_ref().map(ModelIdentity::to_text),
            data_sha256,
            settings,
            device,
            version: env!("CARGO_PKG_VERSION").to_string(),
        }
    }

    /// The base, as an adapter records it.
    pub fn base(&self) -> BaseRecord {
        let identity = self.base_identity.as_deref().and_then(|text| ModelIdentity::parse(text).ok());
        BaseRecord { sha256: Some(self.base_sha256.clone()), identity }
    }

    /// What there is to say when `now` computes on another kind of device: that is no reason not to go on. Threads, and of
    /// CPUs with the same instructions which one it is, change no bit.
    pub fn changed_device(&self, now: &State) -> Option<String> {
        let kind = |device: &str| device.split(", ").next().unwrap_or_default().to_string();
        let (was, is) = (&self.device, &now.device);
        let is_same = match was.starts_with("cpu") && is.starts_with("cpu") {
            true => kind(was) == kind(is),
            false => was == is,
        };
        (!is_same).then(|| {
            format!("the run was computed on {was} so far, and goes on on {is}: its numbers differ in their last bits from here on")
        })
    }

    /// What there is to say when `now` has the base in another format, or another base that was allowed.
    pub fn changed_base(&self, now: &State) -> Option<String> {
        let (was, is) = (short(&self.base_sha256), short(&now.base_sha256));
        match self.compare_base(now)? {
            SameModel::Yes => Some(format!(
                "the run was started with base model {was}, and {MODEL} {is} is the same in another format: its numbers \
                 differ from here on"
            )),
            SameModel::Other(why) | SameModel::OtherShape(why) => {
                Some(format!("the run was started with base model {was}, and goes on with another, {is}: {why}"))
            }
        }
    }

    /// `None` for the same bytes.
    fn compare_base(&self, now: &State) -> Option<SameModel> {
        if self.base_sha256 == now.base_sha256 {
            return None;
        }
        let parsed = |state: &State| ModelIdentity::parse(state.base_identity.as_deref()?).ok();
        Some(match (parsed(self), parsed(now)) {
            (Some(was), Some(is)) => was.compare(&is),
            _ => SameModel::Other("no more is recorded of it".to_string()),
        })
    }

    /// Refuses to go on with another base, other data or other settings than `now`'s. The same base in another format is
    /// none.
    ///
    /// # Errors
    /// The first difference, with both values.
    pub fn check_same(&self, now: &State, allowed: Allowed) -> Result<()> {
        let (was, is) = (short(&self.base_sha256), short(&now.base_sha256));
        match self.compare_base(now) {
            None | Some(SameModel::Yes) => {}
            Some(SameModel::Other(_)) if allowed.other_base => {}
            Some(SameModel::Other(why)) => {
                return Err(Error::input(format!(
                    "the run was started with base model {was}, and {MODEL} is {is}, another one ({why}): give it the same \
                     model, go on with the other with {ALLOW_OTHER_BASE}, or start over with {RESTART}"
                )));
            }
            Some(SameModel::OtherShape(shapes)) => {
                return Err(Error::input(format!(
                    "the run was started with base model {was}, and {MODEL} is {is}, of another shape ({shapes}): give it \
                     the same model, or start over with {RESTART}"
                )));
            }
        }
        if self.data_sha256 != now.data_sha256 && !allowed.changed_data {
            return Err(Error::input(format!(
                "the run was started with data {}, and {DATA} is {} now: restore it, or go on with the new with \
                 {ALLOW_CHANGED_DATA}",
                short(&self.data_sha256),
                short(&now.data_sha256)
            )));
        }
        for s in JOB_SETTINGS.iter() {
            let Some(value) = now.settings.get(s.setting.name()) else { continue };
            let was = self.settings.get(s.setting.name()).unwrap_or(&Value::Null);
            if was != value {
                let (was, value) = (shown(was), shown(value));
                return Err(Error::input(format!(
                    "the run was started with {} {was}, and now it is {value}: give it the same, or start over with \
                     {RESTART}",
                    s.setting
                )));
            }
        }
        Ok(())
    }
}

/// With the settings that came after the state was written, as they were then.
fn with_later_settings(mut settings: Map<String, Value>) -> Map<String, Value> {
    let learns_all = settings.remove(TRAIN_ON_PROMPT.name()) == Some(Value::Bool(true));
    let loss_on = loss_on_name(if learns_all { LossOn::All } else { LossOn::Answers });
    settings.entry(LOSS_ON.name()).or_insert_with(|| loss_on.into());
    settings.entry(PARSE_SPECIAL.name()).or_insert(Value::Bool(false));
    settings
}

/// What may differ from the job that began a run.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    pub changed_data: bool,
    pub other_base: bool,
}

/// A value as it would be typed.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Twelve digits tell files apart for a person.
fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// Steps whose loss or gradient was not finite.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skips {
    pub total: u64,
    pub in_a_row: u64,
    /// Those among the last [`Skips::WINDOW`] steps.
    pub recent: Vec<u64>,
}

impl Skips {
    const IN_A_ROW_MAX: u64 = 5;
    const WINDOW: u64 = 500;
    /// One in a hundred of the window.
    const RECENT_MAX: usize = 5;

    /// Counts a step that was skipped.
    ///
    /// # Errors
    /// It is the fifth in a row, or more than 1% of the last 500 were.
    pub fn skipped(&mut self, step: u64, why: &str) -> Result<()> {
        self.total += 1;
        self.in_a_row += 1;
        self.recent.push(step);
        self.recent.retain(|s| s + Skips::WINDOW > step);
        let what = if self.in_a_row >= Skips::IN_A_ROW_MAX {
            format!("{} steps in a row were skipped", self.in_a_row)
        } else if self.recent.len() > Skips::RECENT_MAX {
            format!("{} of the last {} steps were skipped", self.recent.len(), Skips::WINDOW)
        } else {
            return Ok(());
        };
        Err(Error::input(format!(
            "step {step}: {why}, and {what}: lower {LEARNING_RATE}, or look at the data and the model"
        )))
    }

    pub fn taken(&mut self) {
        self.in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_came_later_are_as_they_were() {
        for (was, loss_on) in [(Some(true), "all"), (Some(false), "answers"), (None, "answers")] {
            let was = was.map(|on| (TRAIN_ON_PROMPT.name().to_string(), Value::Bool(on)));
            let now = serde_json::json!({"loss_on": loss_on, "parse_special": false});
            assert_eq!(Value::Object(with_later_settings(was.into_iter().collect())), now);
        }
        let own = serde_json::json!({"loss_on": "all", "parse_special": true});
        let Value::Object(settings) = own.clone() else { panic!() };
        assert_eq!(Value::Object(with_later_settings(settings)), own);
    }

    #[test]
    fn five_in_a_row_or_one_percent_of_five_hundred_end_a_run() {
        let mut skips = Skips::default();
        for step in 1..=4 {
            assert!(skips.skipped(step, "the loss is not finite").is_ok());
        }
        skips.taken();
        assert!(skips.skipped(400, "x").is_ok());
        let error = skips.skipped(450, "the loss is not finite").unwrap_err();
        assert_eq!(
            error.message(),
            "step 450: the loss is not finite, and 6 of the last 500 steps were skipped: lower learning_rate, or look at \
             the data and the model"
        );
        let mut skips = Skips::default();
        let in_a_row: Vec<bool> = (1..=5).map(|step| skips.skipped(step, "x").is_ok()).collect();
        assert_eq!(in_a_row, [true, true, true, true, false]);
        let mut spread = Skips::default();
        for step in (1..10_000).step_by(101) {
            assert!(spread.skipped(step, "x").is_ok(), "one in a hundred and one is borne");
            spread.taken();
        }
    }
}
