//! How rotations are stretched for positions beyond those of training.

/// How the frequencies of RoPE are scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Positions are divided by this; 1 for none.
    Linear(f32),
    Yarn(Yarn),
}

/// YaRN, Peng et al. 2023, arXiv 2309.00071: pairs that turn often within the context of training keep their frequency,
/// pairs that turn seldom have theirs divided by the factor, those between are blended; and the scores grow, because cosines
/// and sines are multiplied by [`Yarn::attention_factor`]. In the details as transformers and llama.cpp compute it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// How many times longer the context becomes, above 0.
    pub factor: f32,
    /// Positions of training.
    pub original_context: usize,
    /// Turns within them from which on a pair keeps its frequency; not below `beta_slow`.
    pub beta_fast: f32,
    /// Turns up to which its frequency is divided by the factor, above 0.
    pub beta_slow: f32,
    pub attention_factor: f32,
}

impl RopeScaling {
    pub const NONE: RopeScaling = RopeScaling::Linear(1.0);

    /// Radians per position of pair `i` of `head_dim / 2`, for a base of `theta`.
    pub(super) fn frequency(&self, i: usize, head_dim: usize, theta: f32) -> f32 {
        // Rounded to f32 before it is scaled, as every peer does.
        let plain = (theta as f64).powf(-(2.0 * i as f64) / head_dim as f64) as f32;
        match self {
            RopeScaling::Linear(factor) => plain / factor,
            RopeScaling::Yarn(yarn) => yarn.blend(plain, i, head_dim, theta),
        }
    }

    /// What cosines and sines are multiplied by.
    pub(super) fn magnitude(&self) -> f32 {
        match self {
            RopeScaling::Linear(_) => 1.0,
            RopeScaling::Yarn(yarn) => yarn.attention_factor,
        }
    }
}

impl From<f32> for RopeScaling {
    /// Linear.
    fn from(factor: f32) -> Self {
        RopeScaling::Linear(factor)
    }
}

impl Yarn {
    /// The paper's values, taken where a file does not say otherwise.
    pub const BETA_FAST: f32 = 32.0;
    pub const BETA_SLOW: f32 = 1.0;

    /// Positions of the longer context.
    pub fn context(&self) -> usize {
        (self.original_context as f64 * self.factor as f64) as usize
    }

    /// The paper's `0.1 ln(factor) + 1`, which is taken where a file does not say otherwise.
    pub fn default_attention_factor(factor: f32) -> f32 {
        match factor > 1.0 {
            true => (0.1 * (factor as f64).ln() + 1.0) as f32,
            false => 1.0,
        }
    }

    fn blend(&self, plain: f32, i: usize, head_dim: usize, theta: f32) -> f32 {
        let low = self.pair_that_turns(self.beta_fast, head_dim, theta).floor().max(0.0);
        let high = self.pair_that_turns(self.beta_slow, head_dim, theta).ceil().min(head_dim as f64 - 1.0);
        // A range of no width, which transformers widens by this much.
        let width = if high == low { 0.001 } else { high - low };
        let slow = ((i as f64 - low) / width).clamp(0.0, 1.0) as f32;
        plain / self.factor * slow + plain * (1.0 - slow)
    }

    /// The pair, as a fraction, that turns this often within the positions of training.
    fn pair_that_turns(&self, turns: f32, head_dim: usize, theta: f32) -> f64 {
        let ratio = self.original_context as f64 / (turns as f64 * std::f64::consts::TAU);
        head_dim as f64 * ratio.ln() / (2.0 * (theta as f64).ln())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QWEN: Yarn =
        Yarn { factor: 4.0, original_context: 32_768, beta_fast: 32.0, beta_slow: 1.0, attention_factor: 1.138_629_4 };

    /// Qwen 2.5's long context, head_dim 128 and base 1e6, against transformers 5.23 (`_compute_yarn_parameters`, float32).
    #[test]
    fn frequencies_are_those_of_transformers() {
        let golden = [
            (0, 1.0),
            (1, 0.805_842_2),
            (20, 0.013_335_215),
            (24, 0.005_375_321_5),
            (28, 0.001_848_276_6),
            (32, 0.000_602_941_15),
            (36, 0.000_179_841_15),
            (39, 6.490_394e-5),
            (40, 4.445_698_5e-5),
            (41, 3.582_531_6e-5),
            (48, 7.905_694e-6),
            (63, 3.102_344_4e-7),
        ];
        for (i, want) in golden {
            let got = RopeScaling::Yarn(QWEN).frequency(i, 128, 1e6);
            // Powers in float32 there, in f64 here.
            assert!((got - want).abs() <= 2e-6 * want, "pair {i}: {got}, {want}");
        }
    }

    #[test]
    fn the_attention_factor_is_the_papers() {
        assert_eq!(Yarn::default_attention_factor(4.0), 1.138_629_4);
        assert_eq!(Yarn::default_attention_factor(1.0), 1.0);
        assert_eq!(Yarn::default_attention_factor(0.5), 1.0);
    }

    /// One pair that is neither fast nor slow: the range has no width.
    #[test]
    fn a_range_without_width_is_a_step() {
        let yarn = Yarn { beta_fast: 1.0, beta_slow: 1.0, original_context: 6, ..QWEN };
        let scaling = RopeScaling::Yarn(yarn);
        let frequencies: Vec<f32> = (0..4).map(|i| scaling.frequency(i, 8, 1e4)).collect();
        assert!(frequencies.iter().all(|f| f.is_finite() && *f > 0.0), "{frequencies:?}");
        assert_eq!(frequencies[3], RopeScaling::NONE.frequency(3, 8, 1e4) / 4.0);
    }
}
