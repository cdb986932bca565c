//! The learning rate of each step: a linear warm-up, then constant, or down to a floor along a line or half a cosine.

/// How the learning rate goes down after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleShape {
    Constant,
    Linear,
    Cosine,
}

impl ScheduleShape {
    pub fn parse(name: &str) -> Result<ScheduleShape, String> {
        match name {
            "constant" => Ok(ScheduleShape::Constant),
            "linear" => Ok(ScheduleShape::Linear),
            "cosine" => Ok(ScheduleShape::Cosine),
            _ => Err("cosine, linear or constant".to_string()),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            ScheduleShape::Constant => "constant",
            ScheduleShape::Linear => "linear",
            ScheduleShape::Cosine => "cosine",
        }
    }
}

/// A schedule over a known number of steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    pub shape: ScheduleShape,
    pub peak: f64,
    /// Where it ends, as a share of the peak.
    pub floor: f64,
    pub warmup_steps: u64,
    pub n_steps: u64,
}

impl Schedule {
    /// The rate of step `step`, counted from 1: `peak * step / warmup` in the warm-up, the whole peak in the step after it.
    pub fn at(&self, step: u64) -> f64 {
        if step <= self.warmup_steps {
            return self.peak * step as f64 / (self.warmup_steps + 1) as f64;
        }
        let after = (self.n_steps - self.warmup_steps.min(self.n_steps)).max(1);
        let done = (step - 1 - self.warmup_steps) as f64 / after as f64;
        let share = match self.shape {
            ScheduleShape::Constant => return self.peak,
            ScheduleShape::Linear => 1.0 - done.min(1.0),
            ScheduleShape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos()),
        };
        self.peak * (self.floor + (1.0 - self.floor) * share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_at_the_ends_and_in_the_middle() {
        let schedule = |shape| Schedule { shape, peak: 2.0, floor: 0.0, warmup_steps: 3, n_steps: 13 };
        let cases = [
            (ScheduleShape::Constant, [0.5, 1.0, 1.5, 2.0], 2.0, 2.0),
            (ScheduleShape::Linear, [0.5, 1.0, 1.5, 2.0], 1.0, 0.2),
            (ScheduleShape::Cosine, [0.5, 1.0, 1.5, 2.0], 1.0, 0.048943483704846),
        ];
        for (shape, first, middle, last) in cases {
            let s = schedule(shape);
            for (step, want) in (1..).zip(first) {
                assert!((s.at(step) - want).abs() < 1e-12, "{shape:?} {step}");
            }
            assert!((s.at(9) - middle).abs() < 1e-12 && (s.at(13) - last).abs() < 1e-12, "{shape:?} {}", s.at(13));
        }
        let flat = Schedule { shape: ScheduleShape::Cosine, peak: 1.0, floor: 0.1, warmup_steps: 0, n_steps: 1 };
        assert_eq!((flat.at(1), flat.at(2)), (1.0, 0.1));
    }
}
