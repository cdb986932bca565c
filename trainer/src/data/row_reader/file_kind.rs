//! What a file is, by its first bytes: a form of rows, or something else that has a name.

use std::path::Path;

use lichen_runtime::{Error, Result};

use super::Form;

/// Files that begin with these bytes, and what to do.
const MAGIC: [(&[u8], &str); 20] = [
    (b"\xff\xfe\0\0", "is UTF-32; UTF-8 is needed"),
    (b"\xff\xfe", "is UTF-16; UTF-8 is needed"),
    (b"\xfe\xff", "is UTF-16; UTF-8 is needed"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself: run git lfs pull"),
    (b"PAR1", "is a Parquet file; write it as JSON lines first (pandas: read_parquet, to_json with orient=\"records\", lines=True)"),
    (b"ARROW1", "is an Arrow file; write it as JSON lines first (datasets: load_from_disk, to_json)"),
    (b"\xff\xff\xff\xff", "is an Arrow stream; write it as JSON lines first (datasets: load_from_disk, to_json)"),
    (b"Obj\x01", "is an Avro file; write it as JSON lines first"),
    (b"ORC", "is an ORC file; write it as JSON lines first"),
    (b"\x1f\x8b", "is compressed with gzip; unpack it first (gunzip)"),
    (b"\x28\xb5\x2f\xfd", "is compressed with Zstandard; unpack it first (unzstd)"),
    (b"\xfd7zXZ\0", "is compressed with xz; unpack it first (unxz)"),
    (b"BZh", "is compressed with bzip2; unpack it first (bunzip2)"),
    (b"\x04\x22\x4d\x18", "is compressed with LZ4; unpack it first (unlz4)"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive; unpack it first"),
    (b"PK\x03\x04", "is a zip archive, or a spreadsheet that is one; unpack it first, or write it as JSON lines"),
    (b"SQLite format 3\0", "is an SQLite database; write its rows as JSON lines first"),
    (b"\x93NUMPY", "is a NumPy array; write its rows as JSON lines first"),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file; write its rows as JSON lines first"),
    (b"GGUF", "is a GGUF model, not rows to train on"),
];

/// Column names that say a table is meant for training.
const COLUMNS: [&str; 12] = [
    "instruction",
    "input",
    "output",
    "prompt",
    "completion",
    "response",
    "question",
    "answer",
    "text",
    "messages",
    "system",
    "conversations",
];

/// How rows are written, by the first bytes of a file.
///
/// # Errors
/// It holds no rows, and is something that has a name.
pub(super) fn form(head: &[u8], path: &Path) -> Result<Form> {
    if let Some((_, what)) = MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(Error::input(*what));
    }
    if head.get(257..262) == Some(b"ustar") {
        return Err(Error::input("is a tar archive; unpack it first"));
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    if text.starts_with(b"<") {
        return Err(Error::input("is an HTML or XML page, not rows of JSON (a failed download?)"));
    }
    if text.starts_with(b"[") {
        return Ok(Form::Array);
    }
    let first = text.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii();
    if first == b"{" {
        return Ok(Form::Objects);
    }
    match table(first, text, path) {
        Some(what) => Err(Error::input(what)),
        None => Ok(Form::Lines),
    }
}

/// What a file is in which no line begins like an object: a table, or plain text.
fn table(first: &[u8], text: &[u8], path: &Path) -> Option<String> {
    let is_object = |line: &[u8]| line.trim_ascii_start().starts_with(b"{");
    if text.is_empty()
        || text.split(|b| *b == b'\n').any(is_object)
        || serde_json::from_slice::<serde::de::IgnoredAny>(first).is_ok()
    {
        return None;
    }
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let first = String::from_utf8_lossy(first);
    for (separator, name) in [('\t', "TSV"), (',', "CSV"), (';', "CSV")] {
        let columns: Vec<&str> = first.split(separator).map(|c| c.trim().trim_matches('"')).collect();
        let is_known = columns.iter().any(|column| COLUMNS.contains(&column.to_ascii_lowercase().as_str()));
        let is_named = extension == "tsv" && separator == '\t' || extension == "csv" && separator != '\t';
        if columns.len() > 1 && (is_known || is_named) || columns.len() == 1 && is_known && is_named {
            let shown: Vec<String> = columns.iter().take(4).map(|c| c.chars().take(30).collect()).collect();
            return Some(format!(
                "is {name} with the columns {}; write it as JSON lines first (pandas: read_csv, to_json with \
                 orient=\"records\", lines=True)",
                shown.join(", ")
            ));
        }
    }
    // Of a few bytes that hold no line nobody can tell what they were to be.
    let is_plain = ["txt", "md", "csv", "tsv", "yaml", "yml"].contains(&extension.as_str());
    is_plain.then(|| {
        "is plain text, not rows of JSON; running text to train on is written as {\"text\": \"..\"}, one object a line".to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_by_the_first_bytes() {
        let lines: [&[u8]; 9] = [
            b"",
            b"\xef\xbb\xbf",
            b"{\"a\": 1}\n",
            b"\n{\"a\n",
            b"abc\n{\"a\": 1}",
            b"7\n",
            b"abc",
            b"instruction: a",
            b"a,b\n",
        ];
        for head in lines {
            assert_eq!(form(head, Path::new("data.jsonl")), Ok(Form::Lines), "{:?}", String::from_utf8_lossy(head));
        }
        for head in [b"{\n".as_slice(), b"\xef\xbb\xbf \n{\r\n  \"a\": 1", b"{"] {
            assert_eq!(form(head, Path::new("data.jsonl")), Ok(Form::Objects));
        }
        for head in [b"[".as_slice(), b"\xef\xbb\xbf\n[{"] {
            assert_eq!(form(head, Path::new("data.jsonl")), Ok(Form::Array));
        }
    }

    #[test]
    fn other_files_are_called_by_their_names() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let cases: [(&[u8], &str, &str); 12] = [
            (b"PAR1\x15\x04", "a.parquet", "is a Parquet file; "),
            (b"\x1f\x8b\x08", "a.jsonl.gz", "is compressed with gzip; "),
            (b"PK\x03\x04", "a.xlsx", "is a zip archive, or a spreadsheet"),
            (&tar, "a.tar", "is a tar archive; "),
            (b"\xff\xff\xff\xff\x10", "data-00000-of-00001.arrow", "is an Arrow stream; "),
            (b"instruction,output\na,b\n", "a.csv", "is CSV with the columns instruction, output; "),
            (b"\"Prompt\";\"Completion\"\n", "a.dat", "is CSV with the columns Prompt, Completion; "),
            (b"id\tlang\nx\ty\n", "a.tsv", "is TSV with the columns id, lang; "),
            (b"text\nhello\n", "a.csv", "is CSV with the columns text; "),
            (b"It was a dark night.\n", "a.txt", "is plain text, not rows of JSON; "),
            (b"\xff\xfe{\0", "a.jsonl", "is UTF-16; "),
            (b" <html>", "a.jsonl", "is an HTML or XML page"),
        ];
        for (head, name, want) in cases {
            let error = form(head, Path::new(name)).expect_err(name);
            assert!(error.message().starts_with(want), "{name}: {}", error.message());
        }
    }
}
