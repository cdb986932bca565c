// Packed NF4 times x in f16. Planes (kernels/cuda/LAYOUTS.md): tiles of 8 rows x 128 k = 512 bytes, a row 64 bytes;
// absmax f16, 8 rows x 2 blocks a tile. A lane holds 32 k of row lane / 4, half a block.
//
// A table in shared memory turns a byte into its two levels as f16: 256 bytes x 32 lanes, each lane its own bank. x is
// brought into 1024..2048 by a power of two for each of its rows, so that neither large nor small values leave the range
// of f16. Products are added in f16, eight to a chain (at most 8 x 2048), four chains a lane; the chains' sums and the
// absmax are f32.
#pragma once
#include "common.cuh"
#include "../../../formats/nf4.cuh"

struct Nf4 {
    static const u32 TILE_ROWS = 8, TILE_BYTES = 512, TILE_SCALE_BYTES = 32, N_WARPS = 16, TABLE_BYTES = 32768;
    static const int N_SUMS = 2, COLUMNS_AHEAD = 1, COLUMNS_UNROLLED = 1;
    // 128 f16.
    static const u32 X_BYTES = 256;
    static const bool USES_HALF = true, WHOLE_FOURS = true;

    struct Lane {
        const u8* a;
        const u8* b;
        const u8* scale_a;
        const u8* scale_b;
    };
    struct Loaded {
        u32x4 a, b;
        u16 scale_a, scale_b;
    };

    template <int columns> struct Sums {
        float v[N_SUMS][columns];
    };

    DEVICE void fill_table(u8* table) { fill_table(table, N_WARPS * 32); }
    DEVICE void fill_table(u8* table, u32 n_threads) {
        for (u32 i = thread_idx(); i < TABLE_BYTES / 4; i += n_threads) {
            // The high nibble is the lower k.
            u16 first = f32_to_f16(NF4_LEVELS[i / 32 >> 4]), second = f32_to_f16(NF4_LEVELS[i / 32 & 15]);
            ((u32*)table)[i] = pack16(first, second);
        }
    }

    template <class Unit> DEVICE Lane lane(const Unit& u, u32 n_tiles) {
        // Opaque: read again: no register holds the lane through the loop over k.
        const u32 l = opaque(lane_idx()), scale = l / 4 * 4 + l % 4 / 2 * 2;
        const u64 a = (u64)u.tile_a * n_tiles, b = (u64)u.tile_b * n_tiles;
        return {u.a.codes + a * TILE_BYTES + l * 16, u.b.codes + b * TILE_BYTES + l * 16,
                u.a.scales + a * TILE_SCALE_BYTES + scale, u.b.scales + b * TILE_SCALE_BYTES + scale};
    }

    DEVICE void advance(Lane& l, u32 n_tiles) {
        l.a += n_tiles * TILE_BYTES;
        l.b += n_tiles * TILE_BYTES;
        l.scale_a += n_tiles * TILE_SCALE_BYTES;
        l.scale_b += n_tiles * TILE_SCALE_BYTES;
    }

    DEVICE Loaded load(const Lane& l, u32 tile) {
        Loaded w;
        w.a = load_stream((const u32x4*)(l.a + tile * TILE_BYTES));
        w.b = load_stream((const u32x4*)(l.b + tile * TILE_BYTES));
        w.scale_a = load_stream((const u16*)(l.scale_a + tile * TILE_SCALE_BYTES));
        w.scale_b = load_stream((const u16*)(l.scale_b + tile * TILE_SCALE_BYTES));
        return w;
    }

    // x of a k-tile: four pieces of 8 f16, in each piece the four lanes of a row side by side.
    DEVICE void store_input(u8* x, u32 l, const float (&v)[4], float to_half) {
        u32x2 four = {pack16(f32_to_f16(v[0] * to_half), f32_to_f16(v[1] * to_half)),
                      pack16(f32_to_f16(v[2] * to_half), f32_to_f16(v[3] * to_half))};
        *(u32x2*)(x + l % 8 / 2 * 64 + l / 8 * 16 + (l & 1) * 8) = four;
    }

    // The levels of the four bytes of a word. `column` is the lane's column of the table, 4 bytes of 128: joined by `|`, so
    // that Maxwell takes one LOP3 for a byte's address; added, it would take two instructions (3.5 issue slots a weight, not
    // 3.0).
    DEVICE void decode(u32 w, const u8* table, u32 column, u32 (&levels)[4]) {
        levels[0] = *(const u32*)(table + ((w << 7 & 0x7f80) | column));
        levels[1] = *(const u32*)(table + ((w >> 1 & 0x7f80) | column));
        levels[2] = *(const u32*)(table + ((w >> 9 & 0x7f80) | column));
        levels[3] = *(const u32*)(table + ((w >> 17 & 0x7f80) | column));
    }

    DEVICE u32 dot(const u32 (&levels)[4], const u32x4& x, u32 sum) {
        sum = fma_f16x2(levels[0], x.x, sum);
        sum = fma_f16x2(levels[1], x.y, sum);
        sum = fma_f16x2(levels[2], x.z, sum);
        return fma_f16x2(levels[3], x.w, sum);
    }

    // (low + high) of both chains.
    DEVICE float widen(const u32 (&chains)[2]) {
        float first = f16_to_f32((u16)chains[0]) + f16_to_f32((u16)(chains[0] >> 16));
        float second = f16_to_f32((u16)chains[1]) + f16_to_f32((u16)(chains[1] >> 16));
        return first + second;
    }

    template <int columns>
    DEVICE void multiply(const Loaded& w, const u8* x, const u8* table, Sums<columns>& sums) {
        const u32 l = lane_idx();
        const u8* pieces = x + l % 4 * 16;
        const u32 words_a[4] = {w.a.x, w.a.y, w.a.z, w.a.w}, words_b[4] = {w.b.x, w.b.y, w.b.z, w.b.w};
        u32 a[columns][2], b[columns][2];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u32 levels_a[4], levels_b[4];
            decode(words_a[i], table, l * 4, levels_a);
            decode(words_b[i], table, l * 4, levels_b);
#pragma unroll
            for (int c = 0; c < columns; c++) {
                u32x4 piece = *(const u32x4*)(pieces + c * X_BYTES + i * 64);
                a[c][i / 2] = dot(levels_a, piece, i % 2 ? a[c][i / 2] : 0);
                b[c][i / 2] = dot(levels_b, piece, i % 2 ? b[c][i / 2] : 0);
            }
        }
        const float scale_a = f16_to_f32(w.scale_a), scale_b = f16_to_f32(w.scale_b);
#pragma unroll
        for (int c = 0; c < columns; c++) {
            sums.v[0][c] = fma(widen(a[c]), scale_a, sums.v[0][c]);
            sums.v[1][c] = fma(widen(b[c]), scale_b, sums.v[1][c]);
        }
    }

    // Rows of `partial` (2 TILE_ROWS, columns).
    template <int columns> DEVICE void fold(const Sums<columns>& sums, float* partial) {
        // Opaque: read again: no register holds the lane through the loop over k.
        const u32 l = opaque(lane_idx());
#pragma unroll
        for (int i = 0; i < N_SUMS; i++) {
#pragma unroll
            for (int c = 0; c < columns; c++) {
                float v = sums.v[i][c];
                v += shuffle_xor(v, 1);
                v += shuffle_xor(v, 2);
                if (l % 4 == 0) partial[(i * TILE_ROWS + l / 4) * columns + c] = v;
            }
        }
    }
};
