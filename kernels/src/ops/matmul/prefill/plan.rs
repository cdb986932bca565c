//! Which tiles a product runs in, and into how many splits its K is cut.

use crate::formats::Format;

/// Most splits of K.
const SPLITS_MAX: usize = 8;
/// Shorter splits of K cost more in sums that are written and read than idle processors do.
const SPLIT_COLS_MIN: usize = 512;
/// What the split-K partials may take: one wave of 64 x 64 tiles on an H200 takes 2.1 MiB.
pub const PARTIALS_BYTES_MAX: usize = 16 << 20;

/// The kernel that adds the split-K partials has a row of blocks for each token.
const GRID_Y_MAX: usize = 65535;

/// The shape of a block's tile, and the kernels that have it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tile {
    pub tokens: usize,
    pub rows: usize,
    pub threads: u32,
    shared_bytes: SharedBytes,
    /// Outputs per time and processor, estimated: larger tiles load less for each product.
    speed: f64,
    kernels: PerFormat,
}

/// Dynamic shared memory of a tile.
#[derive(Clone, Copy, Debug, PartialEq)]
struct SharedBytes {
    plain: u32,
    quantised: u32,
}

/// A kernel for each format of weights but F32; empty where there is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerFormat {
    pub q8_0: &'static str,
    pub q4_0: &'static str,
    pub nf4: &'static str,
    pub f16: &'static str,
    pub bf16: &'static str,
}

impl PerFormat {
    /// Panics for a format without a kernel.
    pub fn of(&self, format: Format) -> &'static str {
        match format {
            Format::Q8_0 => self.q8_0,
            Format::Q4_0 => self.q4_0,
            Format::NF4 => self.nf4,
            Format::F16 => self.f16,
            Format::BF16 => self.bf16,
            other => panic!("{other} has no kernel here"),
        }
    }
}

macro_rules! kernels {
    ($prefix:literal, $suffix:literal) => {
        PerFormat {
            q8_0: concat!($prefix, "q8_0", $suffix),
            q4_0: concat!($prefix, "q4_0", $suffix),
            nf4: concat!($prefix, "nf4", $suffix),
            f16: concat!($prefix, "f16", $suffix),
            bf16: concat!($prefix, "bf16", $suffix),
        }
    };
}

/// sm_53 and sm_72 have static shared memory and one shape.
const HALF2: [Tile; 1] = [Tile {
    tokens: 64,
    rows: 64,
    threads: 64,
    shared_bytes: SharedBytes { plain: 0, quantised: 0 },
    speed: 1.0,
    kernels: kernels!("matmul_half2_", ""),
}];
const WMMA: [Tile; 1] = [Tile {
    tokens: 128,
    rows: 64,
    threads: 128,
    shared_bytes: SharedBytes { plain: 0, quantised: 0 },
    speed: 1.0,
    kernels: kernels!("matmul_wmma_", ""),
}];
/// A stage of 64 k takes 128 bytes a token and a row: three or four of activations, as many of plain weights, two of
/// decoded ones.
const MMA: [Tile; 3] = [
    Tile {
        tokens: 256,
        rows: 128,
        threads: 256,
        shared_bytes: SharedBytes { plain: 3 * 384 * 128, quantised: (3 * 256 + 2 * 128) * 128 },
        speed: 1.0,
        kernels: kernels!("matmul_mma_", "_256x128"),
    },
    Tile {
        tokens: 128,
        rows: 128,
        threads: 128,
        shared_bytes: SharedBytes { plain: 3 * 256 * 128, quantised: (3 * 128 + 2 * 128) * 128 },
        speed: 0.8,
        kernels: kernels!("matmul_mma_", "_128x128"),
    },
    Tile {
        tokens: 64,
        rows: 64,
        threads: 128,
        shared_bytes: SharedBytes { plain: 4 * 128 * 128, quantised: (4 * 64 + 2 * 64) * 128 },
        speed: 0.5,
        kernels: kernels!("matmul_mma_", "_64x64"),
    },
];

/// What the choice depends on.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub arch: u32,
    pub n_sms: usize,
    pub max_shared_bytes: u32,
}

/// A product: (T, K) by (N, K).
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub format: Format,
    pub n_tokens: usize,
    pub n_rows: usize,
    pub padded_cols: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    pub tile: Tile,
    pub kernel: &'static str,
    pub shared_bytes: u32,
    /// Splits of K: of the matrix and the device, not of the number of tokens (but for products that accumulate).
    pub n_splits: usize,
    /// Each split has blocks of its own, and a second kernel adds their sums.
    pub is_split: bool,
}

impl Plan {
    pub fn n_tiles(&self, shape: Shape) -> usize {
        shape.n_tokens.div_ceil(self.tile.tokens) * shape.n_rows.div_ceil(self.tile.rows)
    }
}

/// `n_tokens` padded to whole tiles of every shape that [`plan`] may choose for them.
pub fn padded_tokens(arch: u32, n_tokens: usize) -> usize {
    match (arch, n_tokens) {
        (..72, _) => n_tokens.next_multiple_of(64),
        (72..80, _) => n_tokens.next_multiple_of(128),
        (_, ..=64) => 64,
        (_, ..=128) => 128,
        _ => n_tokens.next_multiple_of(256),
    }
}

/// Enough that a matrix of few rows keeps all processors busy with 64 tokens.
fn n_splits(target: Target, n_rows: usize, padded_cols: usize) -> usize {
    let idle = target.n_sms / n_rows.div_ceil(64);
    idle.min(padded_cols / SPLIT_COLS_MIN).clamp(1, SPLITS_MAX)
}

/// The fastest by a plain estimate: processors work through equal shares of the tiles. A product that `accumulates` cannot
/// keep split-K partials where it adds: without `room` for them elsewhere, in bytes, it has one split.
pub fn plan(target: Target, shape: Shape, accumulates: bool, room: usize) -> Plan {
    let tiles: &[Tile] = match target.arch {
        ..72 => &HALF2,
        72..80 => &WMMA,
        _ => &MMA,
    };
    let is_quantised = !shape.format.is_float();
    let padded = padded_tokens(target.arch, shape.n_tokens);
    let n_splits = n_splits(target, shape.n_rows, shape.padded_cols);
    let partials_bytes = n_splits * shape.n_tokens * shape.n_rows * size_of::<f32>();
    let may_split = n_splits > 1 && partials_bytes <= room && shape.n_tokens <= GRID_Y_MAX;
    let mut best: Option<(f64, Plan)> = None;
    for tile in tiles {
        let SharedBytes { plain, quantised } = tile.shared_bytes;
        let shared_bytes = if is_quantised { quantised } else { plain };
        if shared_bytes > target.max_shared_bytes || tile.tokens > padded {
            continue;
        }
        let kernel = tile.kernels.of(shape.format);
        for is_split in [false, true] {
            if is_split && !may_split {
                continue;
            }
            let n_splits = if accumulates && !is_split { 1 } else { n_splits };
            let plan = Plan { tile: *tile, kernel, shared_bytes, n_splits, is_split };
            let parts = if is_split { n_splits } else { 1 };
            let waves = (plan.n_tiles(shape) * parts).div_ceil(target.n_sms);
            let work = waves as f64 * (tile.tokens * tile.rows) as f64 / parts as f64 / tile.speed;
            // Writing sums and reading them again must be worth it.
            let cost = if is_split { work * 1.25 } else { work };
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, plan));
            }
        }
    }
    best.expect("the smallest tile fits every device of its architecture").1
}

#[cfg(test)]
mod tests {
    use super::*;

    const H200: Target = Target { arch: 90, n_sms: 132, max_shared_bytes: 227 << 10 };
    const A100: Target = Target { arch: 80, n_sms: 108, max_shared_bytes: 163 << 10 };
    const ORIN_NANO: Target = Target { arch: 87, n_sms: 8, max_shared_bytes: 163 << 10 };
    const NANO: Target = Target { arch: 53, n_sms: 1, max_shared_bytes: 48 << 10 };

    fn chosen(target: Target, n_tokens: usize, n_rows: usize, cols: usize) -> (usize, usize, usize, bool) {
        let p = plan(
            target,
            Shape { format: Format::Q8_0, n_tokens, n_rows, padded_cols: cols },
            false,
            PARTIALS_BYTES_MAX,
        );
        (p.tile.tokens, p.tile.rows, p.n_splits, p.is_split)
    }

    #[test]
    fn large_products_take_large_tiles_and_small_ones_keep_all_processors_busy() {
        assert_eq!(chosen(H200, 4096, 8192, 8192), (256, 128, 1, false));
        assert_eq!(chosen(A100, 4096, 8192, 8192), (256, 128, 1, false));
        // 36 tiles of 64 x 64, each in seven parts.
        assert_eq!(chosen(H200, 128, 1152, 6912), (64, 64, 7, true));
        assert_eq!(chosen(H200, 9, 6912, 1152), (64, 64, 1, false));
        assert_eq!(chosen(ORIN_NANO, 512, 6912, 1152), (256, 128, 1, false));
        assert_eq!(chosen(NANO, 512, 1152, 6912), (64, 64, 1, false));
    }

    #[test]
    fn splits_do_not_depend_on_the_number_of_tokens() {
        for target in [H200, A100, ORIN_NANO, NANO] {
            for (rows, cols) in [(1, 128), (256, 1152), (1152, 6912), (6912, 1152), (262_144, 1152)] {
                let splits = |tokens| chosen(target, tokens, rows, cols).2;
                assert!([9, 64, 65, 128, 200, 512, 8192].iter().all(|t| splits(*t) == splits(16)));
            }
        }
    }

    #[test]
    fn what_a_plan_needs_fits() {
        for target in [H200, A100, ORIN_NANO, NANO] {
            for n_tokens in [9, 64, 65, 128, 129, 200, 512, 8192] {
                for format in [Format::Q8_0, Format::Q4_0, Format::NF4, Format::F16, Format::BF16] {
                    let shape = Shape { format, n_tokens, n_rows: 1152, padded_cols: 6912 };
                    for accumulates in [false, true] {
                        let p = plan(target, shape, accumulates, PARTIALS_BYTES_MAX);
                        assert!(p.shared_bytes <= target.max_shared_bytes);
                        assert_eq!(padded_tokens(target.arch, n_tokens) % p.tile.tokens, 0);
                        assert!(!p.is_split || p.n_splits * n_tokens * 1152 * 4 <= PARTIALS_BYTES_MAX);
                        assert!(!accumulates || p.is_split || p.n_splits == 1);
                    }
                }
            }
        }
    }
}
