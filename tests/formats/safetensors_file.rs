//! safetensors files made by code.

use serde_json::{json, Map, Value};

/// A file with exactly this header text and data.
pub fn with_header(header: impl AsRef<[u8]>, data: &[u8]) -> Vec<u8> {
    let header = header.as_ref();
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// Tensors in order, one after the other.
#[derive(Clone, Default)]
pub struct SafetensorsFile {
    pub tensors: Vec<(String, &'static str, Vec<usize>, Vec<u8>)>,
}

impl SafetensorsFile {
    pub fn add(mut self, name: &str, dtype: &'static str, shape: &[usize], data: Vec<u8>) -> Self {
        self.tensors.push((name.into(), dtype, shape.to_vec(), data));
        self
    }

    /// F32 values that grow by a thousandth.
    pub fn add_f32(self, name: &str, shape: &[usize]) -> Self {
        let n: usize = shape.iter().product();
        self.add(name, "F32", shape, (0..n).flat_map(|i| (i as f32 * 0.001).to_le_bytes()).collect())
    }

    /// Replaces a tensor, or adds it.
    pub fn set(mut self, name: &str, dtype: &'static str, shape: &[usize], data: Vec<u8>) -> Self {
        match self.tensors.iter_mut().find(|t| t.0 == name) {
            Some(tensor) => *tensor = (name.into(), dtype, shape.to_vec(), data),
            None => self.tensors.push((name.into(), dtype, shape.to_vec(), data)),
        }
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.tensors.retain(|t| t.0 != name);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut data = Vec::new();
        for (name, dtype, shape, bytes) in &self.tensors {
            let range = [data.len(), data.len() + bytes.len()];
            header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": range}));
            data.extend(bytes);
        }
        with_header(Value::Object(header).to_string(), &data)
    }
}
