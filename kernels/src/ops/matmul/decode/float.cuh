// F32, F16 and BF16 weights times x in f32. Row-major with rows of whole k-tiles (kernels/cuda/LAYOUTS.md). A lane holds 8 k
// of rows lane / 16 and lane / 16 + 2 of a tile of 4.
#pragma once
#include "common.cuh"

struct AsF32 {
    static const u32 BYTES = 4;
    DEVICE void widen(const u32x4 (&w)[2], float (&v)[8]) {
        const u32 bits[8] = {w[0].x, w[0].y, w[0].z, w[0].w, w[1].x, w[1].y, w[1].z, w[1].w};
        for (int i = 0; i < 8; i++) v[i] = f32_from_bits(bits[i]);
    }
};
struct AsF16 {
    static const u32 BYTES = 2;
    DEVICE void widen(const u32x4 (&w)[1], float (&v)[8]) {
        const u32 pairs[4] = {w[0].x, w[0].y, w[0].z, w[0].w};
        for (int i = 0; i < 4; i++) {
            v[2 * i] = f16_to_f32((u16)pairs[i]);
            v[2 * i + 1] = f16_to_f32((u16)(pairs[i] >> 16));
        }
    }
};
struct AsBf16 {
    static const u32 BYTES = 2;
    DEVICE void widen(const u32x4 (&w)[1], float (&v)[8]) {
        const u32 pairs[4] = {w[0].x, w[0].y, w[0].z, w[0].w};
        for (int i = 0; i < 4; i++) {
            v[2 * i] = f32_from_bits(pairs[i] << 16);
            v[2 * i + 1] = f32_from_bits(pairs[i] & 0xffff0000);
        }
    }
};

template <class E> struct Floats {
    static const u32 TILE_ROWS = 4, ROW_BYTES = 128 * E::BYTES, N_WARPS = 8, TABLE_BYTES = 0;
    // Reads of 16 bytes for eight values.
    static const int READS = E::BYTES / 2;
    static const int N_SUMS = 4, COLUMNS_AHEAD = E::BYTES == 4 ? 0 : 1;
    static const int COLUMNS_UNROLLED = E::BYTES == 4 ? 0 : 2;
    static const u32 X_BYTES = 512;
    static const bool USES_HALF = false, WHOLE_FOURS = false;

    struct Lane {
        const u8* a;
        const u8* b;
        // Bytes of two rows.
        u32 two_rows;
    };
    struct Loaded {
        // Of tile a, then of tile b; two rows each.
        u32x4 w[4][READS];
    };

    template <int columns> struct Sums {
        float v[N_SUMS][columns];
    };

    DEVICE void fill_table(u8*) {}

    template <class Unit> DEVICE Lane lane(const Unit& u, u32 n_tiles) {
        // Opaque: read again: no register holds the lane through the loop over k.
        const u32 l = opaque(lane_idx()), row_bytes = n_tiles * ROW_BYTES;
        const u64 own = (u64)(l / 16) * row_bytes + l % 16 * 8 * E::BYTES;
        return {u.a.codes + (u64)u.tile_a * TILE_ROWS * row_bytes + own,
                u.b.codes + (u64)u.tile_b * TILE_ROWS * row_bytes + own, 2 * row_bytes};
    }

    DEVICE void advance(Lane& l, u32 n_tiles) {
        l.a += n_tiles * ROW_BYTES;
        l.b += n_tiles * ROW_BYTES;
    }

    DEVICE Loaded load(const Lane& l, u32 tile) {
        Loaded r;
        for (int i = 0; i < READS; i++) {
            const u32 at = tile * ROW_BYTES + i * 16;
            r.w[0][i] = load_stream((const u32x4*)(l.a + at));
            r.w[1][i] = load_stream((const u32x4*)(l.a + l.two_rows + at));
            r.w[2][i] = load_stream((const u32x4*)(l.b + at));
            r.w[3][i] = load_stream((const u32x4*)(l.b + l.two_rows + at));
        }
        return r;
    }

    // x of a k-tile: the first and the last four of each lane's eight values, sixteen lanes side by side.
    DEVICE void store_input(u8* x, u32 l, const float (&v)[4], float) {
        *(f32x4*)(x + (l & 1) * 256 + l / 2 * 16) = {v[0], v[1], v[2], v[3]};
    }

    template <int columns>
    DEVICE void multiply(const Loaded& w, const u8* x, const u8*, Sums<columns>& sums) {
        const u8* own = x + lane_idx() % 16 * 16;
#pragma unroll
        for (int r = 0; r < N_SUMS; r++) {
            float v[8];
            E::widen(w.w[r], v);
#pragma unroll
            for (int c = 0; c < columns; c++) {
                const f32x4 first = *(const f32x4*)(own + c * X_BYTES), last = *(const f32x4*)(own + c * X_BYTES + 256);
                float sum = sums.v[r][c];
                sum = fma(v[3], first.w, fma(v[2], first.z, fma(v[1], first.y, fma(v[0], first.x, sum))));
                sums.v[r][c] = fma(v[7], last.w, fma(v[6], last.z, fma(v[5], last.y, fma(v[4], last.x, sum))));
            }
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
                float v = warp_sum<16>(sums.v[i][c]);
                if (l % 16 == 0) partial[(i * 2 + l / 16) * columns + c] = v;
            }
        }
    }
};
