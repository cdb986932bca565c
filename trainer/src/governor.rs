//! Heat and power: when a training job runs, rests or stops to cool down. A function of the readings and of a monotonic
//! clock alone, so a test replays any afternoon, and a wall clock that jumps changes nothing. It decides when a step
//! runs, never what it computes.
//!
//! Before each step:
//!
//! ```text
//! loop {
//!     match governor.decide(telemetry.sample(), started.elapsed()) {
//!         Action::Run => break,
//!         Action::Wait(rest) => sleep(rest),
//!         Action::Pause => { save_once(); sleep(POLL) }
//!     }
//! }
//! ```

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::time::Duration;

use lichen_runtime::board::telemetry::Sample;
use lichen_runtime::{Error, Result};

use crate::setting::{MAX_BOARD_TEMP_C, POWER_BUDGET};

/// Where a job may be told to stop, in degrees Celsius: warmer than any room, cooler than where boards switch off.
pub const MAX_BOARD_TEMP_RANGE_C: RangeInclusive<f32> = 40.0..=110.0;

/// How often to ask again after [`Action::Pause`].
pub const POLL: Duration = Duration::from_secs(2);

/// Rest after a step, at most, whatever the heat: a rest is not a pause.
const REST_MAX: Duration = Duration::from_secs(60);
/// One `Wait`, at most: heat, power and signals are looked at this often while resting.
const WAIT_MAX: Duration = Duration::from_secs(5);
const WAIT_MIN: Duration = Duration::from_millis(50);
/// At the edge of stopping, a step of 1 s is followed by 3 s of rest: a quarter of the full heat.
const REST_PER_STEP_MAX: f64 = 3.0;
/// A sensor that falls silent is taken to read what it last did for this long; then the board has no such sensor.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Rest for the power budget after a step, at most, and how much overdrawn energy is remembered, as time at the budget.
/// Only a board that draws nearly its budget at rest gets there.
const DEBT_MAX: Duration = Duration::from_secs(3600);

/// Where a job rests and where it stops. Boards differ: 85 C is where Jetson modules begin to lower their clocks, and
/// they switch off a little above 100 C.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GovernorConfig {
    /// From here on a job rests between steps.
    pub throttle_c: f32,
    /// From here on it saves a checkpoint and pauses.
    pub stop_c: f32,
    /// Below this it goes on.
    pub resume_c: f32,
    /// Mean input power, over the job, at the start of every step.
    pub power_budget_mw: Option<u32>,
}

impl Default for GovernorConfig {
    fn default() -> Self {
        GovernorConfig { throttle_c: 85.0, stop_c: 95.0, resume_c: 75.0, power_budget_mw: None }
    }
}

impl GovernorConfig {
    /// From the settings, with `sample` of the board they are for. Throttling begins 10 C below `max_board_temp_c`, and the job
    /// goes on 20 C below it.
    ///
    /// # Errors
    /// A limit is out of range, or the board has no sensor to hold it by.
    pub fn new(max_board_temp_c: Option<f32>, power_budget_mw: Option<u32>, sample: Sample) -> Result<Self> {
        let mut config = GovernorConfig { power_budget_mw, ..GovernorConfig::default() };
        if let Some(stop_c) = max_board_temp_c {
            let (low, high) = (MAX_BOARD_TEMP_RANGE_C.start(), MAX_BOARD_TEMP_RANGE_C.end());
            if !MAX_BOARD_TEMP_RANGE_C.contains(&stop_c) {
                return Err(Error::usage(format!("{MAX_BOARD_TEMP_C} is {stop_c}; {low} to {high} (C) expected")));
            }
            if sample.temperature_c.is_none() {
                return Err(Error::usage(format!(
                    "{MAX_BOARD_TEMP_C}: this machine reports no temperature; leave it out"
                )));
            }
            config = GovernorConfig { throttle_c: stop_c - 10.0, stop_c, resume_c: stop_c - 20.0, ..config };
        }
        match power_budget_mw {
            Some(0) => Err(Error::usage(format!("{POWER_BUDGET} is 0; at least 1 mW expected"))),
            Some(_) if sample.power_mw.is_none() => {
                Err(Error::usage(format!("{POWER_BUDGET}: this machine reports no input power; leave it out")))
            }
            _ => Ok(config),
        }
    }
}

/// What to do before the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run a step, then ask again.
    Run,
    /// Rest this long, then ask again.
    Wait(Duration),
    /// Save a checkpoint if none was saved in this pause, ask again after [`POLL`].
    Pause,
}

/// The state between decisions. Times are since any fixed moment, by a clock that never goes back.
#[derive(Clone, Debug)]
pub struct Governor {
    config: GovernorConfig,
    temperature: Sensor<f32>,
    power: Sensor<u32>,
    is_paused: bool,
    last: Option<Duration>,
    /// When the step that is running began; `None` before the first one and while resting.
    step_start: Option<Duration>,
    step: Duration,
    /// When the last step ended.
    rest_start: Duration,
    /// Energy drawn past the budget since it was last kept.
    debt_mj: f64,
    rest_mw: Option<u32>,
}

impl Governor {
    pub fn new(config: GovernorConfig) -> Governor {
        Governor {
            config,
            temperature: Sensor::new(),
            power: Sensor::new(),
            is_paused: false,
            last: None,
            step_start: None,
            step: Duration::ZERO,
            rest_start: Duration::ZERO,
            debt_mj: 0.0,
            rest_mw: None,
        }
    }

    /// What to do now. A reading stands for the time since the one before.
    pub fn decide(&mut self, sample: Sample, now: Duration) -> Action {
        self.observe(sample, now);
        let is_resting = self.step_start.is_none();
        if let Some(start) = self.step_start.take() {
            self.step = now.saturating_sub(start);
            self.rest_start = now;
        }
        if is_resting {
            self.rest_mw = match (self.rest_mw, sample.power_mw) {
                (Some(least), Some(mw)) => Some(least.min(mw)),
                (known, new) => known.or(new),
            };
        }
        if self.is_too_hot(now) {
            return Action::Pause;
        }
        let rested = now.saturating_sub(self.rest_start);
        let rest = self.rest_for_heat(now).saturating_sub(rested).max(self.rest_for_power(rested));
        match rest.is_zero() {
            true => {
                self.step_start = Some(now);
                Action::Run
            }
            false => Action::Wait(rest.clamp(WAIT_MIN, WAIT_MAX)),
        }
    }

    /// Counts a reading taken within a step; long steps are measured better so. [`Governor::decide`] does it as well.
    pub fn observe(&mut self, sample: Sample, now: Duration) {
        let elapsed = now.saturating_sub(self.last.unwrap_or(now));
        self.last = Some(now);
        self.temperature.observe(sample.temperature_c.filter(|t| t.is_finite()), now);
        self.power.observe(sample.power_mw, now);
        if let (Some(budget), Some(drawn)) = (self.config.power_budget_mw, self.power.value(now)) {
            let (budget, drawn) = (f64::from(budget), f64::from(drawn));
            let debt = self.debt_mj + (drawn - budget) * elapsed.as_secs_f64();
            // No credit for the past: a cool night must not be followed by a day at full power.
            self.debt_mj = debt.clamp(0.0, budget * DEBT_MAX.as_secs_f64());
        }
    }

    /// The least power seen while resting, where it is over the budget: the budget cannot be kept, and steps run with
    /// the longest rests between them.
    pub fn unreachable_budget(&self) -> Option<u32> {
        self.rest_mw.filter(|rest| self.config.power_budget_mw.is_some_and(|budget| *rest >= budget))
    }

    fn is_too_hot(&mut self, now: Duration) -> bool {
        self.is_paused = match self.temperature.value(now) {
            Some(celsius) if self.is_paused => celsius >= self.config.resume_c,
            Some(celsius) => celsius >= self.config.stop_c,
            None => false,
        };
        self.is_paused
    }

    /// From nothing at `throttle_c` to the most at `stop_c`.
    fn rest_for_heat(&self, now: Duration) -> Duration {
        let GovernorConfig { throttle_c, stop_c, .. } = self.config;
        match self.temperature.value(now) {
            Some(celsius) if celsius >= throttle_c => {
                let heat = f64::from((celsius - throttle_c) / (stop_c - throttle_c)).clamp(0.0, 1.0);
                let rest = WAIT_MIN.as_secs_f64() + self.step.as_secs_f64() * REST_PER_STEP_MAX * heat;
                Duration::from_secs_f64(rest.min(REST_MAX.as_secs_f64()))
            }
            _ => Duration::ZERO,
        }
    }

    /// Until what was overdrawn is paid back.
    fn rest_for_power(&self, rested: Duration) -> Duration {
        let Some(budget) = self.config.power_budget_mw.map(f64::from).filter(|_| self.debt_mj > 0.0) else {
            return Duration::ZERO;
        };
        // Where rest pays back nothing, waiting for ever would not either.
        let rest_max = if self.unreachable_budget().is_some() { REST_MAX } else { DEBT_MAX };
        let at_rest = self.rest_mw.map_or(budget / 2.0, f64::from).min(budget);
        let needed = (self.debt_mj / (budget - at_rest)).min(rest_max.as_secs_f64());
        Duration::from_secs_f64(needed).min(rest_max.saturating_sub(rested))
    }
}

/// The last reading, and when it was.
#[derive(Clone, Copy, Debug)]
struct Sensor<T> {
    last: Option<(T, Duration)>,
}

impl<T: Copy> Sensor<T> {
    fn new() -> Self {
        Sensor { last: None }
    }

    fn observe(&mut self, reading: Option<T>, now: Duration) {
        self.last = reading.map(|value| (value, now)).or(self.last);
    }

    fn value(&self, now: Duration) -> Option<T> {
        self.last.filter(|(_, at)| now.saturating_sub(*at) <= SILENCE_MAX).map(|(value, _)| value)
    }
}
