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

    /// Appends everything that is stored for `positions`, for a session file.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn save(&self, positions: &Range<usize>, out: &mut Vec<u8>) -> Result<(), DeviceError> {
        for plane in [&self.keys, &self.values] {
            for h in 0..self.n_kv_heads {
                for slots in self.segments(positions) {
                    plane.save(self.vectors(h, &slots), self.head_dim, out)?;
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
    pub fn restore(&mut self, positions: &Range<usize>, mut bytes: &[u8]) -> Result<(), DeviceError> {
        assert_eq!(bytes.len(), self.saved_bytes(positions.len()));
        let segments: Vec<Range<usize>> = self.segments(positions).collect();
        let (n_slots, head_dim, format) = (self.n_slots, self.head_dim, self.format);
        for plane in [&mut self.keys, &mut self.values] {
            for h in 0..self.n_kv_heads {
                for slots in &segments {
                    let vectors = h * n_slots + slots.start..h * n_slots + slots.end;
                    let (part, rest) = bytes.split_at(vectors.len() * format.vector_bytes(head_dim));
                    bytes = rest;
                    plane.restore(vectors, head_dim, part)?;
                }
            }
        }
        Ok(())
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

    fn save(&self, vectors: Range<usize>, head_dim: usize, out: &mut Vec<u8>) -> Result<(), DeviceError> {
        let (first, n) = (vectors.start * head_dim, vectors.len() * head_dim);
        match self {
            Plane::F32(floats) => append(floats, first, n, out),
            Plane::F16(f16s) => append(f16s, first, n, out),
            Plane::I8(codes, scales) => {
                append(codes, first, n, out)?;
                append(scales, vectors.start, vectors.len(), out)
            }
        }
    }

    fn restore(&mut self, vectors: Range<usize>, head_dim: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        let (first, n) = (vectors.start * head_dim, vectors.len() * head_dim);
        match self {
            Plane::F32(floats) => fill(floats, first, bytes),
            Plane::F16(f16s) => fill(f16s, first, bytes),
            Plane::I8(codes, scales) => {
                let (code_bytes, scale_bytes) = bytes.split_at(n);
                fill(codes, first, code_bytes)?;
                fill(scales, vectors.start, scale_bytes)
            }
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
