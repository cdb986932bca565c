//! The grids of the IQ formats: an index stands for the magnitudes of eight (or four) neighbouring values at once. And
//! their signs, of which seven in eight are stored.
//!
//! `grids.bin` is ggml's `iq2xxs_grid` .. `iq3s_grid`, `iq1s_grid` as the PyPI `gguf` package unpacks them: a little-endian
//! u16 an entry, the number of each value's level in two (or four) bits, the first value in the lowest ones. Written by
//! tests/fixtures/make_blocks.py.

static ENTRIES: &[u8; 2 * 4608] = include_bytes!("grids.bin");

/// Entries of `N` values, each one of the `levels`.
pub(super) struct Grid<const N: usize> {
    /// Of `ENTRIES`, in entries.
    first: usize,
    len: usize,
    levels: &'static [i8],
}

const LEVELS_2: &[i8] = &[8, 25, 43];

pub(super) static IQ2_XXS: Grid<8> = Grid { first: 0, len: 256, levels: LEVELS_2 };
pub(super) static IQ2_XS: Grid<8> = Grid { first: 256, len: 512, levels: LEVELS_2 };
pub(super) static IQ2_S: Grid<8> = Grid { first: 768, len: 1024, levels: LEVELS_2 };
pub(super) static IQ3_XXS: Grid<4> = Grid { first: 1792, len: 256, levels: &[4, 12, 20, 28, 36, 44, 52, 62] };
pub(super) static IQ3_S: Grid<4> = Grid { first: 2048, len: 512, levels: &[1, 3, 5, 7, 9, 11, 13, 15] };
pub(super) static IQ1: Grid<8> = Grid { first: 2560, len: 2048, levels: &[-1, 0, 1] };

impl<const N: usize> Grid<N> {
    /// The values of entry `index`, which has no more bits than the grid has entries.
    pub fn values(&self, index: usize) -> [f32; N] {
        assert!(index < self.len);
        let at = 2 * (self.first + index);
        let packed = u16::from_le_bytes([ENTRIES[at], ENTRIES[at + 1]]) as usize;
        let bits = 16 / N;
        std::array::from_fn(|i| self.levels[packed >> (bits * i) & ((1 << bits) - 1)] as f32)
    }
}

/// Multiplies value `i` by -1 where bit `i` of `signs` is set, and all by `scale`.
pub(super) fn put(out: &mut [f32], values: &[f32], signs: u8, scale: f32) {
    for (i, (o, v)) in out.iter_mut().zip(values).enumerate() {
        *o = scale * if signs >> i & 1 == 0 { *v } else { -*v };
    }
}

/// Eight signs from seven: the number of negative ones is even.
pub(super) fn eight_signs(seven: u32) -> u8 {
    let seven = (seven & 127) as u8;
    seven | ((seven.count_ones() as u8 & 1) << 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every entry of every grid is made of levels that there are, and grids hold no entry twice.
    #[test]
    fn entries_are_levels_and_unique() {
        fn check<const N: usize>(grid: &Grid<N>) -> usize {
            let mut seen: Vec<_> = (0..grid.len).map(|i| grid.values(i).map(|v| v as i32)).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), grid.len);
            grid.len
        }
        let eights: usize = [&IQ2_XXS, &IQ2_XS, &IQ2_S, &IQ1].into_iter().map(check).sum();
        let fours: usize = [&IQ3_XXS, &IQ3_S].into_iter().map(check).sum();
        assert_eq!(2 * (eights + fours), ENTRIES.len());
    }

    #[test]
    fn the_eighth_sign_makes_their_number_even() {
        for seven in 0..128u32 {
            let signs = eight_signs(seven);
            assert!(u32::from(signs) & 127 == seven && signs.count_ones().is_multiple_of(2), "{seven}");
        }
    }
}
