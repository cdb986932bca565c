//! Against a naive f64 attention over all positions, at lengths around the window and with wrapped rings.

use super::*;
use crate::ops::testing::{assert_same_on_every_isa, random};
use crate::step::Row;

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
        cache.write(View::new(&key, [1, n_kv_heads, head_dim]), View::new(&value, [1, n_kv_heads, head_dim]), |_| {
            p % n_slots
        });
    }
    let mut out = vec![f32::NAN; q.len()];
    let shape = [n_rows, n_heads, head_dim];
    let mut scratch = Scratch::new(device, 3, n_slots, n_heads, head_dim).unwrap();
    let mut step = Step::new(device, n_rows).unwrap();
    step.set(first, &vec![0; n_rows]);
    let span = Span { step: &step, pages: None, window };
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
        store.write(View::new(&x, [11, heads, dim]), View::new(&x, [11, heads, dim]), |t| t % n_slots);
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

/// Two sequences whose pages lie scattered in one pool, a local layer's recycled, the rows of both in one call: the bits
/// of each alone in a ring.
#[test]
fn rows_of_a_batch_have_the_bits_of_rings() {
    let (n_heads, n_kv_heads, dim) = (4, 2, 16);
    // Lengths around a page, windows with and without rings: (window, entries of a table).
    for (window, n_entries) in [(usize::MAX, 4), (33, 3), (7, 2), (1, 1)] {
        for format in [KvFormat::F32, KvFormat::F16, KvFormat::I8] {
            for lengths in [[1, 31], [32, 33], [70, 100]] {
                assert_same_on_every_isa(|device| {
                    let got = batched(device, format, [n_heads, n_kv_heads, dim], window, n_entries, lengths);
                    for (slot, length) in lengths.into_iter().enumerate() {
                        let want = alone(device, format, [n_heads, n_kv_heads, dim], window, slot, length);
                        assert_eq!(got[slot], want, "window {window} {format:?} {length} positions");
                    }
                    got.concat()
                });
            }
        }
    }
}

/// q, k and v of every position of a sequence.
fn sequence([n_heads, n_kv_heads, dim]: [usize; 3], slot: usize, length: usize) -> [Vec<f32>; 3] {
    let seed = 10 * slot as u64;
    [n_heads, n_kv_heads, n_kv_heads].map(|n| random(length * n * dim, 1.0, seed + n as u64))
}

/// What the call is made of, beside cache and step.
fn attend(
    device: &Device,
    [n_heads, n_kv_heads, dim]: [usize; 3],
    [q, k, v]: [&[f32]; 3],
    (cache, pages): (&mut KvStore, Option<&PageTable>),
    step: &Step,
    window: usize,
) -> Vec<f32> {
    let rope = RopeTable::new(device, 128, dim, 1e4, 1.0).unwrap();
    let mut scratch = Scratch::new(device, 2, 128, n_heads, dim).unwrap();
    let norm = Buffer::from_vec(device, random(dim, 1.0, 99)).unwrap();
    let (mut q, mut k) = (q.to_vec(), k.to_vec());
    let mut out = vec![f32::NAN; q.len()];
    let (q_shape, kv_shape) = ([step.n_rows(), n_heads, dim], [step.n_rows(), n_kv_heads, dim]);
    let call = Attention {
        out: ViewMut::new(&mut out, q_shape),
        q: ViewMut::new(&mut q, q_shape),
        k: ViewMut::new(&mut k, kv_shape),
        v: View::new(v, kv_shape),
        cache,
        pages,
        step,
        rope: &rope,
        qk_norm: Some(QkNorm { q: norm.all(), k: norm.all(), eps: 1e-6 }),
        window,
        scale: 0.3,
    };
    forward(device, call, &mut scratch);
    out
}

/// The output of every position of a sequence, computed one by one in a ring.
fn alone(device: &Device, format: KvFormat, shape: [usize; 3], window: usize, slot: usize, length: usize) -> Vec<f32> {
    let [n_heads, n_kv_heads, dim] = shape;
    let [q, k, v] = sequence(shape, slot, length);
    let mut cache = KvStore::new(device, format, length, n_kv_heads, dim).unwrap();
    let mut step = Step::new(device, 1).unwrap();
    let mut all = Vec::new();
    for p in 0..length {
        let row = |x: &'_ [f32], n: usize| x[p * n * dim..(p + 1) * n * dim].to_vec();
        step.set(p, &[0]);
        let rows = [&row(&q, n_heads)[..], &row(&k, n_kv_heads), &row(&v, n_kv_heads)];
        all.extend(attend(device, shape, rows, (&mut cache, None), &step, window));
    }
    all
}

/// The same for two sequences, the rows of both side by side as long as both have some.
fn batched(
    device: &Device,
    format: KvFormat,
    shape: [usize; 3],
    window: usize,
    n_entries: usize,
    lengths: [usize; 2],
) -> [Vec<f32>; 2] {
    let [n_heads, n_kv_heads, dim] = shape;
    let mut pool = KvStore::new(device, format, 2 * n_entries * PAGE, n_kv_heads, dim).unwrap();
    let mut table = PageTable::new(device, 2, n_entries).unwrap();
    for slot in 0..2 {
        // Odd pages and even ones, the last first.
        let pages: Vec<u32> = (0..n_entries as u32).rev().map(|i| 2 * i + slot as u32).collect();
        table.set(slot, &pages).unwrap();
    }
    let inputs = [0, 1].map(|slot| sequence(shape, slot, lengths[slot]));
    let mut step = Step::of_batch(device, 2).unwrap();
    let mut all = [Vec::new(), Vec::new()];
    for p in 0..lengths[0].max(lengths[1]) {
        let slots: Vec<usize> = [1, 0].into_iter().filter(|slot| p < lengths[*slot]).collect();
        let rows: Vec<Row> = slots.iter().map(|s| Row { token: 0, position: p as u32, slot: *s as u32 }).collect();
        step.set_rows(&rows);
        let gather = |i: usize, n: usize| -> Vec<f32> {
            slots.iter().flat_map(|s| inputs[*s][i][p * n * dim..(p + 1) * n * dim].to_vec()).collect()
        };
        let (q, k, v) = (gather(0, n_heads), gather(1, n_kv_heads), gather(2, n_kv_heads));
        let out = attend(device, shape, [&q, &k, &v], (&mut pool, Some(&table)), &step, window);
        for (slot, out) in slots.iter().zip(out.chunks(n_heads * dim)) {
            all[*slot].extend_from_slice(out);
        }
    }
    all
}
