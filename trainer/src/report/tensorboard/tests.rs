//! Reads event files back with a reader that shares nothing with the writer: its checksum goes bit by bit.

use super::*;

/// The remainder of a message as a polynomial, one bit after another.
fn slow_crc32c(bytes: &[u8]) -> u32 {
    let mut remainder = 0xFFFF_FFFFu32;
    for byte in bytes {
        for bit in 0..8 {
            let top = (remainder >> 31) ^ u32::from((byte >> bit) & 1);
            remainder = (remainder << 1) ^ if top == 1 { 0x1EDC_6F41 } else { 0 };
        }
    }
    !remainder.reverse_bits()
}

#[test]
fn checksums_are_those_of_rfc_3720() {
    let up: Vec<u8> = (0..32).collect();
    let down: Vec<u8> = (0..32).rev().collect();
    let cases: [(&[u8], u32); 6] = [
        (b"", 0),
        (b"123456789", 0xE306_9283),
        (&[0; 32], 0x8A91_36AA),
        (&[0xFF; 32], 0x62A8_AB43),
        (&up, 0x46DD_794E),
        (&down, 0x113F_DB5C),
    ];
    for (bytes, want) in cases {
        assert_eq!(crc32c(bytes), want, "{bytes:?}");
        assert_eq!(slow_crc32c(bytes), want, "{bytes:?}, bit by bit");
    }
    // Written by TensorFlow before each event of 24 bytes: the length and its checksum.
    assert_eq!(masked(crc32c(&24u64.to_le_bytes())).to_le_bytes(), [0xA3, 0x7F, 0x4B, 0x22]);
}

#[derive(Debug, Default, PartialEq)]
struct Event {
    wall_time: f64,
    step: i64,
    version: String,
    values: Vec<(String, f32)>,
}

/// One field of a message: its number, and what it holds.
enum Field<'a> {
    Varint(u64),
    Fixed(&'a [u8]),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return value;
        }
    }
    panic!("a varint of more than ten bytes");
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (head, tail) = bytes.split_at(n);
    *bytes = tail;
    head
}

fn fields(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let field = match key & 7 {
            0 => Field::Varint(varint(&mut message)),
            1 => Field::Fixed(take(&mut message, 8)),
            2 => {
                let n = varint(&mut message) as usize;
                Field::Bytes(take(&mut message, n))
            }
            5 => Field::Fixed(take(&mut message, 4)),
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, field));
    }
    fields
}

fn value(message: &[u8]) -> (String, f32) {
    let mut out = (String::new(), f32::NAN);
    for field in fields(message) {
        match field {
            (1, Field::Bytes(tag)) => out.0 = String::from_utf8(tag.to_vec()).unwrap(),
            (2, Field::Fixed(number)) => out.1 = f32::from_le_bytes(number.try_into().unwrap()),
            (other, _) => panic!("field {other} of a value"),
        }
    }
    out
}

fn events(mut file: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while !file.is_empty() {
        let length = take(&mut file, 8);
        let check = |bytes: &[u8], stored: &[u8]| {
            let crc = slow_crc32c(bytes);
            let want = crc.rotate_left(17).wrapping_add(0xA282_EAD8);
            assert_eq!(u32::from_le_bytes(stored.try_into().unwrap()), want);
        };
        check(length, take(&mut file, 4));
        let data = take(&mut file, u64::from_le_bytes(length.try_into().unwrap()) as usize);
        check(data, take(&mut file, 4));
        let mut event = Event::default();
        for field in fields(data) {
            match field {
                (1, Field::Fixed(time)) => event.wall_time = f64::from_le_bytes(time.try_into().unwrap()),
                (2, Field::Varint(step)) => event.step = step as i64,
                (3, Field::Bytes(version)) => event.version = String::from_utf8(version.to_vec()).unwrap(),
                (5, Field::Bytes(summary)) => {
                    for (number, field) in fields(summary) {
                        let Field::Bytes(entry) = field else { panic!("a value is a message") };
                        assert_eq!(number, 1);
                        event.values.push(value(entry));
                    }
                }
                (other, _) => panic!("field {other} of an event"),
            }
        }
        events.push(event);
    }
    events
}

fn row(step: u64) -> StepRow {
    StepRow {
        step,
        loss: 2.5,
        eval_loss: None,
        learning_rate: 2e-4,
        grad_norm: 0.75,
        tokens: 300,
        labelled_tokens: 128,
        skipped: None,
        seconds: 10.0,
        tokens_per_s: 30.5,
        rss_bytes: 3 << 20,
        overflows: None,
        gpu_bytes: None,
        temperature_c: None,
        power_mw: None,
    }
}

#[test]
fn event_files_are_read_back() {
    let full = StepRow {
        eval_loss: Some(f64::INFINITY),
        skipped: Some("blk.0".into()),
        temperature_c: Some(61.5),
        power_mw: Some(6100),
        ..row(1 << 40)
    };
    let rows = [row(1), StepRow { seconds: f64::NAN, ..row(127) }, row(128), full];
    let mut file = Vec::new();
    write_events(&rows, 1.7e9, &mut file).unwrap();
    let events = events(&file);
    assert_eq!(events[0], Event { wall_time: 1.7e9, version: "brain.Event:2".into(), ..Event::default() });
    let steps: Vec<(i64, f64)> = events[1..].iter().map(|e| (e.step, e.wall_time - 1.7e9)).collect();
    assert_eq!(steps, [(1, 10.0), (127, 10.0), (128, 20.0), (1 << 40, 30.0)]);
    let of = |event: &Event, tag: &str| event.values.iter().find(|(t, _)| t == tag).map(|(_, v)| *v);
    let common = [
        ("train/loss", 2.5),
        ("train/learning_rate", 2e-4),
        ("train/grad_norm", 0.75),
        ("train/tokens", 300.0),
        ("train/labelled_tokens", 128.0),
        ("machine/tokens_per_s", 30.5),
        ("machine/rss_mib", 3.0),
    ];
    for event in &events[1..] {
        for (tag, want) in common {
            assert_eq!(of(event, tag), Some(want), "step {}: {tag}", event.step);
        }
    }
    let rare = ["eval/loss", "machine/temperature_c", "machine/power_mw", "train/skipped"];
    assert_eq!(rare.map(|tag| of(&events[1], tag)), [None, None, None, Some(0.0)]);
    assert_eq!(rare.map(|tag| of(&events[4], tag)), [Some(f32::INFINITY), Some(61.5), Some(6100.0), Some(1.0)]);
    assert!(of(&events[2], "machine/step_seconds").unwrap().is_nan());
}

#[test]
fn a_run_without_rows_is_a_file_without_values() {
    let mut file = Vec::new();
    write_events(&[], 0.0, &mut file).unwrap();
    assert_eq!(events(&file).len(), 1);
}

#[test]
fn file_names_are_what_tensorboard_looks_for() {
    assert_eq!(file_name(1_700_000_000.9, "nano-2"), "events.out.tfevents.1700000000.nano-2");
    assert_eq!(file_name(-1.0, "../a b"), "events.out.tfevents.0000000000.___a_b");
    assert_eq!(file_name(f64::NAN, ""), "events.out.tfevents.0000000000.");
}
