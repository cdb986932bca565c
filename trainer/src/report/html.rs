//! The page of a run: one file that opens without a network, with no script, light or dark as the reader has it.

#[cfg(test)]
mod tests;

use std::fmt::Write;

use lichen_runtime::escape::thousands;

use super::charts::{self, smoothed};
use super::escape::escape;
use super::scale::{range, short};
use super::svg::{Chart, NARROW, WIDE};
use super::RunSummary;
use crate::metrics::StepRow;

const STYLE: &str = include_str!("page.css");
/// Skipped steps and their reasons in full; the rest is a number.
const N_SKIPPED_MAX: usize = 20;

/// Renders the page. Whatever the texts hold, it is shown as text.
pub fn page(run: &RunSummary, rows: &[StepRow]) -> String {
    let title = if run.title.trim().is_empty() { "A training run" } else { &run.title };
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n",
        title = escape(title)
    );
    tiles(rows, &mut out);
    notes(&run.notes, &mut out);
    if let Some(loss) = charts::loss(rows).filter(Chart::has_data) {
        figure(&loss, true, &mut out);
    }
    scores(&run.scores, &mut out);
    answers(&run.answers, &mut out);
    let others: Vec<Chart> = charts::others(rows).into_iter().filter(Chart::has_data).collect();
    if !others.is_empty() {
        out.push_str("<section>\n<h2>While it ran</h2>\n<div class=\"pair\">\n");
        others.iter().for_each(|chart| figure(chart, false, &mut out));
        out.push_str("</div>\n</section>\n");
    }
    skipped(rows, &mut out);
    out.push_str("<div class=\"pair\">\n");
    pairs("What was trained", &run.settings, &mut out);
    pairs("Memory", &run.memory, &mut out);
    out.push_str("</div>\n</main>\n</body>\n</html>\n");
    out
}

/// The run in a few numbers.
fn tiles(rows: &[StepRow], out: &mut String) {
    let Some(last) = rows.last() else {
        out.push_str("<p class=\"muted\">No step was run.</p>\n");
        return;
    };
    out.push_str("<dl class=\"tiles\">\n");
    let mut tile = |name: &str, value: &str, detail: &str| {
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{value}</dd><dd class=\"muted\">{detail}</dd></div>");
    };
    let losses = smoothed(rows, |row| row.loss);
    if let (Some((_, first)), Some((_, end))) = (losses.first(), losses.last()) {
        tile("Loss", &short(*end), &format!("from {}", short(*first)));
    }
    let evals = rows.iter().filter_map(|row| Some((row.step, row.eval_loss?))).filter(|(_, loss)| loss.is_finite());
    if let Some((step, loss)) = evals.min_by(|a, b| a.1.total_cmp(&b.1)) {
        tile("Best eval loss", &short(loss), &format!("at step {}", thousands(step)));
    }
    let n_skipped = rows.iter().filter(|row| row.skipped.is_some()).count();
    let skipped =
        if n_skipped == 0 { "none skipped".into() } else { format!("{} skipped", thousands(n_skipped as u64)) };
    tile("Steps", &thousands(last.step), &skipped);
    let seconds = sum(rows.iter().map(|row| row.seconds));
    let tokens: u64 = rows.iter().map(|row| row.tokens).fold(0, u64::saturating_add);
    tile("Time", &duration(seconds), &format!("{} tokens", thousands(tokens)));
    if let Some((_, peak)) = range(rows.iter().map(|row| row.rss_bytes as f64)).filter(|(_, peak)| *peak > 0.0) {
        tile("Memory", &bytes(peak), "at most");
    }
    // A reading stands for its step.
    let energy = sum(rows.iter().filter_map(|row| Some(f64::from(row.power_mw?) / 1000.0 * row.seconds)));
    if energy > 0.0 {
        let per_step = energy / rows.len() as f64;
        let total = match energy < 3600.0 {
            true => format!("{} J", short(energy)),
            false => format!("{} Wh", short(energy / 3600.0)),
        };
        tile("Energy", &total, &format!("{} J a step", short(per_step)));
    }
    out.push_str("</dl>\n");
}

fn sum(values: impl Iterator<Item = f64>) -> f64 {
    values.filter(|v| v.is_finite()).sum()
}

/// `45 s`, `3 min 20 s`, `2 h 5 min`, `4 d 7 h`.
fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{} s", short(seconds)),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..172_800 => format!("{} h {} min", whole / 3600, whole / 60 % 60),
        _ => format!("{} d {} h", thousands(whole / 86_400), whole / 3600 % 24),
    }
}

fn bytes(n: f64) -> String {
    const GIB: f64 = (1u64 << 30) as f64;
    if n < GIB {
        format!("{:.0} MiB", n / GIB * 1024.0)
    } else {
        format!("{:.2} GiB", n / GIB)
    }
}

/// A chart with its caption; a wide one has a narrow twin for phones, where its letters would be too small.
fn figure(chart: &Chart, is_wide: bool, out: &mut String) {
    let unit =
        if chart.unit.is_empty() { String::new() } else { format!(" <span class=\"muted\">{}</span>", chart.unit) };
    let _ = write!(out, "<figure>\n<figcaption><b>{}</b>{unit}", chart.title);
    if chart.lines.len() > 1 {
        for line in &chart.lines {
            let _ = write!(out, "<span class=\"key {}\">{}</span>", line.classes(), line.name);
        }
    }
    if !chart.skipped.is_empty() {
        out.push_str("<span class=\"key skip\">skipped step</span>");
    }
    out.push_str("</figcaption>\n");
    match is_wide {
        true => {
            let _ = write!(
                out,
                "<div class=\"desk\">{}</div><div class=\"phone\">{}</div>",
                chart.svg(WIDE),
                chart.svg(NARROW)
            );
        }
        false => out.push_str(&chart.svg(NARROW)),
    }
    if let Some((n, edge)) = chart.clipped() {
        let values = if n == 1 { "value" } else { "values" };
        let _ = writeln!(
            out,
            "<p class=\"muted\">{} {values} above {} stand at the edge.</p>",
            thousands(n as u64),
            short(edge)
        );
    }
    out.push_str("</figure>\n");
}

fn notes(notes: &[String], out: &mut String) {
    if notes.is_empty() {
        return;
    }
    out.push_str("<ul class=\"notes\">\n");
    for note in notes {
        let _ = writeln!(out, "<li>{}</li>", escape(note));
    }
    out.push_str("</ul>\n");
}

fn scores(scores: &[(String, String, String)], out: &mut String) {
    if scores.is_empty() {
        return;
    }
    out.push_str("<section>\n<h2>Before and after</h2>\n<table>\n<thead><tr><th></th><th>before</th><th>after</th></tr></thead>\n<tbody>\n");
    for (name, before, after) in scores {
        let (name, before, after) = (escape(name), escape(before), escape(after));
        let _ = writeln!(out, "<tr><th scope=\"row\">{name}</th><td>{before}</td><td>{after}</td></tr>");
    }
    out.push_str("</tbody>\n</table>\n</section>\n");
}

fn answers(answers: &[(String, String, String)], out: &mut String) {
    if answers.is_empty() {
        return;
    }
    out.push_str("<section>\n<h2>Answers</h2>\n");
    for (prompt, before, after) in answers {
        let _ = writeln!(out, "<article>\n<h3 dir=\"auto\">{}</h3>\n<div class=\"pair\">", escape(prompt));
        for (name, text) in [("before", before), ("after", after)] {
            let text = match text.is_empty() {
                true => "<i class=\"muted\">no answer</i>".to_string(),
                false => escape(text),
            };
            let _ = writeln!(
                out,
                "<div><span class=\"muted\">{name}</span><blockquote dir=\"auto\">{text}</blockquote></div>"
            );
        }
        out.push_str("</div>\n</article>\n");
    }
    out.push_str("</section>\n");
}

fn skipped(rows: &[StepRow], out: &mut String) {
    let skipped: Vec<(u64, &str)> = rows.iter().filter_map(|row| Some((row.step, row.skipped.as_deref()?))).collect();
    if skipped.is_empty() {
        return;
    }
    out.push_str(
        "<section>\n<h2>Skipped steps</h2>\n<table>\n<thead><tr><th>step</th><th>why</th></tr></thead>\n<tbody>\n",
    );
    for (step, why) in skipped.iter().take(N_SKIPPED_MAX) {
        let _ = writeln!(out, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", thousands(*step), escape(why));
    }
    out.push_str("</tbody>\n</table>\n");
    if skipped.len() > N_SKIPPED_MAX {
        let _ = writeln!(out, "<p class=\"muted\">and {} more</p>", thousands((skipped.len() - N_SKIPPED_MAX) as u64));
    }
    out.push_str("</section>\n");
}

fn pairs(title: &str, pairs: &[(String, String)], out: &mut String) {
    if pairs.is_empty() {
        return;
    }
    let _ = write!(out, "<section>\n<h2>{title}</h2>\n<table>\n<tbody>\n");
    for (name, value) in pairs {
        let _ = writeln!(out, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escape(name), escape(value));
    }
    out.push_str("</tbody>\n</table>\n</section>\n");
}
