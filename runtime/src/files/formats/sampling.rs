//! How a model's files say it is sampled from: `generation_config.json` of a folder, `general.sampling.*` of a GGUF file.

use serde_json::Value;

use super::gguf::{Metadata, Value as GgufValue};
use crate::error::{Error, Result};
use crate::limits::COUNT_MAX;
use crate::sampler::{SamplingOverrides, REPEAT_PENALTY_MAX, REPEAT_PENALTY_MIN, TEMPERATURE_MAX};

/// What `generation_config.json` says; null says nothing. `do_sample: false` is greedy, as transformers has it.
///
/// # Errors
/// A value is of another type, or out of range.
pub fn of_generation_config(config: &Value) -> Result<SamplingOverrides> {
    let number = |name: &str, min: f32, max: f32| match config.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => in_range(name, value.as_f64(), &value.to_string(), min, max),
    };
    let is_greedy = match config.get("do_sample") {
        None | Some(Value::Null | Value::Bool(true)) => false,
        Some(Value::Bool(false)) => true,
        Some(other) => return Err(Error::input(format!("do_sample is {other}; true or false expected"))),
    };
    let temperature = number("temperature", 0.0, TEMPERATURE_MAX)?;
    Ok(SamplingOverrides {
        temperature: if is_greedy { Some(0.0) } else { temperature },
        // Some write -1 for all.
        top_k: number("top_k", -1.0, COUNT_MAX as f32)?.map(|k| k.max(0.0) as usize),
        top_p: number("top_p", 0.0, 1.0)?,
        min_p: number("min_p", 0.0, 1.0)?,
        repeat_penalty: number("repetition_penalty", REPEAT_PENALTY_MIN, REPEAT_PENALTY_MAX)?,
        ..SamplingOverrides::default()
    })
}

/// What the metadata of a GGUF file say, in llama.cpp's keys.
///
/// # Errors
/// A value is of another type, or out of range.
pub fn of_metadata(metadata: &Metadata) -> Result<SamplingOverrides> {
    let number = |name: &str, min: f32, max: f32| {
        let key = format!("general.sampling.{name}");
        let Some(value) = metadata.get(&key) else { return Ok(None) };
        let number = match value {
            GgufValue::F32(v) => Some(f64::from(v)),
            GgufValue::F64(v) => Some(v),
            other => other.as_integer().map(|n| n as f64),
        };
        let shown = number.map_or_else(|| format!("a {}", value.value_type().name()), |n| n.to_string());
        in_range(&key, number, &shown, min, max)
    };
    // llama.cpp keeps the whole context for -1.
    let last_n = number("penalty_last_n", -1.0, COUNT_MAX as f32)?;
    Ok(SamplingOverrides {
        // Below 0 it is greedy there, as 0 is.
        temperature: number("temp", -1.0, TEMPERATURE_MAX)?.map(|t| t.max(0.0)),
        top_k: number("top_k", -1.0, COUNT_MAX as f32)?.map(|k| k.max(0.0) as usize),
        top_p: number("top_p", 0.0, 1.0)?,
        min_p: number("min_p", 0.0, 1.0)?,
        repeat_penalty: number("penalty_repeat", REPEAT_PENALTY_MIN, REPEAT_PENALTY_MAX)?,
        repeat_last_n: last_n.map(|n| if n < 0.0 { COUNT_MAX } else { n as usize }),
        seed: None,
    })
}

/// NaN lies nowhere.
fn in_range(name: &str, value: Option<f64>, shown: &str, min: f32, max: f32) -> Result<Option<f32>> {
    match value.map(|value| value as f32) {
        Some(value) if value >= min && value <= max => Ok(Some(value)),
        _ => Err(Error::input(format!("{name} is {shown}; {min} to {max}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn generation_configs_say_how_a_model_is_sampled() {
        let nothing = SamplingOverrides::default();
        let full = json!({"do_sample": true, "temperature": 0.1, "top_k": 20, "top_p": 0.8, "min_p": 0.05,
            "repetition_penalty": 1.1, "eos_token_id": [1]});
        let want = SamplingOverrides {
            temperature: Some(0.1),
            top_k: Some(20),
            top_p: Some(0.8),
            min_p: Some(0.05),
            repeat_penalty: Some(1.1),
            ..nothing
        };
        for (config, want) in [
            (json!(null), nothing),
            (json!({"temperature": null}), nothing),
            (full, want),
            (json!({"do_sample": false, "temperature": 0.6}), SamplingOverrides { temperature: Some(0.0), ..nothing }),
            (json!({"temperature": 0.6}), SamplingOverrides { temperature: Some(0.6), ..nothing }),
            (json!({"top_k": -1}), SamplingOverrides { top_k: Some(0), ..nothing }),
        ] {
            assert_eq!(of_generation_config(&config).unwrap(), want, "{config}");
        }
    }

    #[test]
    fn bad_values_are_named() {
        for (config, want) in [
            (json!({"temperature": "hot"}), "temperature is \"hot\"; 0 to 5"),
            (json!({"temperature": 9}), "temperature is 9; 0 to 5"),
            (json!({"top_p": -0.1}), "top_p is -0.1; 0 to 1"),
            (json!({"top_k": [1]}), "top_k is [1]; -1 to 16777216"),
            (json!({"repetition_penalty": 0}), "repetition_penalty is 0; 0.1 to 10"),
            (json!({"do_sample": 1}), "do_sample is 1; true or false expected"),
        ] {
            assert_eq!(of_generation_config(&config).unwrap_err().message(), want);
        }
    }
}
