//! What a run leaves behind: its checkpoints, and at the end the link to one that is no worse than the start.

use std::time::Instant;

use lichen_runtime::{Error, Result};

use super::{Ending, Outcome, Run};
use crate::checkpoint::publish;
use crate::job::evaluation::{compare, Scores, Verdict};
use crate::job::files;
use crate::job::Note;

/// Saves that may fail in a row.
const FAILED_SAVES_MAX: u32 = 3;

/// Saves that failed since the last that did not.
#[derive(Default)]
pub(super) struct FailedSaves {
    n: u32,
    /// What the last one said, numbers aside: a full disk is warned of once.
    cause: String,
}

impl Run<'_> {
    /// Saves a checkpoint. A save that fails costs nothing but itself; after three the run ends.
    pub(super) fn save(&mut self) -> Result<()> {
        let Err(error) = self.try_save(&[]) else {
            self.failed_saves = FailedSaves::default();
            return Ok(());
        };
        let failed = &mut self.failed_saves;
        failed.n += 1;
        if failed.n >= FAILED_SAVES_MAX {
            let what = format!("{}; {} checkpoints in a row could not be saved", error.message(), failed.n);
            return Err(Error::limit(what));
        }
        let cause = error.message().chars().filter(|c| !c.is_ascii_digit()).collect();
        if failed.cause != cause {
            let what = format!("step {} is not saved, training goes on: {error}", self.state.step);
            self.observer.note(&Note::new(what));
            failed.cause = cause;
        }
        Ok(())
    }

    fn try_save(&mut self, extra: &[(String, Vec<u8>)]) -> Result<()> {
        let began = Instant::now();
        self.journal.sync(self.observer);
        self.store.pin(self.state.best.map(|(_, step)| step));
        let base_name = self.opened.name.clone();
        let dropout = self.opened.job.dropout();
        let mut files = self.opened.companions()?;
        files.extend_from_slice(extra);
        let saved = files::save(&mut self.store, &self.network, &self.state, &base_name, dropout, &files);
        (self.last_save, self.save_time) = (Instant::now(), began.elapsed());
        if saved.is_ok() {
            log::info!("step {} saved in {:.2} s", self.state.step, self.save_time.as_secs_f64());
        }
        saved
    }

    pub(super) fn stop(mut self, resumed: Option<u64>) -> Result<Outcome> {
        self.try_save(&[])?;
        Ok(self.outcome(Ending::Stopped, resumed, None))
    }

    /// The last measurement, the last checkpoint, and the link to it when it is no worse than the start.
    pub(super) fn finish(mut self, resumed: Option<u64>) -> Result<Outcome> {
        let after = self.opened.measure(&mut self.network)?;
        let verdict = compare(&self.state.before, &after);
        let published = !matches!(verdict, Verdict::Worse(_));
        let reason = match &verdict {
            Verdict::Worse(why) => Some(why.clone()),
            _ => None,
        };
        let record = serde_json::json!({
            "base": self.opened.name,
            "base_sha256": self.state.base_sha256,
            "data": self.opened.data_name(),
            "data_sha256": self.state.data_sha256,
            "settings": self.state.settings,
            "steps": self.state.step,
            "skipped_steps": self.state.skips.total,
            "before": self.state.before,
            "after": after,
            "passed": published,
            "reason": reason,
            "version": self.state.version,
        });
        self.try_save(&[files::adapter_file(&record)])?;
        if published {
            publish(&self.disk, self.opened.out(), &checkpoint_name(self.state.step))?;
        }
        Ok(self.outcome(Ending::Finished(verdict), resumed, Some(after)))
    }

    fn outcome(self, ending: Ending, resumed: Option<u64>, after: Option<Scores>) -> Outcome {
        Outcome {
            ending,
            step: self.state.step,
            n_steps: self.opened.n_steps(),
            resumed,
            before: self.state.before,
            after,
            loss: self.state.loss_average,
            skipped: self.state.skips.total,
            checkpoint: checkpoint_name(self.state.step),
            seconds: self.start.elapsed().as_secs_f64(),
        }
    }
}

/// As the store names it.
fn checkpoint_name(step: u64) -> String {
    format!("step-{step:08}")
}
