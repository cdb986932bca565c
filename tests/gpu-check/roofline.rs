//! What a device can do at most: the makers' figures, by name.

use serde_json::{json, Value};

/// Published peaks of a device.
pub struct Published {
    pub memory_gb_per_s: f64,
    /// Dense bf16 (f16 before sm_80) products with f32 sums.
    pub half_tflop_per_s: f64,
}

impl Published {
    pub fn json(&self) -> Value {
        json!({"memory_gb_per_s": self.memory_gb_per_s, "half_tflop_per_s": self.half_tflop_per_s})
    }
}

/// NVIDIA's data sheets. The more exact names come first.
const PUBLISHED: [(&str, f64, f64); 11] = [
    ("H200", 4800.0, 989.0),
    ("H100 PCIe", 2039.0, 756.0),
    ("H100", 3350.0, 989.0),
    ("A100-SXM4-80GB", 2039.0, 312.0),
    ("A100 80GB PCIe", 1935.0, 312.0),
    ("A100", 1555.0, 312.0),
    ("Orin NX", 102.4, 0.0),
    ("Orin Nano", 68.0, 0.0),
    ("Orin", 204.8, 0.0),
    ("Xavier", 136.5, 0.0),
    ("Tegra X1", 25.6, 0.472),
];

/// `None` for a device that is not in the table. A rate of zero is one that the data sheet leaves open.
pub fn published(name: &str) -> Option<Published> {
    let (_, memory_gb_per_s, half_tflop_per_s) = PUBLISHED.into_iter().find(|(part, ..)| name.contains(part))?;
    Some(Published { memory_gb_per_s, half_tflop_per_s })
}
