//! Keys and values of one layer: a ring of slots, position p in slot p mod n. f32, f16, or int8 with one scale a vector.

use std::ops::Range;

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::view::View;

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvFormat {
    F32,
    F16,
    /// Codes in -127..=127 and one f32 scale per (slot, head).
    I8,
}

impl KvFormat {
    /// Bytes of one vector of `head_dim` values.
    pub fn vector_bytes(self, head_dim: usize) -> usize {
        match self {
            KvFormat::F32 => 4 * head_dim,
            KvFormat::F16 => 2 * head_dim,
            KvFormat::I8 => head_dim + 4,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            KvFormat::F32 => "f32",
            KvFormat::F16 => "f16",
            KvFormat::I8 => "int8",
        }
    }
}

/// One layer's ring: (n_kv_heads, n_slots, head_dim) twice.
#[derive(Clone)]
pub struct KvStore {
    format: KvFormat,
    n_slots: usize,
    n_kv_heads: usize,
    head_dim: usize,
    keys: Plane,
    values: Plane,
}

#[derive(Clone)]
struct Plane {
    /// One of the three holds the vectors, by format.
    floats: Vec<f32>,
    halves: Vec<u16>,
    codes: Vec<i8>,
    scales: Vec<f32>,
}

/// Neighbouring slots of one head.
#[derive(Clone, Copy)]
pub enum KvRows<'a> {
    /// (slots, head_dim).
    F32(&'a [f32]),
    /// (slots, head_dim).
    F16(&'a [u16]),
    /// (slots, head_dim) and (slots).
    I8(&'a [i8], &'a [f32]),
}

impl KvStore {
    pub fn new(format: KvFormat, n_slots: usize, n_kv_heads: usize, head_dim: usize) -> Self {
        let n = n_slots * n_kv_heads;
        let plane = || {
            let cells = |wanted: KvFormat| if format == wanted { n * head_dim } else { 0 };
            Plane {
                floats: vec![0.0; cells(KvFormat::F32)],
                halves: vec![0; cells(KvFormat::F16)],
                codes: vec![0; cells(KvFormat::I8)],
                scales: vec![0.0; if format == KvFormat::I8 { n } else { 0 }],
            }
        };
        KvStore { format, n_slots, n_kv_heads, head_dim, keys: plane(), values: plane() }
    }

    /// Bytes [`KvStore::new`] takes.
    pub fn size_bytes(format: KvFormat, n_slots: usize, n_kv_heads: usize, head_dim: usize) -> usize {
        2 * n_slots * n_kv_heads * format.vector_bytes(head_dim)
    }

    pub fn n_slots(&self) -> usize {
        self.n_slots
    }

    pub fn n_kv_heads(&self) -> usize {
        self.n_kv_heads
    }

    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    pub fn format(&self) -> KvFormat {
        self.format
    }

    /// Stores rows (T, n_kv_heads, head_dim) at positions `first_position..`.
    pub fn write(&mut self, keys: View<'_, f32, 3>, values: View<'_, f32, 3>, first_position: usize) {
        let [n_rows, n_kv_heads, head_dim] = keys.shape();
        assert_eq!(keys.shape(), values.shape());
        assert_eq!([n_kv_heads, head_dim], [self.n_kv_heads, self.head_dim]);
        for t in 0..n_rows {
            let slot = (first_position + t) % self.n_slots;
            for h in 0..n_kv_heads {
                let from = (t * n_kv_heads + h) * head_dim..(t * n_kv_heads + h + 1) * head_dim;
                let vector = h * self.n_slots + slot;
                self.keys.write(self.format, vector, &keys.host()[from.clone()]);
                self.values.write(self.format, vector, &values.host()[from]);
            }
        }
    }

    /// The slots of consecutive positions, oldest first: one run, or two where the ring wraps.
    pub fn segments(&self, positions: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
        assert!(positions.len() <= self.n_slots);
        let start = positions.start % self.n_slots;
        let first = positions.len().min(self.n_slots - start);
        [start..start + first, 0..positions.len() - first].into_iter().filter(|r| !r.is_empty())
    }

    pub fn keys(&self, kv_head: usize, slots: Range<usize>) -> KvRows<'_> {
        self.rows(&self.keys, kv_head, slots)
    }

    pub fn values(&self, kv_head: usize, slots: Range<usize>) -> KvRows<'_> {
        self.rows(&self.values, kv_head, slots)
    }

    fn rows<'a>(&self, plane: &'a Plane, kv_head: usize, slots: Range<usize>) -> KvRows<'a> {
        let vectors = kv_head * self.n_slots + slots.start..kv_head * self.n_slots + slots.end;
        let cells = vectors.start * self.head_dim..vectors.end * self.head_dim;
        match self.format {
            KvFormat::F32 => KvRows::F32(&plane.floats[cells]),
            KvFormat::F16 => KvRows::F16(&plane.halves[cells]),
            KvFormat::I8 => KvRows::I8(&plane.codes[cells], &plane.scales[vectors]),
        }
    }

    /// Appends everything that is stored for `positions`, for a session file.
    pub fn save(&self, positions: &Range<usize>, out: &mut Vec<u8>) {
        for plane in [&self.keys, &self.values] {
            for h in 0..self.n_kv_heads {
                for slots in self.segments(positions) {
                    match self.rows(plane, h, slots) {
                        KvRows::F32(rows) => out.extend(rows.iter().flat_map(|v| v.to_le_bytes())),
                        KvRows::F16(rows) => out.extend(rows.iter().flat_map(|v| v.to_le_bytes())),
                        KvRows::I8(codes, scales) => {
                            out.extend(codes.iter().map(|c| *c as u8));
                            out.extend(scales.iter().flat_map(|s| s.to_le_bytes()));
                        }
                    }
                }
            }
        }
    }

    /// Bytes [`KvStore::save`] appends for `n_positions`.
    pub fn saved_bytes(&self, n_positions: usize) -> usize {
        Self::size_bytes(self.format, n_positions, self.n_kv_heads, self.head_dim)
    }

    /// Undoes [`KvStore::save`] from exactly the bytes it appended.
    pub fn restore(&mut self, positions: &Range<usize>, mut bytes: &[u8]) {
        assert_eq!(bytes.len(), self.saved_bytes(positions.len()));
        let segments: Vec<Range<usize>> = self.segments(positions).collect();
        let (n_slots, head_dim, format) = (self.n_slots, self.head_dim, self.format);
        for plane in [&mut self.keys, &mut self.values] {
            for h in 0..self.n_kv_heads {
                for slots in &segments {
                    let vectors = h * n_slots + slots.start..h * n_slots + slots.end;
                    let (part, rest) = bytes.split_at(vectors.len() * format.vector_bytes(head_dim));
                    bytes = rest;
                    plane.read(format, head_dim, vectors, part);
                }
            }
        }
    }
}

impl Plane {
    fn write(&mut self, format: KvFormat, vector: usize, x: &[f32]) {
        let cells = vector * x.len()..(vector + 1) * x.len();
        match format {
            KvFormat::F32 => self.floats[cells].copy_from_slice(x),
            KvFormat::F16 => {
                self.halves[cells].reinterpret_cast_mut::<f16>().convert_from_f32_slice(x);
            }
            KvFormat::I8 => {
                let amax = x.iter().fold(0.0f32, |m, v| if v.abs() > m || v.is_nan() { v.abs() } else { m });
                let inv = if amax > 0.0 { 127.0 / amax } else { 0.0 };
                self.scales[vector] = amax / 127.0;
                self.codes[cells].iter_mut().zip(x).for_each(|(c, v)| *c = (v * inv).round_ties_even() as i8);
            }
        }
    }

    fn read(&mut self, format: KvFormat, head_dim: usize, vectors: Range<usize>, bytes: &[u8]) {
        let cells = vectors.start * head_dim..vectors.end * head_dim;
        match format {
            KvFormat::F32 => {
                for (v, b) in self.floats[cells].iter_mut().zip(bytes.chunks_exact(4)) {
                    *v = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            }
            KvFormat::F16 => {
                for (h, b) in self.halves[cells].iter_mut().zip(bytes.chunks_exact(2)) {
                    *h = u16::from_le_bytes([b[0], b[1]]);
                }
            }
            KvFormat::I8 => {
                let (codes, scales) = bytes.split_at(cells.len());
                self.codes[cells].iter_mut().zip(codes).for_each(|(c, b)| *c = *b as i8);
                for (s, b) in self.scales[vectors].iter_mut().zip(scales.chunks_exact(4)) {
                    *s = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            }
        }
    }
}
