//! A job file: settings of a job as TOML keys, `rank = 8`.

use lichen_runtime::{suggest, Error, Result};
use toml::de::{DeTable, DeValue};

use super::definition::{Job, Method};
use super::settings::{setting_of_name, JobSetting, JOB_SETTINGS};
use super::value::quoted;
use crate::note::Note;

/// The key that says what is trained.
const METHOD: &str = "method";

/// What a file says, checked as far as that goes without a job.
#[derive(Debug, Default)]
pub struct JobFile {
    method: Option<Method>,
    entries: Vec<Entry>,
    renamed: Vec<Note>,
}

struct Entry {
    line: usize,
    key: String,
    setting: &'static JobSetting,
    /// One, or those of a list.
    values: Vec<String>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {} = {:?}", self.line, self.key, self.values)
    }
}

impl JobFile {
    /// # Errors
    /// The first line that is no TOML, or has a key that no job has, or no value that a setting could have.
    pub fn parse(text: &str) -> Result<JobFile> {
        let line_at = |at: usize| 1 + text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count();
        let table = DeTable::parse(text).map_err(|e| {
            let message = e.message().trim_end().replace('\n', ", ");
            Error::input(format!("line {}: {message}", line_at(e.span().map_or(0, |s| s.start))))
        })?;
        let mut items: Vec<_> = table.get_ref().iter().collect();
        items.sort_by_key(|(key, _)| key.span().start);
        let mut file = JobFile::default();
        for (key, value) in items {
            file.take(line_at(key.span().start), key.get_ref(), value.get_ref())?;
        }
        Ok(file)
    }

    fn take(&mut self, line: usize, key: &str, value: &DeValue<'_>) -> Result<()> {
        let name = key.replace('-', "_");
        let setting = setting_of_name(&name);
        if setting.is_none() && name != METHOD {
            let known = JOB_SETTINGS.iter().map(|s| s.setting.name()).chain([METHOD]);
            return Err(Error::input(format!("line {line}: unknown key \"{key}\"{}", suggest::hint(known, &name))));
        }
        let plain_value = plain(value).ok_or_else(|| {
            Error::input(format!("line {line}: \"{key}\" must be a number, a string, true, false or a list"))
        })?;
        let Some(setting) = setting else {
            let method = Method::parse(&plain_value).map_err(|allowed| refused(line, key, &plain_value, &allowed))?;
            self.method = Some(method);
            return Ok(());
        };
        let now = setting.setting.name();
        if name != now {
            self.renamed.push(Note::new(format!("line {line}: \"{key}\" is called \"{now}\" now")));
        }
        if let Some(other) = self.entries.iter().find(|e| e.setting.setting == setting.setting) {
            let what =
                format!("line {line}: \"{key}\" is set twice: \"{}\" in line {} is the same", other.key, other.line);
            return Err(Error::input(what));
        }
        let values = match (setting.is_list(), value) {
            (true, DeValue::Array(items)) => items.iter().filter_map(|item| plain(item.get_ref())).collect(),
            _ => vec![plain_value],
        };
        self.entries.push(Entry { line, key: key.to_string(), setting, values });
        Ok(())
    }

    /// What is trained, where the file says so.
    pub fn method(&self) -> Option<Method> {
        self.method
    }

    /// A line for each key that was called otherwise in an earlier version.
    pub fn renamed(&self) -> &[Note] {
        &self.renamed
    }

    /// Puts what the file says into a job, whose method decides which keys it may have.
    ///
    /// # Errors
    /// The line with a value that is not allowed, or with a key of the other method.
    pub fn fill(&self, job: &mut Job) -> Result<()> {
        let method = job.memory.method;
        for Entry { line, key, setting, values } in &self.entries {
            if !setting.is_of(method) {
                let (own, other) = (method.name(), setting.method.unwrap_or_default().name());
                let what =
                    format!("line {line}: unknown key \"{key}\": method {other} has it, and this job's is {own}");
                return Err(Error::input(what));
            }
            setting.clear(job);
            for value in values {
                setting.set(job, value).map_err(|allowed| refused(*line, key, value, &allowed))?;
            }
        }
        Ok(())
    }
}

impl Job {
    /// The default job with what a text of TOML says: `rank = 8`, one key a setting, and `method = "full"` to train every
    /// weight. What a key was called in an earlier version is read, and logged with what it is called now.
    ///
    /// # Errors
    /// The line that is no TOML, has an unknown key, or a value that is not allowed.
    pub fn from_toml(text: &str) -> Result<Job> {
        let file = JobFile::parse(text)?;
        for note in file.renamed() {
            log::warn!("{}", note.text());
        }
        let mut job = Job::of(file.method().unwrap_or_default());
        file.fill(&mut job)?;
        Ok(job)
    }
}

fn refused(line: usize, key: &str, value: &str, allowed: &str) -> Error {
    Error::usage(format!("line {line}: {key} is {}; {allowed}", quoted(value)))
}

/// A value as it would be typed.
fn plain(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(digits) => Some(digits.to_string()),
        DeValue::Float(digits) => Some(digits.to_string()),
        DeValue::Boolean(on) => Some(on.to_string()),
        DeValue::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(|item| plain(item.get_ref())).collect();
            items.map(|items| items.join(","))
        }
        DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_values() {
        let text =
            "rank = 16\nlearning_rate = 1e-3\ntargets = [\"q\", \"v\"]\nresume = true\nstrict = false\nout = \"a b\"\n\
                    memory-budget = \"1GiB\"\nclip = 0\nbatch = 2\n";
        let file = JobFile::parse(text).unwrap();
        let mut job = Job { strict: true, ..Job::default() };
        file.fill(&mut job).unwrap();
        let want = Job {
            learning_rate: Some(1e-3),
            resume: true,
            out: Some("a b".into()),
            max_grad_norm: 0.0,
            memory: crate::job::MemorySettings {
                rank: 16,
                targets: [true, false, true, false, false, false, false],
                memory_budget: Some(1 << 30),
                micro_batch_size: 2,
                ..Default::default()
            },
            ..Job::default()
        };
        assert_eq!(job, want);
        let renamed: Vec<&str> = file.renamed().iter().map(Note::text).collect();
        let said = [
            "line 8: \"clip\" is called \"max_grad_norm\" now",
            "line 9: \"batch\" is called \"micro_batch_size\" now",
        ];
        assert_eq!(renamed, said);
        assert_eq!(Job::from_toml(text).unwrap(), Job { strict: false, ..want });
    }

    #[test]
    fn a_file_may_say_what_is_trained() {
        let job = Job::from_toml("weights = \"bf16\"\nmethod = \"full\"\n").unwrap();
        assert_eq!((job.memory.method, job.memory.weights), (Method::Full, lichen_kernels::Format::BF16));
        assert_eq!(job.learning_rate(), 1e-5);
    }

    #[test]
    fn mistakes_name_their_line() {
        let cases = [
            ("rank = 8\nranke = 8\n", "line 2: unknown key \"ranke\" (did you mean \"rank\"?)"),
            ("rank = {a = 1}\n", "line 1: \"rank\" must be a number, a string, true, false or a list"),
            ("weights = \"f32\"\n", "line 1: unknown key \"weights\": method full has it, and this job's is lora"),
            (
                "method = \"full\"\nrank = 8\n",
                "line 2: unknown key \"rank\": method lora has it, and this job's is full",
            ),
            ("method = \"sft\"\n", "line 1: method is sft; lora or full"),
            ("\nrank = 0\n", "line 2: rank is 0; 1 to 1024"),
            ("learning_rate = nan\n", "line 1: learning_rate is nan; 0.000000000001 to 10"),
            ("strict = 1\n", "line 1: strict is 1; true or false"),
            ("rank = true\n", "line 1: rank is true; 1 to 1024"),
            ("data = \"\"\n", "line 1: data is \"\"; a path"),
            (
                "keep = 1\nsave_total_limit = 2\n",
                "line 2: \"save_total_limit\" is set twice: \"keep\" in line 1 is the same",
            ),
        ];
        for (text, want) in cases {
            assert_eq!(Job::from_toml(text).unwrap_err().message(), want, "{text}");
        }
        assert!(Job::from_toml("rank = \n").unwrap_err().message().starts_with("line 1: "));
    }

    /// Every beginning of a file, and every byte of it replaced: a job or one sentence, never a panic.
    #[test]
    fn damaged_files_are_refused_or_read() {
        let text =
            "rank = 16\nmethod = \"lora\"\nlearning_rate = 1e-3\ntargets = [\"q\", \"v\"]\nresume = true\nout = 'a'\n";
        let check = |text: &str| match Job::from_toml(text) {
            Ok(job) => assert!(matches!(job.memory.method, Method::Lora | Method::Full)),
            Err(e) => assert!(e.message().starts_with("line ") && !e.message().contains('\n'), "{text:?}: {e}"),
        };
        for at in 0..text.len() {
            check(&text[..at]);
            for new in ["\"", "'", "[", "]", "=", "\n", "{", "#", ".", "-", "0", "\u{0}", "é"] {
                check(&format!("{}{new}{}", &text[..at], &text[at + 1..]));
            }
        }
    }
}
