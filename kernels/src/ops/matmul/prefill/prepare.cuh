// Activations as matrix units take them: rows of 16-bit floats, padded with zeros to the packed width of the weights.
#pragma once
#include "common.cuh"

// The f32 row times a power of two that puts its largest magnitude into [2^TOP, 2^(TOP + 1)); the inverse, a power of two
// too, goes to `scales`. A high TOP keeps the small values of a row with outliers normal: with 14, down to 2^-28 of the
// largest. Products of f16 are summed in f32, which neither 2^15 x 65504 nor sums of them overflow; on the family that
// sums sixteen products in f16 (sm_53) they must stay below 65504: 16 x 128 x 2^4 = 32768.
#if LICHEN_ARCH >= 72
#define TOP 14
#else
#define TOP 3
#endif

// Of the magnitudes' bits, so that infinity and NaN are on top: the whole block gets it.
DEVICE u32 largest_bits(const float* x, u32 cols) {
    SHARED(u32, of_warps, 8);
    u32 largest = 0;
    for (u32 k = thread_idx(); k < cols; k += 256) {
        u32 bits = f32_bits(x[k]) & 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    for (u32 mask = 16; mask > 0; mask /= 2) {
        u32 other = shuffle_xor(largest, mask);
        largest = other > largest ? other : largest;
    }
    if (lane_idx() == 0) of_warps[warp_idx()] = largest;
    sync_block();
    for (u32 i = 0; i < 8; i++) largest = of_warps[i] > largest ? of_warps[i] : largest;
    return largest;
}

// What brings a row with this largest magnitude into that range and back. A row with an infinity or NaN becomes zeros, and
// `back` is NaN: its outputs are NaN whatever the weights are.
struct RowFactor {
    float to_half, back;
    bool is_finite;
};

DEVICE RowFactor row_factor(u32 largest) {
    bool is_finite = largest < 0x7f800000;
    s32 exponent = largest >> 23 == 0 ? -126 : (s32)(largest >> 23) - 127;
    s32 shift = TOP - exponent;
    // The inverse of 2^126 is the smallest normal number. Zero rows take 1.
    shift = largest == 0 || !is_finite ? 0 : shift > 126 ? 126 : shift;
    float back = f32_from_bits(is_finite ? (u32)(127 - shift) << 23 : 0x7fc00000);
    return {f32_from_bits((u32)(127 + shift) << 23), back, is_finite};
}

// A block of 256 threads writes row block_x of `rows` (.., padded_cols), from `cols` numbers of a row of x: rows from n_rows
// on are zeros, so that whole tiles can be read. `overflows`, where given, counts rows with an infinity or NaN.
DEVICE void prepare_f16(u16* rows, float* scales, const float* x, u32 n_rows, u32 cols, u32 padded_cols, u32 stride,
                        u32* overflows) {
    u32 row = block_x();
    u32* out = (u32*)(rows + (u64)row * padded_cols);
    bool inside = row < n_rows;
    const float* in = x + (u64)(inside ? row : 0) * stride;
    RowFactor factor = row_factor(inside ? largest_bits(in, cols) : 0);
    bool read = inside && factor.is_finite;
    for (u32 k = 2 * thread_idx(); k < padded_cols; k += 512) {
        u16 low = read && k < cols ? f32_to_f16(in[k] * factor.to_half) : 0;
        u16 high = read && k + 1 < cols ? f32_to_f16(in[k + 1] * factor.to_half) : 0;
        out[k / 2] = pack16(low, high);
    }
    if (inside && thread_idx() == 0) {
        scales[row] = factor.back;
        if (!factor.is_finite && overflows) atomic_add(overflows, 1);
    }
}

#if LICHEN_ARCH >= 80
// bf16 has the range of f32: no scale, and nothing to count.
DEVICE void prepare_bf16(u16* rows, float* scales, const float* x, u32 n_rows, u32 cols, u32 padded_cols, u32 stride) {
    u32 row = block_x();
    u32* out = (u32*)(rows + (u64)row * padded_cols);
    bool inside = row < n_rows;
    const float* in = x + (u64)(inside ? row : 0) * stride;
    for (u32 k = 2 * thread_idx(); k < padded_cols; k += 512) {
        u16 low = inside && k < cols ? f32_to_bf16(in[k]) : 0;
        u16 high = inside && k + 1 < cols ? f32_to_bf16(in[k + 1]) : 0;
        out[k / 2] = pack16(low, high);
    }
    if (inside && thread_idx() == 0) scales[row] = 1.0f;
}
#endif
