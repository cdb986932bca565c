// Packed weights as plain 16-bit floats, for the products that would decode them too often or read them the wrong way round:
// as they lie (WIDEN), and transposed (the gradient of a product's input is a product with the transpose).
#pragma once
#include "../prefill/weights.cuh"
#include "common.cuh"

const u32 TRANSPOSE_ROWS = 64;
// f16 between the columns of a transposed tile in shared memory: rows of 16 bytes stay aligned.
const u32 TRANSPOSE_STRIDE = TRANSPOSE_ROWS + 8;

// The f16 of one load: `code * scale` rounded once, or a plain format's own. KEEP: bf16 stays bf16.
template <class W, bool KEEP> DEVICE void f16_of(const u8* codes, const u16* scales, u64 at, u32 (&out)[W::K_PER_LOAD / 2]) {
    u32x4 loaded = load_stream((const u32x4*)(codes + at));
    if constexpr (W::PLAIN) {
        if constexpr (KEEP) {
            out[0] = loaded.x;
            out[1] = loaded.y;
            out[2] = loaded.z;
            out[3] = loaded.w;
        } else {
            W::pairs(loaded, out);
        }
    } else {
        W::pairs(loaded, out);
        u32 scale = both_halves(load_stream((const u16*)((const u8*)scales + at / (2 * W::SCALE_RATIO) * 2)));
#pragma unroll
        for (u32 i = 0; i < W::K_PER_LOAD / 2; i++) out[i] = mul_f16x2(out[i], scale);
    }
}

// Counts the f16 that are infinite or NaN: a bf16 beyond 65504 does not fit f16.
template <u32 N> DEVICE void count_overflows(const u32 (&words)[N], u32* overflows) {
    u32 n = 0;
#pragma unroll
    for (u32 i = 0; i < N; i++) n += ((words[i] & 0x7c00) == 0x7c00) + ((words[i] >> 16 & 0x7c00) == 0x7c00);
    if (n > 0 && overflows) atomic_add(overflows, n);
}

// out[k, n - first_row] for 64 rows n and one k-tile of 128; grid (tiles of rows of the padded width, k_tiles). out has
// `cols` rows of out_stride f16; rows from end_row on are zeros.
template <class W, bool KEEP>
DEVICE void transpose_tile(u16* out, const u8* codes, const u16* scales, u32 first_row, u32 end_row, u32 cols, u32 k_tiles,
                           u32 out_stride, u32* overflows, u16* tile) {
    // Neighbouring threads take neighbouring rows: their stores lie side by side.
    u32 row = thread_idx() % TRANSPOSE_ROWS;
    u32 n = first_row + block_x() * TRANSPOSE_ROWS + row;
    for (u32 load = thread_idx() / TRANSPOSE_ROWS; load < 128 / W::K_PER_LOAD; load += 256 / TRANSPOSE_ROWS) {
        u32 k = load * W::K_PER_LOAD;
        u32 words[W::K_PER_LOAD / 2];
#pragma unroll
        for (u32 i = 0; i < W::K_PER_LOAD / 2; i++) words[i] = 0;
        if (n < end_row) f16_of<W, KEEP>(codes, scales, W::code_offset(n, block_y() * 128 + k, k_tiles), words);
        if constexpr (W::BFLOAT && !KEEP) count_overflows(words, overflows);
#pragma unroll
        for (u32 i = 0; i < W::K_PER_LOAD / 2; i++) {
            tile[(k + 2 * i) * TRANSPOSE_STRIDE + row] = (u16)words[i];
            tile[(k + 2 * i + 1) * TRANSPOSE_STRIDE + row] = (u16)(words[i] >> 16);
        }
    }
    sync_block();
    u32 chunk = thread_idx() % 8;
    for (u32 k = thread_idx() / 8; k < 128; k += 32) {
        if (block_y() * 128 + k >= cols) return;
        u16* to = out + (u64)(block_y() * 128 + k) * out_stride + block_x() * TRANSPOSE_ROWS + chunk * 8;
        *(u32x4*)to = *(const u32x4*)(tile + k * TRANSPOSE_STRIDE + chunk * 8);
    }
}

// As they lie: out (rows, k_tiles * 128), one load a thread.
template <class W> DEVICE void widen(u16* out, const u8* codes, const u16* scales, u32 rows, u32 k_tiles) {
    u32 loads_per_row = k_tiles * 128 / W::K_PER_LOAD;
    u64 index = (u64)block_x() * 256 + thread_idx();
    u32 row = (u32)(index / loads_per_row), k = (u32)(index % loads_per_row) * W::K_PER_LOAD;
    if (row >= rows) return;
    u32 words[W::K_PER_LOAD / 2];
    f16_of<W, false>(codes, scales, W::code_offset(row, k, k_tiles), words);
    u32x4* to = (u32x4*)(out + (u64)row * k_tiles * 128 + k);
#pragma unroll
    for (u32 i = 0; i < W::K_PER_LOAD / 8; i++)
        to[i] = u32x4{words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]};
}

#define TRANSPOSE_KERNEL(name, format, keep)                                                                                   \
    KERNEL(256, 2, matmul_transpose_##name, u16* out, const u8* codes, const u16* scales, u32 first_row, u32 end_row,         \
           u32 cols, u32 k_tiles, u32 out_stride, u32* overflows) {                                                           \
        SHARED(u16, tile, 128 * TRANSPOSE_STRIDE);                                                                            \
        transpose_tile<format, keep>(out, codes, scales, first_row, end_row, cols, k_tiles, out_stride, overflows, tile);     \
    }

#define WIDEN_KERNEL(name, format)                                                                                             \
    KERNEL(256, 2, matmul_widen_##name, u16* out, const u8* codes, const u16* scales, u32 rows, u32 k_tiles) {                \
        widen<format>(out, codes, scales, rows, k_tiles);                                                                     \
    }
