// Attention in f32 by single warps: a warp holds ROWS query rows of one head size, spread over its lanes, and takes stored
// keys and values four at a time. Decode and the plain prefill are made of it.
#pragma once
#include "common.cuh"

// The formats of stored keys and values.
enum KvFormatCode { KV_F32 = 0, KV_F16 = 1, KV_I8 = 2 };

// Keys a warp takes at once.
const u32 GROUP = 4;

// Positions of a page of keys and values: PAGE of pages.rs.
const u32 PAGE = 32;

// Where a position lies in a pool of pages, of which `pages` (n_entries) are the sequence's.
DEVICE u32 page_slot(const u32* pages, u32 n_entries, u32 position) {
    u32 i = position / PAGE;
    // Those of a layer that sees everything never wrap: no division for them.
    if (i >= n_entries) i %= n_entries;
    return pages[i] * PAGE + position % PAGE;
}

const float LOG2_E = 1.44269504088896340736f;

template <int FORMAT> DEVICE u32 kv_bytes(u32 n) { return FORMAT == KV_F32 ? 4 * n : FORMAT == KV_F16 ? 2 * n : n; }

// The first position that the one at `position` sees.
DEVICE u32 first_visible(u32 position, u32 window) { return position < window ? 0 : position + 1 - window; }

// DIMS neighbouring values of a stored vector, as they are stored.
template <int FORMAT, int DIMS> struct Packed {
    static const int WORDS = FORMAT == KV_F32 ? DIMS : FORMAT == KV_F16 ? DIMS / 2 : (DIMS + 3) / 4;
    u32 words[WORDS];
};

template <int FORMAT, int DIMS> DEVICE Packed<FORMAT, DIMS> packed_zeros() {
    Packed<FORMAT, DIMS> p;
#pragma unroll
    for (int i = 0; i < Packed<FORMAT, DIMS>::WORDS; i++) p.words[i] = 0;
    return p;
}

// Values DIMS * part .. of the vector at `vector`.
template <int FORMAT, int DIMS> DEVICE Packed<FORMAT, DIMS> packed_load(const void* vector, u32 part) {
    const int WORDS = Packed<FORMAT, DIMS>::WORDS;
    Packed<FORMAT, DIMS> p;
    if constexpr (FORMAT == KV_I8 && DIMS == 2) {
        p.words[0] = ((const u16*)vector)[part];
    } else if constexpr (WORDS % 4 == 0) {
#pragma unroll
        for (int i = 0; i < WORDS; i += 4) {
            u32x4 v = ((const u32x4*)vector)[(part * WORDS + i) / 4];
            p.words[i] = v.x;
            p.words[i + 1] = v.y;
            p.words[i + 2] = v.z;
            p.words[i + 3] = v.w;
        }
    } else if constexpr (WORDS == 2) {
        u32x2 v = ((const u32x2*)vector)[part];
        p.words[0] = v.x;
        p.words[1] = v.y;
    } else {
        p.words[0] = ((const u32*)vector)[part];
    }
    return p;
}

// Value i, int8 codes without their scale.
template <int FORMAT, int DIMS> DEVICE float packed_value(const Packed<FORMAT, DIMS>& p, int i) {
    if constexpr (FORMAT == KV_F32) return f32_from_bits(p.words[i]);
    if constexpr (FORMAT == KV_F16) return f16_to_f32((u16)(p.words[i / 2] >> (i % 2 * 16)));
    // 2^23 + (code + 128): the byte becomes the low mantissa, exactly.
    u32 bits = permute_bytes(p.words[i / 4] ^ 0x80808080, 0x4b000000, 0x7440 | (u32)(i % 4));
    return f32_from_bits(bits) - 8388736.0f;
}

// Sums N values over the warp. The lane's bits from the highest down pick which sum it gets, and every sum has the same
// order: lanes that differ in bit 4, then 3, ..
template <int N, u32 MASK> DEVICE float fold_over_warp(float* v) {
    if constexpr (N == 1) {
        for (u32 mask = MASK; mask > 0; mask /= 2) v[0] += shuffle_xor(v[0], mask);
        return v[0];
    } else {
        bool upper = lane_idx() & MASK;
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            float low = v[i], high = v[i + N / 2];
            v[i] = (upper ? high : low) + shuffle_xor(upper ? low : high, MASK);
        }
        return fold_over_warp<N / 2, MASK / 2>(v);
    }
}

// ROWS (4 or 8) query rows of a warp and their running softmax. A lane holds DIMS values of each, and the maximum and its
// part of the sum of one row: that of `row()`, over the keys that are `key()` within their group.
template <int FORMAT, int DIMS, int ROWS> struct FlashRows {
    float q[ROWS][DIMS];
    float o[ROWS][DIMS];
    float top;
    float sum;
};

template <int ROWS> DEVICE u32 flash_row() { return ROWS == 4 ? lane_idx() >> 1 & 3 : lane_idx() & 7; }
DEVICE u32 flash_key() { return lane_idx() >> 3; }
// A lane whose `flash_row` is `row` and whose `flash_key` is `key`.
template <int ROWS> DEVICE u32 flash_lane(u32 key, u32 row) { return key * 8 + (ROWS == 4 ? row * 2 : row); }

DEVICE float minus_infinity() { return f32_from_bits(0xff800000); }

// Row r is the query `q` (dim) times `scale`; null: zeros.
template <int FORMAT, int DIMS, int ROWS>
DEVICE void flash_load(FlashRows<FORMAT, DIMS, ROWS>& f, int r, const float* q, u32 dim, float scale) {
    u32 first = lane_idx() * DIMS;
#pragma unroll
    for (int d = 0; d < DIMS; d++) f.q[r][d] = q && first < dim ? q[first + d] * scale : 0.0f;
}

template <int FORMAT, int DIMS, int ROWS> DEVICE void flash_reset(FlashRows<FORMAT, DIMS, ROWS>& f) {
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int d = 0; d < DIMS; d++) f.o[r][d] = 0.0f;
    f.top = minus_infinity();
    f.sum = 0.0f;
}

// One group of keys: the weight of the lane's key for the lane's row, relative to the row's maximum from now on. `visible`:
// whether the row sees the key; `key_scale` is the key's (1 where the format has none). What is not visible weighs 0 and
// changes no bit of the row's state.
template <int FORMAT, int DIMS, int ROWS>
DEVICE float flash_keys(FlashRows<FORMAT, DIMS, ROWS>& f, const Packed<FORMAT, DIMS> (&keys)[GROUP], bool visible,
                        float key_scale) {
    float scores[GROUP * ROWS];
#pragma unroll
    for (int j = 0; j < (int)GROUP; j++) {
        float k[DIMS];
#pragma unroll
        for (int d = 0; d < DIMS; d++) k[d] = packed_value(keys[j], d);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float dot = 0.0f;
#pragma unroll
            for (int d = 0; d < DIMS; d++) dot = fma(f.q[r][d], k[d], dot);
            scores[j * ROWS + r] = dot;
        }
    }
    float score = fold_over_warp<GROUP * ROWS, 16>(scores) * key_scale;
    if (!visible) score = minus_infinity();
    float top = max_f32(score, shuffle_xor(score, 8));
    top = max_f32(top, shuffle_xor(top, 16));
    top = max_f32(top, f.top);
    // A row that has seen nothing yet has no maximum to subtract.
    float base = top == minus_infinity() ? 0.0f : top;
    float shrink = exp2_approx(f.top - base);
    float weight = exp2_approx(score - base);
    f.sum = fma(f.sum, shrink, weight);
    f.top = top;
    if (ballot(shrink != 1.0f)) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float s = shuffle_from(shrink, flash_lane<ROWS>(0, r));
#pragma unroll
            for (int d = 0; d < DIMS; d++) f.o[r][d] *= s;
        }
    }
    return weight;
}

// The group's values, by `weight`: what flash_keys gave, times the scale of the lane's value.
template <int FORMAT, int DIMS, int ROWS>
DEVICE void flash_values(FlashRows<FORMAT, DIMS, ROWS>& f, const Packed<FORMAT, DIMS> (&values)[GROUP], float weight) {
#pragma unroll
    for (int j = 0; j < (int)GROUP; j++) {
        float v[DIMS];
#pragma unroll
        for (int d = 0; d < DIMS; d++) v[d] = packed_value(values[j], d);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float w = shuffle_from(weight, flash_lane<ROWS>(j, r));
#pragma unroll
            for (int d = 0; d < DIMS; d++) f.o[r][d] = fma(w, v[d], f.o[r][d]);
        }
    }
}

// The sum of exponentials of the lane's row, complete.
template <int FORMAT, int DIMS, int ROWS> DEVICE float flash_sum(const FlashRows<FORMAT, DIMS, ROWS>& f) {
    float sum = f.sum + shuffle_xor(f.sum, 8);
    return sum + shuffle_xor(sum, 16);
}

// What both kernels of prefill are given.
struct PrefillArgs {
    // (T, n_heads, dim)
    float* out;
    const float* q;
    // (n_kv_heads, n_slots, dim), (n_kv_heads, n_slots)
    const u8* key_cells;
    const float* key_scales;
    const u8* value_cells;
    const float* value_scales;
    const u32* position;
    // (n_entries): the sequence's pages; null for a ring.
    const u32* pages;
    float scale;
    // `per_kv`: query heads of a kv head.
    u32 window, n_rows, n_heads, per_kv, dim, n_slots, n_entries;
};

// Where a position of the sequence is stored.
DEVICE u32 prefill_slot(const PrefillArgs& a, u32 position) {
    return a.pages ? page_slot(a.pages, a.n_entries, position) : position % a.n_slots;
}
