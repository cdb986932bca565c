//! Sampling settings that are given, over those that are not.

use super::SamplerConfig;

/// Sampling settings of a request, a flag or a file: those that are given.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplingOverrides {
    pub temperature: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repeat_penalty: Option<f32>,
    pub repeat_last_n: Option<usize>,
    pub seed: Option<u64>,
}

impl SamplingOverrides {
    /// Greedy: the most probable token every time.
    pub fn greedy() -> Self {
        SamplingOverrides { temperature: Some(0.0), ..SamplingOverrides::default() }
    }

    /// These settings, and `defaults` where there is none.
    pub fn or(self, defaults: SamplingOverrides) -> SamplingOverrides {
        SamplingOverrides {
            temperature: self.temperature.or(defaults.temperature),
            top_k: self.top_k.or(defaults.top_k),
            top_p: self.top_p.or(defaults.top_p),
            min_p: self.min_p.or(defaults.min_p),
            repeat_penalty: self.repeat_penalty.or(defaults.repeat_penalty),
            repeat_last_n: self.repeat_last_n.or(defaults.repeat_last_n),
            seed: self.seed.or(defaults.seed),
        }
    }

    /// What they make of a model's own settings. Greedy means greedy: no repetition penalty of the model's either, unless it
    /// is asked for.
    pub fn resolve(self, model: SamplerConfig) -> SamplerConfig {
        let model = match self.temperature {
            Some(0.0) => SamplerConfig { seed: model.seed, ..SamplerConfig::greedy() },
            _ => model,
        };
        SamplerConfig {
            temperature: self.temperature.unwrap_or(model.temperature),
            top_k: self.top_k.unwrap_or(model.top_k),
            top_p: self.top_p.unwrap_or(model.top_p),
            min_p: self.min_p.unwrap_or(model.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(model.repeat_penalty),
            repeat_last_n: self.repeat_last_n.unwrap_or(model.repeat_last_n),
            seed: self.seed.unwrap_or(model.seed),
        }
    }
}

impl From<SamplerConfig> for SamplingOverrides {
    fn from(config: SamplerConfig) -> Self {
        SamplingOverrides {
            temperature: Some(config.temperature),
            top_k: Some(config.top_k),
            top_p: Some(config.top_p),
            min_p: Some(config.min_p),
            repeat_penalty: Some(config.repeat_penalty),
            repeat_last_n: Some(config.repeat_last_n),
            seed: Some(config.seed),
        }
    }
}
