//! metrics.jsonl: a torn end is repaired, and what will be trained again is cut.

use std::io::Write;
use std::path::Path;

use lichen_runtime::files::disk::jsonl::{repair_tail, TornTail};
use lichen_runtime::files::disk::Disk;
use lichen_trainer::checkpoint::{cut_after_step, Cut};

use lichen_tests::sim_disk::SimDisk;

const PATH: &str = "/metrics.jsonl";

fn journal(text: &[u8]) -> SimDisk {
    let disk = SimDisk::new();
    let mut file = disk.append(Path::new(PATH)).expect("created");
    file.write_all(text).and_then(|()| file.sync()).expect("written");
    disk.sync_dir(Path::new("/")).expect("flushed");
    disk
}

fn read(disk: &SimDisk) -> Vec<u8> {
    disk.read(Path::new(PATH)).expect("readable")
}

#[test]
fn a_torn_end_is_repaired() {
    let torn = |n_bytes, n_lines| Some(TornTail { n_bytes, n_lines });
    // (found, left, what is said)
    let cases: [(&[u8], &[u8], Option<TornTail>); 14] = [
        (b"", b"", None),
        (b"{\"a\":1}\n", b"{\"a\":1}\n", None),
        (b"{\"a\":1}\n\n", b"{\"a\":1}\n\n", None),
        (b"{\"a\":1}\r\n", b"{\"a\":1}\r\n", None),
        (b"{\"a\":1}\n{\"a\":2", b"{\"a\":1}\n", torn(6, 1)),
        (b"{\"a\"", b"", torn(4, 0)),
        // The line feed alone is missing: the record is whole.
        (b"{\"a\":1}\n{\"a\":2}", b"{\"a\":1}\n{\"a\":2}\n", None),
        // 12 may have been 123.
        (b"{\"a\":1}\n12", b"{\"a\":1}\n", torn(2, 1)),
        // A power cut leaves zeros, and lines glued to them.
        (b"{\"a\":1}\n\0\0\0\0\0", b"{\"a\":1}\n", torn(5, 1)),
        (b"{\"a\":1}\n\0\0\0{\"a\":3}\n", b"{\"a\":1}\n", torn(11, 1)),
        (b"{\"a\":1}\n{\"a\":2{\"a\":3}\n{\"a\":4", b"{\"a\":1}\n", torn(20, 1)),
        (b"\xff\xfe", b"", torn(2, 0)),
        // A bad line further up is for the reader to name.
        (b"bad\n{\"a\":2}\n", b"bad\n{\"a\":2}\n", None),
        (b"bad\n{\"a\":2}\n{", b"bad\n{\"a\":2}\n", torn(1, 2)),
    ];
    for (found, left, said) in cases {
        let disk = journal(found);
        let case = String::from_utf8_lossy(found).into_owned();
        assert_eq!(repair_tail(&disk, Path::new(PATH)).unwrap(), said, "{case:?}");
        assert_eq!(read(&disk), left, "{case:?}");
        assert_eq!(read_after_crash(&disk), left, "{case:?}: not flushed");
        assert_eq!(repair_tail(&disk, Path::new(PATH)).unwrap(), None, "{case:?}: twice");
    }
    assert_eq!(repair_tail(&SimDisk::new(), Path::new(PATH)).unwrap(), None);
    let text = TornTail { n_bytes: 37, n_lines: 9120 }.to_string();
    assert_eq!(text, "repaired: dropped 37 bytes after line 9,120 (the last write was cut)");
}

fn read_after_crash(disk: &SimDisk) -> Vec<u8> {
    read(&disk.crash_now())
}

/// Cut anywhere, every whole record stays, and the next one stands on a line of its own.
#[test]
fn a_journal_cut_at_any_byte_loses_one_record_at_most() {
    let whole = b"{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"text\":\"a}\\n\"}\n{\"step\":3}\n";
    for len in 0..=whole.len() {
        let disk = journal(&whole[..len]);
        repair_tail(&disk, Path::new(PATH)).unwrap();
        let mut file = disk.append(Path::new(PATH)).unwrap();
        file.write_all(b"{\"step\":9}\n").unwrap();
        let text = String::from_utf8(read(&disk)).unwrap();
        let n_whole = whole[..len].iter().filter(|b| **b == b'\n').count();
        let is_only_unterminated = whole.get(len) == Some(&b'\n');
        assert_eq!(text.lines().count(), n_whole + is_only_unterminated as usize + 1, "{len}: {text}");
        assert!(text.lines().all(|l| serde_json::from_str::<serde_json::Value>(l).is_ok()), "{len}: {text}");
    }
}

#[test]
fn a_resumed_run_continues_its_metrics() {
    const METRICS: &[u8] =
        b"{\"run\":\"a\"}\n{\"step\":1}\n{\"step\":2}\n{\"event\":\"pause\"}\n{\"step\":3}\n{\"eval\":1}\n";
    let cases: [(u64, usize, u64); 5] =
        [(0, 12, 5), (1, 23, 4), (2, 52, 2), (3, METRICS.len(), 0), (u64::MAX, METRICS.len(), 0)];
    for (step, kept_bytes, n_lines) in cases {
        let disk = journal(METRICS);
        let cut = cut_after_step(&disk, Path::new(PATH), step).unwrap();
        assert_eq!(cut, Cut { torn: None, n_lines }, "step {step}");
        assert_eq!(read_after_crash(&disk), METRICS[..kept_bytes], "step {step}");
    }
    let disk = journal(&METRICS[..METRICS.len() - 3]);
    let cut = cut_after_step(&disk, Path::new(PATH), 1).unwrap();
    assert_eq!(cut, Cut { torn: Some(TornTail { n_bytes: 8, n_lines: 5 }), n_lines: 3 });
    assert_eq!(read(&disk), METRICS[..23]);
    assert_eq!(cut_after_step(&SimDisk::new(), Path::new(PATH), 1).unwrap(), Cut::default());
}
