//! The loop of a run: step, measure, save, and stop without loss. What is trained is a function of the job alone; time,
//! heat, signals and full disks decide only when it is done and when it is saved.

mod save;

use std::sync::Arc;
use std::time::{Duration, Instant};

use lichen_kernels::Device;
use lichen_runtime::board::telemetry::{rss_bytes, Sample as Reading, Telemetry};
use lichen_runtime::files::disk::Disk;
use lichen_runtime::setting::RESUME;
use lichen_runtime::{Error, Result};

use super::evaluation::{answers, eval_loss, Scores};
use super::files;
use super::outcome::{Ending, Outcome};
use super::prepare::PreparedJob;
use super::state::{Allowed, State};
use super::summary;
use super::{Note, Observer, METRICS_FILE};
use crate::checkpoint::{cut_after_step, Checkpoint, Store};
use crate::data::Sample;
use crate::forward::Dropout;
use crate::governor::{Action, Governor, GovernorConfig, POLL};
use crate::journal::Journal;
use crate::metrics::StepRow;
use crate::network::{Network, StepReport};
use crate::schedule::Schedule;
use crate::setting::{POWER_BUDGET, RESTART};
use save::FailedSaves;

/// A checkpoint at least this often, but never so that saving takes more than a fiftieth of the time.
const SAVE_EVERY: Duration = Duration::from_secs(600);
const SAVE_SHARE: u32 = 50;
/// How long a rest lasts before it is asked again whether to stop.
const REST_SLICE: Duration = Duration::from_millis(100);

struct Run<'a> {
    opened: &'a PreparedJob,
    network: Network,
    store: Store,
    disk: Arc<dyn Disk>,
    state: State,
    journal: Journal,
    schedule: Schedule,
    governor: Governor,
    telemetry: Telemetry,
    observer: &'a mut dyn Observer,
    start: Instant,
    last_save: Instant,
    save_time: Duration,
    failed_saves: FailedSaves,
    step_end: Instant,
    warned_of_budget: bool,
    /// What the run has taken of a GPU's memory: all of it by the end of its first step.
    gpu_bytes: Option<u64>,
}

impl PreparedJob {
    /// Trains until all steps are done, or until the observer wants to stop. The machine's sensors are looked for below
    /// `sys_root`.
    ///
    /// # Errors
    /// The run cannot go on; what was saved stays.
    pub fn run(
        &mut self,
        disk: Arc<dyn Disk>,
        sys_root: &std::path::Path,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        let telemetry = Telemetry::new(sys_root);
        let governor = GovernorConfig::new(self.job.max_board_temp_c, self.job.power_budget_mw, telemetry.sample())?;
        let out = self.out().to_path_buf();
        let mut store = Store::open(disk.clone(), &out)?;
        store.keep(self.job.save_total_limit);
        let device = self.device.describe();
        for note in &self.notes {
            observer.note(note);
        }
        let data = crate::hex(&self.data.sha256());
        let fresh = State::new(Scores::default(), &self.base, data, self.settings(), device);
        let recovered = self.recover(&mut store, &fresh, observer)?;
        let metrics = out.join(METRICS_FILE);
        let cut = cut_after_step(&*disk, &metrics, recovered.as_ref().map_or(0, |g| g.step))?;
        if let Some(torn) = cut.torn {
            observer.note(&Note::new(format!("{}: repaired: {torn}", metrics.display())));
        }
        let mut network = self.load()?;
        let state = match &recovered {
            Some(checkpoint) => {
                let (state, notes) = self.resumed(files::read_state(checkpoint)?, fresh, &mut network)?;
                files::load(checkpoint, &mut network, state.updates)?;
                notes.iter().for_each(|note| observer.note(note));
                state
            }
            None => {
                let before = self.measure(&mut network)?;
                State { before, ..fresh }
            }
        };
        store.pin(state.best.map(|(_, step)| step));
        let now = Instant::now();
        let run = Run {
            schedule: self.schedule(),
            opened: self,
            network,
            store,
            journal: Journal::new(disk.clone(), metrics),
            disk: disk.clone(),
            state,
            governor: Governor::new(governor),
            telemetry,
            observer,
            start: now,
            last_save: now,
            save_time: Duration::ZERO,
            failed_saves: FailedSaves::default(),
            step_end: now,
            warned_of_budget: false,
            gpu_bytes: None,
        };
        let outcome = run.all(recovered.map(|g| g.step))?;
        if let Err(error) = summary::write(&*disk, self, &outcome) {
            log::warn!("{error}");
        }
        Ok(outcome)
    }

    /// The state of a checkpoint that goes on as this job, before its values are loaded; and what there is to say of it.
    fn resumed(&self, mut state: State, fresh: State, network: &mut Network) -> Result<(State, Vec<Note>)> {
        // Other questions than were asked at the start: what the start was worth on them is not known yet.
        let is_other_data = state.data_sha256 != fresh.data_sha256;
        if is_other_data || !self.asks(&state.before) {
            state.before = self.measure(network)?;
        }
        if is_other_data {
            state.best = None;
        }
        let notes = [state.changed_base(&fresh), state.changed_device(&fresh)].into_iter().flatten().map(Note::new);
        let notes = notes.collect();
        let State { base_sha256, base_identity, data_sha256, settings, device, .. } = fresh;
        Ok((State { base_sha256, base_identity, data_sha256, settings, device, ..state }, notes))
    }

    /// The checkpoint to go on from.
    fn recover(&self, store: &mut Store, fresh: &State, observer: &mut dyn Observer) -> Result<Option<Checkpoint>> {
        let job = &self.job;
        if job.restart {
            store.clear()?;
            return Ok(None);
        }
        let n_parameters = self.n_parameters();
        let recovered = store.recover(&|checkpoint| {
            // What belongs to another job has another size, is no damaged file, and is refused by name below.
            match files::read_state(checkpoint)?.check_same(fresh, Allowed { changed_data: true, other_base: true }) {
                Ok(()) => files::check(checkpoint, n_parameters),
                Err(_) => Ok(()),
            }
        })?;
        let Some(recovered) = recovered else { return Ok(None) };
        if !job.resume {
            let step = recovered.checkpoint.step;
            return Err(Error::input(format!(
                "holds a run at step {step}: {RESUME} goes on with it, {RESTART} begins again"
            ))
            .in_file(self.out()));
        }
        for line in &recovered.rejected {
            observer.note(&Note::new(line.as_str()));
        }
        let state = files::read_state(&recovered.checkpoint)?;
        let allowed = Allowed { changed_data: job.allow_changed_data, other_base: job.allow_other_base };
        state.check_same(fresh, allowed).map_err(|e| e.in_file(self.out()))?;
        Ok(Some(recovered.checkpoint))
    }

    /// Whether these answers are to this job's regression prompts.
    fn asks(&self, scores: &Scores) -> bool {
        scores.answers.iter().map(|a| &a.prompt).eq(self.regression_prompts.iter().map(|c| &c.prompt))
    }

    /// Eval loss and regression prompts of the network as it stands.
    fn measure(&self, network: &mut Network) -> Result<Scores> {
        let eval_loss = eval_loss(network, &self.data, self.job.memory.micro_batch_size)?;
        let answers = match self.data.encoder().filter(|_| !self.regression_prompts.is_empty()) {
            Some(encoder) => {
                let n = self.engine.n_threads();
                answers(network, &self.device, encoder, &self.source, &self.regression_prompts, n)?
            }
            None => Vec::new(),
        };
        Ok(Scores { eval_loss, answers })
    }
}

impl Run<'_> {
    fn all(mut self, resumed: Option<u64>) -> Result<Outcome> {
        let n_steps = self.opened.n_steps();
        self.observer.started(self.state.step, n_steps);
        while self.state.step < n_steps {
            if !self.wait_for_the_machine()? || self.observer.wants_to_stop() {
                return self.stop(resumed);
            }
            self.step()?;
            if self.state.step < n_steps && self.is_save_due() {
                self.save()?;
            }
        }
        self.finish(resumed)
    }

    /// One optimiser step, and its row.
    fn step(&mut self) -> Result<()> {
        let step = self.state.step + 1;
        let samples = self.samples()?;
        let learning_rate = self.schedule.at(step);
        let began = Instant::now();
        let job = &self.opened.job;
        let dropout =
            (job.dropout() > 0.0).then(|| Dropout { share: job.dropout(), seed: job.seed, step, micro_batch: 0 });
        let report = self.network.step(&samples, learning_rate, dropout)?;
        let compute_s = began.elapsed().as_secs_f64();
        if self.gpu_bytes.is_none() {
            self.gpu_bytes = gpu_bytes(self.opened)?;
        }
        self.state.step = step;
        self.state.samples += samples.len() as u64;
        self.state.updates = self.network.optimizer.t;
        let verdict = match &report.skipped {
            Some(why) => self.state.skips.skipped(step, why),
            None => {
                self.state.skips.taken();
                let average = self.state.loss_average.unwrap_or(report.loss);
                self.state.loss_average = Some(average + 0.05 * (report.loss - average));
                Ok(())
            }
        };
        let is_eval_due =
            self.opened.job.eval_every.is_some_and(|n| step.is_multiple_of(n)) || step == self.opened.n_steps();
        let eval = match is_eval_due && verdict.is_ok() {
            true => eval_loss(&mut self.network, &self.opened.data, self.opened.job.memory.micro_batch_size)?,
            false => None,
        };
        let is_best = |loss: &f64| loss.is_finite() && self.state.best.is_none_or(|(best, _)| *loss < best);
        if let Some(loss) = eval.filter(is_best) {
            self.state.best = Some((loss, step));
        }
        let row = self.row(&report, learning_rate, eval, compute_s);
        self.journal.append(&row.line(), self.observer);
        self.observer.stepped(&row);
        verdict
    }

    /// The samples of the next step, a function of how many were seen.
    fn samples(&self) -> Result<Vec<Sample>> {
        let n_train = self.opened.data.n_train() as u64;
        let end = (self.state.samples + self.opened.step_samples()).min(self.opened.n_samples());
        (self.state.samples..end).map(|i| self.opened.data.train(i / n_train, (i % n_train) as usize)).collect()
    }

    fn row(&mut self, report: &StepReport, learning_rate: f64, eval_loss: Option<f64>, compute_s: f64) -> StepRow {
        let now = Instant::now();
        let seconds = now.duration_since(self.step_end).as_secs_f64();
        self.step_end = now;
        let reading = self.telemetry.sample();
        StepRow {
            step: self.state.step,
            loss: report.loss,
            eval_loss,
            learning_rate,
            grad_norm: report.gradient_norm,
            tokens: report.rows as u64,
            labelled_tokens: report.targets as u64,
            skipped: report.skipped.clone(),
            overflows: report.overflows,
            seconds,
            tokens_per_s: report.rows as f64 / compute_s,
            rss_bytes: rss_bytes().unwrap_or(0),
            gpu_bytes: self.gpu_bytes,
            temperature_c: reading.temperature_c,
            power_mw: reading.power_mw,
        }
    }

    /// Rests while the board is too hot or draws too much. False when the run is to stop meanwhile.
    fn wait_for_the_machine(&mut self) -> Result<bool> {
        let mut saved = false;
        loop {
            let reading: Reading = self.telemetry.sample();
            let rest = match self.governor.decide(reading, self.start.elapsed()) {
                Action::Run => return Ok(true),
                Action::Wait(rest) => rest,
                Action::Pause => {
                    if !saved {
                        let hot = reading.temperature_c.unwrap_or_default();
                        self.observer.note(&Note::new(format!("{hot:.0} C: paused until the board is cooler")));
                        self.save()?;
                        saved = true;
                    }
                    POLL
                }
            };
            if let Some(mw) = self.governor.unreachable_budget().filter(|_| !self.warned_of_budget) {
                self.warned_of_budget = true;
                let what = format!("{POWER_BUDGET} cannot be kept: the board draws {mw} mW at rest");
                self.observer.note(&Note::new(what));
            }
            let end = Instant::now() + rest;
            while Instant::now() < end {
                if self.observer.wants_to_stop() {
                    return Ok(false);
                }
                std::thread::sleep(REST_SLICE.min(end.saturating_duration_since(Instant::now())));
            }
        }
    }

    fn is_save_due(&self) -> bool {
        let by_steps = self.opened.job.save_every.is_some_and(|n| self.state.step.is_multiple_of(n));
        let since = self.last_save.elapsed();
        by_steps || (since >= SAVE_EVERY && since >= self.save_time * SAVE_SHARE)
    }
}

fn gpu_bytes(opened: &PreparedJob) -> Result<Option<u64>> {
    Ok(match (&*opened.device, opened.plan.machine().gpu) {
        (Device::Cuda(cuda), Some(start)) => Some(start.free_bytes.saturating_sub(cuda.free_bytes()?) as u64),
        _ => None,
    })
}
