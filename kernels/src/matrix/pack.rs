//! The device's layouts of weights, and how rows of a file become them: `kernels/cuda/LAYOUTS.md` draws them, and lists the
//! kernels that read them.
//!
//! Columns are padded to 128, rows to 8. Float formats stay row-major. Block formats have two planes, both in order of
//! tiles [row / R][k / 128]: codes in tiles of R rows x 128 k = 512 bytes, so that each of 32 threads reads 16 bytes, a
//! row's codes side by side; scales as f16, a tile's in order [row % R][block]. R is 4 for Q8_0, 8 for Q4_0 and NF4.
//! Padding is zero bytes, its scales zero.

use std::ops::Range;

use half::f16;

use super::Matrix;
use crate::formats::{q5_0, Format};

/// Columns of a tile.
pub const TILE_COLS: usize = 128;
/// Rows that lie together in every format.
pub const ROW_GROUP: usize = 8;
/// Bytes of codes of a tile.
const TILE_BYTES: usize = 512;

/// Where the blocks of a format go.
struct Tiles {
    /// Rows of a tile.
    rows: usize,
    block_len: usize,
    /// Bytes of a block's codes.
    code_bytes: usize,
    /// Bytes of a scale before the codes in the file; NF4 has its own list.
    file_scale_bytes: usize,
}

impl Tiles {
    fn of(format: Format) -> Option<Tiles> {
        let (rows, code_bytes, file_scale_bytes) = match format {
            // What it becomes there.
            Format::Q8_0 | Format::Q5_0 => (4, 32, 2),
            Format::Q4_0 => (8, 16, 2),
            Format::NF4 => (8, 32, 0),
            _ => return None,
        };
        Some(Tiles { rows, block_len: format.block_len(), code_bytes, file_scale_bytes })
    }

    /// Blocks of a row in a tile.
    fn row_blocks(&self) -> usize {
        TILE_COLS / self.block_len
    }

    /// Where block `b` of row `row` (counted from the plane's start) has its codes and its scale.
    fn place(&self, row: usize, b: usize, n_tiles: usize) -> (usize, usize) {
        let tile = row / self.rows * n_tiles + b / self.row_blocks();
        let (row, b) = (row % self.rows, b % self.row_blocks());
        let codes = tile * TILE_BYTES + row * (TILE_BYTES / self.rows) + b * self.code_bytes;
        (codes, 2 * (tile * self.rows * self.row_blocks() + row * self.row_blocks() + b))
    }
}

/// Bytes of the codes and of the scales of `rows` rows.
pub fn plane_bytes(format: Format, rows: usize, cols: usize) -> (usize, usize) {
    let values = rows.next_multiple_of(ROW_GROUP) * cols.next_multiple_of(TILE_COLS);
    match Tiles::of(format) {
        Some(tiles) => (values / tiles.block_len * tiles.code_bytes, values / tiles.block_len * 2),
        None => (values * format.block_bytes(), 0),
    }
}

/// Writes rows `rows`, which begin at a group, into their part of both planes, as [`Format::on_gpu`] has them. NF4's scales are multiplied by
/// `absmax_factor`.
pub fn pack_rows(matrix: &Matrix, rows: Range<usize>, absmax_factor: f32, codes: &mut [u8], scales: &mut [u8]) {
    let (format, cols) = (matrix.format(), matrix.cols());
    assert!(rows.start.is_multiple_of(ROW_GROUP) && rows.end <= matrix.rows());
    assert_eq!((codes.len(), scales.len()), plane_bytes(format, rows.len(), cols));
    codes.fill(0);
    scales.fill(0);
    let row_bytes = format.row_bytes(cols).expect("checked at construction");
    let bytes = &matrix.bytes()[rows.start * row_bytes..rows.end * row_bytes];
    let Some(tiles) = Tiles::of(format) else {
        let padded = cols.next_multiple_of(TILE_COLS) * format.block_bytes();
        for (to, from) in codes.chunks_exact_mut(padded).zip(bytes.chunks_exact(row_bytes)) {
            to[..row_bytes].copy_from_slice(from);
        }
        return;
    };
    let (n_tiles, n_blocks) = (cols.div_ceil(TILE_COLS), cols / tiles.block_len);
    for (i, row) in bytes.chunks_exact(row_bytes).enumerate() {
        for (b, whole) in row.chunks_exact(format.block_bytes()).enumerate() {
            let (code_at, scale_at) = tiles.place(i, b, n_tiles);
            let (scale, block) = whole.split_at(tiles.file_scale_bytes);
            let to_codes = &mut codes[code_at..code_at + tiles.code_bytes];
            match format {
                Format::Q5_0 => to_codes.copy_from_slice(bytemuck::cast_slice(&q5_0::codes(whole))),
                _ => to_codes.copy_from_slice(block),
            }
            let to = &mut scales[scale_at..scale_at + 2];
            if format == Format::NF4 {
                let absmax = matrix.absmax()[(rows.start + i) * n_blocks + b];
                to.copy_from_slice(&f16::from_f32(absmax * absmax_factor).to_le_bytes());
            } else {
                to.copy_from_slice(scale);
            }
        }
    }
}

/// The inverse of [`pack_rows`] over whole planes: the file's bytes, and for NF4 the absmax as the device has it.
pub fn unpack(
    format: Format,
    rows: usize,
    cols: usize,
    absmax_scale: f32,
    codes: &[u8],
    scales: &[u8],
) -> (Vec<u8>, Vec<f32>) {
    let row_bytes = format.row_bytes(cols).expect("whole blocks");
    let mut bytes = Vec::with_capacity(rows * row_bytes);
    let mut absmax = Vec::new();
    let Some(tiles) = Tiles::of(format) else {
        let padded = cols.next_multiple_of(TILE_COLS) * format.block_bytes();
        codes.chunks_exact(padded).take(rows).for_each(|row| bytes.extend_from_slice(&row[..row_bytes]));
        return (bytes, absmax);
    };
    for row in 0..rows {
        for b in 0..cols / tiles.block_len {
            let (code_at, scale_at) = tiles.place(row, b, cols.div_ceil(TILE_COLS));
            let scale = &scales[scale_at..scale_at + 2];
            match format {
                Format::NF4 => absmax.push(f16::from_le_bytes([scale[0], scale[1]]).to_f32() * absmax_scale),
                _ => bytes.extend_from_slice(scale),
            }
            bytes.extend_from_slice(&codes[code_at..code_at + tiles.code_bytes]);
        }
    }
    (bytes, absmax)
}

/// The power of two that brings the largest absmax into 1..2, where f16 is most exact, and its inverse. What is 2^14 times
/// smaller than the largest loses bits; its products do not matter beside those of the largest.
pub fn absmax_factor(absmax: &[f32]) -> (f32, f32) {
    let largest = absmax.iter().filter(|v| v.is_finite()).fold(0.0f32, |m, v| m.max(v.abs()));
    if largest == 0.0 {
        return (1.0, 1.0);
    }
    // The exponent of an f32 below 2^-126 reads as -127; both powers must be normal numbers.
    let exponent = ((largest.to_bits() >> 23) as i32 - 127).clamp(-126, 126);
    let power = |e: i32| f32::from_bits(((e + 127) as u32) << 23);
    (power(-exponent), power(exponent))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::formats::nf4;
    use crate::matrix::SharedBytes;

    fn bytes(n: usize) -> Vec<u8> {
        (0..n).map(|i| (i * 131 + i / 251) as u8).collect()
    }

    #[test]
    fn planes_hold_the_files_bytes_in_the_order_that_kernels_read() {
        for format in [Format::F32, Format::F16, Format::BF16, Format::Q8_0, Format::Q4_0] {
            for (rows, cols) in [(1, 32), (3, 96), (9, 128), (17, 160), (33, 896)] {
                let data = bytes(rows * format.row_bytes(cols).unwrap());
                let matrix = Matrix::new(format, rows, cols, SharedBytes::from_vec(data.clone()));
                let (n_codes, n_scales) = plane_bytes(format, rows, cols);
                let (mut codes, mut scales) = (vec![9; n_codes], vec![9; n_scales]);
                // In two parts, as uploads do.
                let half = rows / 2 / ROW_GROUP * ROW_GROUP;
                let (c, s) = plane_bytes(format, half, cols);
                pack_rows(&matrix, 0..half, 1.0, &mut codes[..c], &mut scales[..s]);
                pack_rows(&matrix, half..rows, 1.0, &mut codes[c..], &mut scales[s..]);
                assert_eq!(unpack(format, rows, cols, 1.0, &codes, &scales).0, data, "{format} ({rows}, {cols})");
            }
        }
    }

    #[test]
    fn five_bits_become_eight_with_the_same_values() {
        let (rows, cols) = (9, 160);
        let data: Vec<u8> = bytes(rows * Format::Q5_0.row_bytes(cols).unwrap());
        let matrix = Matrix::new(Format::Q5_0, rows, cols, SharedBytes::from_vec(data));
        let (n_codes, n_scales) = plane_bytes(Format::Q5_0, rows, cols);
        assert_eq!((n_codes, n_scales), plane_bytes(Format::Q8_0, rows, cols));
        let (mut codes, mut scales) = (vec![9; n_codes], vec![9; n_scales]);
        pack_rows(&matrix, 0..rows, 1.0, &mut codes, &mut scales);
        let (bytes, _) = unpack(Format::Q8_0, rows, cols, 1.0, &codes, &scales);
        let [mut got, mut want] = [(); 2].map(|()| vec![0.0; rows * cols]);
        crate::formats::decode(Format::Q8_0, &bytes, &mut got);
        matrix.decode_rows(0..rows, &mut want);
        let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
        assert!(got.iter().zip(&want).all(same));
    }

    #[test]
    fn a_lane_of_a_tile_finds_its_row_and_columns() {
        // Q8_0 row 5, column 128 + 37: tile row 1, k-tile 1, row 1 of the tile.
        let data: Vec<u8> = (0..8 * 256 / 32 * 34).map(|i| (i % 253) as u8).collect();
        let matrix = Matrix::new(Format::Q8_0, 8, 256, SharedBytes::from_vec(data.clone()));
        let (mut codes, mut scales) = (vec![0; 2048], vec![0; 128]);
        pack_rows(&matrix, 0..8, 1.0, &mut codes, &mut scales);
        let block = 5 * 8 + (128 + 37) / 32;
        assert_eq!(codes[(2 + 1) * 512 + 128 + 37], data[block * 34 + 2 + 5]);
        assert_eq!(scales[(2 + 1) * 32 + 8 + 2], data[block * 34]);
    }

    #[test]
    fn absmax_keeps_eleven_bits_under_any_common_factor() {
        for common in [1e-30f32, 3e-5, 1.0, 7e4, 2e38] {
            let absmax: Vec<f32> = (0..6).map(|i| common * (1.0 - i as f32 * 0.1)).collect();
            let matrix =
                Matrix::new_nf4(2, 3 * nf4::BLOCK, SharedBytes::from_vec(bytes(192)), Arc::from(absmax.clone()));
            let (factor, inverse) = absmax_factor(&absmax);
            let (n_codes, n_scales) = plane_bytes(Format::NF4, 2, 192);
            let (mut codes, mut scales) = (vec![0; n_codes], vec![0; n_scales]);
            pack_rows(&matrix, 0..2, factor, &mut codes, &mut scales);
            let (nibbles, got) = unpack(Format::NF4, 2, 192, inverse, &codes, &scales);
            assert_eq!(nibbles, bytes(192));
            for (got, want) in got.iter().zip(&absmax) {
                assert!((got - want).abs() <= want * 2f32.powi(-11), "{got} {want}");
            }
        }
        assert_eq!(absmax_factor(&[0.0, f32::NAN]), (1.0, 1.0));
    }
}
