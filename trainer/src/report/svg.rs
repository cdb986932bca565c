//! A line chart as an SVG element that takes its colours from the page: steps to the right, a value upwards.

#[cfg(test)]
mod tests;

use std::fmt::Write;

use lichen_runtime::escape::thousands;

use super::escape::escape;
use super::scale::{label, position, range, sample, short, thin, ticks};

/// Stretches of a line that are drawn: about two for each pixel of a narrow chart.
const N_STRETCHES: usize = 300;
/// Dots and marks with a text of their own.
const N_MARKS_MAX: usize = 120;

/// Lines of fewer points show them.
const N_POINTS_SHOWN: usize = 30;
/// Fewer values than this are all usual.
const N_CLIPPED_MIN: usize = 50;

/// One chart.
pub struct Chart<'a> {
    pub title: &'a str,
    /// After every number of the vertical axis; empty for pure numbers.
    pub unit: &'a str,
    pub lines: Vec<Line>,
    /// (step, why): skipped steps, at the foot.
    pub skipped: Vec<(f64, &'a str)>,
    /// The axis begins at 0.
    pub from_zero: bool,
    /// A few values far above the others are drawn at the edge, so that the others can be seen.
    pub clips: bool,
}

/// One line of a chart.
pub struct Line {
    pub name: &'static str,
    /// The class of its colour in the page.
    pub class: &'static str,
    pub kind: LineKind,
    /// (step, value), steps rising.
    pub points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// Every value, thin and pale.
    Faint,
    /// Smooth already: any point speaks for its neighbours.
    Smooth,
    /// Every value.
    Solid,
    /// Every value with a dot that says what it is.
    Dotted,
}

/// Width and height in units of the drawing; letters are 12 of them high.
#[derive(Clone, Copy)]
pub struct Size(pub f64, pub f64);

/// Two beside each other on a desk, one on a phone.
pub const NARROW: Size = Size(400.0, 220.0);
/// The width of the page on a desk.
pub const WIDE: Size = Size(920.0, 320.0);

const LEFT: f64 = 52.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;

/// What the axes span, and where.
struct Frame {
    size: Size,
    x: (f64, f64),
    y: (f64, f64),
}

impl Chart<'_> {
    /// True where there is something to draw.
    pub fn has_data(&self) -> bool {
        self.values().next().is_some()
    }

    fn values(&self) -> impl Iterator<Item = f64> + '_ {
        self.lines.iter().flat_map(|line| &line.points).map(|p| p.1).filter(|v| v.is_finite())
    }

    /// The chart as an `<svg>` element. It must have data.
    pub fn svg(&self, size: Size) -> String {
        let frame = self.frame(size);
        let mut out = format!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
            size.0,
            size.1,
            escape(&self.description())
        );
        self.axes(&frame, &mut out);
        for line in &self.lines {
            line.draw(&frame, &self.unit_after(), &mut out);
        }
        self.marks(&frame, &mut out);
        out.push_str("</svg>\n");
        out
    }

    /// How many values are drawn at the edge, and where it is.
    pub fn clipped(&self) -> Option<(usize, f64)> {
        let edge = self.edge()?;
        Some((self.raw_values().filter(|v| *v > edge).count(), edge))
    }

    fn raw_values(&self) -> impl Iterator<Item = f64> + '_ {
        let raw = self.lines.iter().filter(|line| line.kind != LineKind::Smooth).flat_map(|line| &line.points);
        raw.map(|p| p.1).filter(|v| v.is_finite())
    }

    /// What a reader who sees no picture is told.
    fn description(&self) -> String {
        let (low, high) = range(self.values()).unwrap_or_default();
        let last = self.lines.iter().rev().find_map(|line| line.points.iter().rev().find(|p| p.1.is_finite()));
        let unit = self.unit_after();
        let last = last.map(|(step, v)| format!(", {}{unit} at step {}", short(*v), thousands(*step as u64)));
        format!("{}: {}{unit} to {}{unit}{}", self.title, short(low), short(high), last.unwrap_or_default())
    }

    fn unit_after(&self) -> String {
        if self.unit.is_empty() {
            String::new()
        } else {
            format!(" {}", self.unit)
        }
    }

    /// The top of a chart that clips: where values rise to three times the 99th percentile.
    fn edge(&self) -> Option<f64> {
        let mut values: Vec<f64> = self.raw_values().filter(|_| self.clips).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        if values.len() < N_CLIPPED_MIN {
            return None;
        }
        let usual = values[(values.len() - 1) * 99 / 100];
        (usual > low && high - low > 3.0 * (usual - low)).then_some(low + 1.3 * (usual - low))
    }

    fn frame(&self, size: Size) -> Frame {
        let steps = self.lines.iter().flat_map(|line| &line.points).map(|p| p.0);
        let x = range(steps.chain(self.skipped.iter().map(|s| s.0))).unwrap_or_default();
        let (mut low, mut high) = range(self.values()).unwrap_or_default();
        high = self.edge().unwrap_or(high);
        if self.from_zero {
            low = low.min(0.0);
        }
        // A flat line stands in the middle; the rest has a little air.
        let span = match high - low {
            0.0 if high == 0.0 => 1.0,
            0.0 => high.abs(),
            span => span,
        };
        let air = if high > low { 0.05 } else { 0.5 };
        let foot = if self.from_zero && low == 0.0 { 0.0 } else { air * span };
        let y = (low - foot, high + air * span);
        Frame { size, x, y: (y.0.max(f64::MIN), y.1.min(f64::MAX)) }
    }

    fn axes(&self, frame: &Frame, out: &mut String) {
        let Size(width, height) = frame.size;
        let (y_ticks, y_step) = ticks(frame.y.0, frame.y.1, if height > 250.0 { 7 } else { 5 });
        for tick in y_ticks {
            let y = frame.y_of(tick);
            let _ = write!(out, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/>", width - RIGHT);
            let _ = write!(
                out,
                "<text class=\"tick end\" x=\"{}\" y=\"{:.1}\">{}</text>",
                LEFT - 7.0,
                y + 4.0,
                label(tick, y_step)
            );
        }
        let (x_ticks, x_step) = ticks(frame.x.0, frame.x.1, if width > 600.0 { 8 } else { 4 });
        let foot = height - BOTTOM;
        // Steps are whole.
        for tick in x_ticks.into_iter().filter(|t| t.fract() == 0.0) {
            let x = frame.x_of(tick);
            // A label at the right end would pass the edge.
            let (y, text) = (foot + 17.0, label(tick, x_step.max(1.0)));
            let is_cut = x + 3.6 * text.len() as f64 > width;
            let (class, at) = if is_cut { ("end", width) } else { ("mid", x) };
            let _ = write!(out, "<path class=\"axis\" d=\"M{x:.1} {foot}v4\"/>");
            let _ = write!(out, "<text class=\"tick {class}\" x=\"{at:.1}\" y=\"{y:.1}\">{text}</text>");
        }
        let _ = write!(out, "<path class=\"axis\" d=\"M{LEFT} {foot}H{:.1}\"/>", width - RIGHT);
        let _ = write!(out, "<text class=\"tick end\" x=\"{}\" y=\"{:.1}\">step</text>", LEFT - 24.0, foot + 17.0);
    }

    fn marks(&self, frame: &Frame, out: &mut String) {
        let foot = frame.size.1 - BOTTOM;
        let every = self.skipped.len().div_ceil(N_MARKS_MAX).max(1);
        for (step, why) in self.skipped.iter().step_by(every) {
            let x = frame.x_of(*step);
            let step = thousands(*step as u64);
            let _ = write!(
                out,
                "<path class=\"skipped\" d=\"M{x:.1} {:.1}l-4 8h8z\"><title>step {step} was skipped: {}</title></path>",
                foot - 9.0,
                escape(why)
            );
        }
    }
}

impl Frame {
    fn x_of(&self, step: f64) -> f64 {
        LEFT + position(step, self.x.0, self.x.1) * (self.size.0 - LEFT - RIGHT)
    }

    /// Values above the frame stand at its edge.
    fn y_of(&self, value: f64) -> f64 {
        TOP + (1.0 - position(value, self.y.0, self.y.1).clamp(0.0, 1.0)) * (self.size.1 - TOP - BOTTOM)
    }
}

impl Line {
    /// Of its path, and of its key in the caption.
    pub fn classes(&self) -> String {
        let kind = if self.kind == LineKind::Faint { "faint" } else { "line" };
        format!("{kind} {}", self.class)
    }

    fn draw(&self, frame: &Frame, unit: &str, out: &mut String) {
        let points = match self.kind {
            LineKind::Smooth => sample(&self.points, N_STRETCHES),
            _ => thin(&self.points, N_STRETCHES),
        };
        let _ = write!(out, "<path class=\"{}\" d=\"{}\"/>", self.classes(), path(&points, frame));
        let is_short = points.len() <= N_POINTS_SHOWN && self.kind != LineKind::Faint;
        let every = if is_short { 1 } else { points.len().div_ceil(N_MARKS_MAX) };
        let finite = points.iter().filter(|p| p.1.is_finite() && (is_short || self.kind == LineKind::Dotted));
        for (step, value) in finite.step_by(every.max(1)) {
            let (x, y) = (frame.x_of(*step), frame.y_of(*value));
            let _ = write!(out, "<circle class=\"dot {}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\">", self.class);
            let (value, step) = (short(*value), thousands(*step as u64));
            let _ = write!(out, "<title>{}: {value}{unit} at step {step}</title></circle>", self.name);
        }
    }
}

/// `M1 2L3 4`: broken where a value is not finite. A point alone is drawn as one, by a line of no length.
fn path(points: &[(f64, f64)], frame: &Frame) -> String {
    let mut out = String::new();
    for stretch in points.split(|p| !p.1.is_finite()) {
        for (i, (step, value)) in stretch.iter().enumerate() {
            let _ = write!(out, "{}{:.1} {:.1}", if i == 0 { 'M' } else { 'L' }, frame.x_of(*step), frame.y_of(*value));
        }
        if stretch.len() == 1 {
            out.push_str("h0");
        }
    }
    out
}
