//! Files as a whole: what is no file of rows, arrays, missing tokenizers, changes while in use, memory.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use lichen_runtime::error::Kind;
use lichen_tests::formats::corpus::TempDir;
use lichen_tests::heap;
use lichen_trainer::data::{DataOptions, Dataset};

use crate::support::{open, open_at, plain, samples, Chat, VOCAB};

const GOOD: &str = r#"{"input_ids": [1, 2, 3]}"#;

#[test]
fn other_files_are_refused_by_name() {
    let cases: [(&[u8], &str); 5] = [
        (b"\xff\xfe{\0", "is UTF-16; UTF-8 is needed"),
        (b"\xfe\xff\0{", "is UTF-16; UTF-8 is needed"),
        (b"\n <!DOCTYPE html>", "is an HTML or XML page, not rows of JSON (a failed download?)"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "is a Git LFS pointer, not the file itself: run git lfs pull",
        ),
        (
            b"{\"instruction\": \"a\", \"output\": \"b\"}\n",
            "line 1: \"instruction\" needs a tokenizer, and this model has \
          no tokenizer.json: only rows of \"input_ids\" can be used",
        ),
    ];
    for (file, expected) in cases {
        assert_eq!(open(file, None, &plain()).err(), Some(format!("DIR/data.jsonl: {expected}")));
    }
    let dir = TempDir::new();
    let error = open_at(dir.path(), None, &plain()).err().unwrap();
    assert!(error.ends_with("is a folder; a file is expected"), "{error}");
    let error = open_at(&dir.path().join("none"), None, &plain()).err().unwrap();
    assert!(error.ends_with("none: No such file or directory (os error 2)"), "{error}");
    let path = dir.write("data.jsonl", GOOD);
    let error = Dataset::open(&path, None, VOCAB, &DataOptions { max_seq: 0, ..plain() }).err().unwrap();
    assert_eq!((error.kind(), error.message()), (Kind::Usage, "max_seq is 0; 2 to 1048576"));
    let error = Dataset::open(&path, Some(Chat::Gemma.encoder()), VOCAB - 1, &plain()).err().unwrap();
    assert_eq!(error.message(), "the tokenizer has 320 tokens, the model only 319");
}

#[test]
fn arrays_are_read_item_by_item() {
    let pretty =
        "[\n    {\n        \"input_ids\": [1, 2],\n        \"note\": \"a]},{\\\"[\"\n    },\n    7,\n    {\n     \
                  \"input_ids\": [3, 4]}\n]\n";
    let dataset = open(pretty.as_bytes(), None, &plain()).unwrap();
    let got: Vec<_> = samples(&dataset).into_iter().map(|s| (s.line, s.ids)).collect();
    assert_eq!(got, [(2, vec![1, 2]), (7, vec![3, 4])]);
    assert_eq!(
        dataset.counts().bad_notes,
        ["row 2 (line 6): a row is 7; an object is needed (1 of at most 100 bad lines)"]
    );

    let cases = [
        ("[", "line 1: the array does not end (is the file whole?)"),
        ("[{\"input_ids\": [1, 2]}", "line 1: the array does not end (is the file whole?)"),
        ("[{\"input_ids\": [1, 2]},\n", "line 2: the array does not end (is the file whole?)"),
        ("[{\"input_ids\": [1, 2]},\n]", "line 2: a row is missing before \"]\""),
        ("[,{\"input_ids\": [1, 2]}]", "line 1: a row is missing before \",\""),
        ("[{\"input_ids\": [1, 2]}]\n\n[1]", "line 3: more text follows the end of the array"),
        ("[{\"a\": 1}\n {\"a\": 1}]", "row 1 (line 2): trailing characters at column 2"),
        ("[{\"a\": 1},\n {\n \"a\" 1}]", "row 2 (line 3): expected \":\" at column 6"),
        ("[{\"a\": 1}, {\"a\" 1}]", "row 2 (line 1): expected \":\" at column 17"),
        ("[{]}", "line 1: the array does not end (is the file whole?)"),
        ("[{]]", "row 1 (line 1): key must be a string at column 3"),
    ];
    for (file, expected) in cases {
        let error = open(file.as_bytes(), None, &plain()).err();
        assert_eq!(error, Some(format!("DIR/data.jsonl: {expected}")), "{file:?}");
    }
    // An item that is too long is skipped like a line.
    let long = format!("[{{\"x\": \"{}\"}}, {GOOD}]", "],\\\"".repeat(2 << 20));
    let dataset = open(long.as_bytes(), None, &plain()).unwrap();
    assert_eq!(dataset.counts().bad_notes, ["row 1 (line 1): longer than 4 MiB (1 of at most 100 bad lines)"]);
    assert_eq!(samples(&dataset)[0].ids, [1, 2, 3]);
}

#[test]
fn the_hash_is_that_of_the_bytes() {
    // What is hashed are all bytes, also those behind the last row and those of skipped rows.
    let dataset = open(format!("\u{feff}abc\n{GOOD}\n\n").as_bytes(), None, &plain()).unwrap();
    assert_eq!(dataset.n_bytes(), 3 + 4 + GOOD.len() as u64 + 2);
    // From Python's hashlib.
    let expected = "6a11187b6c9e89443ea6c169ccadfb39edd1182d576acfc195fed1e8104db616";
    assert_eq!(dataset.sha256().map(|byte| format!("{byte:02x}")).concat(), expected);
}

/// Does something to a file with these rows.
type Change = fn(&Path, &str);

#[test]
fn a_changed_file_stops_the_run() {
    let rows = format!("{GOOD}\n{GOOD}\n");
    let changes: [(&str, Change); 3] = [
        ("it had 50 bytes, and has 75", |path, _| {
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            file.write_all(format!("{GOOD}\n").as_bytes()).unwrap();
        }),
        ("it had 50 bytes, and has 10", |path, _| {
            OpenOptions::new().write(true).open(path).unwrap().set_len(10).unwrap();
        }),
        ("it had 50 bytes, and has 50", |path, rows| {
            fs::write(path, rows).unwrap();
            let file = OpenOptions::new().write(true).open(path).unwrap();
            let modified = file.metadata().unwrap().modified().unwrap();
            file.set_modified(modified + Duration::from_secs(1)).unwrap();
        }),
    ];
    for (sizes, change) in changes {
        let dir = TempDir::new();
        let path = dir.write("data.jsonl", &rows);
        let dataset = Dataset::open(&path, None, VOCAB, &DataOptions { eval_split: 0.5, ..plain() }).unwrap();
        dataset.train(0, 0).unwrap();
        change(&path, &rows);
        let expected = format!("{}: was changed while in use ({sizes}): start again", path.display());
        assert_eq!(dataset.train(0, 0).err().unwrap().message(), expected);
        assert_eq!(dataset.eval(0).err().unwrap().message(), expected);
    }
    // Another file of the same name is another file: the run keeps the one it opened.
    let dir = TempDir::new();
    let path = dir.write("data.jsonl", &rows);
    let dataset = Dataset::open(&path, None, VOCAB, &plain()).unwrap();
    fs::rename(dir.write("new", "{}"), &path).unwrap();
    assert_eq!(dataset.train(0, 1).unwrap().ids, [1, 2, 3]);
}

/// A file with a hole of 100 MB (one line of NULs), and 20,000 rows on both sides of it.
#[test]
fn memory_does_not_grow_with_the_file() {
    const HOLE: u64 = 100_000_000;
    const N_ROWS: usize = 20_000;
    let dir = TempDir::new();
    let path = dir.write("data.jsonl", format!("{GOOD}\n").repeat(N_ROWS / 2));
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    let at = file.seek(SeekFrom::End(0)).unwrap() + HOLE;
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(format!("\n{}", format!("{GOOD}\n").repeat(N_ROWS / 2)).as_bytes()).unwrap();
    drop(file);

    let (dataset, heap) = heap::measure(|| Dataset::open(&path, None, VOCAB, &plain()).unwrap());
    assert_eq!((dataset.n_train(), dataset.counts().bad), (N_ROWS, 1));
    let expected = format!("line {}: longer than 4 MiB (1 of at most 100 bad lines)", N_ROWS / 2 + 1);
    assert_eq!(dataset.counts().bad_notes, [expected]);
    // A row of 4 MiB while its buffer grows, and the list of rows while it grows and is split.
    let bound = 3 * (4 << 20) + 4 * 32 * N_ROWS;
    assert!(heap.peak_bytes <= bound, "{heap:?}, at most {bound}");
    assert!(dataset.memory_bytes() <= 32 * N_ROWS, "{}", dataset.memory_bytes());
    assert_eq!(dataset.train(0, N_ROWS - 1).unwrap().line, N_ROWS + 1);
    let (sample, heap) = heap::measure(|| dataset.train(0, 7).unwrap());
    assert!(sample.ids == [1, 2, 3] && heap.peak_bytes < 4096, "{heap:?}");
}

/// Samples can be made on a thread of their own.
#[test]
fn a_dataset_is_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<Dataset>();
}
