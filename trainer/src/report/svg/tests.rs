//! Charts, taken apart again.

use super::*;

fn chart(lines: Vec<Line>) -> Chart<'static> {
    Chart { title: "Loss", unit: "", lines, skipped: Vec::new(), from_zero: false, clips: false }
}

fn line(kind: LineKind, points: Vec<(f64, f64)>) -> Line {
    Line { name: "each step", class: "a", kind, points }
}

/// What stands between `start` and the next quotation mark or `<`, for each `start`.
fn all<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    text.split(start).skip(1).map(|rest| rest.split(['"', '<']).next().unwrap()).collect()
}

/// The coordinates of a path.
fn points_of(d: &str) -> Vec<(f64, f64)> {
    let pair =
        |p: &str| p.trim_end_matches("h0").split_once(' ').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()));
    d.split(['M', 'L']).filter_map(pair).collect()
}

fn values(n: usize, f: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    (1..=n).map(|i| (i as f64, f(i as f64))).collect()
}

#[test]
fn a_line_fills_its_frame() {
    let svg = chart(vec![line(LineKind::Solid, values(400, |x| x))]).svg(Size(400.0, 220.0));
    let points = points_of(all(&svg, "class=\"line a\" d=\"")[0]);
    assert_eq!(points.len(), 400);
    assert_eq!((points[0].0, points[399].0), (LEFT, 400.0 - RIGHT));
    assert!(points[0].1 > points[399].1, "larger values stand higher: {points:?}");
    assert!(points.iter().all(|(_, y)| *y >= TOP && *y <= 220.0 - BOTTOM), "{points:?}");
    assert!(all(&svg, "class=\"tick end").len() >= 4, "the vertical axis has labels");
    for label in ["100", "200", "300", "400"] {
        assert!(svg.contains(&format!(">{label}</text>")), "{label}: {svg}");
    }
    assert!(svg.contains("aria-label=\"Loss: 1 to 400, 400 at step 400\""), "{svg}");
}

#[test]
fn long_runs_are_thinned() {
    for n in [600, 601, 100_000] {
        for (kind, most) in [(LineKind::Faint, 600), (LineKind::Solid, 600), (LineKind::Smooth, 600)] {
            let svg = chart(vec![line(kind, values(n, f64::sin))]).svg(WIDE);
            let d = all(&svg, " a\" d=\"");
            assert_eq!(d.len(), 1);
            let n_drawn = points_of(d[0]).len();
            assert!((100..=most).contains(&n_drawn), "{n} values, {kind:?}: {n_drawn} drawn");
        }
    }
}

#[test]
fn values_that_are_not_finite_break_the_line() {
    let values = vec![(1.0, 1.0), (2.0, f64::NAN), (3.0, 2.0), (4.0, 3.0), (5.0, f64::INFINITY)];
    let svg = chart(vec![line(LineKind::Solid, values)]).svg(NARROW);
    let d = all(&svg, "class=\"line a\" d=\"")[0];
    assert_eq!(d.matches('M').count(), 2, "{d}");
    assert_eq!(d.matches('L').count(), 1, "{d}");
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    assert!(!chart(vec![line(LineKind::Solid, vec![(1.0, f64::NAN)])]).has_data());
    assert!(!chart(Vec::new()).has_data());
}

#[test]
fn odd_ranges_are_drawn() {
    let cases: [&[f64]; 7] = [
        &[0.0],
        &[5.0, 5.0, 5.0],
        &[-1e-12, 1e-12],
        &[1e300, -1e300],
        &[f64::MAX, f64::MIN],
        &[1e17, 1e17 + 64.0],
        &[f64::MAX],
    ];
    for case in cases {
        for from_zero in [false, true] {
            let points: Vec<(f64, f64)> = case.iter().enumerate().map(|(i, v)| (i as f64, *v)).collect();
            let chart = Chart { from_zero, clips: true, ..chart(vec![line(LineKind::Solid, points)]) };
            let svg = chart.svg(NARROW);
            let drawn = points_of(all(&svg, "class=\"line a\" d=\"")[0]);
            assert_eq!(drawn.len(), case.len(), "{case:?}");
            let is_inside = |(x, y): &(f64, f64)| (0.0..=400.0).contains(x) && (0.0..=220.0).contains(y);
            assert!(drawn.iter().all(is_inside), "{case:?}, from zero {from_zero}: {drawn:?}");
        }
    }
}

#[test]
fn far_values_stand_at_the_edge() {
    let mut points = values(200, |x| 1.0 + (x % 10.0) / 10.0);
    points[50].1 = 1000.0;
    let clipping = Chart { clips: true, ..chart(vec![line(LineKind::Solid, points.clone())]) };
    let (n, edge) = clipping.clipped().expect("one is far above");
    assert!(n == 1 && edge > 1.9 && edge < 3.0, "{n} above {edge}");
    let drawn = points_of(all(&clipping.svg(WIDE), "class=\"line a\" d=\"")[0]);
    assert_eq!(drawn[50].1, TOP);
    let low = drawn.iter().map(|p| p.1).fold(0.0, f64::max);
    assert!(low > 200.0, "the others use the height: {low}");
    assert_eq!(chart(vec![line(LineKind::Solid, points)]).clipped(), None, "only where it was asked for");
    let calm = Chart { clips: true, ..chart(vec![line(LineKind::Solid, values(200, |x| x))]) };
    assert_eq!(calm.clipped(), None);
}

#[test]
fn skipped_steps_are_marked_with_their_reason() {
    let skipped = vec![(2.0, "\"inf\" in <b>"), (1500.0, "NaN")];
    let chart = Chart { skipped, ..chart(vec![line(LineKind::Smooth, values(2000, f64::sqrt))]) };
    let svg = chart.svg(NARROW);
    assert_eq!(svg.matches("class=\"skipped\"").count(), 2);
    assert!(svg.contains("<title>step 2 was skipped: &quot;inf&quot; in &lt;b&gt;</title>"), "{svg}");
    assert!(svg.contains("<title>step 1,500 was skipped: NaN</title>"));
    let many = Chart { skipped: (0..5000).map(|i| (f64::from(i), "NaN")).collect(), ..chart };
    let n_marks = many.svg(NARROW).matches("class=\"skipped\"").count();
    assert!((50..=N_MARKS_MAX).contains(&n_marks), "{n_marks}");
}

#[test]
fn dots_say_what_they_are() {
    let eval_rows = Line { name: "eval loss", class: "b", kind: LineKind::Dotted, points: values(40, |x| 1.0 / x) };
    let svg = Chart { unit: "W", ..chart(vec![eval_rows]) }.svg(NARROW);
    assert_eq!(svg.matches("<circle class=\"dot b\"").count(), 40);
    assert!(svg.contains("<title>eval loss: 0.25 W at step 4</title>"), "{svg}");
    // A single step is a dot, or it would not be seen.
    let one = chart(vec![line(LineKind::Solid, values(1, |_| 2.0))]).svg(NARROW);
    assert_eq!(one.matches("<circle").count(), 1);
}
