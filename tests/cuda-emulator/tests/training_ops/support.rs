//! Arrays that begin where a test wants them: in training most are parts of one flat vector, and only those whose address is
//! a multiple of 16 bytes are read in wide pieces.

use lichen_kernels::{Buffer, Device, View, ViewMut};

use crate::common::{download, upload};

/// The unit in the last place of 1, halved: the relative error of one rounding.
pub const ROUNDING: f64 = 1.0 / 16_777_216.0;

/// Where arrays begin in their buffers: at a multiple of 16 bytes, and not.
pub const STARTS: [usize; 2] = [0, 1];

/// An array that begins at element `start` of its memory. What is before and behind it must stay.
pub struct Array {
    buffer: Buffer<f32>,
    start: usize,
    len: usize,
}

/// No op makes this number.
const GUARD: f32 = -12_345.678;
const N_BEHIND: usize = 5;

impl Array {
    pub fn new(device: &Device, start: usize, values: &[f32]) -> Array {
        let guarded = [&vec![GUARD; start], values, &[GUARD; N_BEHIND]].concat();
        Array { buffer: upload(device, &guarded), start, len: values.len() }
    }

    /// Values that no result has.
    pub fn unwritten(device: &Device, start: usize, len: usize) -> Array {
        Array::new(device, start, &vec![f32::NAN; len])
    }

    pub fn view<const R: usize>(&self, shape: [usize; R]) -> View<'_, f32, R> {
        self.buffer.part(self.start, shape)
    }

    pub fn view_mut<const R: usize>(&mut self, shape: [usize; R]) -> ViewMut<'_, f32, R> {
        self.buffer.part_mut(self.start, shape)
    }

    #[track_caller]
    pub fn read(&self, device: &Device) -> Vec<f32> {
        let all = download(device, &self.buffer);
        let (before, rest) = all.split_at(self.start);
        let (values, behind) = rest.split_at(self.len);
        assert!(before.iter().chain(behind).all(|v| *v == GUARD), "written outside: {before:?} {behind:?}");
        values.to_vec()
    }
}

/// Fails where a value is further from the other than `bound(index)`, or one is NaN.
#[track_caller]
pub fn assert_within(got: &[f32], want: &[f32], bound: impl Fn(usize) -> f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - f64::from(*want)).abs();
        assert!(error <= bound(i), "{what}: [{i}] is {got}, {want} expected within {:e}; off by {error:e}", bound(i));
    }
}
