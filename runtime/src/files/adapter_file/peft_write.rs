//! Writing PEFT folders: `adapter_model.safetensors` in F32, a minimal `adapter_config.json` (older releases of PEFT refuse
//! keys they do not know) and a model card. The same adapter gives the same bytes, in whatever order its pairs come.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{json, Map, Value};

use super::peft::{CONFIG_FILE, WEIGHTS_FILE};
use super::peft_config::module_path;
use super::{MAX_RANK, TARGETS};
use crate::error::Result;
use crate::files::disk::write_atomically;
use crate::files::formats::safetensors::Dtype;
use crate::files::formats::safetensors_write::{Layout, NewTensor};
use crate::files::model_source::{Part, PartShape};
use crate::model_config::ModelConfig;

/// The pair beside one matrix of `(outputs, inputs)`.
#[derive(Clone, Copy, Debug)]
pub struct PeftTensor<'a> {
    pub part: Part,
    pub layer: usize,
    /// `(rank, inputs)`, row-major.
    pub a: &'a [f32],
    /// `(outputs, rank)`, row-major.
    pub b: &'a [f32],
}

/// An adapter to be written. Nothing is copied: pairs go from where they are to the writer.
///
/// Methods panic when a pair does not fit `config`, comes twice, or there is none; and when `alpha` is not positive.
#[derive(Clone, Copy, Debug)]
pub struct PeftAdapter<'a> {
    pub config: &'a ModelConfig,
    /// What most pairs have. A pair of another rank is named in the config's `rank_pattern`.
    pub rank: usize,
    /// Each pair is scaled by alpha / its rank.
    pub alpha: f32,
    /// What the training used; nothing is dropped at inference.
    pub dropout: f32,
    /// The base as PEFT would load it: `google/gemma-3-1b-it`, or a folder.
    pub base_name: &'a str,
    pub tensors: &'a [PeftTensor<'a>],
    /// Where the adapter comes from, for the header of its tensors beside `"format": "pt"`.
    pub metadata: &'a [(&'a str, String)],
}

impl PeftAdapter<'_> {
    /// Bytes that [`PeftAdapter::write_tensors`] writes.
    pub fn tensors_len(&self) -> u64 {
        self.layout().file_bytes()
    }

    /// `adapter_model.safetensors`.
    ///
    /// # Errors
    /// A value is not finite, which no reader would take: nothing has been written then. What `out` returns.
    pub fn write_tensors(&self, out: &mut dyn Write) -> io::Result<()> {
        let named = self.named();
        for (name, (_, values)) in &named {
            let n_bad = values.iter().filter(|v| !v.is_finite()).count();
            if n_bad > 0 {
                let message = format!("\"{name}\": {n_bad} of {} values not finite", values.len());
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
        let layout = self.layout();
        let mut data = layout.start(out)?;
        for tensor in layout.tensors() {
            let (_, values) = named[&tensor.name];
            data.write(bytemuck::cast_slice::<f32, u8>(values))?;
        }
        data.finish();
        Ok(())
    }

    /// `adapter_config.json`.
    pub fn config_json(&self) -> String {
        let mut config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base_name,
            "r": self.rank,
            "lora_alpha": number(self.alpha),
            "lora_dropout": shortest(self.dropout),
            "bias": "none",
            "target_modules": self.target_modules(),
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "use_rslora": false,
            "rank_pattern": self.rank_pattern(),
            "alpha_pattern": {},
            "modules_to_save": null,
        });
        if let Some(layers) = self.layers_to_transform() {
            config["layers_to_transform"] = json!(layers);
            config["layers_pattern"] = json!("layers");
        }
        let mut text = serde_json::to_string_pretty(&config).expect("plain JSON");
        text.push('\n');
        text
    }

    /// The model card, `README.md`.
    pub fn readme(&self) -> String {
        let base = Value::from(self.base_name).to_string();
        let modules = self.modules().into_iter().collect::<Vec<_>>();
        let n_values: usize = self.tensors.iter().map(|t| t.a.len() + t.b.len()).sum();
        let mut text = format!(
            "---\nlibrary_name: peft\nbase_model: {base}\npipeline_tag: text-generation\ntags:\n- lora\n---\n\n# LoRA \
             adapter\n\nRank {}, alpha {}, {} parameters beside {} matrices ({}).\n",
            self.rank,
            self.alpha,
            crate::escape::thousands(n_values as u64),
            self.tensors.len(),
            modules.join(", "),
        );
        let _ = write!(
            text,
            "\n```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\nmodel = \
             AutoModelForCausalLM.from_pretrained({base})\nmodel = PeftModel.from_pretrained(model, \".\")\n```\n\n\
             ```\nlichen chat --model BASE --adapter THIS_FOLDER\n```\n"
        );
        text
    }

    /// The three files into a folder that exists, each whole or not at all; returns their bytes.
    ///
    /// # Errors
    /// A value is not finite, or a file cannot be written.
    pub fn write_into(&self, dir: &Path) -> Result<u64> {
        let (config, readme) = (self.config_json(), self.readme());
        write_atomically(&dir.join(WEIGHTS_FILE), |out| self.write_tensors(out))?;
        write_atomically(&dir.join(CONFIG_FILE), |out| out.write_all(config.as_bytes()))?;
        write_atomically(&dir.join("README.md"), |out| out.write_all(readme.as_bytes()))?;
        Ok(self.tensors_len() + (config.len() + readme.len()) as u64)
    }

    /// Shape and values of every tensor under its name in the file.
    fn named(&self) -> BTreeMap<String, ([usize; 2], &[f32])> {
        assert!(self.alpha > 0.0 && self.alpha.is_finite(), "alpha {}", self.alpha);
        assert!(!self.tensors.is_empty(), "no pairs");
        let mut named = BTreeMap::new();
        for tensor in self.tensors {
            let (outputs, inputs, rank) = self.dims(tensor);
            let module = self.module(tensor);
            let halves = [("A", [rank, inputs], tensor.a), ("B", [outputs, rank], tensor.b)];
            for (half, shape, values) in halves {
                assert_eq!(values.len(), shape[0] * shape[1], "{module} {half} {shape:?}");
                let name = format!("base_model.model.{module}.lora_{half}.weight");
                assert!(named.insert(name, (shape, values)).is_none(), "{module} comes twice");
            }
        }
        named
    }

    fn layout(&self) -> Layout {
        let tensor = |(name, (shape, _)): (String, ([usize; 2], &[f32]))| NewTensor::new(name, Dtype::F32, &shape);
        assert!(self.metadata.iter().all(|(key, _)| *key != "format"), "the format is not provenance");
        let metadata: Vec<(&str, &str)> = self.metadata.iter().map(|(key, value)| (*key, value.as_str())).collect();
        Layout::new(self.named().into_iter().map(tensor).collect(), &metadata).expect("names are unique in a map")
    }

    /// (outputs, inputs, rank) of a pair.
    fn dims(&self, tensor: &PeftTensor) -> (usize, usize, usize) {
        let is_target = TARGETS.contains(&tensor.part) && tensor.layer < self.config.n_layers;
        assert!(is_target, "{:?} of layer {} takes no adapter", tensor.part, tensor.layer);
        let PartShape::Matrix(outputs, inputs) = tensor.part.shape(self.config) else {
            unreachable!("targets are matrices")
        };
        let rank = tensor.a.len() / inputs;
        assert!((1..=MAX_RANK).contains(&rank), "rank {rank}");
        (outputs, inputs, rank)
    }

    fn module(&self, tensor: &PeftTensor) -> String {
        module_path(self.config, tensor.part, tensor.layer)
    }

    /// Names as `q_proj`, in the order blocks use them.
    fn modules(&self) -> Vec<String> {
        let has = |part: &Part| self.tensors.iter().any(|t| t.part == *part);
        TARGETS.iter().filter(|part| has(part)).map(|part| last_name(&module_path(self.config, *part, 0))).collect()
    }

    /// The layers, where every one of them has the same modules and others have none; `None` for all, and where they differ.
    fn layers_to_transform(&self) -> Option<Vec<usize>> {
        let layers: BTreeSet<usize> = self.tensors.iter().map(|t| t.layer).collect();
        let is_even = self.tensors.len() == self.modules().len() * layers.len();
        (is_even && layers.len() < self.config.n_layers).then(|| layers.into_iter().collect())
    }

    /// The modules' last names where all layers, or those that are listed, have them; else each whole path, or PEFT would
    /// expect the others too.
    fn target_modules(&self) -> Vec<String> {
        let modules = self.modules();
        if self.tensors.len() == modules.len() * self.config.n_layers || self.layers_to_transform().is_some() {
            return modules;
        }
        let index = |part: Part| TARGETS.iter().position(|t| *t == part);
        let found: BTreeSet<_> = self.tensors.iter().map(|t| (t.layer, index(t.part), self.module(t))).collect();
        found.into_iter().map(|(_, _, module)| module).collect()
    }

    fn rank_pattern(&self) -> Map<String, Value> {
        let ranks: BTreeMap<String, usize> = self.tensors.iter().map(|t| (self.module(t), self.dims(t).2)).collect();
        let others = ranks.into_iter().filter(|(_, rank)| *rank != self.rank);
        others.map(|(module, rank)| (module, Value::from(rank))).collect()
    }
}

fn last_name(path: &str) -> String {
    path.rsplit('.').next().expect("split gives one item at least").to_string()
}

/// Whole numbers as such, which is what `lora_alpha` is in other writers; else the exact value, so that a reader computes
/// the same scale.
fn number(value: f32) -> Value {
    match value.fract() == 0.0 && value < 1e9 {
        true => Value::from(value as u64),
        false => Value::from(value as f64),
    }
}

/// The decimal a person wrote: 0.05 and not 0.05000000074505806.
fn shortest(value: f32) -> Value {
    Value::from(value.to_string().parse::<f64>().expect("a number as Rust writes it"))
}
