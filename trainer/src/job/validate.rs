//! The check of a job, whoever filled it.

use lichen_runtime::setting::RESUME;
use lichen_runtime::{Error, Result};

use super::definition::{Job, DEFAULT_EVAL_SPLIT};
use super::settings::JOB_SETTINGS;
use super::value::quoted;
use crate::setting::{DATA, EVAL_DATA, EVAL_SPLIT, OUT, RESTART};

impl Job {
    /// Refuses a job that cannot run, whatever the machine and the files: values outside their range, and those that do not
    /// go together. [`PreparedJob::new`](super::PreparedJob::new) asks this first.
    ///
    /// # Errors
    /// The first such setting, its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        let mut scratch = self.clone();
        for s in JOB_SETTINGS.iter().filter(|s| s.is_of(self.memory.method)) {
            let Some(value) = s.get(self) else { continue };
            s.set(&mut scratch, &value)
                .map_err(|allowed| Error::usage(format!("{} is {}; {allowed}", s.setting, quoted(&value))))?;
        }
        if self.resume && self.restart {
            return Err(Error::usage(format!("{RESUME} cannot be used with {RESTART}")));
        }
        if !self.eval_data.is_empty() && ![0.0, DEFAULT_EVAL_SPLIT].contains(&self.eval_split) {
            return Err(Error::usage(format!("{EVAL_SPLIT} cannot be used with {EVAL_DATA}")));
        }
        for (setting, is_there) in [(DATA, !self.data.is_empty()), (OUT, self.out.is_some())] {
            if !is_there {
                return Err(Error::usage(format!("{setting} is missing")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Method;

    type Change = fn(&mut Job);

    /// A job that is complete.
    fn whole() -> Job {
        Job { data: vec!["rows.jsonl".into()], out: Some("run".into()), ..Job::default() }
    }

    #[test]
    fn a_job_that_was_filled_by_hand_is_checked_as_one_of_a_file() {
        assert_eq!(whole().validate(), Ok(()));
        assert_eq!(Job { memory: Job::of(Method::Full).memory, ..whole() }.validate(), Ok(()));
        let cases: [(Change, &str); 15] = [
            (|job| job.memory.rank = 0, "rank is 0; 1 to 1024"),
            (|job| job.alpha = f32::NAN, "alpha is NaN; 0.001 to 1000000"),
            (|job| job.memory.dropout = 1.0, "dropout is 1.0; 0 to 0.95"),
            (
                |job| job.memory.targets = [false; 7],
                "targets is \"\"; all, or some of q,k,v,o,gate,up,down separated by commas",
            ),
            (|job| job.learning_rate = Some(f64::INFINITY), "learning_rate is inf; 0.000000000001 to 10"),
            (|job| job.memory.max_seq = 1, "max_seq is 1; 2 to 1048576"),
            (|job| job.memory.micro_batch_size = 0, "micro_batch_size is 0; 1 to 4096"),
            (|job| job.max_steps = Some(0), "max_steps is 0; 1 to 1099511627776"),
            (|job| job.max_grad_norm = -1.0, "max_grad_norm is -1.0; 0 to 1000000000"),
            (|job| job.eval_split = f64::NAN, "eval_split is NaN; 0 to 0.9"),
            (|job| job.max_board_temp_c = Some(39.0), "max_board_temp_c is 39.0; 40 to 110"),
            (
                |job| job.power_budget_mw = Some(0),
                "power_budget is 0mW; a power such as 5W or 5000mW, 100 mW to 1000 W",
            ),
            (|job| (job.resume, job.restart) = (true, true), "resume cannot be used with restart"),
            (|job| job.data.clear(), "data is missing"),
            (
                |job| (job.eval_data, job.eval_split) = (vec!["e.jsonl".into()], 0.1),
                "eval_split cannot be used with eval_data",
            ),
        ];
        for (change, want) in cases {
            let mut job = whole();
            change(&mut job);
            assert_eq!(job.validate().unwrap_err().message(), want);
        }
        // An adapter's settings are nothing to full training.
        let mut full = Job { memory: Job::of(Method::Full).memory, ..whole() };
        (full.memory.rank, full.alpha) = (0, f32::NAN);
        assert_eq!(full.validate(), Ok(()));
    }
}
