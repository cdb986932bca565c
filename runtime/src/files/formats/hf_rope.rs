//! RoPE as `config.json` describes it: `rope_theta` and `rope_scaling` of released checkpoints, `rope_parameters` of
//! transformers 5. Where a field is absent the value is the one transformers takes (its `modeling_rope_utils.py`).

use lichen_kernels::ops::rope::{RopeScaling, Yarn};

use super::hf_config::{missing, MAX_POSITIONS};
use super::json_file::{show, Fields};
use crate::error::{Error, Result};

/// The rotations of Gemma 3's global and local layers.
pub(super) struct Gemma3Rope {
    pub theta: f32,
    pub theta_local: f32,
    /// Of global layers.
    pub scaling: RopeScaling,
}

/// The frequencies of global and local layers; transformers' defaults are 1e6 and 1e4.
pub(super) fn gemma3(fields: &Fields) -> Result<Gemma3Rope> {
    let local = fields.positive("rope_local_base_freq", 1e12)?.unwrap_or(10_000.0);
    let parameters = fields.object("rope_parameters")?;
    let of = |kind: &str| parameters.map_or(Ok(None), |rope| rope.object(kind));
    let (theta, scaling) = match of("full_attention")? {
        Some(full) => Entry::new(full, "rope_parameters.full_attention").read(1e6)?,
        None => released(fields, 1e6, None)?,
    };
    let (theta_local, scaling_local) = match of("sliding_attention")? {
        Some(sliding) => Entry::new(sliding, "rope_parameters.sliding_attention").read(local)?,
        None => (local as f32, RopeScaling::NONE),
    };
    if scaling_local != RopeScaling::NONE {
        return Err(Error::input("rope_parameters.sliding_attention.factor: scaled local layers are not supported"));
    }
    Ok(Gemma3Rope { theta, theta_local, scaling })
}

/// Base and scaling of Qwen 2; `context` positions were trained where the scaling does not say.
pub(super) fn qwen2(fields: &Fields, context: usize) -> Result<(f32, RopeScaling)> {
    match fields.object("rope_parameters")? {
        Some(rope) => Entry { yarn_context: Some(context), ..Entry::new(rope, "rope_parameters") }.read(10_000.0),
        None => released(fields, 10_000.0, Some(context)),
    }
}

/// `rope_theta` and `rope_scaling` beside each other.
fn released(fields: &Fields, default_theta: f64, yarn_context: Option<usize>) -> Result<(f32, RopeScaling)> {
    let theta = fields.positive("rope_theta", 1e12)?.unwrap_or(default_theta);
    let scaling = match fields.object("rope_scaling")? {
        Some(scaling) => Entry { yarn_context, ..Entry::new(scaling, "rope_scaling") }.read(theta)?.1,
        None => RopeScaling::NONE,
    };
    Ok((theta as f32, scaling))
}

/// `{rope_theta, rope_type, factor, ..}` of the name `what`.
struct Entry<'a> {
    fields: Fields<'a>,
    what: &'static str,
    /// Positions of training, where the family is known to be stretched by YaRN.
    yarn_context: Option<usize>,
}

impl<'a> Entry<'a> {
    fn new(fields: Fields<'a>, what: &'static str) -> Self {
        Entry { fields, what, yarn_context: None }
    }

    /// Base and scaling.
    fn read(&self, default_theta: f64) -> Result<(f32, RopeScaling)> {
        let what = self.what;
        let theta = self.positive("rope_theta", 1e12)?.unwrap_or(default_theta) as f32;
        let kind = match self.fields.string("rope_type").map_err(|e| self.inside(e))? {
            Some(kind) => Some(kind),
            None => self.fields.string("type").map_err(|e| self.inside(e))?,
        };
        let factor = || self.positive("factor", 1e4)?.ok_or_else(|| missing(&format!("{what}.factor")));
        let scaling = match (kind.unwrap_or("default"), self.yarn_context) {
            ("default", _) => RopeScaling::NONE,
            ("linear", _) => RopeScaling::Linear(factor()? as f32),
            ("yarn", Some(context)) => RopeScaling::Yarn(self.yarn(factor()?, context)?),
            (other, yarn_context) => {
                let kinds = if yarn_context.is_some() { "default, linear, yarn" } else { "default, linear" };
                return Err(Error::input(format!("{what}.rope_type \"{other}\" is not supported ({kinds})")));
            }
        };
        Ok((theta, scaling))
    }

    fn yarn(&self, factor: f64, context: usize) -> Result<Yarn> {
        // Other values than these are not computed here; the last two are names of models that are not transformers'.
        let only =
            [("truncate", 1.0), ("partial_rotary_factor", 1.0), ("extrapolation_factor", 1.0), ("attn_factor", 1.0)];
        for (name, only) in only {
            let Some(value) = self.fields.get(name) else { continue };
            if value.as_f64() != Some(only) && value.as_bool() != Some(true) {
                return Err(Error::input(format!("{}.{name} is {}; that is not supported", self.what, show(value))));
            }
        }
        let mscale = (self.positive("mscale", 100.0)?, self.positive("mscale_all_dim", 100.0)?);
        let grown = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
        let attention_factor = match (self.positive("attention_factor", 100.0)?, mscale) {
            (Some(attention_factor), _) => attention_factor as f32,
            (None, (Some(mscale), Some(all))) => (grown(mscale) / grown(all)) as f32,
            (None, _) => Yarn::default_attention_factor(factor as f32),
        };
        let original = self.fields.integer("original_max_position_embeddings", 1, MAX_POSITIONS);
        Ok(Yarn {
            factor: factor as f32,
            original_context: original.map_err(|e| self.inside(e))?.map_or(context, |n| n as usize),
            beta_fast: self.positive("beta_fast", 1e4)?.map_or(Yarn::BETA_FAST, |v| v as f32),
            beta_slow: self.positive("beta_slow", 1e4)?.map_or(Yarn::BETA_SLOW, |v| v as f32),
            attention_factor,
        })
    }

    fn positive(&self, name: &str, max: f64) -> Result<Option<f64>> {
        self.fields.positive(name, max).map_err(|e| self.inside(e))
    }

    fn inside(&self, error: Error) -> Error {
        Error::input(format!("{}.{}", self.what, error.message()))
    }
}
