//! The helpers of the op tests, and that a device answers on every architecture.

mod common;

use common::{assert_close, assert_same, devices, download, opened, upload, Random};
use lichen_kernels::ops::bandwidth;

#[test]
fn every_architecture_has_a_device() {
    let archs: Vec<u32> = opened().iter().map(|cuda| cuda.arch()).collect();
    if opened().first().is_some_and(|cuda| cuda.info().is_emulated()) {
        assert_eq!(archs, [53, 72, 80, 87, 90]);
    }
    let mut distinct = archs.clone();
    distinct.dedup();
    assert_eq!(archs, distinct);
}

#[test]
fn memory_comes_back_as_it_went() {
    let values = Random::new(1).normals(1001);
    for device in devices() {
        let buffer = upload(&device, &values);
        assert_same(&download(&device, &buffer), &values, device.describe());
    }
}

#[test]
fn kernels_run_on_every_architecture() {
    let words: Vec<u32> = (0..4096).map(|i| (i as u32).wrapping_mul(2654435761)).collect();
    let want = words.iter().fold(0u32, |a, b| a.wrapping_add(*b));
    for cuda in opened() {
        let pass = bandwidth::read_pass(cuda, bytemuck::cast_slice(&words)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(pass.sum, want, "sm_{}", cuda.arch());
    }
}

#[test]
#[should_panic(expected = "within")]
fn nan_is_not_close() {
    assert_close(&[f32::NAN], &[0.0], f32::INFINITY, "planted");
}
