//! `cargo run --manifest-path tests/gguf-oracle/Cargo.toml -- FILES..`: reads each GGUF with our reader and with
//! gguf-rs, and exits with 1 when they differ. Without arguments: every GGUF under tests/fixtures and runtime/demo.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gguf_rs::{ByteOrder, GGUFContainer, GGUFModel};
use lichen_runtime::files::formats::gguf::{format_of_type_id, Gguf, Value};
use lichen_runtime::files::mapped_file::MappedFile;
use serde_json::Value as Json;

fn main() -> ExitCode {
    let mut files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if files.is_empty() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        collect(&root.join("tests/fixtures"), &mut files);
        collect(&root.join("runtime/demo"), &mut files);
    }
    if files.is_empty() {
        eprintln!("error: no GGUF file found");
        return ExitCode::from(1);
    }
    let mut n_bad = 0;
    for file in &files {
        match compare(file) {
            Ok((n_tensors, n_metadata)) => {
                println!("{}: same: {n_tensors} tensors, {n_metadata} metadata entries", file.display());
            }
            Err(message) => {
                n_bad += 1;
                eprintln!("error: {}: {message}", file.display());
            }
        }
    }
    ExitCode::from((n_bad > 0) as u8)
}

/// GGUF files under `dir`, in order.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "gguf") {
            files.push(path);
        }
    }
}

/// Ours first: gguf-rs only sees what our reader accepted.
fn compare(path: &Path) -> Result<(usize, usize), String> {
    let ours = Gguf::parse(MappedFile::open(path).map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    let theirs = read_theirs(path)?;
    same("alignment", ours.alignment() as u64, theirs.alignment())?;
    same("data_offset", ours.data_offset() as u64, theirs.data_offset())?;
    same("number of tensors", ours.tensors().len(), theirs.tensors().len())?;
    for (a, b) in ours.tensors().iter().zip(theirs.tensors()) {
        let at = |what: &str| format!("{} of tensor \"{}\"", what, a.name);
        same(&at("name"), a.name.as_str(), b.name.as_str())?;
        same(&at("format"), Some(a.format), format_of_type_id(b.kind))?;
        let dims: Vec<u64> = a.shape().iter().rev().map(|d| *d as u64).collect();
        same(&at("shape"), &dims, &b.shape)?;
        if !a.range.is_empty() {
            same(&at("offset"), (a.range.start - ours.data_offset()) as u64, b.offset)?;
        }
    }
    same("number of metadata entries", ours.metadata().len(), theirs.metadata().len())?;
    for (key, value) in ours.metadata().iter() {
        let other = theirs.metadata().get(key).ok_or_else(|| format!("metadata \"{key}\" is missing in gguf-rs"))?;
        compare_value(&format!("metadata \"{key}\""), value, other)?;
    }
    Ok((ours.tensors().len(), ours.metadata().len()))
}

fn read_theirs(path: &Path) -> Result<GGUFModel, String> {
    // The container starts behind the four magic bytes; unbuffered, a vocabulary takes half a second.
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(|e| e.to_string())?);
    reader.seek(SeekFrom::Start(4)).map_err(|e| e.to_string())?;
    GGUFContainer::new(ByteOrder::LE, Box::new(reader), u64::MAX).decode().map_err(|e| format!("gguf-rs: {e}"))
}

/// `other` is gguf-rs' value; it keeps numbers as the text they were printed as.
fn compare_value(what: &str, value: Value, other: &Json) -> Result<(), String> {
    match value {
        Value::F32(v) => same(what, Ok(v), other.to_string().parse::<f32>().map_err(|e| e.to_string())),
        Value::F64(v) => same(what, Ok(v), other.to_string().parse::<f64>().map_err(|e| e.to_string())),
        Value::Bool(v) => same(what, Some(v), other.as_bool()),
        Value::String(v) => same(what, Some(&*String::from_utf8_lossy(v)), other.as_str()),
        Value::Array(array) => {
            let others = other.as_array().ok_or_else(|| format!("{what}: not an array in gguf-rs"))?;
            same(&format!("length of {what}"), array.len, others.len())?;
            array.iter().zip(others).try_for_each(|(item, other)| compare_value(what, item, other))
        }
        integer => same(what, integer.as_integer().map(|n| n.to_string()), Some(other.to_string())),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, ours: T, theirs: T) -> Result<(), String> {
    if ours == theirs {
        return Ok(());
    }
    let short = |value: &T| format!("{value:?}").chars().take(200).collect::<String>();
    Err(format!("{what}: ours {}, gguf-rs {}", short(&ours), short(&theirs)))
}
