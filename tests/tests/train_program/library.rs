use std::path::{Path, PathBuf};

use lichen_runtime::engine::DeviceChoice;
use lichen_runtime::Result;
use lichen_tests::models::fixture;
use lichen_tests::sim_disk::SimDisk;
use lichen_trainer::job::{Job, MemorySettings, Note, Observer, Outcome, PreparedJob, METRICS_FILE};
use lichen_trainer::metrics::StepRow;

use crate::support::Trained;

pub const RUN: &str = "/run";

/// The job of `support::flags`; it resumes what it finds.
pub fn job(model: &str, max_steps: u64) -> Job {
    Job {
        memory: MemorySettings {
            model: Some(fixture(model)),
            rank: 4,
            dropout: 0.1,
            max_seq: 40,
            device: DeviceChoice::Cpu,
            threads: Some(2),
            ..MemorySettings::default()
        },
        alpha: 8.0,
        learning_rate: Some(2e-3),
        data: vec![fixture(&format!("training/{model}/rows.jsonl"))],
        out: Some(PathBuf::from(RUN)),
        eval_split: 0.2,
        gradient_accumulation_steps: 4,
        epochs: 100,
        max_steps: Some(max_steps),
        eval_every: Some(5),
        save_every: Some(3),
        resume: true,
        ..Job::default()
    }
}

pub fn open(job: Job) -> PreparedJob {
    PreparedJob::new(job).unwrap_or_else(|e| panic!("{e}"))
}

/// Watches a run, and does something after its steps.
pub struct Watch<'a> {
    pub notes: Vec<String>,
    pub rows: Vec<StepRow>,
    /// The run is asked to stop after this step.
    pub stop_at: Option<u64>,
    /// Called after every step, and for every note with the step before it.
    pub on_event: &'a mut dyn FnMut(u64, Option<&str>),
}

impl Observer for Watch<'_> {
    fn started(&mut self, _step: u64, _n_steps: u64) {}

    fn stepped(&mut self, row: &StepRow) {
        self.rows.push(row.clone());
        (self.on_event)(row.step, None);
    }

    fn note(&mut self, note: &Note) {
        self.notes.push(note.text().to_string());
        (self.on_event)(self.rows.last().map_or(0, |r| r.step), Some(note.text()));
    }

    fn wants_to_stop(&self) -> bool {
        self.stop_at.is_some_and(|stop| self.rows.last().map_or(0, |r| r.step) >= stop)
    }
}

/// What a run came to, with the notes it made.
pub struct Done {
    pub outcome: Result<Outcome>,
    pub notes: Vec<String>,
    pub rows: Vec<StepRow>,
}

/// Runs on a machine without sensors.
pub fn run(opened: &mut PreparedJob, disk: &SimDisk, stop_at: Option<u64>) -> Done {
    let mut watch = Watch { notes: Vec::new(), rows: Vec::new(), stop_at, on_event: &mut |_, _| {} };
    let outcome = opened.run(disk.shared(), Path::new("/no/sensors"), &mut watch);
    Done { outcome, notes: watch.notes, rows: watch.rows }
}

/// Runs to the end on this disk, whatever is on it.
pub fn finish(opened: &mut PreparedJob, disk: &SimDisk) -> Trained {
    let outcome = run(opened, disk, None).outcome.unwrap_or_else(|e| panic!("{e}"));
    trained(disk, outcome.step)
}

/// What stands on the disk after `step`.
pub fn trained(disk: &SimDisk, step: u64) -> Trained {
    let run = disk.tree(RUN);
    let folder = format!("/step-{step:08}/");
    let files = run.iter().filter_map(|(name, bytes)| Some((name.strip_prefix(&folder)?.to_string(), bytes.clone())));
    let rows = run.get(&format!("/{METRICS_FILE}")).map_or(String::new(), |b| String::from_utf8_lossy(b).into_owned());
    Trained::new(files.collect(), &rows)
}
