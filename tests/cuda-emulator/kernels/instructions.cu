// Single instructions over tables of operands, and tensor cores on one tile: the tests hold them against plain loops.
#include "common.cuh"

// out (n, 4): the results of conversions of x (n).
KERNEL(64, 1, emulator_conversions, u32* out, const float* x, u32 n) {
    u32 i = block_x() * block_dim() + thread_idx();
    if (i >= n) return;
    u16 half = f32_to_f16(x[i]);
    out[4 * i] = half;
    out[4 * i + 1] = f32_bits(f16_to_f32(half));
    out[4 * i + 2] = f32_to_bf16(x[i]);
    out[4 * i + 3] = (u32)f32_to_s32(x[i]);
}

// out (n, 8): integer and packed instructions on a, b, c (n).
KERNEL(64, 1, emulator_packed, u32* out, const u32* a, const u32* b, const u32* c, u32 n) {
    u32 i = block_x() * block_dim() + thread_idx();
    if (i >= n) return;
    u32* r = out + 8 * i;
    r[0] = permute_bytes(a[i], b[i], c[i]);
    r[1] = (u32)mad_low16(a[i], b[i], (s32)c[i]);
    r[2] = (u32)mad_high16(a[i], b[i], (s32)c[i]);
    r[3] = fma_f16x2(a[i], b[i], c[i]);
    r[4] = add_f16x2(a[i], b[i]);
    r[5] = mul_f16x2(a[i], b[i]);
    r[6] = f32_bits(fma(f32_from_bits(a[i]), f32_from_bits(b[i]), f32_from_bits(c[i])));
#if LICHEN_ARCH >= 72
    r[7] = (u32)dot4(a[i], b[i], (s32)c[i]);
#else
    r[7] = 0;
#endif
}

// out (4, 32): what each lane of a warp gets.
KERNEL(32, 1, emulator_lanes, u32* out, u32 mask, u32 bits) {
    u32 lane = lane_idx();
    out[lane] = shuffle_xor(lane * 3, mask);
    out[32 + lane] = shuffle_from(lane * 3, lane * 5 + mask);
    out[64 + lane] = ballot((bits >> lane & 1) != 0);
    out[96 + lane] = f32_bits(warp_max<32>(lane == mask ? 7.0f : -1.0f));
}

#if LICHEN_ARCH >= 72
// c (16, 16) += a (16, 16) * b (16, 16) transposed.
KERNEL(32, 1, emulator_wmma, float* c, const u16* a, const u16* b) {
    WmmaC sum;
    for (u32 i = 0; i < 8; i++) sum.r[i] = 1.0f;
    wmma_mma(sum, wmma_load_a(a, 16), wmma_load_b(b, 16));
    wmma_store(c, sum, 16);
}
#endif

#if LICHEN_ARCH >= 80
// c (16, 8) = a (16, 16) * b (8, 16) transposed: a through ldmatrix, or by hand when `is_bf16`.
KERNEL(32, 1, emulator_mma, float* c, const u16* a, const u16* b, u32 is_bf16) {
    SHARED(u16, tile, 16 * 16);
    u32 lane = lane_idx(), g = lane / 4, t = lane % 4;
    for (u32 i = lane; i < 256; i += 32) tile[i] = a[i];
    sync_warp();
    float sum[4] = {0, 0, 0, 0};
    u32 fa[4];
    u32 fb[2] = {pack16(b[g * 16 + 2 * t], b[g * 16 + 2 * t + 1]), pack16(b[g * 16 + 2 * t + 8], b[g * 16 + 2 * t + 9])};
    if (is_bf16) {
        for (u32 i = 0; i < 4; i++) {
            u32 at = (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
            fa[i] = pack16(a[at], a[at + 1]);
        }
        mma_bf16(sum, fa, fb);
    } else {
        ldmatrix_x4(fa, tile + (lane % 16) * 16 + lane / 16 * 8);
        mma_f16(sum, fa, fb);
    }
    for (u32 i = 0; i < 4; i++) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}

// c (16, 8) = a (16, 8) * b (8, 8) transposed, rounded to tf32.
KERNEL(32, 1, emulator_mma_tf32, float* c, const float* a, const float* b) {
    u32 lane = lane_idx(), g = lane / 4, t = lane % 4;
    float sum[4] = {0, 0, 0, 0};
    u32 fa[4], fb[2];
    for (u32 i = 0; i < 4; i++) fa[i] = f32_to_tf32(a[(g + i % 2 * 8) * 8 + t + i / 2 * 4]);
    for (u32 i = 0; i < 2; i++) fb[i] = f32_to_tf32(b[g * 8 + t + i * 4]);
    mma_tf32(sum, fa, fb);
    for (u32 i = 0; i < 4; i++) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}

// out (32, 8): what ldmatrix gives each lane of four matrices that lie one after another in x (32 rows of 8).
KERNEL(32, 1, emulator_ldmatrix, u32* out, const u16* x) {
    SHARED(u16, rows, 32 * 8);
    u32 lane = lane_idx();
    for (u32 i = 0; i < 8; i++) rows[lane * 8 + i] = x[lane * 8 + i];
    sync_warp();
    u32 plain[4], transposed[4];
    ldmatrix_x4(plain, rows + lane * 8);
    ldmatrix_x4_transposed(transposed, rows + lane * 8);
    for (u32 i = 0; i < 4; i++) {
        out[lane * 8 + i] = plain[i];
        out[lane * 8 + 4 + i] = transposed[i];
    }
}
#endif
