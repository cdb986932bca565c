//! What the tests of ops share. The same programs run on a GPU, where the driver is the machine's: nothing here or in them
//! may assume the emulator. `cargo test` puts the emulator's libcuda.so in LD_LIBRARY_PATH; for the machine's own driver,
//! start the test programs with that variable unset.
#![allow(dead_code)]

pub mod newest;

use std::env;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use lichen_kernels::cuda::{embedded_archs, Cuda, CudaOptions, DeviceError};
use lichen_kernels::formats::{float, nf4, q4_0, q8_0, Format};
use lichen_kernels::{Buffer, Device, Matrix, PackedMatrix, SharedBytes};

/// What the emulator is told to have, unless the environment tells it.
const EMULATED: &str = "53,72,80,87,90";

/// One device for each architecture with kernels: on the emulator five of them, on a GPU the first one, with the kernels of
/// every architecture it can run. None when the build has no kernels or the machine no driver, which is said, and is a
/// failure where LICHEN_REQUIRE_CUDA is set.
pub fn devices() -> Vec<Device> {
    opened().iter().map(|cuda| Device::Cuda(cuda.clone())).collect()
}

/// The same without the enum around them.
pub fn opened() -> &'static [Cuda] {
    static OPENED: OnceLock<Vec<Cuda>> = OnceLock::new();
    OPENED.get_or_init(|| {
        if env::var_os("LICHEN_EMULATOR_DEVICES").is_none() {
            env::set_var("LICHEN_EMULATOR_DEVICES", EMULATED);
        }
        newest::renew();
        let opened = open_all();
        let required = env::var_os("LICHEN_REQUIRE_CUDA").is_some();
        opened.unwrap_or_else(|why| {
            assert!(!required, "no CUDA device: {why}");
            eprintln!("NOT RUN on CUDA: {why}");
            Vec::new()
        })
    })
}

/// The same device with the same kernels, none of them loaded.
pub fn reopen(cuda: &Cuda) -> Cuda {
    let ordinal = cuda.info().ordinal;
    let options = CudaOptions { ordinal, arch: Some(cuda.arch()), cache_dir: cache_dir() };
    Cuda::open(&options).unwrap_or_else(|e| panic!("{e}"))
}

fn cache_dir() -> Option<PathBuf> {
    Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("cubins"))
}

fn open_all() -> Result<Vec<Cuda>, DeviceError> {
    let open = |ordinal, arch| Cuda::open(&CudaOptions { ordinal, arch, cache_dir: cache_dir() });
    let list = match Cuda::list() {
        Ok(list) => list,
        // Opening says more of why: kernels that were not compiled in, for one.
        Err(why) => return Err(open(0, None).err().unwrap_or(why)),
    };
    let Some(first) = list.first() else { return open(0, None).map(|cuda| vec![cuda]) };
    if first.is_emulated() {
        return list.iter().map(|info| open(info.ordinal, None)).collect();
    }
    let archs = embedded_archs().into_iter().filter(|arch| *arch <= first.capability);
    let mut archs: Vec<u32> = archs.collect();
    if let Ok(asked) = env::var("LICHEN_CUDA_ARCH") {
        archs.retain(|arch| arch.to_string() == asked);
    }
    archs.into_iter().map(|arch| open(0, Some(arch))).collect()
}

/// A device and its architecture for messages: `Lichen emulated sm_53 (sm_53 kernels)`.
pub fn name(device: &Device) -> String {
    device.describe()
}

/// The driver's side of a device.
pub fn cuda(device: &Device) -> &Cuda {
    match device {
        Device::Cuda(cuda) => cuda,
        Device::Cpu(_) => panic!("not a GPU"),
    }
}

/// The matrix of these values on the host.
pub fn encode(format: Format, rows: usize, cols: usize, values: &[f32]) -> Matrix {
    let mut bytes = Vec::new();
    match format {
        Format::F32 => values.iter().for_each(|v| bytes.extend(v.to_le_bytes())),
        Format::F16 => float::encode_f16(values, &mut bytes),
        Format::BF16 => float::encode_bf16(values, &mut bytes),
        Format::Q8_0 => q8_0::encode(values, &mut bytes),
        Format::Q4_0 => q4_0::encode(values, &mut bytes),
        Format::NF4 => {
            let mut absmax = Vec::new();
            nf4::encode(values, &mut bytes, &mut absmax);
            return Matrix::new_nf4(rows, cols, SharedBytes::from_vec(bytes), Arc::from(absmax));
        }
        other => panic!("{other}"),
    }
    Matrix::new(format, rows, cols, SharedBytes::from_vec(bytes))
}

/// The same matrix in the device's layout.
pub fn on_gpu(device: &Device, matrix: &Matrix) -> Matrix {
    let cuda = cuda(device);
    let mut staging = cuda.alloc_pinned(1 << 20).unwrap();
    let packed = PackedMatrix::upload(cuda, matrix, &mut |n| cuda.alloc(n), &mut staging, &mut |_| {});
    Matrix::on_gpu(packed.unwrap())
}

pub fn upload<T: bytemuck::Pod + Default>(device: &Device, values: &[T]) -> Buffer<T> {
    Buffer::from_slice(device, values).unwrap_or_else(|e| panic!("{}: {e}", name(device)))
}

/// Everything a buffer holds, after the work before it.
pub fn download<T: bytemuck::Pod + Default>(device: &Device, buffer: &Buffer<T>) -> Vec<T> {
    device.synchronize().unwrap_or_else(|e| panic!("{}: {e}", name(device)));
    let mut values = vec![T::default(); buffer.len()];
    buffer.read(0, &mut values).unwrap_or_else(|e| panic!("{}: {e}", name(device)));
    values
}

/// Draws from a seed: splitmix64. `LICHEN_SEED` is added to every seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let added = env::var("LICHEN_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0u64);
        Random(seed.wrapping_add(added.wrapping_mul(0x1_0000_0001)))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Even in -1..1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Near enough to a normal distribution: the sum of twelve even ones.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() / 2.0
    }

    pub fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal()).collect()
    }
}

/// Fails where a value is further from its oracle than `bound(index)`, or is NaN.
#[track_caller]
pub fn assert_close_by(got: &[f32], want: &[f32], bound: impl Fn(usize) -> f32, what: impl Debug) {
    assert_eq!(got.len(), want.len(), "{what:?}: lengths");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (got - want).abs();
        assert!(error <= bound(i), "{what:?}: [{i}] = {got}, expected {want} within {}; off by {error}", bound(i));
    }
}

/// The same with one bound.
#[track_caller]
pub fn assert_close(got: &[f32], want: &[f32], bound: f32, what: impl Debug) {
    assert_close_by(got, want, |_| bound, what);
}

/// Fails unless all bits agree.
#[track_caller]
pub fn assert_same(got: &[f32], want: &[f32], what: impl Debug) {
    assert_eq!(got.len(), want.len(), "{what:?}: lengths");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let same = got.to_bits() == want.to_bits();
        assert!(same, "{what:?}: [{i}] = {got:?} ({:#x}), expected {want:?} ({:#x})", got.to_bits(), want.to_bits());
    }
}
