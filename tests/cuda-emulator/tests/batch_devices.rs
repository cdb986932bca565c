//! A batch on devices whose like is not among the tests' usual ones: little shared memory (RTX 30, 40 and 50), a capability
//! that does not run sm_90a, an H100 with a driver that does not know wgmma's PTX. They open with what they have, and the bits
//! of a row do not depend on its batch there either.

#[path = "common/again.rs"]
mod again;
mod common;
mod decode;

use again::with_environment;
use decode::{assert_same, matrix, random, read, upload};
use lichen_kernels::cuda::{Cuda, CudaOptions, NOT_COMPILED};
use lichen_kernels::formats::Format;
use lichen_kernels::ops::attention::KvFormat;
use lichen_kernels::ops::matmul::{self, Family, Input, Product, Scratch};
use lichen_kernels::ops::modules_for_batch;
use lichen_kernels::{Buffer, Device};

const FORMATS: [Format; 3] = [Format::NF4, Format::Q8_0, Format::BF16];

/// The emulated device, its modules loaded as a batch loads them.
fn open(ordinal: usize) -> Cuda {
    let cuda = Cuda::open(&CudaOptions { ordinal, ..CudaOptions::default() }).unwrap_or_else(|e| panic!("{e}"));
    cuda.prepare(&modules_for_batch(&FORMATS, KvFormat::F16)).unwrap_or_else(|e| panic!("{e}"));
    cuda
}

fn check_products(cuda: &Cuda) {
    let (device, [t, n, k]) = (Device::Cuda(cuda.clone()), [64, 40, 256]);
    let x = random(t * k, 1.0, 1);
    for format in FORMATS {
        let weights = upload(&device, &matrix(format, n, k, 2));
        let product = |rows: &[f32]| {
            let t = rows.len() / k;
            let there = Buffer::from_vec(&device, rows.to_vec()).unwrap();
            let mut out = Buffer::new(&device, t * n).unwrap();
            let mut scratch = Scratch::new(&device, t, k, n).unwrap();
            let products = &mut [Product { out: out.view_mut([t, n]), weights: &weights, bias: None }];
            matmul::forward(&device, Family::Batch, products, Input::Rows(there.view([t, k])), &mut scratch);
            device.synchronize().unwrap();
            read(&out)
        };
        let all = product(&x);
        for row in [0, 31, 32, 63] {
            let what = format!("sm_{} {format} {row}", cuda.info().capability);
            assert_same(&product(&x[row * k..(row + 1) * k]), &all[row * n..(row + 1) * n], &what);
        }
    }
}

#[test]
fn devices_with_little_shared_memory_and_newer_ones_open_and_multiply() {
    let test = "devices_with_little_shared_memory_and_newer_ones_open_and_multiply";
    if NOT_COMPILED.is_some() || !with_environment(test, &[("LICHEN_EMULATOR_DEVICES", "86,89,100,120")]) {
        return;
    }
    for ordinal in 0..4 {
        if ordinal > 0 && Cuda::list().map_or(0, |list| list.len()) <= ordinal {
            // A machine's own driver has what it has.
            continue;
        }
        let cuda = open(ordinal);
        let is_emulated = cuda.info().is_emulated();
        assert!(!is_emulated || !cuda.has_kernel("matmul_wgmma_nf4_8"), "sm_{}", cuda.info().capability);
        check_products(&cuda);
    }
}

#[test]
fn an_h100_whose_driver_is_too_old_for_wgmma_multiplies_without() {
    let test = "an_h100_whose_driver_is_too_old_for_wgmma_multiplies_without";
    let variables = [("LICHEN_EMULATOR_DEVICES", "90"), ("LICHEN_EMULATOR_DRIVER", "11080")];
    if NOT_COMPILED.is_some() || !with_environment(test, &variables) {
        return;
    }
    let cuda = open(0);
    assert!(!cuda.info().is_emulated() || !cuda.has_kernel("matmul_wgmma_nf4_8"));
    check_products(&cuda);
}
