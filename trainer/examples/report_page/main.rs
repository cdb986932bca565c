//! Draws the page, the event file and the curve of a made-up run: what a report looks like, without training anything.
//!
//! `cargo run -p lichen-trainer --example report_page -- FOLDER [STEPS]`

mod synthetic;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use lichen_trainer::metrics::StepRow;
use lichen_trainer::report::{curve, html, tensorboard, RunSummary};

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), n_steps) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: report_page FOLDER [STEPS]");
        std::process::exit(2);
    };
    let Ok(n_steps) = n_steps.as_deref().unwrap_or("600").parse() else {
        eprintln!("STEPS is a number of steps");
        std::process::exit(2);
    };
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    let rows = synthetic::rows(n_steps);
    std::fs::write(folder.join("report.html"), html::page(&synthetic::summary(), &rows))?;
    std::fs::write(folder.join("metrics.jsonl"), rows.iter().map(StepRow::line).collect::<String>())?;
    let mut events = BufWriter::new(File::create(folder.join(tensorboard::file_name(1.7e9, "example")))?);
    tensorboard::write_events(&rows, 1.7e9, &mut events)?;
    events.flush()?;
    let losses: Vec<f64> = rows.iter().map(|row| row.loss).collect();
    print!("{}\n{}", curve::curve(&losses, 78, 10), curve::curve_ascii(&losses, 78, 10));
    Ok(())
}
