//! A training step may be recorded: no op waits for the device, and a replay does the same again.

use lichen_kernels::ops::activation::{self, Activation};
use lichen_kernels::ops::dropout::{self, Key};
use lichen_kernels::ops::matmul::Write;
use lichen_kernels::ops::rmsnorm::backward as norm;
use lichen_kernels::ops::rope::{self, RopeTable};
use lichen_kernels::ops::{
    adamw, copy, cross_entropy, embedding, encode, modules_for_training, residual, rmsnorm, rows,
};
use lichen_kernels::{Buffer, Device, Format, Matrix, Readback, Step};

use crate::common::{cuda, download, upload};
use crate::oracle::{assert_same_bits, for_each_arch, random};

const T: usize = 4;
const D: usize = 8;
const WIDE: [usize; 2] = [T, D];
const EPS: f32 = 1e-6;

/// What the ops below work on, each taking what the one before it left.
struct Work {
    x: Buffer<f32>,
    y: Buffer<f32>,
    z: Buffer<f32>,
    weight: Buffer<f32>,
    rstd: Buffer<f32>,
    moments: Buffer<f32>,
    places: Buffer<u32>,
    losses: Readback<f64>,
    step: Step,
    rope: RopeTable,
    matrix: Matrix,
}

impl Work {
    fn new(device: &Device) -> Work {
        let mut step = Step::new(device, T).unwrap();
        step.set(0, &[2, 0, 2, 1]);
        Work {
            x: upload(device, &random(T * D, 1.0, 1)),
            y: upload(device, &random(T * D, 1.0, 2)),
            z: upload(device, &random(T * D, 1.0, 3)),
            weight: upload(device, &random(D, 1.0, 4)),
            rstd: upload(device, &[0.0; T]),
            moments: upload(device, &[0.01; 2 * D]),
            places: upload(device, &[3, 1, 0, 2]),
            losses: Readback::new(device, T).unwrap(),
            step,
            rope: RopeTable::new(device, T, D / 2, 1e4, 1.0).unwrap(),
            matrix: Matrix::zeros(device, Format::BF16, T, D).unwrap(),
        }
    }

    fn run(&mut self, device: &Device) {
        let Work { x, y, z, weight, rstd, moments, places, losses, step, rope, matrix } = self;
        step.send();
        embedding::backward(device, x.view_mut(WIDE), y.view(WIDE), step, 0.5);
        residual::add_to(device, y.view_mut(WIDE), x.view(WIDE));
        residual::sum(device, z.view_mut(WIDE), x.view(WIDE), y.view(WIDE));
        rope::forward(device, z.view_mut([T, 2, D / 2]), rope, places.all());
        rope::backward(device, y.view_mut([T, 2, D / 2]), rope, places.all());
        norm::weight(device, weight.view_mut([D]), rstd.view_mut([T]), y.view(WIDE), z.view(WIDE), EPS);
        rmsnorm::forward(device, x.view_mut(WIDE), z.view(WIDE), weight.all(), EPS);
        norm::input(device, x.view_mut(WIDE), y.view(WIDE), z.view(WIDE), weight.all(), EPS, Write::Add);
        norm::input_in_place(device, y.view_mut(WIDE), x.view(WIDE), weight.all(), EPS);
        activation::forward_to(device, Activation::Silu, z.view_mut(WIDE), x.view(WIDE), y.view(WIDE));
        activation::backward::in_place(device, Activation::Silu, x.view_mut(WIDE), y.view_mut(WIDE), z.view(WIDE));
        dropout::forward(device, z.view_mut(WIDE), y.view(WIDE), 0.3, Key::new(&[1]));
        rows::gather(device, y.view_mut(WIDE), x.view(WIDE), places.all());
        rows::scatter(device, z.view_mut(WIDE), y.view(WIDE), places.all());
        copy::copy(device, x.view_mut(WIDE), z.view(WIDE));
        cross_entropy::forward_backward(device, z.view_mut(WIDE), places.all(), Some(0.25), losses.view_mut([T]));
        let adam = adamw::Step {
            learning_rate: 0.1,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            weight_decay: 0.1,
            t: 2,
            gradient_scale: 1.0,
        };
        adamw::step(device, weight.view_mut([D]), z.part(D, [D]), moments.view_mut([2 * D]), &adam);
        encode::matrix(device, matrix, z.view(WIDE));
        copy::zero(device, y.view_mut(WIDE));
    }

    fn state(&mut self, device: &Device) -> Vec<f32> {
        let losses: Vec<f32> = self.losses.fetch(T).unwrap().iter().map(|loss| *loss as f32).collect();
        let mut matrix = vec![0.0; T * D];
        self.matrix.packed().download().unwrap().decode_rows(0..T, &mut matrix);
        let buffers = [&self.x, &self.y, &self.z, &self.weight, &self.rstd, &self.moments];
        let buffers = buffers.map(|buffer| download(device, buffer)).concat();
        [buffers, losses, matrix].concat()
    }
}

#[test]
fn a_recorded_step_is_the_step() {
    for_each_arch(|device, arch| {
        let driver = cuda(device);
        driver.prepare(&modules_for_training(&[Format::BF16])).unwrap();
        let (mut direct, mut recorded) = (Work::new(device), Work::new(device));
        let before = recorded.state(device);
        let graph = driver.capture(&mut || recorded.run(device)).unwrap();
        // A driver without graphs has nothing to replay.
        let Some(graph) = graph else { return };
        assert_same_bits(&recorded.state(device), &before, &format!("sm_{arch}: recording does nothing"));
        for _ in 0..2 {
            direct.run(device);
            graph.launch();
            let (got, want) = (recorded.state(device), direct.state(device));
            assert!(want.iter().all(|v| v.is_finite()), "sm_{arch}: {want:?}");
            assert_same_bits(&got, &want, &format!("sm_{arch}"));
        }
    });
}
