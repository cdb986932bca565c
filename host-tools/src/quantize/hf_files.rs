//! The files of a Hugging Face folder beside its weights.

use std::path::Path;

use lichen_runtime::files::disk::{write_atomically, NewFile};
use lichen_runtime::files::formats::hf::HfConfig;
use lichen_runtime::files::mapped_file::open_regular;
use lichen_runtime::files::model_source::{folder_name, Origin};
use lichen_runtime::{Architecture, Error, ModelConfig, Result};
use serde_json::{json, Map, Value};

use super::rows::Input;
use super::Options;

/// Copied byte for byte where the source has them.
const COPIED: [&str; 10] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
];

/// The files that will be copied, with their lengths.
pub fn present(dir: &Path) -> Result<Vec<(&'static str, u64)>> {
    let present = COPIED.into_iter().filter(|name| dir.join(name).exists());
    present.map(|name| Ok((name, open_regular(&dir.join(name))?.1))).collect()
}

/// Writes config.json, the model card and the copies; returns the bytes written.
pub fn write_all(
    folder: &Path,
    dir: &Path,
    copied: &[(&'static str, u64)],
    input: Input,
    options: &Options,
) -> Result<u64> {
    let source = HfConfig::read(dir)?.config;
    let mut bytes = write_text(&folder.join("config.json"), &pretty(&quantized_config(&source, &input.config())))?;
    bytes += write_text(&folder.join("README.md"), &model_card(&source, input, options))?;
    for (name, _) in copied {
        let path = dir.join(name);
        let (mut from, _) = open_regular(&path)?;
        let mut to = NewFile::create(&folder.join(name))?;
        bytes += std::io::copy(&mut from, &mut to).map_err(|e| Error::io(&path, &e))?;
        to.publish_new()?;
    }
    Ok(bytes)
}

/// `model.safetensors.index.json` of `(tensor, bytes, file)`; returns the bytes written.
pub fn write_index(folder: &Path, weight_map: Vec<(String, usize, String)>) -> Result<u64> {
    let total: usize = weight_map.iter().map(|(_, bytes, _)| bytes).sum();
    let mut weight_map = weight_map;
    weight_map.sort();
    let files: Map<String, Value> = weight_map.into_iter().map(|(name, _, file)| (name, Value::from(file))).collect();
    let index = json!({"metadata": {"total_size": total}, "weight_map": files});
    write_text(&folder.join("model.safetensors.index.json"), &pretty(&index))
}

/// The source's config.json with what transformers needs to know about the weights. Of a multimodal Gemma the text model
/// is what was written, so its part of the config becomes the whole.
fn quantized_config(source: &Value, config: &ModelConfig) -> Value {
    let mut fields = match source.get("text_config").and_then(Value::as_object) {
        Some(text) if config.architecture == Architecture::Gemma3 => {
            let mut text = text.clone();
            text.insert("architectures".into(), json!(["Gemma3ForCausalLM"]));
            text.insert("model_type".into(), json!("gemma3_text"));
            for name in ["bos_token_id", "eos_token_id", "pad_token_id"] {
                if let (None, Some(id)) = (text.get(name), source.get(name)) {
                    text.insert(name.into(), id.clone());
                }
            }
            text
        }
        _ => source.as_object().cloned().unwrap_or_default(),
    };
    let dtype = if fields.contains_key("dtype") { "dtype" } else { "torch_dtype" };
    fields.insert(dtype.into(), json!("bfloat16"));
    fields.insert("tie_word_embeddings".into(), json!(config.tied_head));
    // transformers leaves a tied head alone by itself; an untied one is a linear layer like any other.
    let skipped = if config.tied_head { Value::Null } else { json!(["lm_head"]) };
    fields.insert(
        "quantization_config".into(),
        json!({
            "_load_in_4bit": true,
            "_load_in_8bit": false,
            "bnb_4bit_compute_dtype": "bfloat16",
            "bnb_4bit_quant_storage": "uint8",
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": true,
            "llm_int8_enable_fp32_cpu_offload": false,
            "llm_int8_has_fp16_weight": false,
            "llm_int8_skip_modules": skipped,
            "llm_int8_threshold": 6.0,
            "load_in_4bit": true,
            "load_in_8bit": false,
            "quant_method": "bitsandbytes",
        }),
    );
    Value::Object(fields)
}

fn model_card(source: &Value, input: Input, options: &Options) -> String {
    let folder = |path: &Path| path.file_name().map_or("model".into(), |name| name.to_string_lossy().into_owned());
    // A path of this machine is nobody's business; a name on the hub is "owner/model".
    let named = source.get("_name_or_path").and_then(Value::as_str);
    let base = named.filter(|name| name.split('/').count() == 2 && !name.starts_with(['/', '.', '~']));
    let base_line = base.map_or(String::new(), |base| format!("base_model: {base}\n"));
    let source_name = || match input.source.origin() {
        Origin::HuggingFace(dir) => folder_name(dir),
        Origin::Gguf(_) => folder(&options.model),
    };
    let of = base.map_or_else(source_name, str::to_string);
    let merged = input.merge.map_or(String::new(), |m| format!(" with the adapter {} merged", folder(m.path())));
    let by = if input.merge.is_some() { "adapter merge" } else { "quantize" };
    format!(
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\n{base_line}tags:\n- bitsandbytes\n- nf4\n- \
         4-bit\n---\n\n# {name}\n\n{of}{merged}, its linear layers in 4 bits: bitsandbytes NF4, blocks of 64, \
         double quantisation. Embedding, norms and head are bf16. Written by `lichen-host {by}`.\n\n```python\nfrom \
         transformers import AutoModelForCausalLM, AutoTokenizer\n\nmodel = \
         AutoModelForCausalLM.from_pretrained(\"{name}\")\ntokenizer = \
         AutoTokenizer.from_pretrained(\"{name}\")\n```\n",
        name = folder(&options.out)
    )
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("plain JSON");
    text.push('\n');
    text
}

fn write_text(path: &Path, text: &str) -> Result<u64> {
    write_atomically(path, |out| out.write_all(text.as_bytes()))?;
    Ok(text.len() as u64)
}
