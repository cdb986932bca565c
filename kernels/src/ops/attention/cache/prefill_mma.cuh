// Attention of several new tokens on tensor cores, after attention_prepare: f16 products, f32 sums and softmax.
//
// A block takes 64 neighbouring rows (t, head of the group) of one kv head, 16 a warp. Keys and values pass through shared
// memory as f16 in tiles that begin at multiples of their length in positions, so a row's sums do not depend on the rows
// beside it. While scores are computed the tile's values are on their way, and while values are added the next keys.
#pragma once
#include "../rows.cuh"

#if LICHEN_ARCH >= 80

const u32 MMA_THREADS = 128;
const u32 MMA_ROWS = 64;

// Where value `8 * chunk` of a row of DIM f16 is in a tile: neighbouring rows differ in their banks.
template <int DIM> DEVICE u16* mma_chunk(u16* tile, u32 row, u32 chunk) { return tile + row * DIM + (chunk ^ (row & 7)) * 8; }

// Eight int8 codes times their scale, as f16.
DEVICE u32x4 mma_f16(u32x2 codes, float scale) {
    Packed<KV_I8, 8> packed = {{codes.x, codes.y}};
    u16 h[8];
#pragma unroll
    for (int i = 0; i < 8; i++) h[i] = f32_to_f16(packed_value(packed, i) * scale);
    return {pack16(h[0], h[1]), pack16(h[2], h[3]), pack16(h[4], h[5]), pack16(h[6], h[7])};
}

// Rows of a tile: positions base .. base + KEYS of one plane, zeros for those outside `first..=last`. f16 are there after
// a wait, int8 at once; both after a barrier. int8 codes are multiplied by their scales, or where `tile_scales` is not null
// left as they are, exact, beside the scales.
template <int FORMAT, int DIM, int KEYS>
DEVICE void mma_load(const PrefillArgs& a, u16* tile, float* tile_scales, const u8* cells, const float* scales, u32 base,
                     u32 first, u32 last) {
    const u32 CHUNKS = DIM / 8;
    u64 plane = (u64)block_y() * a.n_slots;
    // A tile begins with a page and has one or two: where its first row would be if all of it lay beside the page's.
    u32 first_slot = prefill_slot(a, base), second_slot = first_slot;
    if (KEYS > PAGE && a.pages) second_slot = page_slot(a.pages, a.n_entries, base + PAGE) - PAGE;
#pragma unroll 4
    for (u32 n = 0; n < KEYS * CHUNKS / MMA_THREADS; n++) {
        u32 i = thread_idx() + n * MMA_THREADS, row = i / CHUNKS, chunk = i % CHUNKS;
        bool is_there = base + row >= first && base + row <= last && chunk * 8 < a.dim;
        u32 slot = (KEYS == PAGE || row < PAGE ? first_slot : second_slot) + row;
        if (slot >= a.n_slots) slot -= a.n_slots;
        // Rings shorter than a tile.
        if (slot >= a.n_slots) slot %= a.n_slots;
        u64 vector = is_there ? plane + slot : 0;
        u32 from = is_there ? chunk * 8 : 0;
        u16* to = mma_chunk<DIM>(tile, row, chunk);
        if (FORMAT == KV_F16) {
            copy_async(to, (const u16*)cells + vector * a.dim + from, is_there);
        } else {
            u32x2 codes = {0, 0};
            float scale = 0.0f;
            if (is_there) {
                codes = *(const u32x2*)(cells + vector * a.dim + from);
                scale = scales[vector];
            }
            if (tile_scales && chunk == 0) tile_scales[row] = scale;
            *(u32x4*)to = mma_f16(codes, tile_scales ? 1.0f : scale);
        }
    }
    if (FORMAT == KV_F16) copy_async_commit();
}

// The block's queries times `scale`, as f16; zeros past the last row and the last value.
template <int DIM> DEVICE void mma_load_queries(const PrefillArgs& a, u16* tile, u32 first, u32 total, u32 per_kv, float scale) {
    const u32 CHUNKS = DIM / 8;
    for (u32 i = thread_idx(); i < MMA_ROWS * CHUNKS; i += MMA_THREADS) {
        u32 r = i / CHUNKS, chunk = i % CHUNKS, row = first + r, t = row / per_kv;
        u32x4 words = {0, 0, 0, 0};
        if (row < total && chunk * 8 < a.dim) {
            const float* q = a.q + ((u64)t * a.n_heads + block_y() * per_kv + row - t * per_kv) * a.dim + chunk * 8;
            u16 h[8];
#pragma unroll
            for (int j = 0; j < 8; j++) h[j] = f32_to_f16(q[j] * scale);
            words = {pack16(h[0], h[1]), pack16(h[2], h[3]), pack16(h[4], h[5]), pack16(h[6], h[7])};
        }
        *(u32x4*)mma_chunk<DIM>(tile, r, chunk) = words;
    }
}

// A warp's 16 rows: the lane has rows lane / 4 and lane / 4 + 8, `[0]` and `[1]` here, and of every eight columns the two
// from 2 (lane % 4) on.
template <int DIM, int KEYS> struct MmaRows {
    float scores[KEYS / 8][4];
    float out[DIM / 8][4];
    float top[2], sum[2];
    // Positions that the rows see.
    u32 from[2], until[2];
};

// scores = queries . keys.
template <int DIM, int KEYS> DEVICE void mma_scores(MmaRows<DIM, KEYS>& m, u16* queries, u16* keys) {
    u32 lane = lane_idx(), warp_row = warp_idx() * 16;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) m.scores[n][i] = 0.0f;
#pragma unroll
    for (u32 k = 0; k < DIM / 16; k++) {
        u32 a[4];
        ldmatrix_x4(a, mma_chunk<DIM>(queries, warp_row + (lane & 15), 2 * k + (lane >> 4)));
#pragma unroll
        for (u32 n = 0; n < KEYS / 16; n++) {
            u32 r[4];
            ldmatrix_x4(r, mma_chunk<DIM>(keys, n * 16 + (lane & 7) + (lane >> 4) * 8, 2 * k + (lane >> 3 & 1)));
            u32 b0[2] = {r[0], r[1]}, b1[2] = {r[2], r[3]};
            mma_f16(m.scores[2 * n], a, b0);
            mma_f16(m.scores[2 * n + 1], a, b1);
        }
    }
}

// The scores of int8 keys, by the keys' scales.
template <int DIM, int KEYS> DEVICE void mma_scale_scores(MmaRows<DIM, KEYS>& m, const float* tile_scales) {
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++) {
        u32x2 pair = *(const u32x2*)(tile_scales + n * 8 + (lane_idx() & 3) * 2);
#pragma unroll
        for (int i = 0; i < 4; i++) m.scores[n][i] *= f32_from_bits(i % 2 ? pair.y : pair.x);
    }
}

// Scores become weights relative to the new maximum, sums and results so far follow it. `base`: the tile's first position.
template <int DIM, int KEYS> DEVICE void mma_softmax(MmaRows<DIM, KEYS>& m, u32 base, bool is_edge) {
    float top[2] = {m.top[0], m.top[1]};
    u32 column = base + (lane_idx() & 3) * 2;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (is_edge) {
                u32 key = column + n * 8 + (i & 1);
                if (key < m.from[i / 2] || key > m.until[i / 2]) m.scores[n][i] = minus_infinity();
            }
            top[i / 2] = max_f32(top[i / 2], m.scores[n][i]);
        }
    float shrink[2], minimum[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        top[h] = max_f32(top[h], shuffle_xor(top[h], 1));
        top[h] = max_f32(top[h], shuffle_xor(top[h], 2));
        // A row that has seen nothing yet has no maximum to subtract.
        minimum[h] = top[h] == minus_infinity() ? 0.0f : top[h];
        shrink[h] = exp2_approx(m.top[h] - minimum[h]);
        m.top[h] = top[h];
        m.sum[h] *= shrink[h];
    }
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            m.scores[n][i] = exp2_approx(m.scores[n][i] - minimum[i / 2]);
            m.sum[i / 2] += m.scores[n][i];
        }
    if (ballot(shrink[0] != 1.0f || shrink[1] != 1.0f)) {
#pragma unroll
        for (int n = 0; n < DIM / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) m.out[n][i] *= shrink[i / 2];
    }
}

// out += weights . values.
template <int DIM, int KEYS> DEVICE void mma_values(MmaRows<DIM, KEYS>& m, u16* values) {
    u32 lane = lane_idx();
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
        u32 a[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float* s = m.scores[2 * k + i / 2] + i % 2 * 2;
            a[i] = pack16(f32_to_f16(s[0]), f32_to_f16(s[1]));
        }
#pragma unroll
        for (u32 n = 0; n < DIM / 16; n++) {
            u32 r[4];
            ldmatrix_x4_transposed(r, mma_chunk<DIM>(values, k * 16 + (lane & 15), 2 * n + (lane >> 4)));
            u32 b0[2] = {r[0], r[1]}, b1[2] = {r[2], r[3]};
            mma_f16(m.out[2 * n], a, b0);
            mma_f16(m.out[2 * n + 1], a, b1);
        }
    }
}

template <int DIM, int KEYS> DEVICE void mma_write(const PrefillArgs& a, MmaRows<DIM, KEYS>& m, u32 first, u32 total, u32 per_kv) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float sum = m.sum[h] + shuffle_xor(m.sum[h], 1);
        float inverse = divide(1.0f, sum + shuffle_xor(sum, 2));
        u32 row = first + warp_idx() * 16 + lane_idx() / 4 + h * 8, t = row / per_kv;
        if (row >= total) continue;
        float* out = a.out + ((u64)t * a.n_heads + block_y() * per_kv + row - t * per_kv) * a.dim;
#pragma unroll
        for (int n = 0; n < DIM / 8; n++) {
            if ((u32)n * 8 >= a.dim) continue;
            u32x2 pair = {f32_bits(m.out[n][2 * h] * inverse), f32_bits(m.out[n][2 * h + 1] * inverse)};
            *(u32x2*)(out + n * 8 + (lane_idx() & 3) * 2) = pair;
        }
    }
}

template <int FORMAT, int DIM, int KEYS> DEVICE void prefill_mma(const PrefillArgs& a, u16* shared, float* key_scales) {
    u16 *queries = shared, *keys = shared + MMA_ROWS * DIM, *values = keys + KEYS * DIM;
    u32 per_kv = a.per_kv, total = a.n_rows * per_kv, first = block_x() * MMA_ROWS;
    u32 position = *a.position;
    u32 last = first + MMA_ROWS < total ? first + MMA_ROWS - 1 : total - 1;
    // What the block's rows see, and what the warp's first row and its last one do.
    u32 block_from = first_visible(position + first / per_kv, a.window), block_until = position + last / per_kv;
    u32 warp_first = first + warp_idx() * 16 < total ? first + warp_idx() * 16 : total - 1;
    u32 warp_last = warp_first + 15 < total ? warp_first + 15 : total - 1;
    u32 first_until = position + warp_first / per_kv, last_until = position + warp_last / per_kv;
    u32 first_from = first_visible(first_until, a.window), last_from = first_visible(last_until, a.window);

    MmaRows<DIM, KEYS> m;
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        u32 row = warp_first + lane_idx() / 4 + h * 8;
        m.until[h] = position + (row < total ? row : total - 1) / per_kv;
        m.from[h] = first_visible(m.until[h], a.window);
        m.top[h] = minus_infinity();
        m.sum[h] = 0.0f;
    }
#pragma unroll
    for (int n = 0; n < DIM / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) m.out[n][i] = 0.0f;

    u32 base = block_from / KEYS * KEYS;
    mma_load<FORMAT, DIM, KEYS>(a, keys, key_scales, a.key_cells, a.key_scales, base, block_from, block_until);
    mma_load_queries<DIM>(a, queries, first, total, per_kv, a.scale * LOG2_E);
    for (; base <= block_until; base += KEYS) {
        // Nothing to do for a warp whose rows see none of the tile: the others may.
        bool is_seen = base <= last_until && base + KEYS > first_from;
        if (FORMAT == KV_F16) copy_async_wait<0>();
        sync_block();
        mma_load<FORMAT, DIM, KEYS>(a, values, nullptr, a.value_cells, a.value_scales, base, block_from, block_until);
        if (is_seen) {
            mma_scores(m, queries, keys);
            if (FORMAT == KV_I8) mma_scale_scores(m, key_scales);
            mma_softmax(m, base, base < last_from || base + KEYS - 1 > first_until);
        }
        if (FORMAT == KV_F16) copy_async_wait<0>();
        sync_block();
        if (base + KEYS <= block_until)
            mma_load<FORMAT, DIM, KEYS>(a, keys, key_scales, a.key_cells, a.key_scales, base + KEYS, block_from, block_until);
        if (is_seen) mma_values(m, values);
    }
    mma_write(a, m, first, total, per_kv);
}

// (ceil(T * heads of a kv head / 64), n_kv_heads) blocks; (64 + 2 KEYS) * DIM f16 of shared memory. At most DIM values a
// head.
#define PREFILL_MMA_KERNEL(FORMAT, DIM, KEYS, name)                                                                            \
    KERNEL(128, 2, name, float* out, const float* q, const u8* key_cells, const float* key_scales, const u8* value_cells,      \
           const float* value_scales, const u32* position, const u32* pages, float scale, u32 window, u32 n_rows, u32 n_heads, \
           u32 per_kv, u32 dim, u32 n_slots, u32 n_entries) {                                                                  \
        DYNAMIC_SHARED(u16, shared);                                                                                           \
        SHARED(float, tile_key_scales, FORMAT == KV_I8 ? KEYS : 1);                                                            \
        PrefillArgs args = {out,    q,      key_cells, key_scales, value_cells, value_scales, position, pages,                 \
                            scale,  window, n_rows,    n_heads,    per_kv,      dim,          n_slots,  n_entries};            \
        prefill_mma<FORMAT, DIM, KEYS>(args, shared, FORMAT == KV_I8 ? tile_key_scales : nullptr);                             \
    }

#endif
