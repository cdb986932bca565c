//! NF4 as bitsandbytes stores it: 16 levels of a normal distribution, blocks of 64 along the flattened row-major matrix,
//! the even element in the high nibble; one absmax per block, itself optionally quantised to 8 bits in blocks of 256.

use std::sync::OnceLock;

pub const BLOCK: usize = 64;
pub const BLOCK_BYTES: usize = 32;
/// Blocks of absmax values that share one second-level scale.
pub const NESTED_BLOCK: usize = 256;

/// The sixteen levels (QLoRA, arXiv 2305.14314, appendix E; the float32 values bitsandbytes writes).
pub const LEVELS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Decodes whole blocks with their absmax: value `level * absmax`.
pub fn decode(nibbles: &[u8], absmax: &[f32], out: &mut [f32]) {
    assert_eq!(out.len(), absmax.len() * BLOCK);
    assert_eq!(nibbles.len(), absmax.len() * BLOCK_BYTES);
    for ((o, b), scale) in out.chunks_exact_mut(BLOCK).zip(nibbles.chunks_exact(BLOCK_BYTES)).zip(absmax) {
        for (pair, byte) in o.chunks_exact_mut(2).zip(b) {
            pair[0] = LEVELS[(byte >> 4) as usize] * scale;
            pair[1] = LEVELS[(byte & 15) as usize] * scale;
        }
    }
}

/// Encodes whole blocks: nibbles to `out`, one absmax per block to `absmax`. An all-zero block takes level 7 (zero).
pub fn encode(x: &[f32], out: &mut Vec<u8>, absmax: &mut Vec<f32>) {
    assert_eq!(x.len() % BLOCK, 0);
    for block in x.chunks_exact(BLOCK) {
        let amax = block.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let inv = if amax > 0.0 { 1.0 / amax } else { 0.0 };
        absmax.push(amax);
        for pair in block.chunks_exact(2) {
            out.push(nearest_level(pair[0] * inv) << 4 | nearest_level(pair[1] * inv));
        }
    }
}

fn nearest_level(v: f32) -> u8 {
    let mut index = 0;
    for i in 0..15 {
        // Midpoint thresholds; a tie goes to the lower level, as bitsandbytes' comparison tree does.
        if v > 0.5 * (LEVELS[i] + LEVELS[i + 1]) {
            index = i + 1;
        }
    }
    index as u8
}

/// Second level of quantisation: absmax values minus their mean, in blocks of 256, nearest code of the dynamic map.
pub struct NestedScales {
    pub codes: Vec<u8>,
    pub nested_absmax: Vec<f32>,
    pub offset: f32,
}

/// Quantises the absmax plane as `bnb_4bit_use_double_quant` does.
pub fn encode_nested(absmax: &[f32]) -> NestedScales {
    let map = dynamic_map();
    let mean = (absmax.iter().map(|v| *v as f64).sum::<f64>() / absmax.len().max(1) as f64) as f32;
    let mut codes = Vec::with_capacity(absmax.len());
    let mut nested_absmax = Vec::with_capacity(absmax.len().div_ceil(NESTED_BLOCK));
    for block in absmax.chunks(NESTED_BLOCK) {
        let amax = block.iter().fold(0.0f32, |m, v| m.max((v - mean).abs()));
        let inv = if amax > 0.0 { 1.0 / amax } else { 0.0 };
        nested_absmax.push(amax);
        codes.extend(block.iter().map(|v| nearest_code(map, (v - mean) * inv)));
    }
    NestedScales { codes, nested_absmax, offset: mean }
}

/// Undoes [`encode_nested`]: `absmax[i] = map[code[i]] * nested_absmax[i / 256] + offset`.
pub fn decode_nested(
    codes: &[u8],
    map: &[f32; 256],
    nested_absmax: &[f32],
    nested_block: usize,
    offset: f32,
) -> Vec<f32> {
    assert!(nested_block > 0 && nested_absmax.len() == codes.len().div_ceil(nested_block));
    codes
        .chunks(nested_block)
        .zip(nested_absmax)
        .flat_map(|(block, scale)| block.iter().map(move |code| map[*code as usize] * scale + offset))
        .collect()
}

fn nearest_code(map: &[f32; 256], v: f32) -> u8 {
    let above = map.partition_point(|m| *m < v);
    if above == 0 {
        return 0;
    }
    if above == 256 {
        return 255;
    }
    let below = above - 1;
    if v - map[below] <= map[above] - v {
        below as u8
    } else {
        above as u8
    }
}

/// bitsandbytes' signed dynamic map: for i in 0..7, the 2^i midpoints of linspace(0.1, 1, 2^i + 1) times 10^(i - 6), both
/// signs, plus 0 and 1, sorted. Every step is rounded to f32 where torch rounds it, so the 256 values are bitsandbytes'
/// own: linspace counts up from the start in its first half and down from the end in its second.
pub fn dynamic_map() -> &'static [f32; 256] {
    static MAP: OnceLock<[f32; 256]> = OnceLock::new();
    MAP.get_or_init(|| {
        let mut values = vec![0.0f32, 1.0];
        for i in 0..7i32 {
            let n = 1usize << i;
            let step = (1.0f32 - 0.1f32) / n as f32;
            let edge = |j: usize| match j < n.div_ceil(2) {
                // One rounding, as a fused multiply-add has; the products are exact in f64.
                true => (0.1f32 as f64 + step as f64 * j as f64) as f32,
                false => (1.0 - step as f64 * (n - j) as f64) as f32,
            };
            let decade = 10f64.powi(i - 6) as f32;
            for j in 0..n {
                let mid = (edge(j) + edge(j + 1)) / 2.0 * decade;
                values.extend([mid, -mid]);
            }
        }
        values.sort_by(f32::total_cmp);
        values.try_into().expect("2 + 2 * 127 values")
    })
}
