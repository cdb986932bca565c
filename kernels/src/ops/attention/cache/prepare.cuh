// What happens to a head's vector before attention: QK-norm, RoPE, and the cache's format. Bit for bit the CPU's.
#pragma once
#include "common.cuh"
#include "../rows.cuh"

// A warp writes the vector `from` (dim) to shared memory, divided by its root mean square times `norm` (dim; null: as it is)
// and rotated by the angles of its position, `cos` and `sin` (dim / 2; null: as it is).
DEVICE void norm_and_rotate(float* row, const float* from, u32 dim, const float* norm, float eps, const float* cos,
                            const float* sin) {
    for (u32 i = lane_idx(); i < dim; i += 32) row[i] = from[i];
    sync_warp();
    float rstd = 1.0f;
    if (norm) {
        // Sixteen lanes, folded by halves: the order of the CPU's sums. Both halves of the warp do the same.
        float sum = 0.0f;
        for (u32 i = lane_idx() & 15; i < dim; i += 16) sum = fma(row[i], row[i], sum);
        sum = warp_sum<16>(sum);
        rstd = divide(1.0f, square_root(divide(sum, s32_to_f32((s32)dim)) + eps));
        sync_warp();
    }
    u32 half = dim / 2;
    for (u32 i = lane_idx(); i < half; i += 32) {
        float a = row[i], b = row[i + half];
        if (norm) {
            a = a * rstd * norm[i];
            b = b * rstd * norm[i + half];
        }
        if (cos) {
            float c = cos[i], s = sin[i];
            float rotated = a * c - b * s;
            b = b * c + a * s;
            a = rotated;
        }
        row[i] = a;
        row[i + half] = b;
    }
    sync_warp();
}

// The int8 code of v: rounded to nearest, ties to even; NaN becomes 0 and the ends are kept.
DEVICE s32 int8_code(float v) {
    if (!(v == v)) return 0;
    return v > 127.0f ? 127 : v < -128.0f ? -128 : f32_to_s32(v);
}

// A warp stores the vector `row` (dim) at `cells`; int8 also its scale.
DEVICE void store_vector(u32 format, const float* row, u32 dim, void* cells, float* scale) {
    if (format == KV_F32) {
        for (u32 i = lane_idx(); i < dim; i += 32) ((float*)cells)[i] = row[i];
    } else if (format == KV_F16) {
        for (u32 i = lane_idx(); i < dim; i += 32) ((u16*)cells)[i] = f32_to_f16(row[i]);
    } else {
        // As bits, NaN is the greatest magnitude: it stays.
        u32 bits = 0;
        for (u32 i = lane_idx(); i < dim; i += 32) {
            u32 v = f32_bits(row[i]) & 0x7fffffff;
            bits = v > bits ? v : bits;
        }
        for (u32 mask = 16; mask > 0; mask /= 2) {
            u32 other = shuffle_xor(bits, mask);
            bits = other > bits ? other : bits;
        }
        float amax = f32_from_bits(bits);
        float inverse = amax > 0.0f ? divide(127.0f, amax) : 0.0f;
        for (u32 i = lane_idx(); i < dim; i += 32) ((s8*)cells)[i] = (s8)int8_code(row[i] * inverse);
        if (lane_idx() == 0) *scale = divide(amax, 127.0f);
    }
}
