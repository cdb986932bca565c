//! Values of settings as text, which is how flags and files give them: what is accepted, and how it is written.

use std::fmt::{Debug, Display};
use std::str::FromStr;

/// A number between two others, both included. NaN lies nowhere.
///
/// # Errors
/// What is allowed.
pub fn number<T: FromStr + PartialOrd + Display>(text: &str, min: T, max: T) -> Result<T, String> {
    match text.parse::<T>() {
        Ok(value) if value >= min && value <= max => Ok(value),
        _ => Err(format!("{min} to {max}")),
    }
}

/// A number as [`number`] reads it back, in the shortest way.
pub fn shortest(value: impl Debug) -> String {
    format!("{value:?}")
}

/// A size as flags and files give it: `1.5GiB`, `800MiB`, `1000000`.
///
/// # Errors
/// What is allowed.
pub fn bytes(text: &str) -> Result<usize, String> {
    const UNITS: [(&str, f64); 7] = [
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
        ("KB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("B", 1.0),
    ];
    let wrong = || "bytes, or a number with KiB, MiB, GiB, KB, MB or GB, above 0 and at most 1024 GiB".to_string();
    let unit = UNITS.iter().find_map(|(name, factor)| Some((text.strip_suffix(name)?, *factor)));
    let (number, factor) = unit.unwrap_or((text, 1.0));
    // The grammar of floats allows `1e3`, `inf` and `nan`; sizes are plain decimals.
    if !number.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err(wrong());
    }
    let size = number.parse::<f64>().map_err(|_| wrong())? * factor;
    if (1.0..=1024.0 * 1_073_741_824.0).contains(&size) {
        Ok(size as usize)
    } else {
        Err(wrong())
    }
}

/// Numbers and plain words as they are; anything else in quotes, so that its end is seen.
pub fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-._:/".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        value.to_string()
    } else {
        format!("\"{value}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let good = [("1", 1), ("1.5GiB", 1_610_612_736), ("800MiB", 838_860_800), ("2KB", 2000), ("7B", 7)];
        for (text, want) in good {
            assert_eq!(bytes(text), Ok(want), "{text}");
        }
        for text in ["", "0", "-1", "nan", "inf", "1e3", "5XB", "GiB", "1 GiB", "9999999GiB", "18446744073709551616"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_between_two_others() {
        for text in ["nan", "NaN", "inf", "-0.1", "1.1", "", "x", "9223372036854775808"] {
            assert!(number(text, 0.0f32, 1.0).is_err(), "{text}");
            assert!(number(text, 0usize, 9).is_err(), "{text}");
        }
        assert_eq!(number("1", 0.0f32, 1.0), Ok(1.0));
    }
}
