// Packed NF4 times x on tensor cores (sm_80 and later): x in f16, exact products, f32 sums. The planes and the table are
// nf4.cuh's; so is the power of two for each row of x.
//
// A warp's two tiles are the 16 rows of mma.m16n8k16's A, the columns of x its 8 columns. With g = lane / 4 and
// t = lane % 4, a lane holds bytes 8 t..8 t + 8 of both blocks of 64 of row g in each tile: 16 k, four to a product. So each
// product stays inside one block, and the absmax is multiplied once for four of them.
#pragma once
#include "nf4.cuh"

#if LICHEN_ARCH >= 80

struct Nf4Mma {
    static const u32 TILE_ROWS = 8, TILE_BYTES = 512, TILE_SCALE_BYTES = 32, N_WARPS = 8, TABLE_BYTES = 32768;
    static const int COLUMNS_AHEAD = 8, COLUMNS_UNROLLED = 8;
    // 128 f16, and 16 bytes that shift the next column to other banks.
    static const u32 X_BYTES = 272;
    static const bool USES_HALF = true, WHOLE_FOURS = true;

    typedef Nf4::Lane Lane;
    struct Loaded {
        // Of each block.
        u32x2 a[2], b[2];
        // absmax of both blocks.
        u32 scale_a, scale_b;
    };
    template <int columns> struct Sums {
        // (row g of tile a, columns 2 t and 2 t + 1), then tile b.
        float v[4];
    };

    DEVICE void fill_table(u8* table) { Nf4::fill_table(table, N_WARPS * 32); }

    template <class Unit> DEVICE Lane lane(const Unit& u, u32 n_tiles) {
        // Opaque: read again: no register holds the lane through the loop over k.
        const u32 l = opaque(lane_idx()), code = l / 4 * 64 + l % 4 * 8, scale = l / 4 * 4;
        const u64 a = (u64)u.tile_a * n_tiles, b = (u64)u.tile_b * n_tiles;
        return {u.a.codes + a * TILE_BYTES + code, u.b.codes + b * TILE_BYTES + code,
                u.a.scales + a * TILE_SCALE_BYTES + scale, u.b.scales + b * TILE_SCALE_BYTES + scale};
    }

    DEVICE void advance(Lane& l, u32 n_tiles) { Nf4::advance(l, n_tiles); }

    DEVICE Loaded load(const Lane& l, u32 tile) {
        Loaded w;
#pragma unroll
        for (u32 block = 0; block < 2; block++) {
            w.a[block] = load_stream((const u32x2*)(l.a + tile * TILE_BYTES + block * 32));
            w.b[block] = load_stream((const u32x2*)(l.b + tile * TILE_BYTES + block * 32));
        }
        w.scale_a = load_stream((const u32*)(l.scale_a + tile * TILE_SCALE_BYTES));
        w.scale_b = load_stream((const u32*)(l.scale_b + tile * TILE_SCALE_BYTES));
        return w;
    }

    // x of a k-tile in order of k.
    DEVICE void store_input(u8* x, u32 l, const float (&v)[4], float to_half) {
        u32x2 four = {pack16(f32_to_f16(v[0] * to_half), f32_to_f16(v[1] * to_half)),
                      pack16(f32_to_f16(v[2] * to_half), f32_to_f16(v[3] * to_half))};
        *(u32x2*)(x + l * 8) = four;
    }

    // Adds the products of a word of each tile with x at eight k: two steps of the tensor core.
    DEVICE void add_word(float (&c)[4], u32 word_a, u32 word_b, const u8* table, u32 column, const u32x4& x) {
        u32 a[4], b[4];
        Nf4::decode(word_a, table, column, a);
        Nf4::decode(word_b, table, column, b);
        const u32 first[4] = {a[0], b[0], a[1], b[1]}, x_first[2] = {x.x, x.y};
        mma_f16(c, first, x_first);
        const u32 second[4] = {a[2], b[2], a[3], b[3]}, x_second[2] = {x.z, x.w};
        mma_f16(c, second, x_second);
    }

    template <int columns>
    DEVICE void multiply(const Loaded& w, const u8* x, const u8* table, Sums<columns>& sums) {
        const u32 l = lane_idx(), g = l / 4;
        // Columns that are not there repeat the last; their sums are not stored.
        const u8* own = x + (g < columns ? g : columns - 1) * X_BYTES + l % 4 * 32;
#pragma unroll
        for (u32 block = 0; block < 2; block++) {
            const u32x4 first = *(const u32x4*)(own + block * 128), last = *(const u32x4*)(own + block * 128 + 16);
            float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            add_word(c, w.a[block].x, w.b[block].x, table, l * 4, first);
            add_word(c, w.a[block].y, w.b[block].y, table, l * 4, last);
            const float scale_a = f16_to_f32((u16)(w.scale_a >> block * 16));
            const float scale_b = f16_to_f32((u16)(w.scale_b >> block * 16));
            sums.v[0] = fma(c[0], scale_a, sums.v[0]);
            sums.v[1] = fma(c[1], scale_a, sums.v[1]);
            sums.v[2] = fma(c[2], scale_b, sums.v[2]);
            sums.v[3] = fma(c[3], scale_b, sums.v[3]);
        }
    }

    // Rows of `partial` (2 TILE_ROWS, columns).
    template <int columns> DEVICE void fold(const Sums<columns>& sums, float* partial) {
        // Opaque: read again: no register holds the lane through the loop over k.
        const u32 l = opaque(lane_idx());
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const u32 row = i / 2 * TILE_ROWS + l / 4, column = l % 4 * 2 + i % 2;
            if (column < columns) partial[row * columns + column] = sums.v[i];
        }
    }
};
#endif
