//! Pages, read as a browser would: is every element closed, is every text text.

use super::*;

#[path = "../../../examples/report_page/synthetic.rs"]
mod synthetic;

/// Elements that have no end.
const VOID: [&str; 1] = ["meta"];

/// Walks the tags of a page: each is closed in order, and attributes are quoted. Returns the names of all elements.
fn elements(page: &str) -> Vec<String> {
    let (mut open, mut seen) = (Vec::new(), Vec::new());
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        assert!(!rest[..at].contains('>') || open.last() == Some(&"style"), "a stray > in {:?}", &rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.find('>').expect("a tag ends");
        let (tag, after) = (&rest[..end], &rest[end + 1..]);
        assert!(!tag.contains('<'), "a < within {tag:?}");
        assert!(tag.matches('"').count() % 2 == 0, "quotes of {tag:?}");
        let name = tag.split_whitespace().next().unwrap_or_default().trim_end_matches('/');
        match tag.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed), "before {:?}", &after[..after.len().min(60)]),
            None if tag.starts_with('!') || tag.ends_with('/') || VOID.contains(&name) => seen.push(name.to_string()),
            None => {
                open.push(name);
                seen.push(name.to_string());
            }
        }
        rest = after;
    }
    assert!(open.is_empty(), "left open: {open:?}");
    seen
}

fn count(elements: &[String], name: &str) -> usize {
    elements.iter().filter(|e| *e == name).count()
}

#[test]
fn a_page_is_whole_at_any_length() {
    for n in [0, 1, 2, 3, 49, 99, 100, 601, 20_000] {
        let page = page(&synthetic::summary(), &synthetic::rows(n));
        let elements = elements(&page);
        // Seven charts, the loss twice.
        assert_eq!(count(&elements, "figure"), if n == 0 { 0 } else { 7 }, "{n} steps");
        assert_eq!(count(&elements, "svg"), if n == 0 { 0 } else { 8 }, "{n} steps");
        assert!(page.len() < 150_000, "{n} steps: {} bytes", page.len());
        assert!(!page.contains("NaN") && !page.contains(">inf"), "{n} steps");
        assert_eq!(page.contains("No step was run."), n == 0);
    }
}

#[test]
fn nothing_is_fetched() {
    let page = page(&synthetic::summary(), &synthetic::rows(300));
    for word in ["http:", "https:", "src=", "href=", "url(", "@import", "<script", "<link", "<img", "javascript:"] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("default-src 'none'"));
    assert!(page.contains("prefers-color-scheme: dark"));
}

#[test]
fn a_chart_is_there_when_it_has_data() {
    let mut rows = synthetic::rows(50);
    for row in &mut rows {
        (row.temperature_c, row.power_mw, row.rss_bytes, row.eval_loss, row.skipped) = (None, None, 0, None, None);
        row.grad_norm = f64::NAN;
    }
    let page = page(&RunSummary::default(), &rows);
    elements(&page);
    for (title, is_there) in [
        ("Loss", true),
        ("Learning rate", true),
        ("Speed", true),
        ("Gradient norm", false),
        ("Resident memory", false),
        ("Temperature", false),
        ("Input power", false),
        ("eval loss", false),
        ("skipped step", false),
        ("Energy", false),
        ("Before and after", false),
        ("Answers", false),
        ("What was trained", false),
    ] {
        assert_eq!(page.contains(title), is_there, "{title}");
    }
    assert!(page.contains("<title>A training run</title>"));
    for row in &mut rows {
        row.loss = f64::NAN;
    }
    assert!(!super::page(&RunSummary::default(), &rows).contains("<b>Loss</b>"));
}

#[test]
fn every_text_is_escaped() {
    const HOSTILE: &str = "</style></title><script>alert(\"1\")</script>'&amp;\u{202E}\u{0}\u{1b}[2J";
    let text = || HOSTILE.to_string();
    let three = vec![(text(), text(), text())];
    let run = RunSummary {
        title: text(),
        settings: vec![(text(), text())],
        memory: vec![(text(), text())],
        scores: three.clone(),
        answers: three,
        notes: vec![text()],
    };
    let mut rows = synthetic::rows(30);
    rows[3].skipped = Some(text());
    let page = page(&run, &rows);
    let elements = elements(&page);
    assert_eq!(count(&elements, "script"), 0);
    let want = "&lt;/style&gt;&lt;/title&gt;&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp;amp;\\u{202e}\\u{0}\\u{1b}[2J";
    // Title twice, two pairs of two, two triples, a note, the step in the table and in three drawings.
    assert_eq!(page.matches(want).count(), 2 + 4 + 6 + 1 + 4, "{page}");
    assert!(!page.contains('\u{0}') && !page.contains('\u{202E}'));
}

#[test]
fn the_summary_is_json() {
    let run = synthetic::summary();
    let text = serde_json::to_string(&run).unwrap();
    assert!(text.starts_with("{\"title\":\"Greenhouse assistant"), "{text}");
    assert_eq!(serde_json::from_str::<RunSummary>(&text).unwrap(), run);
}

#[test]
fn times_and_sizes_are_readable() {
    let cases = [
        (0.0, "0 s"),
        (2.34567, "2.346 s"),
        (59.4, "59.4 s"),
        (60.0, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (7500.0, "2 h 5 min"),
        (370_800.0, "4 d 7 h"),
        (-1.0, "-1 s"),
    ];
    for (seconds, want) in cases {
        assert_eq!(duration(seconds), want);
    }
    assert_eq!(bytes(278.0 * 1048576.0), "278 MiB");
    assert_eq!(bytes(1.81 * 1073741824.0), "1.81 GiB");
}

#[test]
fn many_skipped_steps_are_counted() {
    let mut rows = synthetic::rows(90);
    rows.iter_mut().for_each(|row| row.skipped = Some("not finite".into()));
    let page = page(&RunSummary::default(), &rows);
    assert!(page.contains("and 70 more") && page.contains("90 skipped"), "{page}");
}
