// Activations as 16-bit integers with one scale per block of 32, by the rule of kernels/src/ops/matmul/quantize.rs: the
// same bits as the CPU.
#pragma once
#include "common.cuh"

// Four values of a block each of eight neighbouring lanes: their codes, and the block's scale in every lane. Whole warps.
DEVICE float quantize_four(const float (&v)[4], s32 (&codes)[4]) {
    // As integers the magnitudes are ordered with infinity and NaN on top; a float maximum would lose NaN.
    u32 largest = 0;
    for (u32 i = 0; i < 4; i++) {
        u32 bits = f32_bits(v[i]) & 0x7fffffff;
        largest = largest > bits ? largest : bits;
    }
    for (u32 mask = 1; mask < 8; mask *= 2) {
        u32 other = shuffle_xor(largest, mask);
        largest = largest > other ? largest : other;
    }
    float amax = f32_from_bits(largest);
    // Below this the inverse would overflow.
    bool is_tiny = amax < 1e-30f;
    float inverse = is_tiny ? 0.0f : divide(32512.0f, amax);
    // Adding 1.5 * 2^23 leaves the nearest integer, halves to even, in the low bits.
    for (u32 i = 0; i < 4; i++) codes[i] = (s32)(s16)f32_bits(fma(v[i], inverse, 12582912.0f));
    return is_tiny ? 0.0f : divide(amax, 32512.0f);
}

// A code is 256 high + low, both signed bytes: the largest, 32512, is 127 * 256. Four of each, the first in the low byte.
DEVICE void split_codes(const s32 (&codes)[4], u32& high, u32& low) {
    high = 0;
    low = 0;
    for (u32 i = 0; i < 4; i++) {
        s32 l = (s32)(s8)codes[i];
        low |= ((u32)l & 255) << (8 * i);
        high |= ((u32)((codes[i] - l) >> 8) & 255) << (8 * i);
    }
}
