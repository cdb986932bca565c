//! Which layers have an adapter: `all`, or numbers and ranges from 0, `18-25` or `18,20-25`.

use std::fmt;
use std::ops::RangeInclusive;

/// Ranges, ascending and apart from each other; none stands for every layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layers(Vec<RangeInclusive<usize>>);

/// More ranges than any model has layers.
const MAX_RANGES: usize = 1024;

impl Layers {
    /// # Errors
    /// What is allowed.
    pub fn parse(text: &str) -> Result<Layers, String> {
        if text == "all" {
            return Ok(Layers::default());
        }
        let wrong = || "all, or numbers of layers from 0 and ranges of them, such as 18-25 or 18,20-25".to_string();
        let number = |text: &str| text.trim().parse::<u16>().map(usize::from).map_err(|_| wrong());
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last || ranges.len() == MAX_RANGES {
                return Err(wrong());
            }
            ranges.push(first..=last);
        }
        ranges.sort_unstable_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<usize>> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(before) if *range.start() <= before.end() + 1 => {
                    *before = *before.start()..=*before.end().max(range.end());
                }
                _ => merged.push(range),
            }
        }
        Ok(Layers(merged))
    }

    /// Whether every layer is meant, however many there are.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, layer: usize) -> bool {
        self.is_all() || self.0.iter().any(|range| range.contains(&layer))
    }

    /// The first of them.
    pub fn first(&self) -> usize {
        self.0.first().map_or(0, |range| *range.start())
    }

    /// The last one that is named, where some are.
    pub fn last(&self) -> Option<usize> {
        self.0.last().map(|range| *range.end())
    }
}

/// As [`Layers::parse`] reads them.
impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("all");
        }
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            match range.start() == range.end() {
                true => write!(f, "{comma}{}", range.start())?,
                false => write!(f, "{comma}{}-{}", range.start(), range.end())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_written() {
        for (text, shown, contains) in [
            ("all", "all", &[0, 7, 1000][..]),
            ("18-25", "18-25", &[18, 20, 25]),
            ("18,20-25", "18,20-25", &[18, 20, 25]),
            ("20-25, 18", "18,20-25", &[18, 20]),
            ("3,2,1", "1-3", &[1, 2, 3]),
            ("0-4,2-9,5", "0-9", &[0, 9]),
            ("1-9,2-3", "1-9", &[4, 9]),
            ("0", "0", &[0]),
        ] {
            let layers = Layers::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(layers.to_string(), shown);
            assert_eq!(Layers::parse(shown), Ok(layers.clone()));
            assert!(contains.iter().all(|layer| layers.contains(*layer)), "{text}");
            assert!(layers.is_all() || !layers.contains(layers.last().unwrap() + 1), "{text}");
            assert!(layers.first() == 0 || !layers.contains(layers.first() - 1), "{text}");
        }
        for text in ["", "-", "3-", "-3", "5-3", "a", "1,,2", "1-2-3", "70000", "all,1", "1.5"] {
            assert!(Layers::parse(text).is_err(), "{text}");
        }
    }
}
