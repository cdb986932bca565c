//! Lines of metrics, whole and torn.

use std::fs;

use super::*;

fn row() -> StepRow {
    StepRow {
        step: 7,
        loss: 2.5,
        eval_loss: Some(2.75),
        learning_rate: 2e-4,
        grad_norm: 0.1,
        tokens: 2048,
        labelled_tokens: 911,
        skipped: None,
        overflows: None,
        seconds: 12.25,
        tokens_per_s: 170.0,
        rss_bytes: 1_234_567_890,
        gpu_bytes: None,
        temperature_c: Some(61.5),
        power_mw: Some(6100),
    }
}

const LINE: &str = "{\"step\":7,\"loss\":2.5,\"eval_loss\":2.75,\"learning_rate\":0.0002,\"grad_norm\":0.1,\
                    \"tokens\":2048,\"labelled_tokens\":911,\"skipped\":null,\"seconds\":12.25,\"tokens_per_s\":170.0,\
                    \"rss_bytes\":1234567890,\"temperature_c\":61.5,\"power_mw\":6100}\n";

/// Writes `bytes` where `read` finds them.
fn read_bytes(name: &str, bytes: &[u8]) -> Result<Vec<StepRow>> {
    let path = std::env::temp_dir().join(format!("lichen-metrics-{}-{name}.jsonl", std::process::id()));
    fs::write(&path, bytes).unwrap();
    let rows = read(&path);
    fs::remove_file(&path).unwrap();
    rows.map_err(|e| {
        Error::input(e.message().strip_prefix(&format!("{}: ", path.display())).expect("the file's name").to_string())
    })
}

#[test]
fn the_order_of_fields_is_fixed() {
    assert_eq!(row().line(), LINE);
    assert!(row().line().starts_with("{\"step\":7,\"loss\":2.5,"));
}

#[test]
fn rows_come_back_as_they_were() {
    // Every bit of a float survives, subnormals and the sign of zero too.
    let floats = [0.1 + 0.2, f64::MIN_POSITIVE / 3.0, -0.0, 1e308, 123_456_789.123_456_79];
    for value in floats {
        let row = StepRow { loss: value, eval_loss: Some(value), seconds: value, step: u64::MAX, ..row() };
        let back = read_bytes("bits", row.line().as_bytes()).unwrap();
        assert_eq!(back, [row]);
        assert_eq!(back[0].loss.to_bits(), value.to_bits());
    }
    let odd =
        StepRow { skipped: Some("blk.0.attn_q: \"inf\"\n\u{2028}é".into()), power_mw: None, eval_loss: None, ..row() };
    assert_eq!(odd.line().matches('\n').count(), 1);
    assert_eq!(read_bytes("odd", odd.line().as_bytes()).unwrap(), [odd]);
}

#[test]
fn numbers_that_are_not_finite_are_null() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let row =
            StepRow { loss: value, eval_loss: Some(value), grad_norm: value, temperature_c: Some(f32::NAN), ..row() };
        let line = row.line();
        assert!(line.contains("\"loss\":null,\"eval_loss\":null,"), "{line}");
        let back = read_bytes("null", line.as_bytes()).unwrap().remove(0);
        assert!(back.loss.is_nan() && back.grad_norm.is_nan());
        assert_eq!((back.eval_loss, back.temperature_c), (None, None));
    }
}

#[test]
fn a_torn_last_line_is_left_out() {
    let whole = LINE.repeat(3);
    // Cut at every byte: two rows stay, the third once its brace is there.
    for cut in 2 * LINE.len()..=whole.len() {
        let rows = read_bytes("torn", &whole.as_bytes()[..cut]).unwrap();
        let want = if cut + 1 >= whole.len() { 3 } else { 2 };
        assert_eq!(rows.len(), want, "cut at {cut} of {}", whole.len());
    }
    for tail in ["\0\0\0\0".as_bytes(), b"{\"step\":8,\"skipped\":\"\xc3", b"null", b" "] {
        assert_eq!(read_bytes("tail", &[LINE.as_bytes(), tail].concat()).unwrap(), [row()], "{tail:?}");
    }
    assert_eq!(read_bytes("empty", b"").unwrap(), []);
    assert_eq!(read_bytes("crlf", LINE.replace('\n', "\r\n").as_bytes()).unwrap(), [row()]);
}

#[test]
fn bad_lines_are_named() {
    let cases: [(&[u8], &str); 7] = [
        (b"{\"step\":1\n", "line 2: is not a row of metrics: column 9: EOF while parsing an object"),
        (b"\n", "line 2: is not a row of metrics: column 0: EOF while parsing a value"),
        (b"{\"step\":-1}\n", "line 2: is not a row of metrics: column 10: invalid value: integer `-1`, expected u64"),
        (b"{\"step\":1}\n", "line 2: is not a row of metrics: column 10: missing field `loss`"),
        (
            b"[1]\n",
            "line 2: is not a row of metrics: column 3: invalid length 1, expected struct StepRow with 15 elements",
        ),
        (b"{\"step\":\"\xff\"}\n", "line 2: is not UTF-8 from byte 9"),
        (b"\0\0\n", "line 2: is not a row of metrics: column 1: expected value"),
    ];
    for (bad, want) in cases {
        let error = read_bytes("bad", &[LINE.as_bytes(), bad, LINE.as_bytes()].concat()).unwrap_err();
        assert_eq!(error.message(), want);
    }
    let long = format!("{LINE}{}", "x".repeat(LINE_BYTES_MAX));
    for end in ["", "\n", "y\n"] {
        let error = read_bytes("long", format!("{long}{end}").as_bytes()).unwrap_err();
        assert_eq!(error.message(), "line 2: is longer than 65536 bytes; a row of metrics is about 300");
    }
    let missing = read(Path::new("no-such-folder/metrics.jsonl")).unwrap_err();
    assert_eq!(missing.message(), "no-such-folder/metrics.jsonl: No such file or directory (os error 2)");
}

#[test]
fn time_is_left_out_of_comparisons() {
    let want =
        "{\"step\":7,\"loss\":2.5,\"eval_loss\":2.75,\"learning_rate\":0.0002,\"grad_norm\":0.1,\"tokens\":2048,\
                \"labelled_tokens\":911,\"skipped\":null}";
    assert_eq!(without_time(LINE), want);
    let later =
        StepRow { seconds: 1.0, tokens_per_s: f64::NAN, rss_bytes: 0, temperature_c: None, power_mw: None, ..row() };
    assert_eq!(without_time(&later.line()), want);
    // One bit of the loss is a difference.
    let other = StepRow { loss: f64::from_bits(2.5f64.to_bits() + 1), ..row() };
    assert_ne!(without_time(&other.line()), want);
    let quoted = StepRow { skipped: Some("\"seconds\":1".into()), ..row() };
    assert!(without_time(&quoted.line()).ends_with("\"skipped\":\"\\\"seconds\\\":1\"}"));
    assert_eq!(without_time("{\"step\":7,\"lo"), "{\"step\":7,\"lo");
}
