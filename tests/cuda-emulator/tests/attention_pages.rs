//! Attention over pages on every architecture: the pool's bytes are the CPU's, results are near f64's over what the pool
//! holds, rows have the same bits in any batch, and a prompt's chunks have those of a ring.

mod attending;
mod common;
mod oracle;

use attending::{expect, Inputs, Layer, Products, Session, SCALE};
use lichen_kernels::ops::attention::{self, Attention, KvFormat, KvStore, PageTable, QkNorm, Scratch, PAGE};
use lichen_kernels::ops::rope::RopeTable;
use lichen_kernels::{Buffer, Device, Row, Step, NO_SLOT};
use oracle::{assert_same_bits, cpu, for_each_arch, random};

const EPS: f32 = 1e-6;
const FORMATS: [KvFormat; 3] = [KvFormat::F32, KvFormat::F16, KvFormat::I8];

/// Heads, kv heads and head_dim: every width of the kernels, groups of one and of several blocks.
const HEADS: [(usize, usize, usize); 6] = [(1, 1, 8), (6, 2, 24), (14, 2, 64), (8, 1, 128), (4, 1, 256), (20, 2, 16)];

/// Like [`attending`]'s sessions, a layer's `n_slots` is what a ring would have; here it says nothing.
fn layer(heads: (usize, usize, usize), window: usize, format: KvFormat) -> Layer {
    let (n_heads, n_kv_heads, head_dim) = heads;
    Layer { format, n_heads, n_kv_heads, head_dim, window, n_slots: 0, has_norm: head_dim % 3 != 0 }
}

/// A layer of a batch on a device.
struct Pool<'a> {
    device: &'a Device,
    layer: Layer,
    rope: RopeTable,
    norms: [Buffer<f32>; 2],
    store: KvStore,
    table: PageTable,
    pages: Vec<Vec<u32>>,
    scratch: Scratch,
    step: Step,
}

/// What one call gave.
struct Called {
    /// (rows, n_heads, head_dim).
    out: Vec<f32>,
    q: Vec<f32>,
}

impl<'a> Pool<'a> {
    /// `n_entries` pages for each of `n_slots` sequences, scattered.
    fn new(device: &'a Device, layer: Layer, n_slots: usize, n_entries: usize, n_positions: usize) -> Pool<'a> {
        let Layer { format, n_heads, n_kv_heads, head_dim, .. } = layer;
        let norm = |seed| {
            let weights: Vec<f32> = random(head_dim, 0.5, seed).iter().map(|w| 1.0 + w).collect();
            Buffer::from_slice(device, &weights).unwrap()
        };
        let mut table = PageTable::new(device, n_slots, n_entries).unwrap();
        let scattered = |slot: usize| (0..n_entries).rev().map(|i| (i * n_slots + slot) as u32).collect::<Vec<_>>();
        let pages: Vec<Vec<u32>> = (0..n_slots).map(scattered).collect();
        pages.iter().enumerate().for_each(|(slot, pages)| table.set(slot, pages).unwrap());
        let mut store = KvStore::new(device, format, n_slots * n_entries * PAGE, n_kv_heads, head_dim).unwrap();
        // Whatever was never written is NaN in every format.
        store.restore(&(0..store.n_slots()), &vec![0xff; store.saved_bytes(store.n_slots())]).unwrap();
        Pool {
            device,
            layer,
            rope: RopeTable::new(device, n_positions, head_dim, 10_000.0, 1.0).unwrap(),
            norms: [norm(4), norm(5)],
            store,
            table,
            pages,
            scratch: Scratch::of_batch(device, 1, n_positions, n_heads, head_dim, 16).unwrap(),
            step: Step::of_batch(device, 160).unwrap(),
        }
    }

    /// Rows of sequences whose position p has row p of the inputs, shifted by the slot.
    fn call(&mut self, inputs: &Inputs, rows: &[Row], is_chunk: bool) -> Called {
        let Layer { n_heads, n_kv_heads, head_dim, .. } = self.layer;
        let gather = |values: &[f32], width: usize| {
            let row = |r: &Row| match r.slot {
                // Whatever lies there: nobody looks.
                NO_SLOT => vec![f32::NAN; width],
                slot => {
                    let n = values.len() / width;
                    let at = (r.position as usize + 17 * slot as usize) % n;
                    values[at * width..(at + 1) * width].to_vec()
                }
            };
            Buffer::from_slice(self.device, &rows.iter().flat_map(row).collect::<Vec<f32>>()).unwrap()
        };
        let (q_width, kv_width) = (n_heads * head_dim, n_kv_heads * head_dim);
        let (mut q, mut k, v) = (gather(&inputs.q, q_width), gather(&inputs.k, kv_width), gather(&inputs.v, kv_width));
        let n = rows.len();
        let mut out = Buffer::from_slice(self.device, &vec![7.5; n * q_width]).unwrap();
        match is_chunk {
            true => self.step.set_chunk(rows),
            false => self.step.set_rows(rows),
        }
        self.step.send();
        let norms = QkNorm { q: self.norms[0].all(), k: self.norms[1].all(), eps: EPS };
        let call = Attention {
            out: out.view_mut([n, n_heads, head_dim]),
            q: q.view_mut([n, n_heads, head_dim]),
            k: k.view_mut([n, n_kv_heads, head_dim]),
            v: v.view([n, n_kv_heads, head_dim]),
            cache: &mut self.store,
            pages: Some(&self.table),
            step: &self.step,
            rope: &self.rope,
            qk_norm: self.layer.has_norm.then_some(norms),
            window: self.layer.window,
            scale: SCALE,
        };
        attention::forward(self.device, call, &mut self.scratch);
        self.device.synchronize().unwrap();
        let read = |buffer: &Buffer<f32>| {
            let mut values = vec![0.0; buffer.len()];
            buffer.read(0, &mut values).unwrap();
            values
        };
        Called { out: read(&out), q: read(&q) }
    }

    /// Computes positions `0..end` of a slot, a chunk at a time.
    fn fill(&mut self, inputs: &Inputs, slot: u32, end: usize, chunk: usize) {
        let rows: Vec<Row> = (0..end as u32).map(|position| Row { token: 0, position, slot }).collect();
        for rows in rows.chunks(chunk) {
            self.call(inputs, rows, true);
        }
    }

    /// Puts arbitrary numbers where all positions are: f32 or f16.
    fn fill_at_random(&mut self) {
        let n = self.store.n_slots();
        let values = random(2 * n * self.layer.n_kv_heads * self.layer.head_dim, 1.0, 9);
        let bytes: Vec<u8> = match self.layer.format {
            KvFormat::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            KvFormat::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
            KvFormat::I8 => panic!("int8 has scales"),
        };
        self.store.restore(&(0..n), &bytes).unwrap();
    }

    fn saved(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.store.save(&(0..self.store.n_slots()), &mut bytes).unwrap();
        bytes
    }

    /// Keys or values of a kv head at the positions that the one at `position` sees, as f64; `saved`: the pool's bytes.
    fn visible(&self, saved: &[u8], slot: usize, position: usize, plane: usize, kv_head: usize) -> Vec<f64> {
        let Layer { format, n_kv_heads, head_dim, window, .. } = self.layer;
        let n_slots = self.store.n_slots();
        let head_bytes = n_slots * format.vector_bytes(head_dim);
        let head = &saved[(plane * n_kv_heads + kv_head) * head_bytes..][..head_bytes];
        let (codes, scales) = head.split_at(if format == KvFormat::I8 { n_slots * head_dim } else { head_bytes });
        let mut values = Vec::new();
        for p in (position + 1).saturating_sub(window)..=position {
            let pages = &self.pages[slot];
            let at = pages[p / PAGE % pages.len()] as usize * PAGE + p % PAGE;
            match format {
                KvFormat::I8 => {
                    let s = &scales[4 * at..4 * at + 4];
                    let scale = f32::from_le_bytes([s[0], s[1], s[2], s[3]]) as f64;
                    values.extend(codes[at * head_dim..(at + 1) * head_dim].iter().map(|c| *c as i8 as f64 * scale));
                }
                _ => {
                    let bytes = format.vector_bytes(head_dim);
                    values.extend(attending::decoded(&self.layer, &codes[at * bytes..(at + 1) * bytes]));
                }
            }
        }
        values
    }
}

/// How the sequences of a batch came to their lengths.
#[derive(Clone, Copy, PartialEq)]
enum Filling {
    /// In chunks of so many rows; queries, keys and every other value times these.
    Chunks(usize, [f32; 3]),
    Random,
}

/// Sequences of these lengths, a decode step of all of them with a padding row in between, then some steps more.
fn check(layer: Layer, n_entries: usize, chunk: usize, lengths: &[usize], device: &Device, arch: u32) {
    check_filled(layer, n_entries, Filling::Chunks(chunk, [1.0; 3]), lengths, device, arch);
}

fn check_filled(layer: Layer, n_entries: usize, filling: Filling, lengths: &[usize], device: &Device, arch: u32) {
    let n_positions = lengths.iter().max().unwrap() + 4;
    let mut inputs = Inputs::new(&layer, n_positions);
    let host = cpu();
    let mut on_gpu = Pool::new(device, layer, lengths.len(), n_entries, n_positions);
    let mut on_cpu = Pool::new(&host, layer, lengths.len(), n_entries, n_positions);
    if let Filling::Chunks(_, [q, k, v]) = filling {
        inputs.q.iter_mut().for_each(|v| *v *= q);
        inputs.k.iter_mut().for_each(|v| *v *= k);
        let width = layer.n_kv_heads * layer.head_dim;
        inputs.v.chunks_mut(width).step_by(2).flatten().for_each(|x| *x *= v);
    }
    for pool in [&mut on_gpu, &mut on_cpu] {
        match filling {
            Filling::Random => pool.fill_at_random(),
            Filling::Chunks(chunk, _) => {
                lengths.iter().enumerate().for_each(|(slot, n)| pool.fill(&inputs, slot as u32, *n, chunk));
            }
        }
    }
    let is_mma = arch >= 80 && layer.format == KvFormat::F16 && [64, 128, 256].contains(&layer.head_dim);
    let products = if is_mma { Products::TensorCores } else { Products::Lanes };
    let width = layer.n_heads * layer.head_dim;
    for more in 0..3 {
        let what = format!("sm_{arch} {layer:?}, {n_entries} entries, {lengths:?} + {more}");
        let row =
            |(slot, length): (usize, &usize)| Row { token: 0, position: (length + more) as u32, slot: slot as u32 };
        let rows: Vec<Row> = lengths.iter().enumerate().map(row).collect();
        let mut padded = rows.clone();
        padded.insert(1, Row { token: 0, position: 0, slot: NO_SLOT });
        let want = on_cpu.call(&inputs, &rows, false);
        let mut got = on_gpu.call(&inputs, &padded, false).out;
        let of_padding: Vec<f32> = got.drain(width..2 * width).collect();
        assert!(of_padding.iter().all(|v| *v == 7.5), "{what}: a padding row was written");
        let saved = on_cpu.saved();
        assert!(on_gpu.saved() == saved, "{what}: the pools differ");
        for (t, row) in rows.iter().enumerate() {
            for h in 0..layer.n_heads {
                let at = (t * layer.n_heads + h) * layer.head_dim..(t * layer.n_heads + h + 1) * layer.head_dim;
                let kv_head = h / (layer.n_heads / layer.n_kv_heads);
                let (slot, position) = (row.slot as usize, row.position as usize);
                let [keys, values] = [0, 1].map(|plane| on_cpu.visible(&saved, slot, position, plane, kv_head));
                let head = expect(&want.q[at.clone()], &keys, &values, products);
                for (i, got) in got[at].iter().enumerate() {
                    let fits = (*got as f64 - head.out[i]).abs() <= head.bound[i];
                    assert!(fits, "{what}: row {t}, head {h} [{i}] is {got}, {} expected", head.out[i]);
                }
            }
        }
    }
}

/// The architectures between the oldest and the newest have the kernels of one of them: a few shapes do.
fn heads_for(arch: u32) -> &'static [(usize, usize, usize)] {
    match arch {
        53 | 90 => &HEADS,
        _ => &HEADS[2..4],
    }
}

#[test]
fn rows_of_several_sequences_equal_f64() {
    for_each_arch(|device, arch| {
        for heads in heads_for(arch) {
            for format in FORMATS {
                // Empty, around a page; all positions, and windows in pages that are recycled.
                check(layer(*heads, usize::MAX, format), 3, 24, &[0, 30, 63, 31], device, arch);
                check(layer(*heads, 9, format), 3, 24, &[70, 1, 95], device, arch);
                check(layer(*heads, 1, format), 2, 24, &[33, 0], device, arch);
            }
        }
    });
}

/// Across the length of a KV split, where blocks merge what they found.
#[test]
fn lengths_around_kv_splits_equal_f64() {
    for_each_arch(|device, arch| {
        let all = [[126, 255], [128, 383], [130, 256]];
        let some = if arch == 53 || arch == 90 { &all[..] } else { &all[..1] };
        for (i, lengths) in some.iter().enumerate() {
            check(layer(HEADS[5], usize::MAX, FORMATS[i]), 13, 128, lengths, device, arch);
            check(layer((2, 1, 32), 140, FORMATS[i]), 9, 90, lengths, device, arch);
        }
    });
}

/// Sixteen keys at a time and eight heads: what begins or ends within them, for all widths.
#[test]
fn groups_of_keys_and_of_heads_equal_f64() {
    let heads = [(1, 1, 64), (5, 1, 128), (7, 1, 256), (8, 1, 64), (9, 1, 128), (16, 1, 64), (10, 2, 256)];
    for_each_arch(|device, arch| {
        for (i, heads) in heads.into_iter().enumerate().filter(|_| arch >= 80) {
            let window = [usize::MAX, 20, 17, 33][(i + arch as usize) % 4];
            check(layer(heads, usize::MAX, KvFormat::F16), 3, 30, &[1, 2, 15, 16, 17, 31, 32, 33], device, arch);
            check(layer(heads, window, KvFormat::F16), 3, 24, &[29, 48, 50, 78], device, arch);
        }
    });
}

/// Queries that no f16 holds, with keys that make scores of a few units of them, and weights that no f16 holds, of values
/// beside which the others are nothing.
#[test]
fn queries_and_weights_beyond_halves_equal_f64() {
    for_each_arch(|device, arch| {
        let queries = [[1e6, 1e-6, 1.0], [1e-7, 3e4, 1.0], [1e4, 1.0, 1.0], [3e-30, 1.0, 1.0], [1e30, 1e-4, 1.0]];
        for scales in queries.into_iter().chain([[8.0, 1.0, 1e-6]]) {
            let layer = Layer { has_norm: false, ..layer((6, 2, 64), usize::MAX, KvFormat::F16) };
            check_filled(layer, 2, Filling::Chunks(20, scales), &[3, 37], device, arch);
        }
    });
}

/// With eight groups of heads there are at most sixteen KV splits, longer ones from 2048 positions on.
#[test]
fn long_sequences_in_longer_kv_splits_equal_f64() {
    for_each_arch(|device, arch| {
        let (dim, format) = if arch < 80 { (8, KvFormat::F32) } else { (64, KvFormat::F16) };
        let lengths = [2046, 2080, 2210];
        check_filled(layer((8, 8, dim), usize::MAX, format), 70, Filling::Random, &lengths, device, arch);
        check_filled(layer((8, 8, dim), 2100, format), 67, Filling::Random, &lengths, device, arch);
    });
}

/// The same sequence alone, and between others in a larger pool with a longer context.
#[test]
fn the_batch_changes_no_bit() {
    for_each_arch(|device, arch| {
        for (i, heads) in HEADS.into_iter().enumerate() {
            let layer = layer(heads, if i % 2 == 0 { usize::MAX } else { 40 }, FORMATS[i % 3]);
            let inputs = Inputs::new(&layer, 150);
            let width = heads.0 * heads.2;
            let row = |slot, position| Row { token: 0, position, slot };
            let mut alone = Pool::new(device, layer, 1, 5, 150);
            alone.fill(&inputs, 0, 131, 40);
            let want = alone.call(&inputs, &[row(0, 131)], false).out;
            let mut shared = Pool::new(device, layer, 9, 9, 150);
            for (slot, end) in [(0, 131), (3, 20), (8, 140), (1, 64)] {
                shared.fill(&inputs, slot, end, 40);
            }
            let rows = [row(3, 20), row(NO_SLOT, 0), row(8, 140), row(0, 131), row(1, 64), row(NO_SLOT, 9)];
            let got = shared.call(&inputs, &rows, false).out;
            assert_same_bits(&got[3 * width..4 * width], &want, &format!("sm_{arch} {layer:?}"));
        }
    });
}

/// Prompts in pages, in chunks of awkward lengths, one row among them, and the same in a ring.
#[test]
fn chunks_have_the_bits_of_a_ring() {
    for_each_arch(|device, arch| {
        for heads in heads_for(arch) {
            for (format, window) in [(KvFormat::F32, usize::MAX), (KvFormat::F16, 21), (KvFormat::I8, 70)] {
                let layer = Layer { n_slots: 150, ..layer(*heads, window, format) };
                let inputs = Inputs::new(&layer, 150);
                let mut ring = Session::new(device, layer, 150);
                // A window of 70 and a chunk of 43 lie in five pages at most.
                let mut pool =
                    Pool::new(device, layer, 1, if window == 70 { 5 } else { 4 + (window > 99) as usize }, 150);
                let mut first = 0;
                for n in [31usize, 2, 43, 33, 40] {
                    let rows: Vec<Row> =
                        (first..first + n as u32).map(|position| Row { token: 0, position, slot: 0 }).collect();
                    let (got, want) = (pool.call(&inputs, &rows, true), ring.run(&inputs, first as usize, n));
                    let what = format!("sm_{arch} {layer:?}, {n} from {first}");
                    assert_same_bits(&got.out, &want.out, &what);
                    assert_same_bits(&got.q, &want.q, &what);
                    first += n as u32;
                }
                // A single row of a prompt is a chunk too, whatever its kernel: near what decode gives.
                let rows = [Row { token: 0, position: first, slot: 0 }];
                let (got, want) = (pool.call(&inputs, &rows, true), ring.run(&inputs, first as usize, 1));
                for (g, w) in got.out.iter().zip(&want.out) {
                    // Scores of a few units, moved by the 2^-11 of f16.
                    assert!((g - w).abs() <= 4e-3, "sm_{arch} {layer:?}: {g} {w}");
                }
            }
        }
    });
}
