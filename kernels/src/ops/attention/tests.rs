//! Against a naive f64 attention over all positions, at lengths around the window and with wrapped rings.

use super::*;
use crate::ops::testing::{assert_same_on_every_isa, random};

struct Case {
    n_rows: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    first: usize,
    window: usize,
    n_slots: usize,
}

fn run(case: &Case, format: KvFormat, device: &Device, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
    let Case { n_rows, n_heads, n_kv_heads, head_dim, first, window, n_slots } = *case;
    let mut cache = KvStore::new(device, format, n_slots, n_kv_heads, head_dim).unwrap();
    let kv = n_kv_heads * head_dim;
    for p in 0..first + n_rows {
        let row = |x: &'static str, data: &[f32]| -> Vec<f32> {
            assert!(!x.is_empty());
            data[p * kv..(p + 1) * kv].to_vec()
        };
        let (key, value) = (row("key", k), row("value", v));
        cache.write(View::new(&key, [1, n_kv_heads, head_dim]), View::new(&value, [1, n_kv_heads, head_dim]), p);
    }
    let mut out = vec![f32::NAN; q.len()];
    let shape = [n_rows, n_heads, head_dim];
    let mut scratch = Scratch::new(device, 3, n_slots, n_heads, head_dim).unwrap();
    let span = Span { first_position: first, window };
    let Device::Cpu(cpu) = device else { unreachable!("instruction sets are the CPU's") };
    attend_cpu(cpu, ViewMut::new(&mut out, shape), View::new(q, shape), &cache, span, 0.3, &mut scratch);
    out
}

fn naive(case: &Case, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f64> {
    let Case { n_rows, n_heads, n_kv_heads, head_dim, first, window, .. } = *case;
    let mut out = Vec::new();
    for t in 0..n_rows {
        let p = first + t;
        for h in 0..n_heads {
            let kv_head = h / (n_heads / n_kv_heads);
            let at = |j: usize| (j * n_kv_heads + kv_head) * head_dim;
            let query = &q[(t * n_heads + h) * head_dim..][..head_dim];
            let keys: Vec<usize> = ((p + 1).saturating_sub(window)..p + 1).collect();
            let dot = |j: usize| (0..head_dim).map(|i| query[i] as f64 * k[at(j) + i] as f64).sum::<f64>() * 0.3;
            let max = keys.iter().map(|j| dot(*j)).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = keys.iter().map(|j| (dot(*j) - max).exp()).sum();
            for i in 0..head_dim {
                out.push(keys.iter().map(|j| (dot(*j) - max).exp() / sum * v[at(*j) + i] as f64).sum());
            }
        }
    }
    out
}

#[test]
fn equals_naive_f64_attention_at_awkward_sizes_on_every_isa() {
    let mut cases = Vec::new();
    for (n_heads, n_kv_heads, head_dim) in [(1, 1, 8), (4, 1, 32), (6, 2, 24), (14, 2, 64), (4, 1, 256)] {
        for (n_rows, first, window, n_slots) in [
            (1, 0, usize::MAX, 1),
            (1, 16, 5, 9),
            (4, 13, 7, 10),
            (7, 31, usize::MAX, 38),
            (3, 40, 16, 18),
            (1, 47, 48, 48),
        ] {
            cases.push(Case { n_rows, n_heads, n_kv_heads, head_dim, first, window, n_slots });
        }
    }
    for (index, case) in cases.iter().enumerate() {
        let total = case.first + case.n_rows;
        let q = random(case.n_rows * case.n_heads * case.head_dim, 1.0, 1);
        let k = random(total * case.n_kv_heads * case.head_dim, 1.0, 2);
        let v = random(total * case.n_kv_heads * case.head_dim, 1.0, 3);
        let want = naive(case, &q, &k, &v);
        // f16 keys move a score by 0.3 * sqrt(D) * 2^-11 or so, int8 ones by 8 times as much.
        for (format, bound) in [(KvFormat::F32, 2e-6), (KvFormat::F16, 2e-3), (KvFormat::I8, 2e-2)] {
            let got = assert_same_on_every_isa(|device| run(case, format, device, &q, &k, &v));
            for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                assert!((*g as f64 - w).abs() <= bound, "case {index} {format:?} [{i}]: {g} {w}");
            }
        }
    }
}

#[test]
fn a_saved_store_restores_to_the_same_bits() {
    let device = Device::cpu(1).unwrap();
    for format in [KvFormat::F32, KvFormat::F16, KvFormat::I8] {
        let (n_slots, heads, dim) = (7, 2, 8);
        let mut store = KvStore::new(&device, format, n_slots, heads, dim).unwrap();
        let x = random(11 * heads * dim, 1.0, 4);
        store.write(View::new(&x, [11, heads, dim]), View::new(&x, [11, heads, dim]), 0);
        for positions in [4..11, 6..11, 11..11] {
            let mut bytes = Vec::new();
            store.save(&positions, &mut bytes).unwrap();
            assert_eq!(bytes.len(), store.saved_bytes(positions.len()));
            let mut other = KvStore::new(&device, format, n_slots, heads, dim).unwrap();
            other.restore(&positions, &bytes).unwrap();
            let mut again = Vec::new();
            other.save(&positions, &mut again).unwrap();
            assert_eq!(bytes, again);
        }
    }
}
