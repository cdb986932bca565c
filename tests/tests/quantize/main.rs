//! `lichen-host quantize`: what it writes against what peers write, the sources it reads, and what it leaves behind when
//! it fails.

/// GGUF files against those of the PyPI package `gguf`.
mod gguf;
/// NF4 folders against bitsandbytes' own.
mod nf4;
/// The program: exit codes, memory, a full disk, Ctrl-C.
mod program;
/// Folders in every format that is read, and damaged ones.
mod sources;
/// Files in parts.
mod split;
/// tokenizer.json, tokenizer.model and the arrays made of them.
mod tokenizer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lichen_host_tools::quantize::{run, Options, Report, Target, SHARD_BYTES_MAX};
use lichen_runtime::files::formats::gguf::{Gguf, Value};
use lichen_runtime::files::mapped_file::MappedFile;
use lichen_runtime::Result;

fn options(model: &Path, target: Target, out: &Path) -> Options {
    let (model, out) = (model.to_path_buf(), out.to_path_buf());
    Options { model, target, out, name: None, shard_bytes_max: SHARD_BYTES_MAX, split_bytes_max: None }
}

fn quantize(model: &Path, target: Target, out: &Path) -> Result<Report> {
    run(&options(model, target, out), &mut ())
}

fn open_gguf(path: &Path) -> Gguf {
    let file: Arc<MappedFile> = MappedFile::open(path).unwrap_or_else(|e| panic!("{e}"));
    Gguf::parse(file).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Names of what a folder holds, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a folder");
    let mut names: Vec<String> = entries.map(|e| e.expect("readable").file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A copy of a model folder below `dir`, to be changed.
fn copy_folder(from: &Path, dir: &Path) -> PathBuf {
    let to = dir.join("model");
    std::fs::create_dir(&to).expect("new");
    for name in names(from) {
        std::fs::copy(from.join(&name), to.join(&name)).expect("copied");
    }
    to
}

/// Metadata values by content: arrays borrow from their files and compare by place otherwise.
fn show(value: Value) -> String {
    match value {
        Value::Array(array) => {
            let items: Vec<String> = array.iter().map(show).collect();
            format!("{:?} {items:?}", array.item)
        }
        Value::String(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        other => format!("{other:?}"),
    }
}
