// Packed Q4_0 times x in 16-bit integers. Planes (kernels/cuda/LAYOUTS.md): tiles of 8 rows x 128 k = 512 bytes, a row 64
// bytes, its blocks' nibbles in the file's order; scales f16, 8 rows x 4 blocks a tile. A lane holds one block of row
// lane / 4: byte j has k = j in its low nibble and k = j + 16 in its high one.
//
// The nibbles are multiplied as 0..15; eight times the sum of the block's x is taken off, so sums stay exact.
#pragma once
#include "common.cuh"
#include "quantize.cuh"

struct Q4_0 {
    static const u32 TILE_ROWS = 8, TILE_BYTES = 512, TILE_SCALE_BYTES = 64, N_WARPS = 8, TABLE_BYTES = 0;
    static const int N_SUMS = 2, COLUMNS_AHEAD = 4, COLUMNS_UNROLLED = 4;
    // 128 codes of 16 bits; for each block its scale and -8 times the sum of its codes.
    static const u32 X_BYTES = 288;
    static const bool USES_HALF = false, WHOLE_FOURS = true;

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

    DEVICE void fill_table(u8*) {}

    template <class Unit> DEVICE Lane lane(const Unit& u, u32 n_tiles) {
        // Opaque: read again: no register holds the lane through the loop over k.
        const u32 l = opaque(lane_idx()), scale = l * 2;
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

    // x of a k-tile: four pieces, one for each word of a lane, in each the four blocks' 16 bytes side by side: what the
    // word's low nibbles are multiplied by, and what its high ones are.
    DEVICE void store_input(u8* x, u32 l, const float (&v)[4], float) {
        s32 codes[4];
        float scale = quantize_four(v, codes);
        s32 sum = codes[0] + codes[1] + codes[2] + codes[3];
        for (u32 mask = 1; mask < 8; mask *= 2) sum += shuffle_xor(sum, mask);
        u8* piece = x + l % 4 * 64 + l / 8 * 16;
        const bool is_high = l % 8 >= 4;
#if LICHEN_ARCH >= 72
        // Low nibbles' high bytes, high nibbles' high bytes, then the low bytes of both.
        u32 high, low;
        split_codes(codes, high, low);
        *(u32*)(piece + (is_high ? 4 : 0)) = high;
        *(u32*)(piece + (is_high ? 12 : 8)) = low;
#else
        // Pairs in the order in which masks of 16 bits find the nibbles: 0 and 2, then 1 and 3.
        u32x2 four = {pack16((u16)codes[0], (u16)codes[2]), pack16((u16)codes[1], (u16)codes[3])};
        *(u32x2*)(piece + (is_high ? 8 : 0)) = four;
#endif
        if (l % 8 == 0) {
            u32x2 block = {f32_bits(scale), (u32)(-8 * sum)};
            *(u32x2*)(x + 256 + l / 8 * 8) = block;
        }
    }

#if LICHEN_ARCH >= 72
    struct Sum {
        s32 high, low;
    };
    DEVICE Sum start(s32 offset) { return {0, offset}; }
    DEVICE s32 finish(const Sum& s) { return s.high * 256 + s.low; }
    struct Word {
        u32 low, high;
    };
    DEVICE Word split(u32 w) { return {w & 0x0f0f0f0f, w >> 4 & 0x0f0f0f0f}; }
    DEVICE void add(const Word& w, const u32x4& x, Sum& sum) {
        sum.high = dot4(w.high, x.y, dot4(w.low, x.x, sum.high));
        sum.low = dot4(w.high, x.w, dot4(w.low, x.z, sum.low));
    }
#else
    // The high nibbles are multiplied where they are, as 16 times their value.
    struct Sum {
        s32 ones, sixteens;
    };
    DEVICE Sum start(s32 offset) { return {offset, 0}; }
    DEVICE s32 finish(const Sum& s) { return s.ones + (s.sixteens >> 4); }
    struct Word {
        u32 low_even, low_odd, high_even, high_odd;
    };
    DEVICE Word split(u32 w) {
        u32 odd = w >> 8;
        return {w & 0x000f000f, odd & 0x000f000f, w & 0x00f000f0, odd & 0x00f000f0};
    }
    DEVICE void add(const Word& w, const u32x4& x, Sum& sum) {
        sum.ones = mad_high16(w.low_even, x.x, mad_low16(w.low_even, x.x, sum.ones));
        sum.ones = mad_high16(w.low_odd, x.y, mad_low16(w.low_odd, x.y, sum.ones));
        sum.sixteens = mad_high16(w.high_even, x.z, mad_low16(w.high_even, x.z, sum.sixteens));
        sum.sixteens = mad_high16(w.high_odd, x.w, mad_low16(w.high_odd, x.w, sum.sixteens));
    }
#endif

    template <int columns>
    DEVICE void multiply(const Loaded& w, const u8* x, const u8*, Sums<columns>& sums) {
        const u32 block = lane_idx() % 4;
        const u32 words_a[4] = {w.a.x, w.a.y, w.a.z, w.a.w}, words_b[4] = {w.b.x, w.b.y, w.b.z, w.b.w};
        u32x2 of_x[columns];
        Sum a[columns], b[columns];
#pragma unroll
        for (int c = 0; c < columns; c++) {
            of_x[c] = *(const u32x2*)(x + c * X_BYTES + 256 + block * 8);
            a[c] = start((s32)of_x[c].y);
            b[c] = start((s32)of_x[c].y);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const Word word_a = split(words_a[i]), word_b = split(words_b[i]);
#pragma unroll
            for (int c = 0; c < columns; c++) {
                u32x4 piece = *(const u32x4*)(x + c * X_BYTES + i * 64 + block * 16);
                add(word_a, piece, a[c]);
                add(word_b, piece, b[c]);
            }
        }
        const float scale_a = f16_to_f32(w.scale_a), scale_b = f16_to_f32(w.scale_b);
#pragma unroll
        for (int c = 0; c < columns; c++) {
            const float x_scale = f32_from_bits(of_x[c].x);
            sums.v[0][c] = fma(s32_to_f32(finish(a[c])), scale_a * x_scale, sums.v[0][c]);
            sums.v[1][c] = fma(s32_to_f32(finish(b[c])), scale_b * x_scale, sums.v[1][c]);
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
