//! Launches of the low-rank product.

use super::LoraPair;
use crate::cuda::Cuda;
use crate::view::{View, ViewMut};

pub fn forward(
    _cuda: &Cuda,
    _y: ViewMut<'_, f32, 2>,
    _x: View<'_, f32, 2>,
    _pair: LoraPair<'_>,
    _u: ViewMut<'_, f32, 1>,
) {
    unimplemented!()
}
