// Decode attention of a batch over f16 keys and values in pages, on tensor cores: decode.cuh with another loop over the keys,
// for heads of exactly 64, 128 or 256 values.
//
// A warp takes 16 keys at a time, from multiples of 16 positions on, so that they lie in one page. It reads them from global
// memory into fragments, one set ahead of what it computes: nothing passes through shared memory, and no warp waits for
// another. Queries and weights are sums of two f16, the nearest and the nearest to the rest, which leaves out 2^-22.
// Scores have up to eight heads' queries as their rows and the rests as the other eight; outputs have values as rows and
// heads as columns, so the scores' layout is what the weights need.
#include "decode.cuh"

#if LICHEN_ARCH >= 80

const u32 MMA_KEYS = 16;
const u32 MMA_HEADS = 8;
// Exponents of the largest query of a head, and of the largest weight, as f16: far from both ends of their range.
const s32 MMA_TOP = 14;
const float MMA_WEIGHT = 32768.0f;

// A warp's heads; g = lane / 4, t = lane % 4.
template <int DIM> struct MmaHeads {
    // (DIM / 16, 32 lanes), in shared memory, the same for all warps: the queries' first terms as rows 0..8, and their rests
    // as rows 8..16, of products 2 c and 2 c + 1 with values 32 c + 8 t .. of a key.
    u32x4* q;
    // Of head g: the inverse of its queries' power of two, the maximum, and the lane's part of the sum.
    float inverse, top, sum;
    // o[4 h + i]: values 64 h + 8 g + 2 i and the next one of heads 2 t and 2 t + 1, times MMA_WEIGHT.
    float o[DIM / 16][4];
};

// 16 keys, or their values.
template <int DIM> struct MmaKeys {
    // Values 32 c + 8 t .. of keys g and g + 8.
    u32 words[2][DIM / 32][4];
};
template <int DIM> struct MmaValues {
    // Values 64 h + 8 g .. of keys mma_key(0..4).
    u32 words[4][DIM / 64][4];
};
DEVICE u32 mma_key(u32 i) { return (lane_idx() & 3) * 2 + (i & 1) + i / 2 * 8; }

DEVICE void mma_words(u32 (&words)[4], const u32x4& v) {
    words[0] = v.x;
    words[1] = v.y;
    words[2] = v.z;
    words[3] = v.w;
}

// Keys `vector` .. of all that are stored. What is not visible is read too: it lies in the same page. So does the newest, which
// another thread may be writing: whatever is read of it is replaced (mma_edge).
template <int DIM> DEVICE void mma_load(MmaKeys<DIM>& keys, const u8* cells, u32 vector) {
    const u32x4* from = (const u32x4*)cells + (u64)(vector + lane_idx() / 4) * (DIM / 8) + (lane_idx() & 3);
#pragma unroll
    for (u32 c = 0; c < DIM / 32; c++)
#pragma unroll
        for (u32 j = 0; j < 2; j++) mma_words(keys.words[j][c], load_stream(from + j * DIM + c * 4));
}
template <int DIM> DEVICE void mma_load(MmaValues<DIM>& values, const u8* cells, u32 vector) {
    const u32x4* from = (const u32x4*)cells + (u64)(vector + mma_key(0)) * (DIM / 8) + lane_idx() / 4;
#pragma unroll
    for (u32 h = 0; h < DIM / 64; h++)
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            mma_words(values.words[i][h], load_stream(from + ((i & 1) + i / 2 * 8) * (DIM / 8) + h * 8));
}

// The newest key where the 16 from position `first` on have it: memory does not yet, or not for sure. Scores of what is not
// visible are not looked at.
template <int DIM> DEVICE void mma_edge(MmaKeys<DIM>& keys, const KvSplit& p, const DecodeShared& s, u32 first) {
    if (!p.owns_newest) return;
#pragma unroll
    for (u32 j = 0; j < 2; j++) {
        if (first + lane_idx() / 4 + 8 * j != p.position) continue;
#pragma unroll
        for (u32 c = 0; c < DIM / 32; c++)
            mma_words(keys.words[j][c], ((const u32x4*)s.newest)[c * 4 + (lane_idx() & 3)]);
    }
}

// The newest value, and zeros for what is not visible: a weight of 0 does not hide an infinity or NaN.
template <int DIM>
DEVICE void mma_edge(MmaValues<DIM>& values, const KvSplit& p, const DecodeShared& s, u32 first, u32 end) {
    const u32x4 zeros = {0, 0, 0, 0};
    const u32x4* newest = (const u32x4*)(s.newest + DIM) + lane_idx() / 4;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        u32 key = first + mma_key(i);
        bool visible = key >= p.start && key < end;
        if (visible && key != p.position) continue;
#pragma unroll
        for (u32 h = 0; h < DIM / 64; h++) mma_words(values.words[i][h], visible ? newest[h * 8] : zeros);
    }
}

// Both terms of two numbers as f16.
DEVICE void mma_split(u32& first, u32& rest, float low, float high) {
    u16 l = f32_to_f16(low), h = f32_to_f16(high);
    first = pack16(l, h);
    rest = pack16(f32_to_f16(low - f16_to_f32(l)), f32_to_f16(high - f16_to_f32(h)));
}

// The block's queries, in `work` (n_rows, DIM) since a barrier, times `scale` and a power of two for each head, which make
// the products' rows behind them; zeros past the last head. One with an infinity or NaN takes no factor, and makes all of
// its head's results NaN. There after a barrier.
template <int DIM> DEVICE void mma_load(MmaHeads<DIM>& m, const KvSplit& p, const DecodeShared& s, float scale) {
    u32 head = lane_idx() / 4, lane = lane_idx() & 3, bits = 0;
    const f32x4* q = (const f32x4*)(s.work + head * DIM);
    bool is_there = head < p.n_rows;
    for (u32 i = lane; i < DIM / 4; i += 4) {
        f32x4 four = {0.0f, 0.0f, 0.0f, 0.0f};
        if (is_there) four = q[i];
        const float values[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            u32 v = f32_bits(values[j] * scale) & 0x7fffffff;
            bits = v > bits ? v : bits;
        }
    }
    for (u32 mask = 1; mask < 4; mask *= 2) {
        u32 other = shuffle_xor(bits, mask);
        bits = other > bits ? other : bits;
    }
    s32 shift = MMA_TOP + 127 - (s32)(bits >> 23);
    // The inverse of 2^126 is the smallest normal number.
    shift = bits == 0 || bits >= 0x7f800000 ? 0 : shift > 126 ? 126 : shift;
    float factor = f32_from_bits((u32)(127 + shift) << 23);
    m.inverse = f32_from_bits((u32)(127 - shift) << 23);
    m.q = (u32x4*)(s.work + 2 * MMA_HEADS * DIM);
    for (u32 k = warp_idx(); k < DIM / 16; k += WARPS) {
        f32x4 four = {0.0f, 0.0f, 0.0f, 0.0f};
        if (is_there) four = q[k / 2 * 8 + lane * 2 + k % 2];
        u32x4 terms;
        mma_split(terms.x, terms.y, four.x * scale * factor, four.y * scale * factor);
        mma_split(terms.z, terms.w, four.z * scale * factor, four.w * scale * factor);
        m.q[k * 32 + lane_idx()] = terms;
    }
    m.top = minus_infinity();
    m.sum = 0.0f;
#pragma unroll
    for (u32 n = 0; n < DIM / 16; n++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) m.o[n][i] = 0.0f;
}

// Scores of head g with keys 2 t, 2 t + 1, and those 8 further.
template <int DIM> DEVICE void mma_scores(float (&scores)[4], const MmaHeads<DIM>& m, const MmaKeys<DIM>& keys) {
    float c[2][4] = {{0.0f, 0.0f, 0.0f, 0.0f}, {0.0f, 0.0f, 0.0f, 0.0f}};
    // Read for every 16 keys: registers have better uses.
    u32 lane = opaque(lane_idx());
#pragma unroll
    for (u32 k = 0; k < DIM / 16; k++) {
        u32 q[4];
        mma_words(q, m.q[k * 32 + lane]);
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
            const u32 b[2] = {keys.words[j][k / 2][k % 2 * 2], keys.words[j][k / 2][k % 2 * 2 + 1]};
            mma_f16(c[j], q, b);
        }
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) scores[i] = (c[i / 2][i % 2] + c[i / 2][i % 2 + 2]) * m.inverse;
}

// Scores become weights relative to the new maximum; sums and results so far follow it.
template <int DIM> DEVICE void mma_softmax(MmaHeads<DIM>& m, float (&scores)[4], const KvSplit& p, u32 first, u32 end) {
    float top = m.top;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        u32 key = first + mma_key(i);
        if (key < p.start || key >= end) scores[i] = minus_infinity();
        top = max_f32(top, scores[i]);
    }
    top = max_f32(top, shuffle_xor(top, 1));
    top = max_f32(top, shuffle_xor(top, 2));
    // A head that has seen nothing yet has no maximum to subtract.
    float base = top == minus_infinity() ? 0.0f : top;
    float shrink = exp2_approx(m.top - base);
    m.top = top;
    m.sum *= shrink;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        scores[i] = exp2_approx(scores[i] - base);
        m.sum += scores[i];
    }
    if (ballot(shrink != 1.0f)) {
        // Of the lanes that have heads 2 t and 2 t + 1.
        float low = shuffle_from(shrink, (lane_idx() & 3) * 8), high = shuffle_from(shrink, (lane_idx() & 3) * 8 + 4);
#pragma unroll
        for (u32 n = 0; n < DIM / 16; n++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) m.o[n][i] *= i % 2 ? high : low;
    }
}

// o += values . weights.
template <int DIM> DEVICE void mma_values(MmaHeads<DIM>& m, const float (&weights)[4], const MmaValues<DIM>& values) {
    u32 first[2], rest[2];
#pragma unroll
    for (u32 i = 0; i < 2; i++) mma_split(first[i], rest[i], weights[2 * i] * MMA_WEIGHT, weights[2 * i + 1] * MMA_WEIGHT);
#pragma unroll
    for (u32 h = 0; h < DIM / 64; h++) {
        u32 a[4][4];
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            a[i][0] = permute_bytes(values.words[0][h][i], values.words[1][h][i], 0x5410);
            a[i][1] = permute_bytes(values.words[0][h][i], values.words[1][h][i], 0x7632);
            a[i][2] = permute_bytes(values.words[2][h][i], values.words[3][h][i], 0x5410);
            a[i][3] = permute_bytes(values.words[2][h][i], values.words[3][h][i], 0x7632);
            mma_f16(m.o[4 * h + i], a[i], first);
        }
        // Products of one sum are apart, so that they need not wait for each other.
#pragma unroll
        for (u32 i = 0; i < 4; i++) mma_f16(m.o[4 * h + i], a[i], rest);
    }
}

// A warp leaves its results where decode_merge_warps finds them.
template <int DIM> DEVICE void mma_leave(const MmaHeads<DIM>& m, const DecodeShared& s) {
    u32 g = lane_idx() / 4, t = lane_idx() & 3, warp = warp_idx();
    float sum = warp_sum<4>(m.sum);
    if (t == 0) {
        s.tops[warp * MMA_HEADS + g] = m.top;
        s.sums[warp * MMA_HEADS + g] = sum;
    }
#pragma unroll
    for (u32 head = 0; head < 2; head++) {
        float* to = s.work + (warp * MMA_HEADS + 2 * t + head) * DIM + 8 * g;
#pragma unroll
        for (u32 n = 0; n < DIM / 16; n += 2) {
            f32x4 four = {m.o[n][head], m.o[n][head + 2], m.o[n + 1][head], m.o[n + 1][head + 2]};
            four = {four.x / MMA_WEIGHT, four.y / MMA_WEIGHT, four.z / MMA_WEIGHT, four.w / MMA_WEIGHT};
            *(f32x4*)(to + n / 4 * 64 + n % 4 * 2) = four;
        }
    }
}

// Registers have room for the queries, the results and both keys and values of heads up to 128: then the next ones are read
// as soon as these are used. With 256 the one set takes the place of the other.
template <int DIM> DEVICE void mma_decode(const DecodeArgs& a, const DecodeShared& s) {
    const bool HAS_BOTH = DIM < 256;
    KvSplit p = kv_split<MMA_HEADS, true>(a);
    if (block_x() >= p.n_splits) return;
    u32 plane = p.kv_head * a.n_slots;
    // Behind the last position that the block sees, the newest included where it is the block's.
    u32 end = p.owns_newest ? p.position + 1 : p.end;
    u32 i = p.begin / MMA_KEYS * MMA_KEYS + warp_idx() * MMA_KEYS;
    MmaKeys<DIM> keys;
    MmaValues<DIM> values;
    u32 vector = 0;
    if (i < end) {
        vector = plane + page_slot(a.pages, a.n_entries, i);
        mma_load(keys, a.key_cells, vector);
        if (HAS_BOTH) mma_load(values, a.value_cells, vector);
    }
    decode_prepare<KV_F16, DIM / 32, MMA_HEADS, true>(a, p, s);
    sync_block();
    MmaHeads<DIM> m;
    mma_load(m, p, s, a.scale * LOG2_E);
    sync_block();
    while (i < end) {
        u32 next = i + WARPS * MMA_KEYS;
        u32 next_vector = next < end ? plane + page_slot(a.pages, a.n_entries, next) : 0;
        bool is_edge = i < p.start || i + MMA_KEYS > p.end;
        float scores[4];
        if (is_edge) mma_edge(keys, p, s, i);
        mma_scores(scores, m, keys);
        if (!HAS_BOTH) mma_load(values, a.value_cells, vector);
        else if (next < end) mma_load(keys, a.key_cells, next_vector);
        mma_softmax(m, scores, p, i, end);
        if (is_edge) mma_edge(values, p, s, i, end);
        mma_values(m, scores, values);
        if (next < end) {
            if (HAS_BOTH) mma_load(values, a.value_cells, next_vector);
            else mma_load(keys, a.key_cells, next_vector);
        }
        i = next;
        vector = next_vector;
    }
    // The queries have been read: their memory takes the results.
    sync_block();
    mma_leave(m, s);
    decode_finish<MMA_HEADS>(a, p, s);
}

PAGES_KERNEL_OF(KV_F16, 2, MMA_HEADS, 5, attention_pages_mma_f16_64, mma_decode<64>)
PAGES_KERNEL_OF(KV_F16, 4, MMA_HEADS, 3, attention_pages_mma_f16_128, mma_decode<128>)
PAGES_KERNEL_OF(KV_F16, 8, MMA_HEADS, 2, attention_pages_mma_f16_256, mma_decode<256>)

#endif
