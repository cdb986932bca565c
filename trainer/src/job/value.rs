//! Values of settings as text, which is how flags and files give them: what is accepted, and how it is written.

use lichen_kernels::Format;
pub use lichen_runtime::setting::value::{bytes, number, quoted, shortest};

use crate::data::{LossOn, Truncation};
use crate::lora::Targets;

/// Names of the seven matrices, in the order of an adapter.
const TARGET_NAMES: [&str; 7] = ["q", "k", "v", "o", "gate", "up", "down"];

/// `all`, or names separated by commas: `q`, or `q_proj` as PEFT calls it.
///
/// # Errors
/// What is allowed.
pub fn targets(text: &str) -> Result<Targets, String> {
    if text == "all" {
        return Ok([true; 7]);
    }
    let mut targets = [false; 7];
    for name in text.split(',') {
        let name = name.trim();
        let short = name.strip_suffix("_proj").unwrap_or(name);
        let wrong = || "all, or some of q,k,v,o,gate,up,down separated by commas".to_string();
        let i = TARGET_NAMES.iter().position(|t| *t == short).ok_or_else(wrong)?;
        targets[i] = true;
    }
    Ok(targets)
}

/// As [`targets`] reads them.
pub fn target_names(targets: &Targets) -> String {
    let names: Vec<&str> = TARGET_NAMES.into_iter().zip(targets).filter_map(|(name, on)| on.then_some(name)).collect();
    match names.len() == TARGET_NAMES.len() {
        true => "all".to_string(),
        false => names.join(","),
    }
}

pub fn float_format(text: &str) -> Result<Format, String> {
    match text {
        "f32" => Ok(Format::F32),
        "bf16" => Ok(Format::BF16),
        _ => Err("f32 or bf16".to_string()),
    }
}

pub fn truncation(text: &str) -> Result<Truncation, String> {
    match text {
        "cut" => Ok(Truncation::Cut),
        "drop" => Ok(Truncation::Drop),
        _ => Err("cut or drop".to_string()),
    }
}

pub fn loss_on(text: &str) -> Result<LossOn, String> {
    match text {
        "answers" => Ok(LossOn::Answers),
        "all" => Ok(LossOn::All),
        _ => Err("answers or all".to_string()),
    }
}

pub fn loss_on_name(loss_on: LossOn) -> String {
    match loss_on {
        LossOn::Answers => "answers".to_string(),
        LossOn::All => "all".to_string(),
    }
}

pub fn truncation_name(truncation: Truncation) -> String {
    match truncation {
        Truncation::Cut => "cut".to_string(),
        Truncation::Drop => "drop".to_string(),
    }
}

/// Milliwatts of `5W` or `5000mW`.
pub fn power(text: &str) -> Result<u32, String> {
    let wrong = || "a power such as 5W or 5000mW, 100 mW to 1000 W".to_string();
    let (number, factor) = match (text.strip_suffix("mW"), text.strip_suffix('W')) {
        (Some(number), _) => (number, 1.0),
        (None, Some(number)) => (number, 1000.0),
        (None, None) => return Err(wrong()),
    };
    let mw = number.trim().parse::<f64>().map_err(|_| wrong())? * factor;
    match (100.0..=1e6).contains(&mw) {
        true => Ok(mw as u32),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers() {
        assert_eq!(power("5W"), Ok(5000));
        assert_eq!(power("7500mW"), Ok(7500));
        for text in ["5", "", "W", "-5W", "nanW", "infW", "1mW", "5kW"] {
            assert!(power(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_of_targets() {
        let some = |on: &[usize]| -> Targets { std::array::from_fn(|i| on.contains(&i)) };
        for (text, want, name) in [
            ("all", some(&[0, 1, 2, 3, 4, 5, 6]), "all"),
            ("q,v", some(&[0, 2]), "q,v"),
            ("down_proj, o", some(&[3, 6]), "o,down"),
        ] {
            assert_eq!(targets(text), Ok(want), "{text}");
            assert_eq!(target_names(&want), name);
        }
        for text in ["", "q,,v", "qq_proj", "ALL"] {
            assert!(targets(text).is_err(), "{text}");
        }
    }
}
