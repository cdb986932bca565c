//! The evaluation gate: what a model is worth before and after, by its eval loss and its answers to regression prompts. It is
//! published only if neither is worse; one that is worse is kept.

use std::sync::Arc;

use lichen_kernels::ops::attention::KvFormat;
use lichen_kernels::Device;
use lichen_runtime::engine::request::{Request, SamplingOverrides};
use lichen_runtime::engine::{Engine, EngineOptions, LoadedModel, NamedAdapter};
use lichen_runtime::loader::{stop_ids, DEFAULT_ADAPTER};
use lichen_runtime::memory_plan::{Limits, MemoryPlan, ModelBytes, Place};
use lichen_runtime::model::adapter::Adapter;
use lichen_runtime::{ModelConfig, ModelSource, Result};
use serde::{Deserialize, Serialize};

use crate::batch::n_targets;
use crate::data::{Dataset, RegressionPrompt, TextEncoder};
use crate::network::{Mode, Network};
use crate::plan::HostAndGpu;

/// Longest answer to a regression prompt.
const ANSWER_TOKENS_MAX: usize = 64;
/// Positions of a regression prompt's session: question and answer.
const CONTEXT: usize = 1024;

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Mean of -ln p over the labelled tokens of the eval rows; `None` without any, NaN when it is no number.
    #[serde(with = "loss")]
    pub eval_loss: Option<f64>,
    pub answers: Vec<Answer>,
}

/// JSON has no NaN, and `null` is a run without eval rows: a loss that is no number is this text.
mod loss {
    use serde::{de, Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    const NOT_FINITE: &str = "not finite";

    pub fn serialize<S: Serializer>(loss: &Option<f64>, out: S) -> Result<S::Ok, S::Error> {
        match loss {
            Some(loss) if !loss.is_finite() => NOT_FINITE.serialize(out),
            other => other.serialize(out),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        match Value::deserialize(from)? {
            Value::Null => Ok(None),
            Value::String(text) if text == NOT_FINITE => Ok(Some(f64::NAN)),
            other => other.as_f64().map(Some).ok_or_else(|| de::Error::custom("a loss is a number")),
        }
    }
}

/// A regression prompt's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub prompt: String,
    pub answer: String,
    pub passed: bool,
}

impl Scores {
    pub fn n_passed(&self) -> usize {
        self.answers.iter().filter(|a| a.passed).count()
    }
}

/// What the comparison came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Better,
    /// Nothing was there to compare with.
    Unknown,
    /// Why it is not published.
    Worse(String),
}

/// Compares the end with the start. What is not a number is worse.
pub fn compare(before: &Scores, after: &Scores) -> Verdict {
    if let (Some(was), Some(is)) = (before.eval_loss, after.eval_loss) {
        if !is.is_finite() {
            return Verdict::Worse("the eval loss is not finite".to_string());
        }
        // From what is no number everything is a step into the unknown.
        if was.is_nan() || is > was {
            return Verdict::Worse(format!("the eval loss rose from {was:.4} to {is:.4}"));
        }
    }
    if after.n_passed() < before.n_passed() {
        let (was, is, n) = (before.n_passed(), after.n_passed(), after.answers.len());
        return Verdict::Worse(format!("{is} of {n} regression prompts are answered as expected, {was} were before"));
    }
    match before.eval_loss.is_none() && before.answers.is_empty() {
        true => Verdict::Unknown,
        false => Verdict::Better,
    }
}

/// The mean loss over all eval rows, in micro-batches of `batch`.
pub fn eval_loss(network: &mut Network, data: &Dataset, batch: usize) -> Result<Option<f64>> {
    let (mut sum, mut n) = (0.0, 0);
    let mut samples = Vec::with_capacity(batch);
    for i in 0..data.n_eval() {
        samples.push(data.eval(i)?);
        if samples.len() == batch || i + 1 == data.n_eval() {
            sum += network.evaluate(&samples)?;
            n += samples.iter().map(n_targets).sum::<usize>();
            samples.clear();
        }
    }
    let mean = sum / n as f64;
    Ok((n > 0).then_some(if mean.is_finite() { mean } else { f64::NAN }))
}

/// The memory plan of a session that answers regression prompts.
fn session_plan(config: &ModelConfig, rank: usize, n_threads: usize, device: &Device) -> Result<MemoryPlan> {
    let context = CONTEXT.min(config.context_length);
    let options = EngineOptions { context: Some(context), threads: Some(n_threads), ..EngineOptions::default() };
    let limits = Limits { max_rank: rank, ..options.limits(config)? };
    Ok(MemoryPlan::on(device, config, ModelBytes::default(), limits, None))
}

fn rank_of(mode: &Mode) -> usize {
    match mode {
        Mode::Lora(lora) => lora.rank,
        Mode::Full(..) => 0,
    }
}

/// How that session keeps keys and values.
pub fn answer_format(config: &ModelConfig, mode: &Mode, device: &Device) -> Result<KvFormat> {
    Ok(session_plan(config, rank_of(mode), 1, device)?.limits.kv_format)
}

/// Bytes that regression prompts take beside training.
pub fn regression_prompt_bytes(
    config: &ModelConfig,
    mode: &Mode,
    n_threads: usize,
    device: &Device,
) -> Result<HostAndGpu> {
    let adapter = match mode {
        Mode::Lora(lora) => 4 * lora.n_parameters(),
        Mode::Full(..) => 0,
    };
    let plan = session_plan(config, rank_of(mode), n_threads, device)?;
    let gpu = plan.bytes_in(Place::Device);
    // The adapter's file, and on a GPU what is made of it.
    let on_gpu = if gpu > 0 { adapter } else { 0 };
    Ok(HostAndGpu { host: plan.total_bytes() - gpu + adapter, gpu: gpu + on_gpu })
}

/// Greedy answers of the model as it stands.
pub fn answers(
    network: &Network,
    device: &Arc<Device>,
    encoder: &TextEncoder,
    source: &ModelSource,
    prompts: &[RegressionPrompt],
    n_threads: usize,
) -> Result<Vec<Answer>> {
    let config = &network.model().config;
    let adapter = match network.mode() {
        Mode::Lora(lora) => {
            let file = lora.to_file(&network.values()?);
            Some(Arc::new(Adapter::new(file, config, 1.0, device)?))
        }
        Mode::Full(..) => None,
    };
    let plan = session_plan(config, rank_of(network.mode()), n_threads, device)?;
    let tokenizer = encoder.tokenizer();
    let adapters = adapter.map(|adapter| NamedAdapter { name: DEFAULT_ADAPTER.to_string(), adapter });
    let mut model = LoadedModel::of(network.model().clone(), device.clone(), plan);
    model.stop_ids = stop_ids(Some(source), Some(tokenizer));
    model.tokenizer = Some(tokenizer.clone());
    model.adapters.extend(adapters);
    let mut engine = Engine::new(Arc::new(model))?;
    let mut answer = |asked: &RegressionPrompt| {
        let request = Request {
            sampling: SamplingOverrides::greedy(),
            max_new_tokens: Some(ANSWER_TOKENS_MAX),
            ..Request::tokens(encoder.question(&asked.prompt)?)
        };
        let (_, answer) = engine.run(request, &mut |_| {}, &mut || false)?;
        let passed = asked.is_met_by(&answer.text);
        Ok(Answer { prompt: asked.prompt.clone(), answer: answer.text, passed })
    };
    prompts.iter().map(&mut answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worse_is_never_published_and_nan_is_worse() {
        let scores = |eval_loss, passed: &[bool]| Scores {
            eval_loss,
            answers: passed.iter().map(|p| Answer { prompt: "q".into(), answer: "a".into(), passed: *p }).collect(),
        };
        let cases = [
            (scores(Some(2.0), &[]), scores(Some(1.0), &[]), Verdict::Better),
            (scores(Some(2.0), &[true]), scores(Some(2.0), &[true]), Verdict::Better),
            (scores(None, &[false]), scores(None, &[true]), Verdict::Better),
            (scores(None, &[]), scores(None, &[]), Verdict::Unknown),
        ];
        for (before, after, want) in cases {
            assert_eq!(compare(&before, &after), want);
        }
        let worse = |before: &Scores, after: &Scores| match compare(before, after) {
            Verdict::Worse(why) => why,
            other => panic!("{other:?}"),
        };
        let why = worse(&scores(Some(2.0), &[]), &scores(Some(2.1), &[]));
        assert_eq!(why, "the eval loss rose from 2.0000 to 2.1000");
        worse(&scores(Some(2.0), &[]), &scores(Some(f64::NAN), &[]));
        let why = worse(&scores(Some(2.0), &[true, true]), &scores(Some(1.0), &[true, false]));
        assert_eq!(why, "1 of 2 regression prompts are answered as expected, 2 were before");
    }
}
