//! The repository's files, and Rust sources with their strings and comments told apart from code.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold what a build, a fuzzer or an environment made.
const MADE: [&str; 7] = [".git", "target", ".venv", "__pycache__", "corpus", "artifacts", "coverage"];

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Offence {
    pub path: String,
    /// Counted from 1.
    pub line: usize,
    pub what: String,
}

impl Offence {
    pub fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Offence { path: path.to_string(), line, what: what.into() }
    }
}

/// A file of the repository.
pub struct File {
    /// From the root, with `/`.
    pub path: String,
    pub n_bytes: u64,
    /// Empty for what is not UTF-8.
    pub text: String,
}

impl File {
    /// What a self-test plants.
    pub fn planted(path: &str, text: &str) -> Self {
        File { path: path.to_string(), n_bytes: text.len() as u64, text: text.to_string() }
    }

    pub fn has_extension(&self, extensions: &[&str]) -> bool {
        self.path.rsplit_once('.').is_some_and(|(_, e)| extensions.contains(&e))
    }

    /// Integration tests, unit tests in files of their own, and what serves only them.
    pub fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository's root")
}

/// Every file a checkout holds, in order.
pub fn files() -> Vec<File> {
    let root = root();
    let mut files = Vec::new();
    collect(&root, &root, &mut files);
    assert!(files.len() > 100, "{} files under {}", files.len(), root.display());
    files
}

/// Names at the root, without what a build made.
pub fn root_names() -> Vec<String> {
    let names = fs::read_dir(root()).expect("readable").map(|e| e.expect("readable").file_name());
    names.map(|n| n.to_string_lossy().into_owned()).filter(|n| !MADE.contains(&n.as_str())).collect()
}

fn collect(root: &Path, dir: &Path, files: &mut Vec<File>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).expect("readable").map(|e| e.expect("readable").path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
        if MADE.contains(&name.as_str()) || name.ends_with(".swp") {
            continue;
        }
        let meta = fs::symlink_metadata(&path).expect("readable");
        if meta.is_dir() {
            collect(root, &path, files);
            continue;
        }
        let relative = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
        let bytes = if meta.is_file() { fs::read(&path).expect("readable") } else { Vec::new() };
        let text = String::from_utf8(bytes).unwrap_or_default();
        files.push(File { path: relative, n_bytes: meta.len(), text });
    }
}

/// A Rust source as two texts with the line breaks of the file.
pub struct Split {
    /// Strings, characters and comments are blank.
    pub code: String,
    /// All but comments is blank.
    pub comments: String,
}

/// Tells code from comments and strings: enough of the language for the sources here.
pub fn split(text: &str) -> Split {
    let mut out = Split { code: String::new(), comments: String::new() };
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (len, kind) = match c {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), Kind::Comment),
            '/' if rest.starts_with("/*") => (block_comment(rest), Kind::Comment),
            '"' => (string(rest), Kind::Text),
            '\'' => match character(rest) {
                Some(len) => (len, Kind::Text),
                None => (1, Kind::Code),
            },
            _ => match raw_string(rest) {
                Some(len) => (len, Kind::Text),
                // A whole word, or the r of `for` would be taken for the start of a raw string.
                None => (word(rest).max(c.len_utf8()), Kind::Code),
            },
        };
        let (part, after) = rest.split_at(len);
        let blank: String = part.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.code.push_str(if kind == Kind::Code { part } else { &blank });
        out.comments.push_str(if kind == Kind::Comment { part } else { &blank });
        rest = after;
    }
    out
}

#[derive(PartialEq)]
enum Kind {
    Code,
    Comment,
    Text,
}

fn word(rest: &str) -> usize {
    rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `r"..."`, `br#"..."#`.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let n_hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[n_hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(n_hashes));
    let open = rest.len() - body.len();
    Some(body.find(&end).map_or(rest.len(), |at| open + at + end.len()))
}

/// `'a'`, `'\n'`, `'\u{1F600}'`; `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next()?;
        return chars.find(|(_, c)| *c == '\'').map(|(at, _)| at + 1);
    }
    chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1)
}

#[test]
fn strings_and_comments_are_told_from_code() {
    let text =
        "for x in y { // it's \"a\"\n let s = \"// no\\\"\"; /* a /* b */ c */ f::<'a>('\\'', '\"', r#\"\"x\"#) }";
    let parts = split(text);
    let code: Vec<&str> = parts.code.split_whitespace().collect();
    assert_eq!(code.join(" "), "for x in y { let s = ; f::<'a>( , , ) }");
    let comments: Vec<&str> = parts.comments.split_whitespace().collect();
    assert_eq!(comments.join(" "), "// it's \"a\" /* a /* b */ c */");
    assert_eq!(parts.code.lines().count(), text.lines().count());
}
