//! Weight matrices: bytes identical to the file's, shared and read-only; on a GPU in its own layouts.

mod pack;
mod packed;

use std::ops::Range;
use std::sync::Arc;

use crate::cuda::DeviceError;
use crate::device::Device;
use crate::formats::{decode, nf4, Format};

pub use packed::PackedMatrix;

/// A range of bytes somebody keeps alive: a mapped file, or a buffer on the heap.
#[derive(Clone)]
pub struct SharedBytes {
    owner: Owner,
    range: Range<usize>,
}

#[derive(Clone)]
enum Owner {
    Shared(Arc<dyn AsRef<[u8]> + Send + Sync>),
    /// Bytes on the heap, which whoever holds them alone may change: weights in training.
    Heap(Arc<Vec<u8>>),
}

impl SharedBytes {
    /// `None` when the range does not lie inside the owner's bytes.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Option<Self> {
        (*owner).as_ref().get(range.clone())?;
        Some(SharedBytes { owner: Owner::Shared(owner), range })
    }

    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        SharedBytes { owner: Owner::Heap(Arc::new(bytes)), range }
    }

    /// The bytes to be changed; `None` when somebody else holds them too, or they are not this program's.
    pub fn get_mut(&mut self) -> Option<&mut [u8]> {
        match &mut self.owner {
            Owner::Shared(_) => None,
            Owner::Heap(bytes) => Some(&mut Arc::get_mut(bytes)?[self.range.clone()]),
        }
    }

    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match &self.owner {
            Owner::Shared(owner) => &(**owner).as_ref()[self.range.clone()],
            Owner::Heap(bytes) => &bytes[self.range.clone()],
        }
    }
}

/// A weight matrix `(rows, cols)`, row-major, one row per output: `y[r] = sum over c of w[r, c] * x[c]`.
#[derive(Clone)]
pub struct Matrix {
    format: Format,
    rows: usize,
    cols: usize,
    storage: Storage,
}

#[derive(Clone)]
enum Storage {
    Host {
        data: SharedBytes,
        /// NF4 alone: absmax of each block of 64, `(rows, cols / 64)`.
        absmax: Option<Arc<[f32]>>,
    },
    /// On a GPU, in its own layout.
    Cuda(Arc<PackedMatrix>),
}

impl Matrix {
    /// A matrix of any computed format but NF4. Panics when the bytes do not fit the shape: readers check before.
    pub fn new(format: Format, rows: usize, cols: usize, data: SharedBytes) -> Self {
        assert!(format.is_computed() && format != Format::NF4, "{format} is not computed with directly");
        let row_bytes = format.row_bytes(cols).expect("whole blocks");
        assert_eq!(data.as_slice().len(), row_bytes * rows, "{format} ({rows}, {cols})");
        Matrix { format, rows, cols, storage: Storage::Host { data, absmax: None } }
    }

    /// An NF4 matrix: nibbles and one f32 absmax per block of 64. `cols` must be a multiple of 64.
    pub fn new_nf4(rows: usize, cols: usize, nibbles: SharedBytes, absmax: Arc<[f32]>) -> Self {
        assert_eq!(cols % nf4::BLOCK, 0);
        assert_eq!(nibbles.as_slice().len(), rows * cols / 2);
        assert_eq!(absmax.len(), rows * cols / nf4::BLOCK);
        Matrix { format: Format::NF4, rows, cols, storage: Storage::Host { data: nibbles, absmax: Some(absmax) } }
    }

    /// Zeros of a float format, to be written by [`encode`](crate::ops::encode): held by this value alone.
    ///
    /// # Errors
    /// The device has no room.
    pub fn zeros(device: &Device, format: Format, rows: usize, cols: usize) -> Result<Self, DeviceError> {
        assert!(format.is_float(), "{format} has blocks");
        Ok(match device {
            Device::Cpu(_) => {
                let bytes = rows * format.row_bytes(cols).expect("no blocks");
                Matrix::new(format, rows, cols, SharedBytes::from_vec(vec![0; bytes]))
            }
            Device::Cuda(cuda) => Matrix::on_gpu(PackedMatrix::zeros(cuda, format, rows, cols)?),
        })
    }

    /// A matrix on a GPU.
    pub fn on_gpu(packed: PackedMatrix) -> Self {
        let (format, rows, cols) = (packed.format, packed.rows, packed.cols);
        Matrix { format, rows, cols, storage: Storage::Cuda(Arc::new(packed)) }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All rows, in the file's layout. Panics when they are on a GPU.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Host { data, .. } => data.as_slice(),
            Storage::Cuda(_) => panic!("a matrix on a GPU has no host side"),
        }
    }

    /// The bytes to be changed, as [`SharedBytes::get_mut`] gives them.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        match &mut self.storage {
            Storage::Host { data, .. } => data.get_mut(),
            Storage::Cuda(_) => None,
        }
    }

    /// `(rows, cols / 64)`; empty for every format but NF4, and on a GPU.
    #[inline]
    pub fn absmax(&self) -> &[f32] {
        match &self.storage {
            Storage::Host { absmax, .. } => absmax.as_deref().unwrap_or(&[]),
            Storage::Cuda(_) => &[],
        }
    }

    /// The planes on the GPU. Panics when the matrix is on the host.
    pub fn packed(&self) -> &PackedMatrix {
        match &self.storage {
            Storage::Host { .. } => panic!("a matrix on the host has no device layout"),
            Storage::Cuda(packed) => packed,
        }
    }

    /// The same to be changed; `None` when somebody else holds it too, or it is on the host.
    pub fn packed_mut(&mut self) -> Option<&mut PackedMatrix> {
        match &mut self.storage {
            Storage::Host { .. } => None,
            Storage::Cuda(packed) => Arc::get_mut(packed),
        }
    }

    /// Bytes read to multiply by the whole matrix once.
    pub fn size_bytes(&self) -> usize {
        match &self.storage {
            Storage::Host { data, .. } => data.as_slice().len() + size_of_val(self.absmax()),
            Storage::Cuda(packed) => packed.size_bytes(),
        }
    }

    /// Decodes rows `rows` into `out`, `(rows.len(), cols)`, on the host.
    pub fn decode_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        assert!(rows.end <= self.rows);
        assert_eq!(out.len(), rows.len() * self.cols);
        let row_bytes = self.format.row_bytes(self.cols).expect("checked at construction");
        let bytes = &self.bytes()[rows.start * row_bytes..rows.end * row_bytes];
        match self.format {
            Format::NF4 => {
                let blocks = self.cols / nf4::BLOCK;
                nf4::decode(bytes, &self.absmax()[rows.start * blocks..rows.end * blocks], out)
            }
            format => decode(format, bytes, out),
        }
    }
}
