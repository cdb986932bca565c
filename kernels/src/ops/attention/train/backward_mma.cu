// Backward attention of whole sequences on tensor cores, as backward.cu does it: dq by queries; dk and dv by keys, in
// one kernel where a warp's registers hold both.
#include "train_mma.cuh"

#if LICHEN_ARCH >= 80

template <int DIM, int KEYS> DEVICE void split_dq(const TrainArgs& a, const TrainBackward& b, float* dq, u16* shared) {
    TrainRows s = train_rows(a);
    // The longest rows of keys first.
    u32 first = (grid_x() - 1 - block_x()) * SPLIT_ROWS, head = block_y(), kv_head = head / a.per_kv;
    if (first >= s.n) return;
    u16 *queries = shared, *douts = queries + 2 * SPLIT_ROWS * DIM, *keys = douts + 2 * SPLIT_ROWS * DIM;
    u16* values = keys + 2 * KEYS * DIM;
    TrainQueries of = train_shared_queries((float*)(values + 2 * KEYS * DIM), SPLIT_ROWS);
    u32 n_queries = s.n - first < SPLIT_ROWS ? s.n - first : SPLIT_ROWS, last = first + n_queries - 1;
    u32 warp_first = first + warp_idx() * 16, lane = lane_idx();
    u64 item = (u64)(s.first + first) * a.n_heads + head;
    split_load<DIM, SPLIT_ROWS>(queries, train_tile(a.q, s, first, SPLIT_ROWS, head, a.n_heads, a.dim), a.dim);
    split_load_dout<DIM, SPLIT_ROWS>(douts, of, train_tile(b.dout, s, first, SPLIT_ROWS, head, a.n_heads, a.dim),
                                     train_tile(b.out, s, first, SPLIT_ROWS, head, a.n_heads, a.dim), b.stats + item * 2,
                                     a.n_heads * 2, a.dim);
    float sums[DIM / 8][4];
    split_clear(sums);
    for (u32 key = first_visible(first, a.window) / KEYS * KEYS; key <= last; key += KEYS) {
        // Nobody needs the tiles before.
        sync_block();
        split_load<DIM, KEYS>(keys, train_tile(a.k, s, key, KEYS, kv_head, a.n_heads / a.per_kv, a.dim), a.dim);
        split_load<DIM, KEYS>(values, train_tile(a.v, s, key, KEYS, kv_head, a.n_heads / a.per_kv, a.dim), a.dim);
        sync_block();
        // Nothing to do for a warp whose rows see none of the tile.
        if (warp_first > last || key > warp_first + 15 || key + KEYS <= first_visible(warp_first, a.window)) continue;
        float scores[KEYS / 8][4], slopes[KEYS / 8][4];
        split_clear(scores);
        split_clear(slopes);
        split_dots<DIM, KEYS>(scores, queries, keys);
        split_dots<DIM, KEYS>(slopes, douts, values);
#pragma unroll
        for (u32 h = 0; h < 2; h++) {
            u32 row = warp_idx() * 16 + lane / 4 + h * 8;
            float top = of.tops[row], inverse = of.inverses[row], delta = of.deltas[row];
#pragma unroll
            for (u32 n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (u32 i = 2 * h; i < 2 * h + 2; i++) {
                    bool visible = train_visible(first + row, key + n * 8 + lane % 4 * 2 + i % 2, s.n, a.window);
                    slopes[n][i] = train_slope(scores[n][i], slopes[n][i], a.scale, top, inverse, delta, visible).ds;
                }
        }
        split_add<false, DIM, KEYS>(sums, slopes, keys);
    }
    const float ones[2] = {1.0f, 1.0f};
    split_write<DIM>(sums, dq + item * a.dim, a.n_heads * a.dim, n_queries, a.dim, ones);
}

// What a kernel by keys sums: dk, dv or both.
enum SplitWanted { SPLIT_DK = 1, SPLIT_DV = 2, SPLIT_DKV = 3 };

template <int WANTED, int DIM> struct SplitKeys {
    float dk[WANTED & SPLIT_DK ? DIM / 8 : 1][4], dv[WANTED & SPLIT_DV ? DIM / 8 : 1][4];
};

// Where a kernel by keys has its tiles.
template <int DIM, int QUERIES> struct SplitTiles {
    u16 *keys, *values, *queries, *douts;
    TrainQueries of;
    DEVICE_MEMBER SplitTiles(u16* shared, bool has_values) {
        keys = shared;
        queries = keys + 2 * SPLIT_ROWS * DIM;
        douts = queries + 2 * QUERIES * DIM;
        of = train_shared_queries((float*)(douts + 2 * QUERIES * DIM), QUERIES);
        values = has_values ? (u16*)(of.deltas + QUERIES) : nullptr;
    }
};

// What the tile's queries add to the warp's 16 keys. `key` is the lane's first, `query` the tile's.
template <int WANTED, int DIM, int QUERIES>
DEVICE void split_keys_add(SplitKeys<WANTED, DIM>& sums, const TrainArgs& a, const SplitTiles<DIM, QUERIES>& tiles, u32 key,
                           u32 query, u32 n_rows) {
    float scores[QUERIES / 8][4], slopes[QUERIES / 8][4];
    split_clear(scores);
    split_clear(slopes);
    split_dots<DIM, QUERIES>(scores, tiles.keys, tiles.queries);
    if (WANTED & SPLIT_DK) split_dots<DIM, QUERIES>(slopes, tiles.values, tiles.douts);
#pragma unroll
    for (u32 n = 0; n < QUERIES / 8; n++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 column = n * 8 + lane_idx() % 4 * 2 + i % 2;
            bool visible = train_visible(query + column, key + i / 2 * 8, n_rows, a.window);
            TrainSlope slope = train_slope(scores[n][i], slopes[n][i], a.scale, tiles.of.tops[column],
                                           tiles.of.inverses[column], tiles.of.deltas[column], visible);
            scores[n][i] = slope.p;
            slopes[n][i] = slope.ds;
        }
    if constexpr ((WANTED & SPLIT_DV) != 0) split_add<false, DIM, QUERIES>(sums.dv, scores, tiles.douts);
    if constexpr ((WANTED & SPLIT_DK) != 0) split_add<false, DIM, QUERIES>(sums.dk, slopes, tiles.queries);
}

template <int WANTED, int DIM, int QUERIES>
DEVICE void split_dkv(const TrainArgs& a, const TrainBackward& b, float* dk, float* dv, u16* shared) {
    TrainRows s = train_rows(a);
    // The first keys are seen most often, so their blocks begin first.
    u32 first = block_x() * SPLIT_ROWS, kv_head = block_y(), n_kv_heads = a.n_heads / a.per_kv;
    if (first >= s.n) return;
    SplitTiles<DIM, QUERIES> tiles(shared, WANTED & SPLIT_DK);
    u32 n_keys = s.n - first < SPLIT_ROWS ? s.n - first : SPLIT_ROWS, last = first + n_keys - 1;
    u32 warp_first = first + warp_idx() * 16;
    // Past the last query that sees the last key; the window is at most the rows of the longest sequence.
    u32 end = last + a.window < s.n ? last + a.window : s.n;
    split_load<DIM, SPLIT_ROWS>(tiles.keys, train_tile(a.k, s, first, SPLIT_ROWS, kv_head, n_kv_heads, a.dim), a.dim);
    if (WANTED & SPLIT_DK)
        split_load<DIM, SPLIT_ROWS>(tiles.values, train_tile(a.v, s, first, SPLIT_ROWS, kv_head, n_kv_heads, a.dim), a.dim);
    SplitKeys<WANTED, DIM> sums;
    split_clear(sums.dk);
    split_clear(sums.dv);
    for (u32 head = kv_head * a.per_kv; head < (kv_head + 1) * a.per_kv; head++) {
        for (u32 query = first; query < end; query += QUERIES) {
            u64 item = (u64)(s.first + query) * a.n_heads + head;
            // Nobody needs the tiles before.
            sync_block();
            split_load<DIM, QUERIES>(tiles.queries, train_tile(a.q, s, query, QUERIES, head, a.n_heads, a.dim), a.dim);
            split_load_dout<DIM, QUERIES>(tiles.douts, tiles.of, train_tile(b.dout, s, query, QUERIES, head, a.n_heads, a.dim),
                                          train_tile(b.out, s, query, QUERIES, head, a.n_heads, a.dim), b.stats + item * 2,
                                          a.n_heads * 2, a.dim);
            sync_block();
            // Nothing to do for a warp whose keys none of the queries sees.
            bool is_later = query > warp_first + 15 && query - (warp_first + 15) >= a.window;
            if (warp_first > last || query + QUERIES <= warp_first || is_later) continue;
            split_keys_add<WANTED, DIM, QUERIES>(sums, a, tiles, warp_first + lane_idx() / 4, query, s.n);
        }
    }
    u64 item = ((u64)(s.first + first) * n_kv_heads + kv_head) * a.dim;
    const float ones[2] = {1.0f, 1.0f};
    if constexpr ((WANTED & SPLIT_DK) != 0) split_write<DIM>(sums.dk, dk + item, n_kv_heads * a.dim, n_keys, a.dim, ones);
    if constexpr ((WANTED & SPLIT_DV) != 0) split_write<DIM>(sums.dv, dv + item, n_kv_heads * a.dim, n_keys, a.dim, ones);
}

// (ceil(longest sequence / 64), n_heads, sequences) blocks; (256 + 4 KEYS) * DIM bf16 and 192 floats of shared memory. dq
// (T, n_heads, dim).
#define SPLIT_DQ_KERNEL(DIM, KEYS, BLOCKS, name)                                                                               \
    KERNEL(128, BLOCKS, name, float* dq, const float* out, const float* dout, const float* stats, TRAIN_PARAMS) {              \
        DYNAMIC_SHARED(u16, shared);                                                                                           \
        TrainArgs args = TRAIN_ARGS;                                                                                           \
        TrainBackward given = {out, dout, stats};                                                                              \
        split_dq<DIM, KEYS>(args, given, dq, shared);                                                                          \
    }
// (ceil(longest sequence / 64), n_kv_heads, sequences) blocks; (256 + 4 QUERIES) * DIM bf16 (of dv alone (128 + 4 QUERIES)
// * DIM) and 3 QUERIES floats of shared memory. dk, dv (T, n_kv_heads, dim); what is not wanted is not touched.
#define SPLIT_DKV_KERNEL(WANTED, DIM, QUERIES, BLOCKS, name)                                                                   \
    KERNEL(128, BLOCKS, name, float* dk, float* dv, const float* out, const float* dout, const float* stats, TRAIN_PARAMS) {   \
        DYNAMIC_SHARED(u16, shared);                                                                                           \
        TrainArgs args = TRAIN_ARGS;                                                                                           \
        TrainBackward given = {out, dout, stats};                                                                              \
        split_dkv<WANTED, DIM, QUERIES>(args, given, dk, dv, shared);                                                          \
    }
SPLIT_DQ_KERNEL(64, 32, 3, attention_dq_mma_64)
SPLIT_DQ_KERNEL(128, 32, 2, attention_dq_mma_128)
SPLIT_DQ_KERNEL(256, 16, 1, attention_dq_mma_256)
SPLIT_DKV_KERNEL(SPLIT_DKV, 64, 32, 3, attention_dkv_mma_64)
SPLIT_DKV_KERNEL(SPLIT_DKV, 128, 32, 2, attention_dkv_mma_128)
SPLIT_DKV_KERNEL(SPLIT_DK, 256, 16, 1, attention_dk_mma_256)
SPLIT_DKV_KERNEL(SPLIT_DV, 256, 32, 1, attention_dv_mma_256)

#endif
