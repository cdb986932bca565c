//! Keys and values of one layer: a ring of slots, position p in slot p mod n. f32, f16, or int8 with one scale a vector.

use std::ops::Range;

use bytemuck::Pod;
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::cuda::DeviceError;
use crate::device::Device;
use crate::view::{Buffer, View};

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

impl KvFormat {
    /// Arrays that a vector is kept in: its numbers, and for int8 a scale.
    fn n_parts(self) -> usize {
        match self {
            KvFormat::F32 | KvFormat::F16 => 1,
            KvFormat::I8 => 2,
        }
    }

    /// Bytes of a vector in one of them.
    fn part_bytes(self, part: usize, head_dim: usize) -> usize {
        match (self, part) {
            (KvFormat::F32, _) => 4 * head_dim,
            (KvFormat::F16, _) => 2 * head_dim,
            (KvFormat::I8, 0) => head_dim,
            (KvFormat::I8, _) => 4,
        }
    }
}

/// One layer's ring: (n_kv_heads, n_slots, head_dim) twice.
pub struct KvStore {
    format: KvFormat,
    n_slots: usize,
    n_kv_heads: usize,
    head_dim: usize,
    pub(super) keys: Plane,
    pub(super) values: Plane,
}

/// (n_kv_heads, n_slots, head_dim), and for int8 one scale per vector.
pub(super) enum Plane {
    F32(Buffer<f32>),
    F16(Buffer<u16>),
    I8(Buffer<i8>, Buffer<f32>),
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
    /// # Errors: the device has no room.
    pub fn new(
        device: &Device,
        format: KvFormat,
        n_slots: usize,
        n_kv_heads: usize,
        head_dim: usize,
    ) -> Result<Self, DeviceError> {
        let n = n_slots * n_kv_heads;
        let keys = Plane::new(device, format, n, head_dim)?;
        let values = Plane::new(device, format, n, head_dim)?;
        Ok(KvStore { format, n_slots, n_kv_heads, head_dim, keys, values })
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

    /// Stores row t of (T, n_kv_heads, head_dim) in slot `slot_of(t)`, on the CPU.
    pub(super) fn write(&mut self, keys: View<'_, f32, 3>, values: View<'_, f32, 3>, slot_of: impl Fn(usize) -> usize) {
        let [n_rows, n_kv_heads, head_dim] = keys.shape();
        assert_eq!(keys.shape(), values.shape());
        assert_eq!([n_kv_heads, head_dim], [self.n_kv_heads, self.head_dim]);
        for t in 0..n_rows {
            let slot = slot_of(t);
            assert!(slot < self.n_slots);
            for h in 0..n_kv_heads {
                let from = (t * n_kv_heads + h) * head_dim..(t * n_kv_heads + h + 1) * head_dim;
                let vector = h * self.n_slots + slot;
                self.keys.write(vector, &keys.host()[from.clone()]);
                self.values.write(vector, &values.host()[from]);
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
        self.keys.rows(self.vectors(kv_head, &slots), self.head_dim)
    }

    pub fn values(&self, kv_head: usize, slots: Range<usize>) -> KvRows<'_> {
        self.values.rows(self.vectors(kv_head, &slots), self.head_dim)
    }

    fn vectors(&self, kv_head: usize, slots: &Range<usize>) -> Range<usize> {
        kv_head * self.n_slots + slots.start..kv_head * self.n_slots + slots.end
    }

    /// Appends everything that is stored for `positions`, for a session file: keys, then values; by head; the numbers of all
    /// positions, then for int8 their scales. Where they lie in the store does not matter.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn save(&self, positions: &Range<usize>, out: &mut Vec<u8>) -> Result<(), DeviceError> {
        let runs: Vec<Range<usize>> = self.segments(positions).collect();
        self.save_runs(&runs, out)
    }

    /// The same for runs of slots, in order of position: those of a sequence in pages
    /// ([`PageTable::runs`](super::PageTable::runs)).
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn save_runs(&self, runs: &[Range<usize>], out: &mut Vec<u8>) -> Result<(), DeviceError> {
        for plane in [&self.keys, &self.values] {
            for h in 0..self.n_kv_heads {
                for part in 0..self.format.n_parts() {
                    for slots in runs {
                        plane.save(part, self.vectors(h, slots), self.head_dim, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Bytes [`KvStore::save`] appends for `n_positions`.
    pub fn saved_bytes(&self, n_positions: usize) -> usize {
        Self::size_bytes(self.format, n_positions, self.n_kv_heads, self.head_dim)
    }

    /// Undoes [`KvStore::save`] from exactly the bytes it appended.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn restore(&mut self, positions: &Range<usize>, bytes: &[u8]) -> Result<(), DeviceError> {
        let runs: Vec<Range<usize>> = self.segments(positions).collect();
        self.restore_runs(&runs, bytes)
    }

    /// Undoes [`KvStore::save_runs`] into as many slots.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn restore_runs(&mut self, runs: &[Range<usize>], mut bytes: &[u8]) -> Result<(), DeviceError> {
        assert_eq!(bytes.len(), self.saved_bytes(runs.iter().map(|r| r.len()).sum()));
        let (n_slots, head_dim, format) = (self.n_slots, self.head_dim, self.format);
        for plane in [&mut self.keys, &mut self.values] {
            for h in 0..self.n_kv_heads {
                for part in 0..format.n_parts() {
                    for slots in runs {
                        let vectors = h * n_slots + slots.start..h * n_slots + slots.end;
                        let (own, rest) = bytes.split_at(vectors.len() * format.part_bytes(part, head_dim));
                        bytes = rest;
                        plane.restore(part, vectors, head_dim, own)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What [`KvStore::save`] would append for the last `n_kept` of the positions that `bytes` are of.
    pub fn last_positions(&self, bytes: &[u8], n_kept: usize) -> Vec<u8> {
        let position_bytes = self.saved_bytes(1);
        let n_positions = bytes.len() / position_bytes;
        assert!(bytes.len() == n_positions * position_bytes && n_kept <= n_positions);
        let (mut out, mut rest) = (Vec::with_capacity(n_kept * position_bytes), bytes);
        for _ in 0..2 * self.n_kv_heads {
            for part in 0..self.format.n_parts() {
                let size = self.format.part_bytes(part, self.head_dim);
                let (all, others) = rest.split_at(n_positions * size);
                out.extend_from_slice(&all[(n_positions - n_kept) * size..]);
                rest = others;
            }
        }
        out
    }
}

impl Plane {
    fn new(device: &Device, format: KvFormat, n: usize, head_dim: usize) -> Result<Plane, DeviceError> {
        Ok(match format {
            KvFormat::F32 => Plane::F32(Buffer::new(device, n * head_dim)?),
            KvFormat::F16 => Plane::F16(Buffer::new(device, n * head_dim)?),
            KvFormat::I8 => Plane::I8(Buffer::new(device, n * head_dim)?, Buffer::new(device, n)?),
        })
    }

    fn write(&mut self, vector: usize, x: &[f32]) {
        let cells = vector * x.len()..(vector + 1) * x.len();
        match self {
            Plane::F32(floats) => floats.host_mut()[cells].copy_from_slice(x),
            Plane::F16(f16s) => {
                f16s.host_mut()[cells].reinterpret_cast_mut::<f16>().convert_from_f32_slice(x);
            }
            Plane::I8(codes, scales) => {
                let amax = x.iter().fold(0.0f32, |m, v| if v.abs() > m || v.is_nan() { v.abs() } else { m });
                let inv = if amax > 0.0 { 127.0 / amax } else { 0.0 };
                scales.host_mut()[vector] = amax / 127.0;
                let codes = &mut codes.host_mut()[cells];
                codes.iter_mut().zip(x).for_each(|(c, v)| *c = (v * inv).round_ties_even() as i8);
            }
        }
    }

    fn rows(&self, vectors: Range<usize>, head_dim: usize) -> KvRows<'_> {
        let cells = vectors.start * head_dim..vectors.end * head_dim;
        match self {
            Plane::F32(floats) => KvRows::F32(&floats.host()[cells]),
            Plane::F16(f16s) => KvRows::F16(&f16s.host()[cells]),
            Plane::I8(codes, scales) => KvRows::I8(&codes.host()[cells], &scales.host()[vectors]),
        }
    }

    /// Appends one part of some vectors: their numbers, or for int8 (1) their scales.
    fn save(&self, part: usize, vectors: Range<usize>, head_dim: usize, out: &mut Vec<u8>) -> Result<(), DeviceError> {
        let (first, n) = (vectors.start * head_dim, vectors.len() * head_dim);
        match (self, part) {
            (Plane::F32(floats), _) => append(floats, first, n, out),
            (Plane::F16(f16s), _) => append(f16s, first, n, out),
            (Plane::I8(codes, _), 0) => append(codes, first, n, out),
            (Plane::I8(_, scales), _) => append(scales, vectors.start, vectors.len(), out),
        }
    }

    fn restore(
        &mut self,
        part: usize,
        vectors: Range<usize>,
        head_dim: usize,
        bytes: &[u8],
    ) -> Result<(), DeviceError> {
        let first = vectors.start * head_dim;
        match (self, part) {
            (Plane::F32(floats), _) => fill(floats, first, bytes),
            (Plane::F16(f16s), _) => fill(f16s, first, bytes),
            (Plane::I8(codes, _), 0) => fill(codes, first, bytes),
            (Plane::I8(_, scales), _) => fill(scales, vectors.start, bytes),
        }
    }
}

/// Appends the bytes of elements `first..first + n`.
fn append<T: Pod>(from: &Buffer<T>, first: usize, n: usize, out: &mut Vec<u8>) -> Result<(), DeviceError> {
    let mut values = vec![T::zeroed(); n];
    from.read(first, &mut values)?;
    out.extend_from_slice(bytemuck::cast_slice(&values));
    Ok(())
}

/// Undoes [`append`].
fn fill<T: Pod>(to: &mut Buffer<T>, first: usize, bytes: &[u8]) -> Result<(), DeviceError> {
    // A copy: the bytes of a file need not be aligned.
    let mut values = vec![T::zeroed(); bytes.len() / size_of::<T>()];
    bytemuck::cast_slice_mut(&mut values).copy_from_slice(bytes);
    to.write(first, &values)
}
