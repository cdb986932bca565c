//! A curve for a terminal: in braille, two by four dots a character, or in plain ASCII.

use super::scale::{position, range, short};

/// Draws `values` from left to right in `height` lines of at most `width` characters, the greatest and the least value drawn at
/// the left. Values that are not finite leave gaps; without any finite one the text says so.
pub fn curve(values: &[f64], width: usize, height: usize) -> String {
    draw(values, width, height, &BRAILLE)
}

/// The same for terminals without Unicode.
pub fn curve_ascii(values: &[f64], width: usize, height: usize) -> String {
    draw(values, width, height, &ASCII)
}

/// How a cell of dots becomes a character.
struct Cells {
    dots_across: usize,
    dots_down: usize,
    axis: char,
    /// Bit `y * dots_across + x` is the dot in column x, row y.
    character: fn(u8) -> char,
}

const BRAILLE: Cells = Cells { dots_across: 2, dots_down: 4, axis: '┤', character: braille };
const ASCII: Cells =
    Cells { dots_across: 1, dots_down: 1, axis: '|', character: |dots| if dots == 0 { ' ' } else { '*' } };

/// Braille numbers its dots down the left column, then the right one; the fourth row was added later.
fn braille(dots: u8) -> char {
    const BITS: [u32; 8] = [0x01, 0x08, 0x02, 0x10, 0x04, 0x20, 0x40, 0x80];
    let pattern: u32 = BITS.iter().enumerate().filter(|(i, _)| dots >> i & 1 == 1).map(|(_, bit)| bit).sum();
    char::from_u32(0x2800 + pattern).filter(|_| dots != 0).unwrap_or(' ')
}

fn draw(values: &[f64], width: usize, height: usize, cells: &Cells) -> String {
    let Some(extremes) = range(values.iter().copied()) else {
        return "no finite values\n".into();
    };
    // Columns hold means, whose range is smaller and whose digits may be more: `-0.001234` is the longest of small ones.
    let margin = short(extremes.0).len().max(short(extremes.1).len()).max(9);
    // No terminal is wider, and nothing narrower shows a curve.
    let n_columns = width.saturating_sub(margin + 2).clamp(4, 1000);
    let columns = columns(values, n_columns * cells.dots_across);
    let (low, high) = range(columns.iter().flatten().copied()).unwrap_or(extremes);
    let labels = [short(high), short(low)];
    let n_lines = height.clamp(2, 200);
    let mut dots = vec![0u8; n_columns * n_lines];
    let n_dots_down = n_lines * cells.dots_down;
    let mut before: Option<usize> = None;
    for (x, value) in columns.into_iter().enumerate() {
        let Some(value) = value else {
            before = None;
            continue;
        };
        let y = ((1.0 - position(value, low, high)) * (n_dots_down - 1) as f64).round() as usize;
        // A step up or down is joined within the column.
        let from = before.map_or(y, |b| if b < y { b + 1 } else { b.saturating_sub(1).max(y) });
        for y in y.min(from)..=y.max(from) {
            let bit = (y % cells.dots_down) * cells.dots_across + x % cells.dots_across;
            dots[(y / cells.dots_down) * n_columns + x / cells.dots_across] |= 1 << bit;
        }
        before = Some(y);
    }
    let mut out = String::new();
    for (i, line) in dots.chunks(n_columns).enumerate() {
        let label = match i {
            0 => &labels[0],
            _ if i == n_lines - 1 => &labels[1],
            _ => "",
        };
        let text: String = line.iter().map(|dots| (cells.character)(*dots)).collect();
        out.push_str(&format!("{label:>margin$} {}{}\n", cells.axis, text.trim_end()));
    }
    out
}

/// The mean of the values of each of `n` columns; between two values where there are fewer values than columns.
fn columns(values: &[f64], n: usize) -> Vec<Option<f64>> {
    let column = |i: usize| {
        if values.len() >= n {
            let stretch = &values[i * values.len() / n..(i + 1) * values.len() / n];
            let finite = || stretch.iter().filter(|v| v.is_finite());
            let n_finite = finite().count();
            // Shares first: a sum of large values may be past the largest float.
            return (n_finite > 0).then(|| finite().map(|v| v / n_finite as f64).sum());
        }
        let at = i as f64 * (values.len() - 1) as f64 / (n - 1) as f64;
        let (left, part) = (values[at as usize], at.fract());
        let right = values.get(at as usize + 1).copied().unwrap_or(left);
        let value = if part == 0.0 { left } else { left * (1.0 - part) + right * part };
        value.is_finite().then_some(value)
    };
    (0..n).map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_look_like_this() {
        let falling: Vec<f64> = (0..16).map(|i| 3.0 - f64::from(i) / 8.0).collect();
        let cases: [(&[f64], usize, &[&str]); 5] = [
            (&[1.0, 2.0, 3.0], 15, &["3 |   *", "| **", "1 |*"]),
            (&[5.0], 15, &["5 |", "5 |****"]),
            (&[0.0, f64::NAN, 1.0, 1.0], 15, &["1 |  **", "0 |*"]),
            // A jump is joined.
            (&[0.0, 0.0, 1.0, 1.0], 15, &["1 |  **", "|  *", "0 |**"]),
            (&falling, 17, &["2.938 |*", "| **", "|   **", "1.25 |     *"]),
        ];
        for (values, width, want) in cases {
            let got = curve_ascii(values, width, want.len());
            assert!(got.lines().all(|line| line.find('|') == Some(10)), "the axis is straight:\n{got}");
            let lines: Vec<&str> = got.lines().map(str::trim_start).collect();
            assert_eq!(lines, want, "{values:?}:\n{got}");
        }
        assert_eq!(curve(&falling, 18, 2), "        3 ┤⠉⠒⠤⡀\n    1.188 ┤   ⠈⠑⠢⢄\n");
        assert_eq!(curve(&[], 80, 10), "no finite values\n");
        assert_eq!(curve_ascii(&[f64::NAN, f64::INFINITY], 80, 10), "no finite values\n");
    }

    #[test]
    fn every_size_and_value_is_drawn() {
        let series: [Vec<f64>; 5] = [
            vec![f64::MIN, f64::MAX, 0.0],
            vec![f64::MAX; 5000],
            vec![-1e-320, 1e-320],
            (0..3000).map(|i| if i % 3 == 0 { f64::NAN } else { f64::from(i).sin() }).collect(),
            vec![2.5; 1],
        ];
        for (i, values) in series.iter().enumerate() {
            for (width, height) in [(0, 0), (1, 1), (13, 2), (79, 12), (usize::MAX, usize::MAX)] {
                for (name, text) in
                    [("braille", curve(values, width, height)), ("ascii", curve_ascii(values, width, height))]
                {
                    let n_lines = height.clamp(2, 200);
                    assert_eq!(text.lines().count(), n_lines, "series {i}, {name}, {width} x {height}");
                    let longest = text.lines().map(|l| l.chars().count()).max().unwrap();
                    assert!(width < 24 || longest <= width, "series {i}, {name}: {longest} of {width}");
                    let marks = text.chars().filter(|c| *c == '*' || ('\u{2801}'..='\u{28FF}').contains(c)).count();
                    assert!(marks >= 4, "series {i}, {name}, {width} x {height}: a curve is there\n{text}");
                    assert!(name == "braille" || text.is_ascii());
                }
            }
        }
    }
}
