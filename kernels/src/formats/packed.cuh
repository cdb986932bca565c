// Single values of packed weights (kernels/cuda/LAYOUTS.md), equal bit for bit to the CPU's decoding; NF4's absmax as f16
// rounded it. `n_tiles` is K / 128, rounded up.
#pragma once
#include "common.cuh"
#include "nf4.cuh"

DEVICE float packed_q8_0(const u8* codes, const u8* scales, u32 n_tiles, u32 row, u32 k) {
    const u64 tile = (u64)(row / 4) * n_tiles + k / 128;
    const s32 code = (s8)codes[tile * 512 + row % 4 * 128 + k % 128];
    return f16_to_f32(((const u16*)scales)[tile * 16 + row % 4 * 4 + k % 128 / 32]) * s32_to_f32(code);
}

DEVICE float packed_q4_0(const u8* codes, const u8* scales, u32 n_tiles, u32 row, u32 k) {
    const u64 tile = (u64)(row / 8) * n_tiles + k / 128;
    const u32 byte = codes[tile * 512 + row % 8 * 64 + k % 128 / 32 * 16 + k % 16];
    const s32 code = (s32)(k % 32 < 16 ? byte & 15 : byte >> 4) - 8;
    return f16_to_f32(((const u16*)scales)[tile * 32 + row % 8 * 4 + k % 128 / 32]) * s32_to_f32(code);
}

DEVICE float packed_nf4(const u8* codes, const u8* scales, u32 n_tiles, u32 row, u32 k, float absmax_scale) {
    const u64 tile = (u64)(row / 8) * n_tiles + k / 128;
    const u32 byte = codes[tile * 512 + row % 8 * 64 + k % 128 / 2];
    const float absmax = f16_to_f32(((const u16*)scales)[tile * 16 + row % 8 * 2 + k % 128 / 64]) * absmax_scale;
    return NF4_LEVELS[k % 2 == 0 ? byte >> 4 : byte & 15] * absmax;
}

DEVICE float packed_f32(const u8* codes, u32 n_tiles, u32 row, u32 k) {
    return ((const float*)codes)[(u64)row * n_tiles * 128 + k];
}

DEVICE float packed_f16(const u8* codes, u32 n_tiles, u32 row, u32 k) {
    return f16_to_f32(((const u16*)codes)[(u64)row * n_tiles * 128 + k]);
}

DEVICE float packed_bf16(const u8* codes, u32 n_tiles, u32 row, u32 k) {
    return bf16_to_f32(((const u16*)codes)[(u64)row * n_tiles * 128 + k]);
}
