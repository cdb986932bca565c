//! The settings of a job as flags: made from the library's table, so that a flag, a key of a job file and a field of a job
//! are one thing.

use std::ffi::OsString;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::parser::ValueSource;
use clap::{value_parser, Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use lichen_runtime::cli::output;
use lichen_runtime::files::formats::json_file::{read_text_any, MAX_CONFIG_BYTES};
use lichen_runtime::{Error, Result};
use lichen_trainer::job::{quoted, Job, JobFile, JobSetting, Method, JOB_SETTINGS};
use lichen_trainer::setting::DATA;

/// Which settings a subcommand offers.
pub trait Offer: Clone + Send + Sync + 'static {
    /// Whose defaults help shows.
    const METHOD: Method;
    fn has(setting: &JobSetting) -> bool;
}

/// An adapter's.
#[derive(Clone)]
pub struct OfLora;

/// Full training's.
#[derive(Clone)]
pub struct OfFull;

/// Those that a memory plan depends on, of both.
#[derive(Clone)]
pub struct OfPlan;

impl Offer for OfLora {
    const METHOD: Method = Method::Lora;

    fn has(setting: &JobSetting) -> bool {
        setting.is_of(Method::Lora)
    }
}

impl Offer for OfFull {
    const METHOD: Method = Method::Full;

    fn has(setting: &JobSetting) -> bool {
        setting.is_of(Method::Full)
    }
}

impl Offer for OfPlan {
    const METHOD: Method = Method::Lora;

    fn has(setting: &JobSetting) -> bool {
        setting.shapes_memory
    }
}

/// The flags that were typed, as text.
#[derive(Clone)]
pub struct JobFlags<O> {
    typed: Vec<(&'static JobSetting, Vec<OsString>)>,
    offer: PhantomData<O>,
}

/// Every name as a flag spells it.
static FLAGS: LazyLock<Vec<(&'static str, String)>> = LazyLock::new(|| {
    let names = JOB_SETTINGS.iter().flat_map(|s| s.names());
    names.map(|name| (name, name.replace('_', "-"))).collect()
});

fn as_long(name: &'static str) -> &'static str {
    FLAGS.iter().find(|(known, _)| *known == name).map_or(name, |(_, flag)| flag)
}

fn argument<O: Offer>(s: &'static JobSetting) -> Arg {
    let default = s.get(&Job::of(O::METHOD)).filter(|_| !s.is_switch() && !s.is_path());
    let help = match default {
        Some(default) => format!("{} [default: {default}]", s.doc),
        None => s.doc.to_string(),
    };
    let arg = Arg::new(s.setting.name()).long(as_long(s.setting.name())).help(help);
    let arg = arg.aliases(s.old_names.iter().map(|name| as_long(name)));
    let arg = arg.visible_aliases(s.short_name.map(as_long));
    match s.is_switch() {
        true => arg.action(ArgAction::SetTrue),
        false if s.is_list() => {
            arg.value_name(s.value_name).value_parser(value_parser!(OsString)).action(ArgAction::Append)
        }
        false => arg.value_name(s.value_name).value_parser(value_parser!(OsString)).allow_negative_numbers(true),
    }
}

impl<O: Offer> Args for JobFlags<O> {
    fn augment_args(command: Command) -> Command {
        command.args(JOB_SETTINGS.iter().filter(|s| O::has(s)).map(argument::<O>))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<O: Offer> FromArgMatches for JobFlags<O> {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let is_typed = |s: &&JobSetting| matches.value_source(s.setting.name()) == Some(ValueSource::CommandLine);
        let values = |s: &JobSetting| match s.is_switch() {
            true => vec![OsString::from("true")],
            false => matches.get_many::<OsString>(s.setting.name()).unwrap_or_default().cloned().collect(),
        };
        let offered = JOB_SETTINGS.iter().filter(|s| O::has(s));
        let typed = offered.filter(is_typed).map(|s| (s, values(s))).collect();
        Ok(JobFlags { typed, offer: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<O: Offer> JobFlags<O> {
    /// Puts what was typed into a job.
    ///
    /// # Errors
    /// A value that is not allowed, or a flag of the other method.
    pub fn fill(&self, job: &mut Job) -> Result<()> {
        for (s, values) in &self.typed {
            let method = job.memory.method;
            if !s.is_of(method) {
                let what = format!("{} is not of {} training; leave it out", s.setting, method.name());
                return Err(Error::usage(what));
            }
            s.clear(job);
            for value in values {
                let set = match (s.is_path(), value.to_str()) {
                    (true, _) => s.set_path(job, PathBuf::from(value)),
                    (false, Some(text)) => s.set(job, text),
                    (false, None) => Err("UTF-8".to_string()),
                };
                set.map_err(|allowed| {
                    Error::usage(format!("{} is {}; {allowed}", s.setting, quoted(&value.to_string_lossy())))
                })?;
            }
        }
        Ok(())
    }

    /// Whether this setting was typed.
    pub fn has(&self, name: &str) -> bool {
        self.typed.iter().any(|(s, _)| s.setting.name() == name)
    }
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
pub fn job_of<O: Offer>(method: Method, file: Option<&Path>, flags: &JobFlags<O>) -> Result<Job> {
    let mut job = Job::of(method);
    if let Some(path) = file {
        let file = read_job_file(path)?;
        if let Some(other) = file.method().filter(|other| *other != method) {
            let what = format!("method is {}, and this is {} training", other.name(), method.name());
            return Err(Error::usage(what).in_file(path));
        }
        file.fill(&mut job).map_err(|e| e.in_file(path))?;
    }
    flags.fill(&mut job)?;
    Ok(job)
}
