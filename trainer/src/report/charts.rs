//! Which charts a run has, from its rows.

use super::scale::smooth;
use super::svg::{Chart, Line, LineKind};
use crate::metrics::StepRow;

/// The loss of every step, smoothed over them, and of the eval rows. `None` without rows.
pub fn loss(rows: &[StepRow]) -> Option<Chart<'_>> {
    let mut lines = noisy(rows, |row| row.loss);
    let eval: Vec<(f64, f64)> = rows.iter().filter_map(|row| Some((row.step as f64, row.eval_loss?))).collect();
    if !eval.is_empty() {
        lines.push(Line { name: "eval loss", class: "b", kind: LineKind::Dotted, points: eval });
    }
    let chart = Chart { title: "Loss", unit: "", lines, skipped: skipped(rows), from_zero: false, clips: true };
    (!rows.is_empty()).then_some(chart)
}

/// (step, value) over a fiftieth of the run; runs under a hundred steps are as they are. Steps that were skipped are left
/// out: a gradient that was thrown away is no part of the trend.
pub fn smoothed(rows: &[StepRow], value: impl Fn(&StepRow) -> f64) -> Vec<(f64, f64)> {
    let used = rows.iter().filter(|row| row.skipped.is_none()).map(|row| (row.step as f64, value(row)));
    let (steps, values): (Vec<f64>, Vec<f64>) = used.filter(|p| p.1.is_finite()).unzip();
    let means = smooth(&values, rows.len() / 50);
    steps.into_iter().zip(means).collect()
}

/// The others, in their order on the page; those of sensors that the board lacks have no data.
pub fn others(rows: &[StepRow]) -> Vec<Chart<'_>> {
    const MIB: f64 = (1 << 20) as f64;
    let mib = |row: &StepRow| if row.rss_bytes > 0 { row.rss_bytes as f64 / MIB } else { f64::NAN };
    let is_large = rows.iter().any(|row| mib(row) >= 2048.0);
    let (memory_unit, size) = if is_large { ("GiB", 1024.0) } else { ("MiB", 1.0) };
    let celsius = |row: &StepRow| row.temperature_c.map_or(f64::NAN, f64::from);
    let watts = |row: &StepRow| row.power_mw.map_or(f64::NAN, |mw| f64::from(mw) / 1000.0);
    let chart = |title, unit, lines| Chart { title, unit, lines, skipped: Vec::new(), from_zero: true, clips: false };
    vec![
        chart("Learning rate", "", solid(points(rows, |row| row.learning_rate))),
        Chart { clips: true, skipped: skipped(rows), ..chart("Gradient norm", "", noisy(rows, |row| row.grad_norm)) },
        chart("Speed", "tokens/s", noisy(rows, |row| row.tokens_per_s)),
        chart("Resident memory", memory_unit, solid(points(rows, |row| mib(row) / size))),
        Chart { from_zero: false, ..chart("Temperature", "°C", solid(points(rows, celsius))) },
        chart("Input power", "W", noisy(rows, watts)),
    ]
}

fn points(rows: &[StepRow], value: impl Fn(&StepRow) -> f64) -> Vec<(f64, f64)> {
    rows.iter().map(|row| (row.step as f64, value(row))).collect()
}

/// Every value, and a line that can be followed where there are many.
fn noisy(rows: &[StepRow], value: impl Fn(&StepRow) -> f64) -> Vec<Line> {
    let raw = points(rows, &value);
    if raw.len() < 100 {
        return solid(raw);
    }
    vec![
        Line { name: "each step", class: "a", kind: LineKind::Faint, points: raw },
        Line { name: "smoothed", class: "a", kind: LineKind::Smooth, points: smoothed(rows, value) },
    ]
}

fn skipped(rows: &[StepRow]) -> Vec<(f64, &str)> {
    rows.iter().filter_map(|row| Some((row.step as f64, row.skipped.as_deref()?))).collect()
}

fn solid(points: Vec<(f64, f64)>) -> Vec<Line> {
    vec![Line { name: "each step", class: "a", kind: LineKind::Solid, points }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: u64, loss: f64, skipped: bool) -> StepRow {
        StepRow {
            step,
            loss,
            eval_loss: None,
            learning_rate: 0.0,
            grad_norm: loss,
            tokens: 1,
            labelled_tokens: 1,
            skipped: skipped.then(|| "not finite".into()),
            seconds: 1.0,
            tokens_per_s: 1.0,
            rss_bytes: 3 << 30,
            overflows: None,
            gpu_bytes: None,
            temperature_c: None,
            power_mw: Some(2500),
        }
    }

    #[test]
    fn skipped_steps_are_no_part_of_the_trend() {
        let mut rows: Vec<StepRow> = (1..=400).map(|step| row(step, 2.0, false)).collect();
        rows[99] = row(100, 1e30, true);
        rows[199] = row(200, f64::NAN, false);
        let trend = smoothed(&rows, |row| row.loss);
        assert_eq!(trend.len(), 398);
        assert!(trend.iter().all(|(_, value)| (value - 2.0).abs() < 1e-12), "{trend:?}");
        let chart = loss(&rows).expect("rows");
        assert_eq!(chart.skipped, [(100.0, "not finite")]);
        assert_eq!(chart.lines.iter().map(|l| l.points.len()).collect::<Vec<_>>(), [400, 398]);
    }

    #[test]
    fn units_suit_the_values() {
        let rows = [row(1, 1.0, false)];
        let charts = others(&rows);
        let of = |title: &str| charts.iter().find(|c| c.title == title).map(|c| (c.unit, c.lines[0].points[0].1));
        assert_eq!(of("Resident memory"), Some(("GiB", 3.0)));
        assert_eq!(of("Input power"), Some(("W", 2.5)));
        let small = [StepRow { rss_bytes: 300 << 20, ..row(1, 1.0, false) }];
        let memory = others(&small).remove(3);
        assert_eq!((memory.unit, memory.lines[0].points[0].1), ("MiB", 300.0));
        assert!(loss(&[]).is_none());
    }
}
