//! Patterns of file names, for who gives them quoted or in a file, where no shell expands them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use lichen_runtime::setting::Setting;
use lichen_runtime::{Error, Result};

/// Most files that a pattern may stand for.
const FILES_MAX: usize = 65_536;

/// The files that these paths name, in their order; those of a pattern (`*`, `?`, `[a-z]` in any part of the path) by name. A
/// file whose own name has such characters is taken as it is.
///
/// # Errors
/// A pattern that matches nothing, or too much; a folder.
pub fn find_files(paths: &[PathBuf], setting: Setting) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let inside = path.join("*.jsonl");
            let what = format!("is a folder; its files are given to {setting} as '{}'", inside.display());
            return Err(Error::input(what).in_file(path));
        }
        if !has_pattern(path.as_os_str()) || fs::symlink_metadata(path).is_ok() {
            files.push(path.clone());
            continue;
        }
        let found = matching(path)?;
        if found.is_empty() {
            return Err(Error::input(format!("{setting}: no file matches")).in_file(path));
        }
        files.extend(found);
        if files.len() > FILES_MAX {
            return Err(Error::limit(format!("{setting}: matches more than {FILES_MAX} files")).in_file(path));
        }
    }
    Ok(files)
}

fn has_pattern(name: &OsStr) -> bool {
    name.as_bytes().iter().any(|b| b"*?[".contains(b))
}

/// The files that match, by name.
fn matching(pattern: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let mut next = Vec::new();
        for folder in &found {
            match component {
                Component::Normal(name) if has_pattern(name) => next.extend(entries(folder, name)?),
                // Nothing is opened: what is not there is found to be missing by the next pattern, or at the end.
                other => next.push(folder.join(other)),
            }
            if next.len() > FILES_MAX {
                return Err(Error::limit(format!("matches more than {FILES_MAX} files")).in_file(pattern));
            }
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    Ok(found)
}

/// What in a folder matches, by name; hidden files only where the pattern begins with a point.
fn entries(folder: &Path, pattern: &OsStr) -> Result<Vec<PathBuf>> {
    let place = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Ok(listed) = fs::read_dir(place) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in listed {
        let name = entry.map_err(|e| Error::io(place, &e))?.file_name();
        let is_hidden = name.as_bytes().starts_with(b".") && !pattern.as_bytes().starts_with(b".");
        if !is_hidden && matches(pattern.as_bytes(), name.as_bytes()) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// Whether a name is what a pattern stands for. One star is retried at a time, so the work is at most the product of both.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Behind the last star, and where in the name it is tried next.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n + 1));
                p += 1;
                continue;
            }
            Some(b'[') => class(&pattern[p..], name[n]),
            Some(b'?') => Some(1),
            Some(c) if *c == name[n] => Some(1),
            _ => None,
        };
        match (step, star) {
            (Some(length), _) => (p, n) = (p + length, n + 1),
            (None, Some((behind, next))) => {
                (p, n) = (behind, next);
                star = Some((behind, next + 1));
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// The length of a class such as `[a-z0]` or `[!a]` that holds `byte`. Without a closing bracket it is the character itself.
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let start = 1 + usize::from(negated);
    // A bracket that stands first is a member.
    let Some(end) = pattern.iter().skip(start + 1).position(|b| *b == b']').map(|at| start + 1 + at) else {
        return (byte == b'[').then_some(1);
    };
    let (mut members, mut holds) = (&pattern[start..end], false);
    while let [first, rest @ ..] = members {
        match rest {
            [b'-', last, rest @ ..] => {
                holds |= (*first..=*last).contains(&byte);
                members = rest;
            }
            _ => {
                holds |= *first == byte;
                members = rest;
            }
        }
    }
    (holds != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setting::DATA;

    #[test]
    fn patterns_match_names() {
        let cases = [
            ("*", "", true),
            ("*.jsonl", "a.jsonl", true),
            ("*.jsonl", "a.json", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("?.x", "é.x", false),
            ("??.x", "é.x", true),
            ("a?", "a", false),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[!a-c]x", "dx", true),
            ("[]x]y", "]y", true),
            ("[ax", "[ax", true),
            ("[", "a", false),
            ("**a", "bca", true),
        ];
        for (pattern, name, want) in cases {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), want, "{pattern} {name}");
        }
        assert!(!matches(&b"*a".repeat(50), &b"a".repeat(5000)[..49]));
    }

    #[test]
    fn files_are_found_in_order() {
        let folder = std::env::temp_dir().join(format!("lichen-paths-{}", std::process::id()));
        for name in ["d1/b.jsonl", "d1/a.jsonl", "d2/c.jsonl", "d2/[x].jsonl", "d1/.h.jsonl", "e/n.txt"] {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::create_dir_all(folder.join("d1/folder.jsonl")).unwrap();
        let find = |patterns: &[&str]| {
            let paths: Vec<PathBuf> = patterns.iter().map(|p| folder.join(p)).collect();
            let found = find_files(&paths, DATA).map_err(|e| e.message().replace(folder.to_str().unwrap(), "DIR"))?;
            Ok::<_, String>(
                found
                    .iter()
                    .map(|p| p.strip_prefix(&folder).unwrap().to_str().unwrap().to_string())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(find(&["d?/*.jsonl"]).unwrap(), ["d1/a.jsonl", "d1/b.jsonl", "d2/[x].jsonl", "d2/c.jsonl"]);
        assert_eq!(find(&["d2/[x].jsonl", "none", "*/a.*"]).unwrap(), ["d2/[x].jsonl", "none", "d1/a.jsonl"]);
        assert_eq!(find(&["z/*.jsonl"]), Err("DIR/z/*.jsonl: data: no file matches".to_string()));
        assert_eq!(
            find(&["d1"]),
            Err("DIR/d1: is a folder; its files are given to data as 'DIR/d1/*.jsonl'".to_string())
        );
        fs::remove_dir_all(&folder).unwrap();
    }
}
