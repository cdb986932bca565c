//! Attention on every architecture: the cache's bytes are the CPU's, results are near f64's over what the cache holds, and
//! a row's bits do not depend on its neighbours.

mod attending;
mod common;
mod oracle;

use attending::{expect, Expected, Inputs, Layer, Products, Session};
use lichen_kernels::ops::attention::KvFormat;
use oracle::{assert_same_bits, cpu, for_each_arch};

const FORMATS: [KvFormat; 3] = [KvFormat::F32, KvFormat::F16, KvFormat::I8];

/// Heads, kv heads and head_dim, narrow to wide: those of Gemma 3 1B and Qwen 2.5 0.5B among them.
const HEADS: [(usize, usize, usize); 8] =
    [(1, 1, 8), (6, 2, 24), (3, 3, 16), (14, 2, 64), (2, 1, 32), (8, 1, 128), (4, 1, 256), (8, 1, 256)];

fn layer(heads: (usize, usize, usize), window: usize, n_slots: usize, format: KvFormat) -> Layer {
    let (n_heads, n_kv_heads, head_dim) = heads;
    Layer { format, n_heads, n_kv_heads, head_dim, window, n_slots, has_norm: head_dim % 3 != 0 }
}

/// The stored keys or values of a head, oldest first, as f64.
fn stored(layer: &Layer, saved: &[u8], end: usize, plane: usize, kv_head: usize) -> Vec<f64> {
    let n = end.min(layer.n_slots);
    let head_bytes = n * layer.format.vector_bytes(layer.head_dim);
    let part = &saved[(plane * layer.n_kv_heads + kv_head) * head_bytes..][..head_bytes];
    if layer.format != KvFormat::I8 {
        return attending::decoded(layer, part);
    }
    // The codes of all positions, then their scales, wherever the ring wraps.
    let (codes, scales) = part.split_at(n * layer.head_dim);
    let mut values = Vec::new();
    for (codes, s) in codes.chunks(layer.head_dim).zip(scales.chunks(4)) {
        let scale = f32::from_le_bytes([s[0], s[1], s[2], s[3]]) as f64;
        values.extend(codes.iter().map(|c| *c as i8 as f64 * scale));
    }
    values
}

/// What each head of a row should give: `q` (n_heads, head_dim) normed and rotated, the cache as it was saved after the
/// row's position.
fn expected(layer: &Layer, q: &[f32], saved: &[u8], end: usize) -> Vec<Expected> {
    let dim = layer.head_dim;
    let n_visible = end.min(layer.window);
    let heads = q.chunks(dim).enumerate();
    heads
        .map(|(h, q)| {
            let kv_head = h / (layer.n_heads / layer.n_kv_heads);
            let [keys, values] = [0, 1].map(|plane| stored(layer, saved, end, plane, kv_head));
            let skipped = keys.len() - n_visible * dim;
            expect(q, &keys[skipped..], &values[skipped..], Products::Lanes)
        })
        .collect()
}

/// Chunks of positions from 0 on through the CPU and a GPU side by side.
fn check(layer: Layer, chunks: &[usize], device: &lichen_kernels::Device, arch: u32) {
    let n_positions: usize = chunks.iter().sum();
    let inputs = Inputs::new(&layer, n_positions);
    let host = cpu();
    let (mut on_gpu, mut on_cpu) = (Session::new(device, layer, n_positions), Session::new(&host, layer, n_positions));
    let (width, mut first) = (layer.n_heads * layer.head_dim, 0);
    // Largest difference from f64 of the GPU and of plain f16, over all rows of several.
    let (mut worst, mut worst_plain) = (0.0f64, 0.0f64);
    for n_rows in chunks.iter().copied() {
        let what = format!("sm_{arch} {layer:?}, positions {first}..{}", first + n_rows);
        let (got, want) = (on_gpu.run(&inputs, first, n_rows), on_cpu.run(&inputs, first, n_rows));
        let saved = on_cpu.saved(first + n_rows);
        assert!(on_gpu.saved(first + n_rows) == saved, "{what}: the caches differ");
        if n_rows > 1 {
            assert_same_bits(&got.q, &want.q, &what);
        }
        let is_half = n_rows > 1 && arch >= 80 && layer.format != KvFormat::F32;
        // A chunk's older positions may have left the ring by its end: its last row has them all.
        let last_row = (n_rows - 1) * width..n_rows * width;
        let heads = expected(&layer, &want.q[last_row.clone()], &saved, first + n_rows);
        let mut bound = 0.0f64;
        for (h, (head, out)) in heads.iter().zip(got.out[last_row].chunks(layer.head_dim)).enumerate() {
            for (i, got) in out.iter().enumerate() {
                let error = (*got as f64 - head.out[i]).abs();
                bound = bound.max(head.bound[i]);
                if is_half {
                    worst_plain = worst_plain.max((head.plain[i] - head.out[i]).abs());
                    worst = worst.max(error);
                }
                let fits = if is_half { got.is_finite() } else { error <= head.bound[i] };
                assert!(fits, "{what}: head {h} [{i}] is {got}, {} expected", head.out[i]);
            }
        }
        // Every row, against the CPU's, whose sums are as uncertain. f16: scores of a few units, moved by 2^-11.
        let bound = if is_half { 4e-3 } else { 2.0 * bound as f32 };
        for (i, (got, want)) in got.out.iter().zip(&want.out).enumerate() {
            assert!((got - want).abs() <= bound, "{what}: [{i}] is {got}, the CPU has {want}");
        }
        first += n_rows;
    }
    assert!(worst <= 2.0 * worst_plain + 1e-6, "sm_{arch} {layer:?}: {worst}, plain f16 {worst_plain}");
}

/// The architectures between the oldest and the newest have the kernels of one of them: a few shapes do.
fn heads_for(arch: u32) -> &'static [(usize, usize, usize)] {
    match arch {
        53 | 90 => &HEADS,
        _ => &HEADS[3..7],
    }
}

#[test]
fn decoding_token_by_token_equals_f64() {
    for_each_arch(|device, arch| {
        for heads in heads_for(arch) {
            for format in FORMATS {
                // All positions; a window in a ring that wraps.
                check(layer(*heads, usize::MAX, 36, format), &[1; 36], device, arch);
                check(layer(*heads, 5, 7, format), &[1; 16], device, arch);
            }
        }
    });
}

/// A chunk to get there, then single tokens across a length.
#[test]
fn decoding_at_lengths_around_splits_equals_f64() {
    for_each_arch(|device, arch| {
        check(layer(HEADS[3], usize::MAX, 130, KvFormat::I8), &[126, 1, 1, 1, 1], device, arch);
        check(layer(HEADS[5], usize::MAX, 66, KvFormat::F32), &[62, 1, 1, 1, 1], device, arch);
        check(layer(HEADS[6], usize::MAX, 130, KvFormat::F16), &[126, 1, 1, 1, 1], device, arch);
        for format in FORMATS {
            check(layer(HEADS[4], usize::MAX, 514, format), &[510, 1, 1, 1, 1], device, arch);
            check(layer(HEADS[4], 512, 620, format), &[510, 1, 1, 1, 1, 96, 1, 1], device, arch);
        }
    });
}

/// How many KV splits the positions are cut into depends on the multiprocessors; what comes out hardly does.
#[test]
fn the_number_of_splits_changes_no_result_by_more_than_rounding() {
    let layer = layer(HEADS[4], usize::MAX, 500, KvFormat::F32);
    let inputs = Inputs::new(&layer, 500);
    let results = std::cell::RefCell::new(Vec::new());
    for_each_arch(|device, _| {
        let mut session = Session::new(device, layer, 500);
        session.run(&inputs, 0, 499);
        results.borrow_mut().push(session.run(&inputs, 499, 1).out);
    });
    for other in results.borrow().iter() {
        for (a, b) in other.iter().zip(&results.borrow()[0]) {
            assert!((a - b).abs() <= 1e-5, "{a} and {b}");
        }
    }
}

#[test]
fn chunks_of_awkward_lengths_equal_f64() {
    for_each_arch(|device, arch| {
        for heads in heads_for(arch) {
            for format in FORMATS {
                check(layer(*heads, usize::MAX, 84, format), &[2, 31, 1, 33, 17], device, arch);
                check(layer(*heads, 16, 48, format), &[32, 33, 3, 1, 20], device, arch);
                check(layer(*heads, 3, 9, format), &[7, 2, 6, 7, 5], device, arch);
            }
        }
        check(layer(HEADS[6], 64, 193, KvFormat::F16), &[129, 65, 63, 2], device, arch);
        check(layer(HEADS[4], 512, 640, KvFormat::F16), &[128, 128, 127, 65, 128, 3], device, arch);
    });
}

/// The same positions in one chunk and in several give the same bits for every row.
#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    for_each_arch(|device, arch| {
        for (i, heads) in HEADS.into_iter().enumerate() {
            let (format, n_positions) = (FORMATS[i % 3], 75);
            let layer = layer(heads, 21, 100, format);
            let inputs = Inputs::new(&layer, n_positions);
            let all = |chunks: &[usize]| {
                let mut session = Session::new(device, layer, n_positions);
                let mut first = 0;
                let mut out = Vec::new();
                for n_rows in chunks {
                    out.extend(session.run(&inputs, first, *n_rows).out);
                    first += n_rows;
                }
                out
            };
            let whole = all(&[75]);
            for chunks in [&[2, 73][..], &[33, 31, 11], &[70, 5]] {
                assert_same_bits(&all(chunks), &whole, &format!("sm_{arch} {layer:?} as {chunks:?}"));
            }
        }
    });
}

/// A session saved on a GPU and restored there, and on the CPU, continues with the same cache.
#[test]
fn a_saved_cache_is_restored_on_either_device() {
    for_each_arch(|device, arch| {
        for format in FORMATS {
            let layer = layer((4, 2, 32), 9, 20, format);
            let inputs = Inputs::new(&layer, 40);
            let mut first = Session::new(device, layer, 40);
            for at in [0, 11, 22] {
                first.run(&inputs, at, 11);
            }
            let bytes = first.saved(33);
            let mut second = Session::new(device, layer, 40);
            second.cache.restore(&(13..33), &bytes).unwrap();
            assert!(second.saved(33) == bytes, "sm_{arch} {format:?}");
            let (a, b) = (first.run(&inputs, 33, 1), second.run(&inputs, 33, 1));
            assert_same_bits(&b.out, &a.out, &format!("sm_{arch} {format:?}"));
            let host = cpu();
            let mut third = Session::new(&host, layer, 40);
            third.cache.restore(&(13..33), &bytes).unwrap();
            third.run(&inputs, 33, 1);
            assert!(third.saved(34) == second.saved(34), "sm_{arch} {format:?}");
        }
    });
}
