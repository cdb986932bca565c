//! Quantised products per instruction set. Each file gives two kernels: `matvec` (decode: weights in the file's layout)
//! and `matmul` (prefill: a panel of weight rows widened once, then multiplied by every tile of `x`).

#[cfg(target_arch = "x86_64")]
mod avx512;

use std::cell::RefCell;
use std::ops::Range;

use super::cpu;
use super::quantize::QuantizedRows;
use crate::matrix::Matrix;
use crate::simd::Isa;

/// `out[i] = w[rows.start + i] . x[0]`.
pub fn matvec(isa: Isa, weights: &Matrix, rows: Range<usize>, x: &QuantizedRows, out: &mut [f32]) {
    assert!(rows.end <= weights.rows() && out.len() == rows.len() && x.cols() == weights.cols() && x.n_rows() == 1);
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::matvec(weights, rows, x, out),
        _ => {
            for (y, row) in out.iter_mut().zip(rows) {
                *y = cpu::dot(weights, row, x, 0);
            }
        }
    }
}

/// Calls `store(t, y)` for each row `t` of `x`, with `y[i] = w[rows.start + i] . x[t]`; at most a panel of rows.
pub fn matmul(isa: Isa, weights: &Matrix, rows: Range<usize>, x: &QuantizedRows, store: &mut dyn FnMut(usize, &[f32])) {
    assert!(rows.end <= weights.rows() && rows.len() <= super::PANEL_ROWS && x.cols() == weights.cols());
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::matmul(weights, rows, x, store),
        _ => {
            let mut y = [0.0f32; super::PANEL_ROWS];
            for t in 0..x.n_rows() {
                for (y, row) in y.iter_mut().zip(rows.clone()) {
                    *y = cpu::dot(weights, row, x, t);
                }
                store(t, &y[..rows.len()]);
            }
        }
    }
}

/// A thread's panel: widened weights and their scales, grown to the widest matrix once and then kept.
#[derive(Default)]
pub(super) struct Panel {
    pub codes: Vec<i16>,
    pub scales: Vec<f32>,
}

thread_local! {
    static PANEL: RefCell<Panel> = RefCell::new(Panel::default());
}

/// Runs `f` with this thread's panel, at least this large.
pub(super) fn with_panel<R>(n_codes: usize, n_scales: usize, f: impl FnOnce(&mut Panel) -> R) -> R {
    PANEL.with_borrow_mut(|panel| {
        if panel.codes.len() < n_codes {
            panel.codes.resize(n_codes, 0);
        }
        if panel.scales.len() < n_scales {
            panel.scales.resize(n_scales, 0.0);
        }
        f(panel)
    })
}
