//! Several files as one data set, and files that score the result.

use std::path::PathBuf;

use lichen_tests::formats::corpus::TempDir;
use lichen_trainer::data::{DataOptions, Dataset, Permutation, Purpose};

use crate::support::{plain, VOCAB};

/// Rows of `n` ids, each beginning with `first`.
fn rows(first: u32, n: usize) -> String {
    (0..n).map(|i| format!("{{\"input_ids\": [{first}, {i}, 3]}}\n")).collect()
}

fn open(dir: &TempDir, train: &[&str], eval: &[&str], options: &DataOptions) -> Result<Dataset, String> {
    let paths = |names: &[&str]| -> Vec<PathBuf> { names.iter().map(|name| dir.path().join(name)).collect() };
    let opened = Dataset::open_files(&paths(train), &paths(eval), None, VOCAB, options);
    opened.map_err(|e| e.message().replace(&dir.path().display().to_string(), "DIR"))
}

#[test]
fn rows_of_several_files_are_one_set() {
    let dir = TempDir::new();
    dir.write("a.jsonl", rows(10, 3));
    dir.write("b.json", format!("[{}]", rows(11, 4).trim_end().replace('\n', ",")));
    let dataset = open(&dir, &["a.jsonl", "b.json"], &[], &plain()).unwrap();
    let firsts: Vec<u32> = (0..7).map(|i| dataset.train(0, i).unwrap().ids[0]).collect();
    assert_eq!(firsts, [10, 10, 10, 11, 11, 11, 11]);
    assert_eq!(dataset.counts().to_string(), "7 samples, 21 tokens (longest 3), 14 labelled");
    assert_eq!(dataset.n_train_tokens(), 21);
    let counts: Vec<usize> = dataset.files().iter().map(|file| file.counts.samples).collect();
    assert_eq!(counts, [3, 4]);
    // The order goes over the border of the files.
    let shuffled = open(&dir, &["a.jsonl", "b.json"], &[], &DataOptions { shuffle: true, seed: 2, ..plain() }).unwrap();
    let order = Permutation::new(7, 2, Purpose::Epoch(0));
    for i in 0..7 {
        assert_eq!(shuffled.train(0, i).unwrap().ids[0], if order.at(i) < 3 { 10 } else { 11 });
    }
}

#[test]
fn the_hash_is_of_all_files_and_of_what_they_are_for() {
    let dir = TempDir::new();
    for (name, first) in [("a", 10), ("b", 11), ("c", 12)] {
        dir.write(name, rows(first, 3));
    }
    let sets: [(&[&str], &[&str]); 6] = [
        (&["a"], &[]),
        (&["a", "b"], &[]),
        (&["b", "a"], &[]),
        (&["a"], &["b"]),
        (&["b"], &["a"]),
        (&["a", "b"], &["c"]),
    ];
    let hashes: std::collections::BTreeSet<_> =
        sets.iter().map(|(train, eval)| open(&dir, train, eval, &plain()).unwrap().sha256()).collect();
    assert_eq!(hashes.len(), sets.len());
}

#[test]
fn files_of_their_own_score_the_result() {
    let dir = TempDir::new();
    dir.write("a", rows(10, 30));
    dir.write("e1", rows(20, 2));
    dir.write("e2", rows(21, 1));
    let options = DataOptions { eval_split: 0.5, ..plain() };
    let dataset = open(&dir, &["a"], &["e1", "e2"], &options).unwrap();
    assert_eq!((dataset.n_train(), dataset.n_eval()), (30, 3));
    let eval: Vec<u32> = (0..3).map(|i| dataset.eval(i).unwrap().ids[0]).collect();
    assert_eq!(eval, [20, 20, 21]);
    assert!((0..30).all(|i| dataset.train(0, i).unwrap().ids[0] == 10));
}

#[test]
fn files_are_refused_by_name() {
    let dir = TempDir::new();
    dir.write("a", rows(10, 3));
    dir.write("empty", "");
    dir.write("bad", "{\"input_ids\": 7}\n");
    std::os::unix::fs::symlink(dir.path().join("a"), dir.path().join("link")).unwrap();
    let both = "is among data and eval_data: what is trained on tells nothing about what is learned";
    let cases: [(&[&str], &[&str], &str); 7] = [
        (&[], &[], "data is missing"),
        (&["a", "a"], &[], "DIR/a: is given twice as data"),
        (&["a", "link"], &[], "DIR/link: is given twice as data"),
        (&["a"], &["link"], &format!("DIR/link: {both}")),
        (&["a", "empty"], &[], "DIR/empty: no usable samples in 0 lines: nothing to train"),
        (&["a"], &["bad"], "DIR/bad: no usable samples in 1 line (1 bad): nothing to train"),
        (&["a", "none"], &[], "DIR/none: No such file or directory (os error 2)"),
    ];
    for (train, eval, expected) in cases {
        assert_eq!(open(&dir, train, eval, &plain()).err().as_deref(), Some(expected), "{train:?}, {eval:?}");
    }
}
