//! Arithmetic of charts: ranges, ticks, numbers as people write them, fewer points, smoother ones.

use lichen_runtime::escape::thousands;

/// Where `value` stands between `low` (0) and `high` (1). Halves, because the span of two floats may be past the largest.
pub fn position(value: f64, low: f64, high: f64) -> f64 {
    let span = high / 2.0 - low / 2.0;
    if span > 0.0 {
        (value / 2.0 - low / 2.0) / span
    } else {
        0.5
    }
}

/// Least and greatest of the finite values.
pub fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|v| v.is_finite()).fold(None, |range, v| match range {
        None => Some((v, v)),
        Some((low, high)) => Some((v.min(low), v.max(high))),
    })
}

/// Round numbers within `low..=high`, about `n` of them, a step of 1, 2 or 5 times a power of ten apart; and the step.
pub fn ticks(low: f64, high: f64, n: usize) -> (Vec<f64>, f64) {
    let rough = (high - low) / n.max(1) as f64;
    if !(rough.is_finite() && rough > 0.0 && rough.log10() > -300.0) {
        return (vec![low], 1.0);
    }
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= rough * 0.999).unwrap_or(10.0);
    let step = factor * power;
    let (first, last) = ((low / step - 1e-6).ceil(), (high / step + 1e-6).floor());
    // Labels have at most seven digits; where the span is below that of its ends, they would not differ.
    let is_seen = step > low.abs().max(high.abs()) * 1e-6;
    if !(last - first <= 100.0 && is_seen) {
        return (vec![low], 1.0);
    }
    ((0..=(last - first) as usize).map(|i| (first + i as f64) * step + 0.0).collect(), step)
}

/// A tick's label: as many decimals as the step needs, a power of ten where that would be long.
pub fn label(value: f64, step: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let size = value.abs().max(step);
    if !(1e-3..1e9).contains(&size) {
        let digits = (size.log10().floor() - step.log10().floor()).clamp(0.0, 6.0) as usize;
        return format!("{value:.digits$e}");
    }
    let decimals = (-step.log10()).ceil().clamp(0.0, 6.0) as usize;
    match decimals {
        0 if value.abs() >= 1e4 => signed_thousands(value),
        _ => format!("{value:.decimals$}"),
    }
}

/// Four significant digits: `1.234`, `61.5`, `2e-4`, `12,345`.
pub fn short(value: f64) -> String {
    let size = value.abs();
    match () {
        () if !value.is_finite() => "not finite".into(),
        () if size == 0.0 => "0".into(),
        () if !(1e-3..1e9).contains(&size) => {
            let text = format!("{value:.3e}");
            let (digits, power) = text.split_once('e').expect("an exponent");
            format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
        }
        () if size >= 1e4 => signed_thousands(value),
        () => {
            let decimals = (3.0 - size.log10().floor()).clamp(0.0, 6.0) as usize;
            let text = format!("{value:.decimals$}");
            match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
                false => text,
            }
        }
    }
}

fn signed_thousands(value: f64) -> String {
    let sign = if value < 0.0 { "-" } else { "" };
    format!("{sign}{}", thousands(value.abs().round() as u64))
}

/// The exponential mean of about the last `window` values, without the pull of a first value. NaN where the value is not
/// finite.
pub fn smooth(values: &[f64], window: usize) -> Vec<f64> {
    let keep = 1.0 - 2.0 / (window.max(1) as f64 + 1.0);
    let (mut sum, mut weight) = (0.0, 0.0);
    let next = |value: &f64| {
        if !value.is_finite() {
            return f64::NAN;
        }
        sum = keep * sum + value;
        weight = keep * weight + 1.0;
        sum / weight
    };
    values.iter().map(next).collect()
}

/// At most `2 * n` of `points` (x, y): the least and greatest of each of `n` stretches, so that no peak is lost. A stretch
/// without finite values leaves one NaN, which breaks a line.
pub fn thin(points: &[(f64, f64)], n: usize) -> Vec<(f64, f64)> {
    if points.len() <= 2 * n.max(1) {
        return points.to_vec();
    }
    let mut out = Vec::with_capacity(2 * n);
    for i in 0..n {
        let stretch = &points[i * points.len() / n..(i + 1) * points.len() / n];
        let finite = || (0..stretch.len()).filter(|j| stretch[*j].1.is_finite());
        let by_value = |a: &usize, b: &usize| stretch[*a].1.total_cmp(&stretch[*b].1);
        match (finite().min_by(by_value), finite().max_by(by_value)) {
            (Some(least), Some(greatest)) if least == greatest => out.push(stretch[least]),
            (Some(least), Some(greatest)) => out.extend([stretch[least.min(greatest)], stretch[least.max(greatest)]]),
            _ => out.push((stretch[0].0, f64::NAN)),
        }
    }
    out
}

/// Every `points.len() / n`th, and the last one: for lines that are smooth already.
pub fn sample(points: &[(f64, f64)], n: usize) -> Vec<(f64, f64)> {
    if points.len() <= n.max(2) {
        return points.to_vec();
    }
    let last = points.len() - 1;
    (0..n.max(2)).map(|i| points[i * last / (n.max(2) - 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let cases: [(f64, f64, usize, &[&str]); 12] = [
            (0.0, 10.0, 5, &["0", "2", "4", "6", "8", "10"]),
            (1.13, 3.4, 5, &["1.5", "2.0", "2.5", "3.0"]),
            (0.0, 2e-4, 4, &["0", "5e-5", "1.0e-4", "1.5e-4", "2.0e-4"]),
            (1.0, 12_000.0, 4, &["5000", "10,000"]),
            (-3.0, 3.0, 3, &["-2", "0", "2"]),
            (61.2, 61.9, 4, &["61.2", "61.4", "61.6", "61.8"]),
            (5.0, 5.0, 4, &["5"]),
            (f64::NAN, 1.0, 4, &["NaN"]),
            (0.0, 1e-320, 4, &["0"]),
            (1e300, 3e300, 2, &["1e300", "2e300", "3e300"]),
            (1e17, 1e17 + 64.0, 4, &["1.000000e17"]),
            (-12_345.0, 0.0, 2, &["-10,000", "0"]),
        ];
        for (low, high, n, want) in cases {
            let (values, step) = ticks(low, high, n);
            let labels: Vec<String> = values.iter().map(|v| label(*v, step)).collect();
            assert_eq!(labels, want, "{low} to {high}");
        }
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (1.23456, "1.235"),
            (61.5, "61.5"),
            (2e-4, "2e-4"),
            (1.25e-7, "1.25e-7"),
            (0.0, "0"),
            (-0.5, "-0.5"),
            (12_345.6, "12,346"),
            (-99_999.9, "-100,000"),
            (1e12, "1e12"),
            (100.0, "100"),
            (9999.99, "10000"),
            (f64::NAN, "not finite"),
            (f64::INFINITY, "not finite"),
        ];
        for (value, want) in cases {
            assert_eq!(short(value), want, "{value}");
        }
    }

    #[test]
    fn positions_lie_between_the_ends() {
        let cases =
            [(0.0, 0.0, 2.0, 0.0), (1.0, 0.0, 2.0, 0.5), (7.0, 7.0, 7.0, 0.5), (f64::MAX, f64::MIN, f64::MAX, 1.0)];
        for (value, low, high, want) in cases {
            assert_eq!(position(value, low, high), want, "{value} in {low}..{high}");
        }
        assert_eq!(range([f64::NAN, 2.0, f64::INFINITY, -1.0].into_iter()), Some((-1.0, 2.0)));
        assert_eq!(range([f64::NAN].into_iter()), None);
    }

    #[test]
    fn smoothing_starts_at_the_first_value() {
        assert_eq!(smooth(&[4.0; 5], 10), [4.0; 5]);
        assert_eq!(smooth(&[1.0, 5.0], 1), [1.0, 5.0]);
        // Window 3 keeps half: (1/2 * 1 + 4) / (1/2 + 1).
        assert_eq!(smooth(&[1.0, 4.0], 3), [1.0, 3.0]);
        let gap = smooth(&[1.0, f64::INFINITY, 4.0], 3);
        assert!(gap[0] == 1.0 && gap[1].is_nan() && gap[2] == 3.0, "{gap:?}");
        assert_eq!(smooth(&[], 3), [0.0; 0]);
    }

    #[test]
    fn thinning_keeps_every_peak() {
        for (n_points, n) in [(0, 4), (1, 4), (8, 4), (9, 4), (1000, 7), (100_000, 300)] {
            let mut points: Vec<(f64, f64)> = (0..n_points).map(|i| (i as f64, (i % 17) as f64)).collect();
            if n_points > 8 {
                points[n_points / 2].1 = 1e6;
                points[n_points / 3].1 = -1e6;
            }
            let thinned = thin(&points, n);
            assert!(thinned.len() <= (2 * n).max(1), "{n_points}: {}", thinned.len());
            assert!(thinned.windows(2).all(|pair| pair[0].0 < pair[1].0), "{n_points}: in order");
            let ends = |points: &[(f64, f64)]| range(points.iter().map(|p| p.1));
            assert_eq!(ends(&thinned), ends(&points), "{n_points}");
            let sampled = sample(&points, n);
            assert!(sampled.len() <= n && sampled.last() == points.last() && sampled.first() == points.first());
        }
        let nothing = [(1.0, f64::NAN); 9];
        assert!(thin(&nothing, 2).iter().all(|p| p.1.is_nan()));
    }
}
