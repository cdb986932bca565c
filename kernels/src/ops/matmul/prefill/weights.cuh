// Packed weights (kernels/cuda/LAYOUTS.md) as f16, the same for every tile shape: where the codes and scales of a row
// lie, and how the sixteen bytes one thread loads become pairs of f16 (element 0 in the low half). `pairs` gives the codes
// alone, which are exact in f16 (integers, or NF4 levels rounded once); the caller multiplies by `scale`.
//
// `code_offset` is in bytes; `row` counts from the matrix's first or from any multiple of eight, `k` is a multiple of
// K_PER_LOAD, `k_tiles` is the padded K / 128. The scale of the codes at a byte offset is the f16 that lies
// offset / SCALE_RATIO bytes into the scales, rounded down to whole f16: both planes keep one order.
#pragma once
#include "common.cuh"

struct Q8_0 {
    static constexpr bool PLAIN = false;
    static constexpr bool BFLOAT = false;
    static constexpr u32 K_PER_LOAD = 16;
    static constexpr u32 SCALE_RATIO = 16;

    DEVICE u64 code_offset(u32 row, u32 k, u32 k_tiles) {
        return ((u64)(row >> 2) * k_tiles + (k >> 7)) * 512 + ((row & 3) << 7) + (k & 127);
    }
    DEVICE void pairs(const u32x4& codes, u32 (&out)[8]) {
        const u32 words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            // The byte q + 128 behind 0x64 is the f16 1024 + (q + 128): subtracting 1152 is exact.
            u32 biased = words[i] ^ 0x80808080;
            out[2 * i] = add_f16x2(permute_bytes(biased, 0x64646464, 0x4140), 0xe480e480);
            out[2 * i + 1] = add_f16x2(permute_bytes(biased, 0x64646464, 0x4342), 0xe480e480);
        }
    }
};

struct Q4_0 {
    static constexpr bool PLAIN = false;
    static constexpr bool BFLOAT = false;
    static constexpr u32 K_PER_LOAD = 32;
    static constexpr u32 SCALE_RATIO = 8;

    DEVICE u64 code_offset(u32 row, u32 k, u32 k_tiles) {
        return ((u64)(row >> 3) * k_tiles + (k >> 7)) * 512 + ((row & 7) << 6) + ((k & 127) >> 1);
    }
    DEVICE void pairs(const u32x4& codes, u32 (&out)[16]) {
        const u32 words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
#pragma unroll
            for (u32 j = 0; j < 2; j++) {
                // Bytes 2j and 2j + 1, each alone in a half: low nibbles are k, high nibbles k + 16. As mantissa bits of
                // 1024 they read 1024 + q and 1024 + 16 q, and the code is q - 8.
                u32 bytes = permute_bytes(words[i], 0, j == 0 ? 0x4140 : 0x4342);
                out[2 * i + j] = add_f16x2((bytes & 0x000f000f) | 0x64006400, 0xe408e408);
                out[8 + 2 * i + j] = fma_f16x2((bytes & 0x00f000f0) | 0x64006400, 0x2c002c00, 0xd480d480);
            }
        }
    }
};

struct NF4 {
    static constexpr bool PLAIN = false;
    static constexpr bool BFLOAT = false;
    static constexpr u32 K_PER_LOAD = 32;
    static constexpr u32 SCALE_RATIO = 16;

    DEVICE u64 code_offset(u32 row, u32 k, u32 k_tiles) {
        return ((u64)(row >> 3) * k_tiles + (k >> 7)) * 512 + ((row & 7) << 6) + ((k & 127) >> 1);
    }
    // Four levels by table: the bytes of the sixteen f16 lie in eight registers, and a nibble's low three bits select
    // among eight bytes, its top bit between the two eights.
    DEVICE void four(u32 nibbles, u32 top_bits, u32& first, u32& second) {
        u32 select = nibbles & 0x7777;
        u32 above = permute_bytes(0x0000ff00, 0, top_bits);
        u32 low = (permute_bytes(0x52339200, 0x00d4ea8d, select) & ~above) |
                  (permute_bytes(0x68e02618, 0x00c9800d, select) & above);
        u32 high = (permute_bytes(0xb6b8b9bc, 0x00adb1b4, select) & ~above) |
                   (permute_bytes(0x3533312d, 0x3c393837, select) & above);
        // The high nibble of a byte is the lower k.
        first = permute_bytes(low, high, 0x4051);
        second = permute_bytes(low, high, 0x6273);
    }
    DEVICE void pairs(const u32x4& codes, u32 (&out)[16]) {
        const u32 words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 top_bits = words[i] >> 3 & 0x11111111;
            four(words[i], top_bits, out[4 * i], out[4 * i + 1]);
            four(words[i] >> 16, top_bits >> 16, out[4 * i + 2], out[4 * i + 3]);
        }
    }
};

struct F16 {
    static constexpr bool PLAIN = true;
    static constexpr bool BFLOAT = false;
    static constexpr u32 K_PER_LOAD = 8;

    DEVICE u64 code_offset(u32 row, u32 k, u32 k_tiles) { return ((u64)row * k_tiles * 128 + k) * 2; }
    DEVICE void pairs(const u32x4& codes, u32 (&out)[4]) {
        out[0] = codes.x;
        out[1] = codes.y;
        out[2] = codes.z;
        out[3] = codes.w;
    }
};

struct BF16 {
    static constexpr bool PLAIN = true;
    static constexpr bool BFLOAT = true;
    static constexpr u32 K_PER_LOAD = 8;

    DEVICE u64 code_offset(u32 row, u32 k, u32 k_tiles) { return ((u64)row * k_tiles * 128 + k) * 2; }
    // Where there is no bf16 product: beyond 65504 a weight becomes infinite, below 2^-14 it loses bits.
    DEVICE void pairs(const u32x4& codes, u32 (&out)[4]) {
        const u32 words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            float low = f32_from_bits(words[i] << 16), high = f32_from_bits(words[i] & 0xffff0000);
            out[i] = pack16(f32_to_f16(low), f32_to_f16(high));
        }
    }
};

// A factor in both halves.
DEVICE u32 both_halves(u16 v) { return (u32)v * 0x10001; }
