//! A job file: the flags of a subcommand as TOML keys. It becomes a command line in front of the one that was typed, so that
//! values are checked by one parser, and what was typed wins.

use std::ffi::OsString;
use std::path::Path;

use clap::CommandFactory;
use lichen_runtime::formats::json_file::{read_text_any, MAX_CONFIG_BYTES};
use lichen_runtime::{suggest, Error, Result};
use toml::de::{DeTable, DeValue};

use crate::Cli;

/// The arguments to parse instead of `typed`: program, subcommand, the file's flags, the typed ones.
///
/// # Errors
/// The file cannot be read, is not TOML, or has a key that is no flag of the subcommand.
pub fn expand(typed: &[OsString], path: &Path) -> Result<Vec<OsString>> {
    let text = read_text_any(path, MAX_CONFIG_BYTES)?;
    let subcommand = typed.get(1).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let flags = flags(&text, &subcommand).map_err(|e| e.in_file(path))?;
    let head = typed.iter().take(2).cloned();
    Ok(head.chain(flags.into_iter().map(OsString::from)).chain(typed.iter().skip(2).cloned()).collect())
}

fn flags(text: &str, subcommand: &str) -> Result<Vec<String>> {
    let line_at = |at: usize| 1 + text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count();
    let table = DeTable::parse(text).map_err(|e| {
        let message = e.message().trim_end().replace('\n', ", ");
        Error::input(format!("line {}: {message}", line_at(e.span().map_or(0, |s| s.start))))
    })?;
    let command = Cli::command();
    let known: Vec<String> = command
        .find_subcommand(subcommand)
        .into_iter()
        .flat_map(|c| c.get_arguments())
        .filter_map(|a| a.get_long().map(str::to_string))
        .collect();
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut out = Vec::new();
    for (key, value) in entries {
        let line = line_at(key.span().start);
        let name = key.get_ref().replace('_', "-");
        if !known.contains(&name) {
            let hint = suggest::hint(known.iter().map(String::as_str), &name);
            return Err(Error::input(format!("line {line}: unknown key \"{}\"{hint}", key.get_ref())));
        }
        let flag = format!("--{name}");
        match value.get_ref() {
            DeValue::Boolean(true) => out.push(flag),
            DeValue::Boolean(false) => {}
            other => {
                let value = plain(other).ok_or_else(|| {
                    Error::input(format!(
                        "line {line}: \"{}\" must be a number, a string, true, false or a list",
                        key.get_ref()
                    ))
                })?;
                // One argument, so that a value cannot be taken for a flag.
                out.push(format!("{flag}={value}"));
            }
        }
    }
    Ok(out)
}

/// A value as it would be typed.
fn plain(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(digits) => Some(digits.to_string()),
        DeValue::Float(digits) => Some(digits.to_string()),
        DeValue::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(|item| plain(item.get_ref())).collect();
            items.map(|items| items.join(","))
        }
        DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_flags_in_order() {
        let text =
            "rank = 16\nlearning_rate = 1e-3\ntargets = [\"q\", \"v\"]\nresume = true\nstrict = false\nout = \"a b\"\n";
        let want = ["--rank=16", "--learning-rate=1e-3", "--targets=q,v", "--resume", "--out=a b"];
        assert_eq!(flags(text, "lora").unwrap(), want);
    }

    #[test]
    fn mistakes_name_their_line() {
        let cases = [
            ("rank = 8\nranke = 8\n", "line 2: unknown key \"ranke\" (did you mean \"rank\"?)"),
            ("rank = {a = 1}\n", "line 1: \"rank\" must be a number, a string, true, false or a list"),
            ("weights = \"f32\"\n", "line 1: unknown key \"weights\""),
        ];
        for (text, want) in cases {
            let error = flags(text, "lora").unwrap_err();
            assert!(error.message().starts_with(want), "{text}: {error}");
        }
        assert!(flags("rank = \n", "lora").unwrap_err().message().starts_with("line 1: "));
    }
}
