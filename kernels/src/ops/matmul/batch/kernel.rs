//! Which kernel of batches a device runs for a format, and how its blocks share the work.

use crate::cuda::Cuda;
use crate::formats::Format;
use crate::ops::matmul::prefill::cuda::has_bf16;
use crate::ops::matmul::prefill::plan::PARTIALS_BYTES_MAX;

/// Rows of `x` that are multiplied by one reading of the weights.
pub const COLUMNS_MAX: usize = 64;
/// Most splits of K, and the shortest, in tiles of 128.
const SPLITS_MAX: usize = 8;
const SPLIT_TILES_MIN: usize = 4;
/// Weight rows of a block that fills a processor.
const BLOCK_ROWS: usize = 512;
/// Steps of 128 k of `x` in shared memory: two rings of BATCH_STEPS.
const X_STEPS: u32 = 4;
/// Bytes of a row of `x` of one step in shared memory: for mma.sync (BATCH_X_STRIDE of batch.cuh), for wgmma.
const X_STRIDE_MMA: u32 = 320;
const X_STRIDE_WGMMA: u32 = 256;
/// The levels of every byte of NF4 codes, for each lane.
const NF4_TABLE_BYTES: u32 = 256 * 32 * 4;
/// The least warps of a block: a warpgroup's.
const WARPS_MIN: usize = 4;

/// How rows of `x` lie in memory for a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they come, in f16 or in bf16.
    Rows,
    Bf16Rows,
    /// As batch_wgmma.cuh has them, for formats with so many codes in sixteen bytes.
    Pieces {
        k_per_load: u32,
    },
}

pub struct Kernel {
    pub name: &'static str,
    /// Tokens, with those that are not there.
    pub columns: usize,
    pub order: Order,
    pub shared_bytes: u32,
    /// Weight rows of a warp, and the most warps of a block.
    warp_rows: usize,
    warps_max: usize,
}

macro_rules! names {
    ($family:literal, $format:literal) => {
        [
            concat!("matmul_", $family, "_", $format, "_8"),
            concat!("matmul_", $family, "_", $format, "_16"),
            concat!("matmul_", $family, "_", $format, "_32"),
            concat!("matmul_", $family, "_", $format, "_64"),
        ]
    };
}

impl Kernel {
    /// The smallest that holds so many tokens.
    pub fn of(cuda: &Cuda, format: Format, n_tokens: usize) -> Kernel {
        match wgmma_names(format) {
            Some((names, k_per_load)) if cuda.has_kernel(names[0]) => {
                Kernel::wgmma(format, names, k_per_load, n_tokens)
            }
            _ => Kernel::mma(format, has_bf16(cuda, format), n_tokens),
        }
    }

    /// BATCH_KERNELS of batch.cuh.
    fn mma(format: Format, is_bf16: bool, n_tokens: usize) -> Kernel {
        let names = match format {
            Format::Q8_0 => names!("batch", "q8_0"),
            Format::Q4_0 => names!("batch", "q4_0"),
            Format::NF4 => names!("batch", "nf4"),
            Format::F16 => names!("batch", "f16"),
            Format::BF16 => names!("batch", "bf16"),
            other => panic!("{other} has no kernel for batches"),
        };
        let (warp_rows, warps_max) = match format {
            Format::Q4_0 => ([32, 32, 32, 32], [16, 8, 8, 8]),
            _ => ([32, 32, 64, 32], [16, 16, 8, 8]),
        };
        let order = if is_bf16 { Order::Bf16Rows } else { Order::Rows };
        Kernel::new(format, names, order, n_tokens, warp_rows, warps_max)
    }

    /// WGMMA_KERNELS of batch_wgmma.cuh.
    fn wgmma(format: Format, names: [&'static str; 4], k_per_load: u32, n_tokens: usize) -> Kernel {
        let warp_rows = match format {
            Format::Q4_0 => [16, 16, 16, 16],
            _ => [32, 32, 16, 16],
        };
        Kernel::new(format, names, Order::Pieces { k_per_load }, n_tokens, warp_rows, [16; 4])
    }

    fn new(
        format: Format,
        names: [&'static str; 4],
        order: Order,
        n_tokens: usize,
        warp_rows: [usize; 4],
        warps_max: [usize; 4],
    ) -> Kernel {
        let index = [8, 16, 32, 64].iter().position(|n| n_tokens <= *n).expect("at most COLUMNS_MAX");
        let columns = 8 << index;
        let table = if format == Format::NF4 { NF4_TABLE_BYTES } else { 0 };
        let stride = if matches!(order, Order::Pieces { .. }) { X_STRIDE_WGMMA } else { X_STRIDE_MMA };
        Kernel {
            name: names[index],
            columns,
            order,
            shared_bytes: table + X_STEPS * columns as u32 * stride,
            warp_rows: warp_rows[index],
            warps_max: warps_max[index],
        }
    }

    /// Blocks of so many warps that hold all rows of matrices with `n_rows` each.
    pub fn n_tiles(&self, n_warps: usize, n_rows: &[usize]) -> usize {
        n_rows.iter().map(|n| n.div_ceil(n_warps * self.warp_rows)).sum()
    }

    /// Warps of a block: the most, which share rows of `x` and a table, where such blocks keep the device busy.
    pub fn n_warps(&self, n_sms: usize, n_rows: &[usize], n_splits: usize) -> usize {
        let mut n_warps = self.warps_max;
        while n_warps > WARPS_MIN && 4 * self.n_tiles(n_warps, n_rows) * n_splits < 3 * n_sms {
            n_warps /= 2;
        }
        n_warps
    }
}

/// The kernels of sm_90a and the codes that a lane loads of a row at once.
fn wgmma_names(format: Format) -> Option<([&'static str; 4], u32)> {
    match format {
        Format::Q8_0 => Some((names!("wgmma", "q8_0"), 16)),
        Format::Q4_0 => Some((names!("wgmma", "q4_0"), 32)),
        Format::NF4 => Some((names!("wgmma", "nf4"), 32)),
        _ => None,
    }
}

/// Rows of `x` that one reading of the weights multiplies on a device whose blocks have so much shared memory: half of
/// [`COLUMNS_MAX`] where that of 64 has no room beside NF4's table (99 KiB on RTX 30 and 40).
pub fn columns_max(max_shared_bytes: u32) -> usize {
    match Kernel::mma(Format::NF4, false, COLUMNS_MAX).shared_bytes <= max_shared_bytes {
        true => COLUMNS_MAX,
        false => COLUMNS_MAX / 2,
    }
}

/// Into how many splits K is cut: by these matrices and the device alone, so that a token's sums do not depend on how many
/// there are. Split-K partials fit the room that every workspace has: eight splits of the largest of the matrices, or
/// [`PARTIALS_BYTES_MAX`] where that is less.
pub fn n_splits(n_sms: usize, n_rows: &[usize], k_tiles: usize) -> usize {
    let (all, largest) = (n_rows.iter().sum::<usize>().max(1), n_rows.iter().copied().max().unwrap_or(1));
    let by_room = (SPLITS_MAX * largest / all).min(PARTIALS_BYTES_MAX / (4 * COLUMNS_MAX * all));
    let most = by_room.min(k_tiles / SPLIT_TILES_MIN).max(1);
    let n_tiles: usize = n_rows.iter().map(|n| n.div_ceil(BLOCK_ROWS)).sum();
    (n_sms / n_tiles.max(1)).clamp(1, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [Format; 5] = [Format::Q8_0, Format::Q4_0, Format::NF4, Format::F16, Format::BF16];
    const MATRICES: [(&[usize], usize); 8] = [
        (&[1], 128),
        (&[1024, 256, 256], 1152),
        (&[6912, 6912], 1152),
        (&[3584, 512, 512], 3584),
        (&[8192, 1024, 1024], 8192),
        (&[29568, 29568], 8192),
        (&[8192], 29568),
        (&[152_064], 8192),
    ];

    #[test]
    fn a_device_with_little_shared_memory_multiplies_fewer_rows_at_once() {
        assert_eq!([99 << 10, 163 << 10, 227 << 10].map(columns_max), [32, 64, 64]);
        for format in FORMATS {
            let kernel = Kernel::mma(format, false, 32);
            assert!(kernel.shared_bytes <= 99 << 10, "{}: {}", kernel.name, kernel.shared_bytes);
        }
    }

    #[test]
    fn a_block_of_any_fits_an_orins_processor() {
        for format in FORMATS {
            for n_tokens in [1, 8, 9, 16, 17, 32, 33, 64] {
                let mma = Kernel::mma(format, false, n_tokens);
                let wgmma = wgmma_names(format).map(|(names, k)| Kernel::wgmma(format, names, k, n_tokens));
                for kernel in [Some(mma), wgmma].into_iter().flatten() {
                    assert!(kernel.shared_bytes <= 163 << 10, "{}: {}", kernel.name, kernel.shared_bytes);
                    assert!(n_tokens <= kernel.columns && kernel.name.ends_with(&format!("_{}", kernel.columns)));
                }
            }
        }
    }

    #[test]
    fn split_k_partials_fit_the_workspace_and_no_split_is_empty() {
        for n_sms in [8, 108, 132] {
            for (n_rows, cols) in MATRICES {
                let n = n_splits(n_sms, n_rows, cols / 128);
                let (all, largest) = (n_rows.iter().sum::<usize>(), *n_rows.iter().max().unwrap());
                let bytes = |n_tokens: usize| n * n_tokens * all * 4;
                let case = format!("{n_sms} {n_rows:?} {cols}: {n}");
                assert!(n == 1 || bytes(64) <= PARTIALS_BYTES_MAX, "{case}");
                assert!(n == 1 || bytes(1) <= largest * 8 * 4, "{case}");
                assert!(n <= cols / 128, "{case}");
            }
        }
    }

    #[test]
    fn what_meets_the_same_rows_fills_a_large_device() {
        let (names, k_per_load) = wgmma_names(Format::NF4).unwrap();
        for (n_rows, cols, expected) in [
            // 72B's q, k and v have 20 tiles of 512 rows, 7B's are too few for such tiles.
            (&[8192, 1024, 1024][..], 8192, [6, 16, 20]),
            (&[29568, 29568], 8192, [1, 16, 116]),
            (&[3584, 512, 512], 3584, [6, 8, 18]),
            (&[256], 1152, [2, 4, 2]),
        ] {
            let kernel = Kernel::wgmma(Format::NF4, names, k_per_load, 16);
            let n = n_splits(132, n_rows, cols / 128);
            let n_warps = kernel.n_warps(132, n_rows, n);
            assert_eq!([n, n_warps, kernel.n_tiles(n_warps, n_rows)], expected, "{n_rows:?} {cols}");
        }
    }
}
