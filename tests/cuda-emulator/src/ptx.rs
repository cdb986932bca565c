//! What a module's PTX says: its target, and its kernels with the sizes of their parameters. The instructions are not read.

use std::collections::BTreeMap;

#[derive(Debug, PartialEq, Eq)]
pub struct Ptx {
    /// 63 is 6.3.
    pub version: u32,
    /// 53 of `.target sm_53`.
    pub target: u32,
    /// `.target sm_90a`: of no later device.
    pub is_exact: bool,
    /// Bytes of each parameter.
    pub entries: BTreeMap<String, Vec<u32>>,
}

/// An error is what the driver's log would say.
pub fn parse(text: &str) -> Result<Ptx, String> {
    let text = without_comments(text);
    let version = word_after(&text, ".version").ok_or("no .version")?;
    let (major, minor) = version.split_once('.').ok_or_else(|| format!("version \"{version}\""))?;
    let number = |t: &str| t.parse::<u32>().map_err(|_| format!("version \"{version}\""));
    let version = number(major)? * 10 + number(minor)?;
    let target = word_after(&text, ".target").ok_or("no .target")?;
    let digits: String = target.trim_start_matches("sm_").chars().take_while(char::is_ascii_digit).collect();
    let is_exact = target.ends_with('a');
    let target = digits.parse().map_err(|_| format!("target \"{target}\""))?;
    let mut entries = BTreeMap::new();
    for (at, _) in text.match_indices(".entry") {
        let rest = text[at + ".entry".len()..].trim_start();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || "_$".contains(c))).ok_or("an .entry without end")?;
        let (name, rest) = rest.split_at(end);
        entries.insert(name.to_string(), params(name, rest.trim_start())?);
    }
    Ok(Ptx { version, target, is_exact, entries })
}

/// The sizes in the parentheses that `rest` begins with, if it does.
fn params(name: &str, rest: &str) -> Result<Vec<u32>, String> {
    let Some(rest) = rest.strip_prefix('(') else { return Ok(Vec::new()) };
    let list = rest.split_once(')').ok_or_else(|| format!("{name}: parameters without end"))?.0;
    let declarations = list.split(',').map(str::trim).filter(|d| !d.is_empty());
    declarations.map(|d| size_of(d).ok_or_else(|| format!("{name}: parameter \"{d}\""))).collect()
}

/// `.param .u64 .ptr .align 1 name` or `.param .align 8 .b8 name[16]`.
fn size_of(declaration: &str) -> Option<u32> {
    let mut words = declaration.split_whitespace();
    if words.next()? != ".param" {
        return None;
    }
    let is_type = |w: &&str| w.len() > 2 && "bufs".contains(&w[1..2]) && w[2..].chars().all(|c| c.is_ascii_digit());
    let bits: u32 = words.find(is_type)?[2..].parse().ok()?;
    let count = match declaration.split_once('[') {
        Some((_, rest)) => rest.split_once(']')?.0.trim().parse().ok()?,
        None => 1,
    };
    Some(bits / 8 * count)
}

fn word_after<'a>(text: &'a str, directive: &str) -> Option<&'a str> {
    let rest = text.split_once(directive)?.1;
    rest.split(|c: char| c.is_whitespace() || c == ',').find(|w| !w.is_empty())
}

fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("/*") {
        out.push_str(&rest[..at]);
        rest = rest[at..].split_once("*/").map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}
