//! GGUF files made by code, field by field, so that any field can be made wrong.

/// One metadata entry: the key's bytes and the encoded type and value.
#[derive(Clone)]
pub struct Entry {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// One tensor description and its data.
#[derive(Clone)]
pub struct Tensor {
    pub name: Vec<u8>,
    /// As the file stores them: the contiguous dimension first.
    pub dims: Vec<u64>,
    pub n_dims: u32,
    pub type_id: u32,
    /// `None`: where the data is put.
    pub offset: Option<u64>,
    pub data: Vec<u8>,
}

/// A whole file.
#[derive(Clone)]
pub struct GgufFile {
    pub magic: [u8; 4],
    pub version: u32,
    /// `None`: the number there is.
    pub n_tensors: Option<u64>,
    pub n_metadata: Option<u64>,
    pub metadata: Vec<Entry>,
    pub tensors: Vec<Tensor>,
    pub alignment: usize,
}

impl GgufFile {
    pub fn empty() -> Self {
        GgufFile {
            magic: *b"GGUF",
            version: 3,
            n_tensors: None,
            n_metadata: None,
            metadata: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
        }
    }

    /// Adds an entry, or replaces the one with the same key.
    pub fn set(mut self, key: &str, value: Vec<u8>) -> Self {
        match self.metadata.iter_mut().find(|e| e.key == key.as_bytes()) {
            Some(entry) => entry.value = value,
            None => self.metadata.push(Entry { key: key.into(), value }),
        }
        self
    }

    pub fn without(mut self, key: &str) -> Self {
        self.metadata.retain(|e| e.key != key.as_bytes());
        self
    }

    pub fn f32_tensor(mut self, name: &str, shape: &[u64]) -> Self {
        let n: u64 = shape.iter().product();
        self.tensors.push(Tensor {
            name: name.into(),
            dims: shape.iter().rev().copied().collect(),
            n_dims: shape.len() as u32,
            type_id: 0,
            offset: None,
            data: (0..n).flat_map(|i| (i as f32 * 0.001).to_le_bytes()).collect(),
        });
        self
    }

    /// Changes the tensor of that name.
    pub fn tensor(mut self, name: &str, change: impl Fn(&mut Tensor)) -> Self {
        change(self.tensors.iter_mut().find(|t| t.name == name.as_bytes()).expect("a tensor of that name"));
        self
    }

    pub fn without_tensor(mut self, name: &str) -> Self {
        self.tensors.retain(|t| t.name != name.as_bytes());
        self
    }

    /// The file in `n` parts, as llama.cpp's `llama-gguf-split` makes them: the metadata in the first alone.
    pub fn split(&self, n: usize) -> Vec<GgufFile> {
        let n_tensors = self.tensors.len();
        let part = |i: usize| {
            let metadata = if i == 0 { self.metadata.clone() } else { Vec::new() };
            let tensors = self.tensors[n_tensors * i / n..n_tensors * (i + 1) / n].to_vec();
            GgufFile { metadata, tensors, ..GgufFile::empty() }
                .set("split.no", u16(i as u16))
                .set("split.count", u16(n as u16))
                .set("split.tensors.count", i32(n_tensors as i32))
        };
        (0..n).map(part).collect()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.n_metadata.unwrap_or(self.metadata.len() as u64).to_le_bytes());
        for entry in &self.metadata {
            out.extend((entry.key.len() as u64).to_le_bytes());
            out.extend(&entry.key);
            out.extend(&entry.value);
        }
        let mut at = 0usize;
        for tensor in &self.tensors {
            out.extend((tensor.name.len() as u64).to_le_bytes());
            out.extend(&tensor.name);
            out.extend(tensor.n_dims.to_le_bytes());
            tensor.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(tensor.type_id.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(at as u64).to_le_bytes());
            at += tensor.data.len().next_multiple_of(self.alignment);
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        for (i, tensor) in self.tensors.iter().enumerate() {
            out.extend(&tensor.data);
            if i + 1 < self.tensors.len() {
                out.resize(out.len() + tensor.data.len().next_multiple_of(self.alignment) - tensor.data.len(), 0);
            }
        }
        out
    }
}

fn typed(id: u32, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [&id.to_le_bytes(), bytes.as_ref()].concat()
}

pub fn u8(v: u8) -> Vec<u8> {
    typed(0, [v])
}

pub fn u16(v: u16) -> Vec<u8> {
    typed(2, v.to_le_bytes())
}

pub fn u32(v: u32) -> Vec<u8> {
    typed(4, v.to_le_bytes())
}

pub fn i32(v: i32) -> Vec<u8> {
    typed(5, v.to_le_bytes())
}

pub fn f32(v: f32) -> Vec<u8> {
    typed(6, v.to_le_bytes())
}

pub fn bool(v: bool) -> Vec<u8> {
    typed(7, [v as u8])
}

pub fn u64(v: u64) -> Vec<u8> {
    typed(10, v.to_le_bytes())
}

pub fn string(v: impl AsRef<[u8]>) -> Vec<u8> {
    typed(8, length_and(v.as_ref()))
}

/// An array of `n` items of type `item`, with these bytes.
pub fn array(item: u32, n: u64, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    typed(9, [&item.to_le_bytes()[..], &n.to_le_bytes(), bytes.as_ref()].concat())
}

pub fn strings(items: &[impl AsRef<[u8]>]) -> Vec<u8> {
    array(8, items.len() as u64, items.iter().flat_map(|s| length_and(s.as_ref())).collect::<Vec<u8>>())
}

pub fn f32s(items: &[f32]) -> Vec<u8> {
    array(6, items.len() as u64, items.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

pub fn i32s(items: &[i32]) -> Vec<u8> {
    array(5, items.len() as u64, items.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

fn length_and(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

/// [`tiny_gemma3`] with the keys that Ollama's converter writes for 1B.
pub fn tiny_gemma3_of_ollama() -> GgufFile {
    tiny_gemma3()
        .without("gemma3.rope.freq_base")
        .set("gemma3.rope.global.freq_base", f32(1e6))
        .set("gemma3.rope.local.freq_base", f32(1e4))
        .set("gemma3.final_logit_softcapping", f32(30.0))
        .set("tokenizer.ggml.eos_token_ids", i32s(&[1, 4]))
}

/// A sound Qwen 2 of five tokens and one block with YaRN: dim 32, 2 heads of 16 over 1 key/value head, hidden 64.
pub fn tiny_qwen2_yarn() -> GgufFile {
    let mut file = GgufFile::empty()
        .set("general.architecture", string("qwen2"))
        .set("qwen2.block_count", u32(1))
        .set("qwen2.context_length", u32(64))
        .set("qwen2.embedding_length", u32(32))
        .set("qwen2.feed_forward_length", u32(64))
        .set("qwen2.attention.head_count", u32(2))
        .set("qwen2.attention.head_count_kv", u32(1))
        .set("qwen2.attention.layer_norm_rms_epsilon", f32(1e-6))
        .set("qwen2.rope.freq_base", f32(1e6))
        .set("qwen2.rope.scaling.type", string("yarn"))
        .set("qwen2.rope.scaling.factor", f32(4.0))
        .set("qwen2.rope.scaling.original_context_length", u32(64))
        .set("tokenizer.ggml.model", string("gpt2"))
        .set("tokenizer.ggml.pre", string("qwen2"))
        .set("tokenizer.ggml.tokens", strings(&["a", "b", "ab", "c", "<|im_end|>"]))
        .set("tokenizer.ggml.token_type", i32s(&[1, 1, 1, 1, 3]))
        .set("tokenizer.ggml.merges", strings(&["a b"]))
        .set("tokenizer.ggml.eos_token_id", u32(4))
        .f32_tensor("token_embd.weight", &[5, 32])
        .f32_tensor("output_norm.weight", &[32]);
    for (name, shape) in [
        ("attn_norm.weight", &[32][..]),
        ("attn_q.weight", &[32, 32]),
        ("attn_q.bias", &[32]),
        ("attn_k.weight", &[16, 32]),
        ("attn_k.bias", &[16]),
        ("attn_v.weight", &[16, 32]),
        ("attn_v.bias", &[16]),
        ("attn_output.weight", &[32, 32]),
        ("ffn_norm.weight", &[32]),
        ("ffn_gate.weight", &[64, 32]),
        ("ffn_up.weight", &[64, 32]),
        ("ffn_down.weight", &[32, 64]),
    ] {
        file = file.f32_tensor(&format!("blk.0.{name}"), shape);
    }
    file
}

/// A sound Gemma 3 of five tokens and two blocks: dim 32, 2 heads of 16 over 1 key/value head, hidden 64.
pub fn tiny_gemma3() -> GgufFile {
    let mut file = GgufFile::empty()
        .set("general.architecture", string("gemma3"))
        .set("general.name", string("tiny"))
        .set("gemma3.block_count", u32(2))
        .set("gemma3.context_length", u32(64))
        .set("gemma3.embedding_length", u32(32))
        .set("gemma3.feed_forward_length", u32(64))
        .set("gemma3.attention.head_count", u32(2))
        .set("gemma3.attention.head_count_kv", u32(1))
        .set("gemma3.attention.key_length", u32(16))
        .set("gemma3.attention.value_length", u32(16))
        .set("gemma3.attention.layer_norm_rms_epsilon", f32(1e-6))
        .set("gemma3.attention.sliding_window", u32(8))
        .set("gemma3.rope.freq_base", f32(1e6))
        .set("tokenizer.ggml.model", string("llama"))
        .set("tokenizer.ggml.tokens", strings(&["<pad>", "<eos>", "<bos>", "<unk>", "a"]))
        .set("tokenizer.ggml.scores", f32s(&[0.0, 0.0, 0.0, 0.0, -1.0]))
        .set("tokenizer.ggml.token_type", i32s(&[3, 3, 3, 2, 1]))
        .set("tokenizer.ggml.bos_token_id", u32(2))
        .set("tokenizer.ggml.eos_token_id", u32(1))
        .set("tokenizer.ggml.add_bos_token", bool(true))
        .f32_tensor("token_embd.weight", &[5, 32])
        .f32_tensor("output_norm.weight", &[32]);
    for layer in 0..2 {
        for (name, shape) in [
            ("attn_norm", &[32][..]),
            ("attn_q", &[32, 32]),
            ("attn_k", &[16, 32]),
            ("attn_v", &[16, 32]),
            ("attn_q_norm", &[16]),
            ("attn_k_norm", &[16]),
            ("attn_output", &[32, 32]),
            ("post_attention_norm", &[32]),
            ("ffn_norm", &[32]),
            ("ffn_gate", &[64, 32]),
            ("ffn_up", &[64, 32]),
            ("ffn_down", &[32, 64]),
            ("post_ffw_norm", &[32]),
        ] {
            file = file.f32_tensor(&format!("blk.{layer}.{name}.weight"), shape);
        }
    }
    file
}

/// A LoRA adapter of rank 4 for [`tiny_gemma3`], on q of block 0 and v of block 1, as llama.cpp's converter writes it.
pub fn tiny_gguf_adapter() -> GgufFile {
    GgufFile::empty()
        .set("general.type", string("adapter"))
        .set("adapter.type", string("lora"))
        .set("general.architecture", string("gemma3"))
        .set("adapter.lora.alpha", f32(8.0))
        .f32_tensor("blk.0.attn_q.weight.lora_a", &[4, 32])
        .f32_tensor("blk.0.attn_q.weight.lora_b", &[32, 4])
        .f32_tensor("blk.1.attn_v.weight.lora_a", &[4, 32])
        .f32_tensor("blk.1.attn_v.weight.lora_b", &[16, 4])
}
