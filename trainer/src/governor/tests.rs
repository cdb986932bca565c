//! Afternoons of a made-up board, and what the governor makes of them.

use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;
const YEARS_50: Duration = Duration::from_secs(50 * 365 * 86_400);

fn hot(celsius: f32) -> Sample {
    Sample { temperature_c: Some(celsius), power_mw: None }
}

fn drawing(milliwatts: u32) -> Sample {
    Sample { temperature_c: None, power_mw: Some(milliwatts) }
}

/// Asks until a step may run; returns the rest and the clock. `None` after 100,000 answers.
fn rest_until_run(governor: &mut Governor, sample: Sample, mut now: Duration) -> Option<(Duration, Duration)> {
    let start = now;
    for _ in 0..100_000 {
        match governor.decide(sample, now) {
            Action::Run => return Some((now - start, now)),
            Action::Wait(rest) => {
                assert!(rest >= WAIT_MIN && rest <= WAIT_MAX, "{rest:?}");
                now += rest;
            }
            Action::Pause => now += POLL,
        }
    }
    None
}

#[test]
fn the_hotter_the_longer_the_rest() {
    // (temperature, step in ms, rest in ms): throttling begins at 85 C, three steps of rest at 95 C.
    let cases: [(f32, u64, u64); 11] = [
        (-40.0, 1000, 0),
        (0.0, 1000, 0),
        (84.9, 1000, 0),
        (85.0, 1000, 50),
        (85.0, 30_000, 50),
        (90.0, 0, 50),
        (90.0, 1000, 1550),
        (92.5, 1000, 2300),
        (92.5, 10_000, 22_550),
        (94.75, 1000, 2975),
        // A rest is at most a minute.
        (94.75, 100_000, 60_000),
    ];
    for (celsius, step_ms, want_ms) in cases {
        let mut governor = Governor::new(GovernorConfig::default());
        assert_eq!(governor.decide(hot(20.0), MS(7)), Action::Run, "{celsius} C: a cold start");
        let (rest, _) = rest_until_run(&mut governor, hot(celsius), MS(7 + step_ms)).expect("a throttled step runs");
        let off = rest.abs_diff(MS(want_ms));
        // The last wait may be stretched to 50 ms.
        assert!(off <= WAIT_MIN, "{celsius} C, step of {step_ms} ms: rest {rest:?}, expected {want_ms} ms");
        assert!((want_ms == 0) == rest.is_zero(), "{celsius} C: rest {rest:?}");
    }
}

#[test]
fn pauses_begin_at_95_and_end_below_75() {
    use Action::{Pause, Run};
    // (seconds, reading, answer), in order.
    let cases: [(u64, Option<f32>, Action); 14] = [
        (0, Some(60.0), Run),
        (10, Some(95.0), Pause),
        (12, Some(94.0), Pause),
        (14, Some(84.0), Pause),
        (16, Some(75.0), Pause),
        (18, Some(74.9), Run),
        (20, Some(f32::NAN), Run),
        (30, Some(200.0), Pause),
        // A sensor that falls silent reads what it did, for a minute.
        (40, None, Pause),
        (90, None, Pause),
        (91, None, Run),
        (92, Some(80.0), Run),
        (93, Some(95.5), Pause),
        (94, Some(10.0), Run),
    ];
    for shift in [Duration::ZERO, YEARS_50] {
        let mut governor = Governor::new(GovernorConfig::default());
        for (seconds, celsius, want) in cases {
            let sample = Sample { temperature_c: celsius, power_mw: None };
            let got = governor.decide(sample, shift + Duration::from_secs(seconds));
            assert_eq!(got, want, "second {seconds}, {celsius:?} C, clock from {shift:?}");
        }
    }
}

#[test]
fn a_board_without_sensors_runs() {
    let mut governor = Governor::new(GovernorConfig { power_budget_mw: Some(1), ..GovernorConfig::default() });
    for seconds in 0..1000 {
        assert_eq!(governor.decide(Sample::default(), Duration::from_secs(seconds)), Action::Run);
    }
}

#[test]
fn a_clock_that_goes_back_changes_nothing() {
    let config = GovernorConfig { power_budget_mw: Some(5000), ..GovernorConfig::default() };
    let mut governor = Governor::new(config);
    assert_eq!(governor.decide(drawing(1000), YEARS_50), Action::Run);
    assert_eq!(governor.decide(drawing(9000), Duration::ZERO), Action::Run, "no time has passed");
    assert_eq!(governor.decide(drawing(9000), MS(1)), Action::Wait(WAIT_MIN));
}

struct Power {
    name: &'static str,
    budget_mw: u32,
    step_mw: u32,
    rest_mw: u32,
    step_ms: u64,
}

/// Runs 200 steps; returns the mean power up to the start of the last step, and the share of time that steps got.
fn mean_power(case: &Power, shift: Duration) -> (f64, f64) {
    let config = GovernorConfig { power_budget_mw: Some(case.budget_mw), ..GovernorConfig::default() };
    let mut governor = Governor::new(config);
    let (mut now, mut energy_mj, mut busy) = (shift, 0.0, Duration::ZERO);
    assert_eq!(governor.decide(drawing(case.rest_mw), now), Action::Run);
    let mut result = (0.0, 0.0);
    for _ in 0..200 {
        now += MS(case.step_ms);
        busy += MS(case.step_ms);
        energy_mj += f64::from(case.step_mw) * MS(case.step_ms).as_secs_f64();
        // The first reading is of the step, later ones of the rest.
        let mut sample = drawing(case.step_mw);
        while let Action::Wait(rest) = governor.decide(sample, now) {
            sample = drawing(case.rest_mw);
            now += rest;
            energy_mj += f64::from(case.rest_mw) * rest.as_secs_f64();
        }
        let elapsed = (now - shift).as_secs_f64();
        result = (energy_mj / elapsed, busy.as_secs_f64() / elapsed);
    }
    result
}

#[test]
fn mean_power_stays_below_the_budget() {
    let cases = [
        Power { name: "under the budget", budget_mw: 10_000, step_mw: 9_999, rest_mw: 3_000, step_ms: 900 },
        Power { name: "a Nano at 5 W", budget_mw: 5_000, step_mw: 9_000, rest_mw: 1_800, step_ms: 2_500 },
        Power { name: "long steps", budget_mw: 7_000, step_mw: 15_000, rest_mw: 4_000, step_ms: 120_000 },
        Power { name: "short steps", budget_mw: 7_000, step_mw: 15_000, rest_mw: 4_000, step_ms: 3 },
        Power { name: "just over", budget_mw: 7_000, step_mw: 7_001, rest_mw: 6_999, step_ms: 700 },
    ];
    for case in &cases {
        let (mean_mw, share) = mean_power(case, Duration::ZERO);
        let budget = f64::from(case.budget_mw);
        assert!(mean_mw <= budget * (1.0 + 1e-9), "{}: {mean_mw} mW of {budget}", case.name);
        // No more rest than needed: what two powers mix to the budget, less the grain of waits (50 ms a step).
        let (step_mw, rest_mw) = (f64::from(case.step_mw), f64::from(case.rest_mw));
        let ideal = ((budget - rest_mw) / (step_mw - rest_mw)).min(1.0);
        let step_s = case.step_ms as f64 / 1000.0;
        let least = step_s / (step_s / ideal + 2.0 * WAIT_MIN.as_secs_f64());
        assert!(share >= least * 0.98, "{}: steps got {share} of the time, {ideal} is possible", case.name);
        assert_eq!(mean_power(case, YEARS_50).0.round(), mean_mw.round(), "{}: fifty years on", case.name);
    }
}

#[test]
fn a_budget_below_rest_never_stops_the_job() {
    let config = GovernorConfig { power_budget_mw: Some(2000), ..GovernorConfig::default() };
    let mut governor = Governor::new(config);
    let mut now = rest_until_run(&mut governor, drawing(3500), MS(0)).expect("the first step runs").1;
    for step in 0..20 {
        now += MS(1000);
        let (rest, after) = rest_until_run(&mut governor, drawing(3500), now).expect("a step runs");
        assert!(rest <= REST_MAX + WAIT_MIN, "step {step}: rest {rest:?}");
        now = after;
    }
    assert_eq!(governor.unreachable_budget(), Some(3500));
    assert_eq!(Governor::new(config).unreachable_budget(), None);
}

#[test]
fn readings_within_a_step_count() {
    let config = GovernorConfig { power_budget_mw: Some(5000), ..GovernorConfig::default() };
    // Ten seconds at 9 W, and the reading at the end of the step happens to be low.
    let mut blind = Governor::new(config);
    let mut watching = Governor::new(config);
    for governor in [&mut blind, &mut watching] {
        assert_eq!(governor.decide(drawing(2000), Duration::ZERO), Action::Run);
    }
    for second in 1..10 {
        watching.observe(drawing(9000), Duration::from_secs(second));
    }
    assert_eq!(blind.decide(drawing(2000), Duration::from_secs(10)), Action::Run);
    assert_eq!(watching.decide(drawing(2000), Duration::from_secs(10)), Action::Wait(WAIT_MAX));
}

#[test]
fn settings_are_checked_against_the_board() {
    let both = Sample { temperature_c: Some(40.0), power_mw: Some(2000) };
    let config = |stop: Option<f32>, budget: Option<u32>, sample: Sample| GovernorConfig::new(stop, budget, sample);
    assert_eq!(config(None, None, Sample::default()), Ok(GovernorConfig::default()));
    let want = GovernorConfig { throttle_c: 70.0, stop_c: 80.0, resume_c: 60.0, power_budget_mw: Some(7000) };
    assert_eq!(config(Some(80.0), Some(7000), both), Ok(want));
    let refused: [(Option<f32>, Option<u32>, Sample, &str); 6] = [
        (Some(39.9), None, both, "max_board_temp_c is 39.9; 40 to 110 (C) expected"),
        (Some(f32::NAN), None, both, "max_board_temp_c is NaN; 40 to 110 (C) expected"),
        (Some(1e9), None, both, "max_board_temp_c is 1000000000; 40 to 110 (C) expected"),
        (Some(80.0), None, drawing(1), "max_board_temp_c: this machine reports no temperature; leave it out"),
        (None, Some(0), both, "power_budget is 0; at least 1 mW expected"),
        (None, Some(1), hot(1.0), "power_budget: this machine reports no input power; leave it out"),
    ];
    for (stop, budget, sample, want) in refused {
        assert_eq!(config(stop, budget, sample).unwrap_err().message(), want);
    }
}
