// Packed Q8_0 times x in 16-bit integers. Planes (kernels/cuda/LAYOUTS.md): tiles of 4 rows x 128 k = 512 bytes, a row
// 128 bytes; scales f16, 4 rows x 4 blocks a tile. A lane holds 16 codes of row lane / 8, half a block.
//
// Within a block sums are exact. A lane finishes blocks of one of its two tiles: the even lanes the first, the odd ones the
// second; so a block costs one conversion and one scale, not two.
#pragma once
#include "common.cuh"
#include "quantize.cuh"

struct Q8_0 {
    static const u32 TILE_ROWS = 4, TILE_BYTES = 512, TILE_SCALE_BYTES = 32, N_WARPS = 8, TABLE_BYTES = 0;
    static const int N_SUMS = 1, COLUMNS_AHEAD = 8, COLUMNS_UNROLLED = 8;
    // 128 codes of 16 bits and 4 scales.
    static const u32 X_BYTES = 272;
    static const bool USES_HALF = false, WHOLE_FOURS = true;

    struct Lane {
        const u8* a;
        const u8* b;
        const u8* scale;
    };
    struct Loaded {
        u32x4 a, b;
        u16 scale;
    };

    template <int columns> struct Sums {
        float v[N_SUMS][columns];
    };

    DEVICE void fill_table(u8*) {}

    template <class Unit> DEVICE Lane lane(const Unit& u, u32 n_tiles) {
        // Opaque: read again: no register holds the lane through the loop over k.
        const u32 l = opaque(lane_idx());
        const u64 a = (u64)u.tile_a * n_tiles, b = (u64)u.tile_b * n_tiles;
        Lane r;
        r.a = u.a.codes + a * TILE_BYTES + l * 16;
        r.b = u.b.codes + b * TILE_BYTES + l * 16;
        r.scale = (l & 1 ? u.b.scales + b * TILE_SCALE_BYTES : u.a.scales + a * TILE_SCALE_BYTES) + l / 8 * 8 + l % 8 / 2 * 2;
        return r;
    }

    DEVICE void advance(Lane& l, u32 n_tiles) {
        l.a += n_tiles * TILE_BYTES;
        l.b += n_tiles * TILE_BYTES;
        l.scale += n_tiles * TILE_SCALE_BYTES;
    }

    DEVICE Loaded load(const Lane& l, u32 tile) {
        Loaded w;
        w.a = load_stream((const u32x4*)(l.a + tile * TILE_BYTES));
        w.b = load_stream((const u32x4*)(l.b + tile * TILE_BYTES));
        w.scale = load_stream((const u16*)(l.scale + tile * TILE_SCALE_BYTES));
        return w;
    }

    // x of a k-tile: two planes of 128 bytes, 16 bytes a lane each, so that eight lanes read 128 bytes in a row. Without
    // dot products: the first and the last eight codes of a lane's sixteen. With them: high bytes and low bytes.
    DEVICE void store_input(u8* x, u32 l, const float (&v)[4], float) {
        s32 codes[4];
        float scale = quantize_four(v, codes);
#if LICHEN_ARCH >= 72
        u32 high, low;
        split_codes(codes, high, low);
        *(u32*)(x + l * 4) = high;
        *(u32*)(x + 128 + l * 4) = low;
#else
        u32x2 four = {pack16((u16)codes[0], (u16)codes[1]), pack16((u16)codes[2], (u16)codes[3])};
        *(u32x2*)(x + (l % 4 / 2) * 128 + l / 4 * 16 + (l & 1) * 8) = four;
#endif
        if (l % 8 == 0) *(float*)(x + 256 + l / 8 * 4) = scale;
    }

#if LICHEN_ARCH >= 72
    DEVICE s32 dot(const u32x4& w, const u32x4& high, const u32x4& low) {
        s32 h = dot4(w.w, high.w, dot4(w.z, high.z, dot4(w.y, high.y, dot4(w.x, high.x, 0))));
        s32 l = dot4(w.w, low.w, dot4(w.z, low.z, dot4(w.y, low.y, dot4(w.x, low.x, 0))));
        return h * 256 + l;
    }
#else
    // Four codes as two pairs of 16 bits.
    DEVICE void widen(u32 w, u32& first, u32& second) {
        first = permute_bytes(w, w, 0x9180);
        second = permute_bytes(w, w, 0xb3a2);
    }
    DEVICE s32 dot(const u32 (&w)[8], const u32x4& x0, const u32x4& x1) {
        s32 sum = mad_low16(w[0], x0.x, 0);
        sum = mad_high16(w[0], x0.x, sum);
        sum = mad_high16(w[1], x0.y, mad_low16(w[1], x0.y, sum));
        sum = mad_high16(w[2], x0.z, mad_low16(w[2], x0.z, sum));
        sum = mad_high16(w[3], x0.w, mad_low16(w[3], x0.w, sum));
        sum = mad_high16(w[4], x1.x, mad_low16(w[4], x1.x, sum));
        sum = mad_high16(w[5], x1.y, mad_low16(w[5], x1.y, sum));
        sum = mad_high16(w[6], x1.z, mad_low16(w[6], x1.z, sum));
        return mad_high16(w[7], x1.w, mad_low16(w[7], x1.w, sum));
    }
#endif

    template <int columns>
    DEVICE void multiply(const Loaded& w, const u8* x, const u8*, Sums<columns>& sums) {
        const u32 l = lane_idx();
        const float w_scale = f16_to_f32(w.scale);
        const u8* codes = x + l % 8 * 16;
        const u8* scales = x + 256 + l % 8 / 2 * 4;
#if LICHEN_ARCH < 72
        u32 a[8], b[8];
        widen(w.a.x, a[0], a[1]);
        widen(w.a.y, a[2], a[3]);
        widen(w.a.z, a[4], a[5]);
        widen(w.a.w, a[6], a[7]);
        widen(w.b.x, b[0], b[1]);
        widen(w.b.y, b[2], b[3]);
        widen(w.b.z, b[4], b[5]);
        widen(w.b.w, b[6], b[7]);
#else
        const u32x4 a = w.a, b = w.b;
#endif
#pragma unroll
        for (int c = 0; c < columns; c++) {
            u32x4 x0 = *(const u32x4*)(codes + c * X_BYTES), x1 = *(const u32x4*)(codes + c * X_BYTES + 128);
            s32 sum_a = dot(a, x0, x1), sum_b = dot(b, x0, x1);
            // The other half of the lane's own block, for that of the neighbour's.
            s32 own = l & 1 ? sum_b : sum_a, sent = l & 1 ? sum_a : sum_b;
            s32 sum = own + shuffle_xor(sent, 1);
            float scale = w_scale * *(const float*)(scales + c * X_BYTES);
            sums.v[0][c] = fma(s32_to_f32(sum), scale, sums.v[0][c]);
        }
    }

    // Rows of `partial` (2 TILE_ROWS, columns).
    template <int columns> DEVICE void fold(const Sums<columns>& sums, float* partial) {
        // Opaque: read again: no register holds the lane through the loop over k.
        const u32 l = opaque(lane_idx());
#pragma unroll
        for (int c = 0; c < columns; c++) {
            float v = sums.v[0][c];
            v += shuffle_xor(v, 2);
            v += shuffle_xor(v, 4);
            if (l % 8 < 2) partial[((l & 1) * TILE_ROWS + l / 8) * columns + c] = v;
        }
    }
};
