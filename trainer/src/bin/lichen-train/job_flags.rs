//! The settings of a job as flags: made from the library's table, so that a flag, a key of a job file and a field of a job
//! are one thing.

use std::path::Path;

use lichen_runtime::cli::flags::{Flags, Offer};
use lichen_runtime::cli::output;
use lichen_runtime::files::formats::json_file::{read_text_any, MAX_CONFIG_BYTES};
use lichen_runtime::setting::table::Entry;
use lichen_runtime::{Error, Result};
use lichen_trainer::job::{Job, JobFile, JobSetting, Method, JOB_SETTINGS};
use lichen_trainer::setting::DATA;

/// The flags of a job that were typed.
pub type JobFlags<O> = Flags<O>;

fn offered(is_offered: impl Fn(&JobSetting) -> bool) -> Vec<&'static Entry<Job>> {
    JOB_SETTINGS.iter().filter(|s| is_offered(s)).map(|s| &s.entry).collect()
}

/// An adapter's.
#[derive(Clone, Debug)]
pub struct OfLora;

impl Offer for OfLora {
    type Target = Job;

    fn settings() -> Vec<&'static Entry<Job>> {
        offered(|s| s.is_of(Method::Lora))
    }

    fn defaults() -> Job {
        Job::of(Method::Lora)
    }
}

/// Full training's.
#[derive(Clone, Debug)]
pub struct OfFull;

impl Offer for OfFull {
    type Target = Job;

    fn settings() -> Vec<&'static Entry<Job>> {
        offered(|s| s.is_of(Method::Full))
    }

    fn defaults() -> Job {
        Job::of(Method::Full)
    }
}

/// Those that a memory plan depends on, of both.
#[derive(Clone, Debug)]
pub struct OfPlan;

impl Offer for OfPlan {
    type Target = Job;

    fn settings() -> Vec<&'static Entry<Job>> {
        offered(|s| s.shapes_memory)
    }

    fn defaults() -> Job {
        Job::of(Method::Lora)
    }
}

/// Puts what was typed into a job.
///
/// # Errors
/// A value that is not allowed, or a flag of the other method.
pub fn fill<O: Offer<Target = Job>>(flags: &JobFlags<O>, job: &mut Job) -> Result<()> {
    let method = job.memory.method;
    let of_other = |entry: &Entry<Job>| JOB_SETTINGS.iter().any(|s| s.setting == entry.setting && !s.is_of(method));
    for (entry, values) in flags.typed() {
        if of_other(entry) {
            return Err(Error::usage(format!("{} is not of {} training; leave it out", entry.setting, method.name())));
        }
        entry.set_os(job, values)?;
    }
    Ok(())
}

/// A job file that was read; keys of an earlier version are named on the way.
///
/// # Errors
/// It cannot be read, is not TOML, or has a key that no job has.
pub fn read_job_file(path: &Path) -> Result<JobFile> {
    // What a shell makes of a pattern without quotes.
    if path.extension().is_some_and(|e| e == "jsonl" || e == "json") {
        let what =
            format!("is no job file: {DATA} is given for each file to train on, or once with a pattern in quotes");
        return Err(Error::usage(what).in_file(path));
    }
    let text = read_text_any(path, MAX_CONFIG_BYTES)?;
    let file = JobFile::parse(&text).map_err(|e| e.in_file(path))?;
    for note in file.renamed() {
        output::note(&format!("{}: {}", path.display(), note.text()));
    }
    Ok(file)
}

/// The job of a method: what was typed over what a file says, over what is usual.
///
/// # Errors
/// The file or a flag says something it may not, or the file is for another method.
pub fn job_of<O: Offer<Target = Job>>(method: Method, file: Option<&Path>, flags: &JobFlags<O>) -> Result<Job> {
    let mut job = Job::of(method);
    if let Some(path) = file {
        let file = read_job_file(path)?;
        if let Some(other) = file.method().filter(|other| *other != method) {
            let what = format!("method is {}, and this is {} training", other.name(), method.name());
            return Err(Error::usage(what).in_file(path));
        }
        file.fill(&mut job).map_err(|e| e.in_file(path))?;
    }
    fill(flags, &mut job)?;
    Ok(job)
}
