//! `state.json` of format 1, whose settings were keyed by flags: as format 2 has them.

use serde_json::{Map, Value};

use super::settings::setting_of_name;
use super::value::{shortest, target_names};

/// Full training's format was keyed by a flag that it does not have.
const WEIGHTS_KEY: &str = "--format";

/// The same settings by their present names, with values as [`super::PreparedJob::settings`] writes them.
pub fn settings(old: Map<String, Value>) -> Map<String, Value> {
    let mut settings = Map::new();
    for (key, value) in old {
        let name = match key.as_str() {
            WEIGHTS_KEY => "weights".to_string(),
            flag => flag.trim_start_matches('-').replace('-', "_"),
        };
        let name = setting_of_name(&name).map_or(name, |s| s.setting.name().to_string());
        let value = converted(&name, value);
        settings.insert(name, value);
    }
    // There was no other, and it was not written.
    settings.insert("optimizer".to_string(), "adamw".into());
    settings
}

fn converted(name: &str, value: Value) -> Value {
    match (name, &value) {
        ("targets", Value::Array(on)) => {
            let on: Vec<bool> = on.iter().map(|on| *on == Value::Bool(true)).collect();
            <[bool; 7]>::try_from(on).map_or(value, |on| target_names(&on).into())
        }
        ("truncation" | "weights", Value::String(text)) => text.to_lowercase().into(),
        // No clip was null; now it is 0.
        ("max_grad_norm", Value::Null) => 0.0.into(),
        // These are f32, and were written with the digits that an f64 has.
        ("alpha" | "dropout", Value::Number(number)) => {
            let short = number.as_f64().map(|v| shortest(v as f32)).and_then(|text| text.parse::<Value>().ok());
            short.unwrap_or(value)
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_of_full_training_are_read_by_their_present_names() {
        let old = json!({
            "--over-long": "Drop", "--no-shuffle": true, "--max-steps": null, "--final-rate": 0.5, "--clip": null,
            "--warmup": 10.0, "--format": "BF16"
        });
        let now = json!({
            "truncation": "drop", "no_shuffle": true, "max_steps": null, "min_lr_ratio": 0.5, "max_grad_norm": 0.0,
            "warmup": 10.0, "weights": "bf16", "optimizer": "adamw"
        });
        assert_eq!(Value::Object(settings(old.as_object().unwrap().clone())), now);
    }

    #[test]
    fn settings_of_an_adapter_keep_their_values() {
        let old = json!({
            "--rank": 4, "--alpha": 8.0, "--dropout": 0.10000000149011612, "--batch": 2, "--accumulate": 4,
            "--targets": [true, false, true, false, false, false, false], "--init-adapter": "a1", "--learning-rate": 1e-3
        });
        let now = json!({
            "rank": 4, "alpha": 8.0, "dropout": 0.1, "micro_batch_size": 2, "gradient_accumulation_steps": 4,
            "targets": "q,v", "init_adapter": "a1", "learning_rate": 1e-3, "optimizer": "adamw"
        });
        assert_eq!(Value::Object(settings(old.as_object().unwrap().clone())), now);
    }
}
