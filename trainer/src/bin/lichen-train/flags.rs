//! Flags that several subcommands share.

use lichen_trainer::lora::Targets;

/// Names of the seven matrices, in the order of an adapter.
const TARGET_NAMES: [&str; 7] = ["q", "k", "v", "o", "gate", "up", "down"];

/// Which matrices get an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetList(pub Targets);

impl TargetList {
    /// `all`, or names separated by commas: `q`, or `q_proj` as PEFT calls it.
    pub fn parse(text: &str) -> Result<TargetList, String> {
        if text == "all" {
            return Ok(TargetList([true; 7]));
        }
        let mut targets = [false; 7];
        for name in text.split(',') {
            let name = name.trim();
            let short = name.strip_suffix("_proj").unwrap_or(name);
            let wrong = || "all, or some of q,k,v,o,gate,up,down separated by commas".to_string();
            let i = TARGET_NAMES.iter().position(|t| *t == short).ok_or_else(wrong)?;
            targets[i] = true;
        }
        Ok(TargetList(targets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_targets() {
        let some = |on: &[usize]| TargetList(std::array::from_fn(|i| on.contains(&i)));
        for (text, want) in
            [("all", some(&[0, 1, 2, 3, 4, 5, 6])), ("q,v", some(&[0, 2])), ("down_proj, o", some(&[3, 6]))]
        {
            assert_eq!(TargetList::parse(text), Ok(want), "{text}");
        }
        for text in ["", "q,,v", "qq_proj", "ALL"] {
            assert!(TargetList::parse(text).is_err(), "{text}");
        }
    }
}
