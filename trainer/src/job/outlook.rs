//! What a run will be, said before its first step.

use lichen_runtime::escape::counted;

use super::value::{loss_on_name, shortest};
use super::PreparedJob;
use crate::note::Note;
use crate::setting::{
    EPOCHS, EVAL_DATA, EVAL_SPLIT, GRADIENT_ACCUMULATION_STEPS, LEARNING_RATE, LOSS_ON, MAX_STEPS, WARMUP,
};

impl PreparedJob {
    /// Tokens of all steps.
    pub fn n_tokens(&self) -> u64 {
        let n_train = self.data.n_train() as u64;
        let (epochs, rest) = (self.n_samples() / n_train, self.n_samples() % n_train);
        let partial = (0..rest as usize).map(|i| self.data.train_size(epochs, i).n_tokens as u64);
        epochs * self.data.n_train_tokens() + partial.sum::<u64>()
    }

    /// What is trained on and what is held out, how many steps that makes, and what about that is odd.
    pub fn outlook(&self) -> Vec<Note> {
        let (n_steps, job) = (self.n_steps(), &self.job);
        let mut notes = vec![Note::new(format!(
            "{}, {}; {LOSS_ON} {}: {} of {}, {}",
            are(self.data.n_train(), "trained on"),
            self.held_out(),
            loss_on_name(job.loss_on()),
            counted(n_steps, "step"),
            counted(self.step_samples().min(self.n_samples()), "sample"),
            counted(self.n_tokens(), "token"),
        ))];
        if n_steps == 1 {
            let hint = match job.max_steps {
                Some(1) => format!("{MAX_STEPS} is 1"),
                _ => format!("lower {GRADIENT_ACCUMULATION_STEPS}, or raise {EPOCHS}"),
            };
            notes.push(Note::new(format!("this is one step in all: the weights are updated once ({hint})")));
        }
        let warmup = self.schedule().warmup_steps;
        if warmup > n_steps {
            notes.push(Note::new(format!(
                "{WARMUP} is {}, and the run has {}: {LEARNING_RATE} rises all the time and never reaches {}",
                counted(warmup, "step"),
                counted(n_steps, "step"),
                shortest(job.learning_rate())
            )));
        }
        notes
    }

    fn held_out(&self) -> String {
        let held_out = are(self.data.n_eval(), "held out");
        match (self.data.n_eval(), self.job.eval_data.is_empty()) {
            (_, false) => format!("{held_out} ({EVAL_DATA})"),
            (0, true) => "none is held out".to_string(),
            (_, true) => format!("{held_out} ({EVAL_SPLIT} is {})", shortest(self.job.eval_split)),
        }
    }
}

/// `1 sample is held out`, `7 samples are trained on`.
fn are(n: usize, what: &str) -> String {
    format!("{} {} {what}", counted(n as u64, "sample"), if n == 1 { "is" } else { "are" })
}
