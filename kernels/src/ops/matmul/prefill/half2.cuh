// Tiles for sm_53: products of pairs of f16 (HFMA2), two neighbouring k in one register. A block of 64 threads computes
// 64 tokens x 64 rows, a thread 8 x 8, in steps of 32 k. Within a step each half sums sixteen products in f16; then both
// f16, in f32, times the scale of the row's block of 32 are added to the f32 sums.
//
// Weights stay below what sixteen products allow: codes of Q8_0 reach 128, of Q4_0 8, levels of NF4 1, all exact but the
// levels; F16 and BF16 rows are brought below 4 by a power of two per 32, which is their block's scale. With |x| < 16
// (prepare.cu) sums stay below 16 x 128 x 16 = 32768.
#pragma once
#include "epilogue.cuh"
#include "weights.cuh"

// The f16 in the high bits of a register, times 2^-112, as f32: two integer instructions. The conversion takes the place of
// four; so one half of a pair is converted and the other shifted, and neither unit waits for the other. Infinity and NaN
// become large numbers: rows of x that hold them have the scale NaN.
DEVICE float high_half_small(u32 v) { return f32_from_bits((u32)((s32)v >> 3) & 0x8fffe000); }
// Block scales carry 2^96 of the missing 2^112, so that the largest f16 stays finite; sums are 2^-16 of what they should be.
static constexpr float SCALE_UP = 79228162514264337593543950336.0f;
static constexpr float SUMS_DOWN = 1.0f / 65536.0f;
static constexpr float SUMS_UP = 65536.0f;

// The pairs of 32 weights and their scale.
template <class W> struct HalfBlock {
    DEVICE float pairs(const u32x4 (&codes)[32 / W::K_PER_LOAD], u16 scale, u32 (&out)[16]) {
#pragma unroll
        for (u32 i = 0; i < 32 / W::K_PER_LOAD; i++) {
            u32 part[W::K_PER_LOAD / 2];
            W::pairs(codes[i], part);
#pragma unroll
            for (u32 j = 0; j < W::K_PER_LOAD / 2; j++) out[i * W::K_PER_LOAD / 2 + j] = part[j];
        }
        return f16_to_f32(scale);
    }
};

// Of sixteen pairs of 16-bit floats, the largest magnitude's bits in the high half.
DEVICE u32 largest_magnitude(const u32 (&pairs)[16]) {
    u32 largest = 0;
#pragma unroll
    for (u32 i = 0; i < 16; i++) {
        u32 low = pairs[i] << 16 & 0x7fff0000, high = pairs[i] & 0x7fff0000;
        largest = low > largest ? low : largest;
        largest = high > largest ? high : largest;
    }
    return largest;
}
DEVICE void sixteen_pairs(const u32x4 (&codes)[4], u32 (&out)[16]) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        out[4 * i] = codes[i].x;
        out[4 * i + 1] = codes[i].y;
        out[4 * i + 2] = codes[i].z;
        out[4 * i + 3] = codes[i].w;
    }
}

template <> struct HalfBlock<F16> {
    // Below 2: multiplied by 2^(15 - exponent), a half even for the largest exponent.
    DEVICE float pairs(const u32x4 (&codes)[4], u16, u32 (&out)[16]) {
        sixteen_pairs(codes, out);
        u32 exponent = largest_magnitude(out) >> 26;
        exponent = exponent == 0 ? 1 : exponent;
        u32 factor = both_halves(exponent < 30 ? (u16)((30 - exponent) << 10) : exponent == 30 ? 0x0200 : 0x0100);
#pragma unroll
        for (u32 i = 0; i < 16; i++) out[i] = mul_f16x2(out[i], factor);
        return f32_from_bits(exponent == 31 ? 0x7fc00000 : (exponent + 112) << 23);
    }
};
template <> struct HalfBlock<BF16> {
    // Below 4: multiplied by 2^(127 - exponent), a normal f32 but for the largest exponent.
    DEVICE float pairs(const u32x4 (&codes)[4], u16, u32 (&out)[16]) {
        sixteen_pairs(codes, out);
        u32 exponent = largest_magnitude(out) >> 23;
        bool finite = exponent != 255;
        exponent = exponent == 0 ? 1 : exponent > 253 ? 253 : exponent;
        float factor = f32_from_bits((254 - exponent) << 23);
#pragma unroll
        for (u32 i = 0; i < 16; i++) {
            float low = f32_from_bits(out[i] << 16), high = f32_from_bits(out[i] & 0xffff0000);
            out[i] = pack16(f32_to_f16(low * factor), f32_to_f16(high * factor));
        }
        return f32_from_bits(finite ? exponent << 23 : 0x7fc00000);
    }
};

template <class W> struct HalfTile {
    // Rows of shared memory are pairs of one k, 68 apart: 16-byte loads stay aligned and the transposing stores of x meet
    // no bank twice.
    static constexpr u32 STRIDE = 68;
    static constexpr u32 LOADS = 32 / W::K_PER_LOAD;

    struct Memory {
        u32 x[16 * STRIDE], w[16 * STRIDE];
        float scales[64], scales_up[64];
    };
    struct Staged {
        u32x4 x[4], codes[LOADS];
        u16 scale;
    };

    const PrefillArgs& a;
    Memory& m;
    TilePlace place;
    const u8* x_from;
    const u8* w_from;
    const u8* scales_from;

    DEVICE_MEMBER HalfTile(const PrefillArgs& args, Memory& memory) : a(args), m(memory) {
        u32 tid = thread_idx();
        place = tile_place<64, 64>(a);
        x_from = (const u8*)(a.x + (u64)(place.token + tid / 2) * a.k_tiles * 128 + tid % 2 * 8);
        // Rows past the last are computed from the last and not kept.
        u32 last = a.n_rows - 1 - place.row;
        u64 at = W::code_offset(place.row + (tid < last ? tid : last), 0, a.k_tiles);
        w_from = a.codes + at;
        if constexpr (!W::PLAIN) scales_from = (const u8*)a.scales + at / W::SCALE_RATIO;
    }

    // A thread loads half of two tokens' pairs, and all 32 weights of one row.
    DEVICE_MEMBER void load(Staged& s, u32 step) const {
        u64 stride = (u64)32 * a.k_tiles * 256;
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            s.x[i] = *(const u32x4*)(x_from + (u64)step * 64 + i % 2 * 32 + i / 2 * stride);
        u64 at = W::code_offset(0, step * 32, 0);
#pragma unroll
        for (u32 i = 0; i < LOADS; i++) s.codes[i] = load_stream((const u32x4*)(w_from + at) + i);
        if constexpr (!W::PLAIN) s.scale = load_stream((const u16*)(scales_from + at / (2 * W::SCALE_RATIO) * 2));
    }

    DEVICE_MEMBER void store(const Staged& s) const {
        u32 tid = thread_idx();
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32* to = m.x + (i % 2 * 8 + tid % 2 * 4) * STRIDE + tid / 2 + i / 2 * 32;
            to[0] = s.x[i].x;
            to[STRIDE] = s.x[i].y;
            to[2 * STRIDE] = s.x[i].z;
            to[3 * STRIDE] = s.x[i].w;
        }
        u32 pairs[16];
        float scale = HalfBlock<W>::pairs(s.codes, s.scale, pairs);
#pragma unroll
        for (u32 i = 0; i < 16; i++) m.w[i * STRIDE + tid] = pairs[i];
        m.scales[tid] = scale * SUMS_DOWN;
        m.scales_up[tid] = scale * SCALE_UP;
    }

    // A thread's eight tokens, and rows, are four and four, 32 apart: 16-byte loads of a warp then meet no bank twice.
    DEVICE_MEMBER void eight(u32 (&out)[8], const u32* from) const {
        u32x4 low = *(const u32x4*)from, high = *(const u32x4*)(from + 32);
        out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
        out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
    }

    DEVICE_MEMBER void multiply(float (&sums)[8][8]) const {
        u32 part[8][8];
        const u32* x = m.x + thread_idx() / 8 * 4;
        const u32* w = m.w + thread_idx() % 8 * 4;
        // The first products need no zeros to be added to.
        u32 xs[8], ws[8];
        eight(xs, x);
        eight(ws, w);
#pragma unroll
        for (u32 i = 0; i < 8; i++)
#pragma unroll
            for (u32 j = 0; j < 8; j++) part[i][j] = mul_f16x2(xs[i], ws[j]);
#pragma unroll 5
        for (u32 k = 1; k < 16; k++) {
            eight(xs, x + k * STRIDE);
            eight(ws, w + k * STRIDE);
#pragma unroll
            for (u32 i = 0; i < 8; i++)
#pragma unroll
                for (u32 j = 0; j < 8; j++) part[i][j] = fma_f16x2(xs[i], ws[j], part[i][j]);
        }
        u32 scales = thread_idx() % 8 * 4;
#pragma unroll
        for (u32 j = 0; j < 8; j++) {
            float up = m.scales_up[scales + j / 4 * 32 + j % 4], scale = m.scales[scales + j / 4 * 32 + j % 4];
#pragma unroll
            for (u32 i = 0; i < 8; i++) {
                float sum = fma(f16_to_f32((u16)part[i][j]), scale, sums[i][j]);
                sums[i][j] = fma(high_half_small(part[i][j]), up, sum);
            }
        }
    }

    DEVICE_MEMBER void split(u32 index) const {
        u32 begin = 4 * split_start(a, index), end = 4 * split_start(a, index + 1);
        float sums[8][8];
#pragma unroll
        for (u32 i = 0; i < 8; i++)
#pragma unroll
            for (u32 j = 0; j < 8; j++) sums[i][j] = 0.0f;
        Staged staged;
        load(staged, begin);
        for (u32 step = begin; step < end; step++) {
            sync_block();
            store(staged);
            sync_block();
            if (step + 1 < end) load(staged, step + 1);
            multiply(sums);
        }
        Sink sink = sink_of_split(a, index);
        // Opaque: read again behind the products: no register holds it through them.
        u32 tid = opaque(thread_idx());
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
#pragma unroll
            for (u32 j = 0; j < 8; j += 4) {
                float four[4];
#pragma unroll
                for (u32 e = 0; e < 4; e++) four[e] = sums[i][j + e] * SUMS_UP;
                u32 t = place.token + tid / 8 * 4 + i / 4 * 32 + i % 4, n = place.row + tid % 8 * 4 + j * 8;
                put_four(a, sink, t, n, four, four_before(a, sink, t, n));
            }
        }
    }

    DEVICE_MEMBER void run() const {
        Splits s = splits_of_block(a);
        for (u32 i = s.first; i < s.end; i++) split(i);
    }
};
