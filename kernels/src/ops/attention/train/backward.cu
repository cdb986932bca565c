// Backward attention of whole sequences in f32. Two kernels compute every probability and slope anew: one has 64 queries and
// goes through their keys (dq), one has the keys and goes through the queries of all heads that share them, in order (dk,
// dv). So every sum has one owner.
#include "train.cuh"

template <int WIDTH>
DEVICE void train_dq(const TrainArgs& a, const TrainBackward& b, float* dq, float* work, float* weights, float* numbers) {
    TrainRows s = train_rows(a);
    // The longest rows of keys first.
    u32 first = (grid_x() - 1 - block_x()) * TRAIN_QUERIES, head = block_y(), kv_head = head / a.per_kv;
    if (first >= s.n) return;
    u64 item = (u64)(s.first + first) * a.n_heads + head;
    TrainQueries of = train_shared_queries(numbers, TRAIN_QUERIES);
    train_queries(of, train_queries_tile(a, b.out, s, first, head), train_queries_tile(a, b.dout, s, first, head),
                  b.stats + item * 2, a.n_heads * 2, a.dim);
    u32 n_queries = s.n - first < TRAIN_QUERIES ? s.n - first : TRAIN_QUERIES, last = first + n_queries - 1;
    float sums[4][WIDTH / 64][4];
    train_clear<4, WIDTH>(sums);
    for (u32 key = first_visible(first, a.window) / TRAIN_KEYS * TRAIN_KEYS; key <= last; key += TRAIN_KEYS) {
        // Opaque: read again here: no register holds it through the loops before.
        u32 ty = opaque(thread_idx()) / 16, tx = opaque(thread_idx()) % 16;
        float scores[4][2];
        train_clear_scores(scores);
        train_dots(scores, train_queries_tile(a, a.q, s, first, head), train_keys_tile(a, a.k, s, key, kv_head), a.dim, work);
        // Their registers are needed; each thread reads back what it wrote itself.
#pragma unroll
        for (u32 i = 0; i < 4; i++)
#pragma unroll
            for (u32 j = 0; j < 2; j++) weights[(ty + 16 * i) * (TRAIN_KEYS + 4) + tx + 16 * j] = scores[i][j];
        train_clear_scores(scores);
        train_dots(scores, train_queries_tile(a, b.dout, s, first, head), train_keys_tile(a, a.v, s, key, kv_head), a.dim, work);
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 row = ty + 16 * i;
            float top = of.tops[row], inverse = of.inverses[row], delta = of.deltas[row];
#pragma unroll
            for (u32 j = 0; j < 2; j++) {
                bool visible = train_visible(first + row, key + tx + 16 * j, s.n, a.window);
                float& weight = weights[row * (TRAIN_KEYS + 4) + tx + 16 * j];
                weight = train_slope(weight, scores[i][j], a.scale, top, inverse, delta, visible).ds;
            }
        }
        train_add<TRAIN_KEYS, 4, WIDTH>(sums, weights, train_keys_tile(a, a.k, s, key, kv_head), a.dim, work);
    }
    train_write<4, WIDTH>(sums, dq + item * a.dim, a.n_heads * a.dim, n_queries, a.dim);
}

// A block has 32 keys.
template <int WIDTH> struct TrainKeys {
    float dk[2][WIDTH / 64][4], dv[2][WIDTH / 64][4];
};

// What 64 queries of the kv head's query head `nth` add, from row `query` of the sequence on.
template <int WIDTH>
DEVICE void train_keys_add(TrainKeys<WIDTH>& t, const TrainArgs& a, const TrainBackward& b, const TrainRows& s, u32 nth,
                           u32 query, float* work, float* weights, float* numbers) {
    // Opaque: read again here: no register holds it through the loops before.
    u32 key = opaque(block_x()) * TRAIN_KEYS, kv_head = opaque(block_y()), head = kv_head * a.per_kv + nth;
    u32 ty = opaque(thread_idx()) / 16, tx = opaque(thread_idx()) % 16;
    TrainQueries of = train_shared_queries(numbers, TRAIN_QUERIES);
    u64 item = (u64)(s.first + query) * a.n_heads + head;
    train_queries(of, train_queries_tile(a, b.out, s, query, head), train_queries_tile(a, b.dout, s, query, head),
                  b.stats + item * 2, a.n_heads * 2, a.dim);
    float scores[2][4];
    train_clear_scores(scores);
    train_dots(scores, train_keys_tile(a, a.k, s, key, kv_head), train_queries_tile(a, a.q, s, query, head), a.dim, work);
    // Their registers are needed; each thread reads back what it wrote itself.
#pragma unroll
    for (u32 i = 0; i < 2; i++)
#pragma unroll
        for (u32 j = 0; j < 4; j++) weights[(ty + 16 * i) * (TRAIN_QUERIES + 4) + tx + 16 * j] = scores[i][j];
    train_clear_scores(scores);
    train_dots(scores, train_keys_tile(a, a.v, s, key, kv_head), train_queries_tile(a, b.dout, s, query, head), a.dim, work);
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
        u32 column = tx + 16 * j;
        float top = of.tops[column], inverse = of.inverses[column], delta = of.deltas[column];
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            bool visible = train_visible(query + column, key + ty + 16 * i, s.n, a.window);
            float& weight = weights[(ty + 16 * i) * (TRAIN_QUERIES + 4) + column];
            TrainSlope slope = train_slope(weight, scores[i][j], a.scale, top, inverse, delta, visible);
            weight = slope.p;
            scores[i][j] = slope.ds;
        }
    }
    train_add<TRAIN_QUERIES, 2, WIDTH>(t.dv, weights, train_queries_tile(a, b.dout, s, query, head), a.dim, work);
    // The sums of the values have been read from these weights.
    sync_block();
#pragma unroll
    for (u32 i = 0; i < 2; i++)
#pragma unroll
        for (u32 j = 0; j < 4; j++) weights[(ty + 16 * i) * (TRAIN_QUERIES + 4) + tx + 16 * j] = scores[i][j];
    train_add<TRAIN_QUERIES, 2, WIDTH>(t.dk, weights, train_queries_tile(a, a.q, s, query, head), a.dim, work);
}

template <int WIDTH>
DEVICE void train_dkv(const TrainArgs& a, const TrainBackward& b, float* dk, float* dv, float* work, float* weights,
                      float* numbers) {
    TrainRows s = train_rows(a);
    // The first keys are seen most often, so their blocks begin first.
    u32 first = block_x() * TRAIN_KEYS, kv_head = block_y(), n_kv_heads = a.n_heads / a.per_kv;
    if (first >= s.n) return;
    u32 n_keys = s.n - first < TRAIN_KEYS ? s.n - first : TRAIN_KEYS;
    // Past the last query that sees the last key; the window is at most the rows of the longest sequence.
    u32 end = first + n_keys - 1 + a.window;
    if (end > s.n) end = s.n;
    TrainKeys<WIDTH> t;
    train_clear<2, WIDTH>(t.dk);
    train_clear<2, WIDTH>(t.dv);
    for (u32 nth = 0; nth < a.per_kv; nth++)
        // Opaque: read again here: no register holds it through the loops before.
        for (u32 query = opaque(block_x()) * TRAIN_KEYS; query < end; query += TRAIN_QUERIES)
            train_keys_add(t, a, b, s, nth, query, work, weights, numbers);
    first = opaque(block_x()) * TRAIN_KEYS;
    kv_head = opaque(block_y());
    u64 item = (u64)(s.first + first) * n_kv_heads + kv_head;
    train_write<2, WIDTH>(t.dk, dk + item * a.dim, n_kv_heads * a.dim, n_keys, a.dim);
    train_write<2, WIDTH>(t.dv, dv + item * a.dim, n_kv_heads * a.dim, n_keys, a.dim);
}

#define TRAIN_SHARED                                                                                                           \
    SHARED(float, work, TRAIN_WORK);                                                                                           \
    SHARED(float, weights, TRAIN_WEIGHTS);                                                                                     \
    SHARED(float, numbers, 3 * TRAIN_QUERIES)
// (ceil(longest sequence / 64), n_heads, sequences) blocks. dq (T, n_heads, dim).
#define TRAIN_DQ(WIDTH, BLOCKS, name)                                                                                          \
    KERNEL(256, BLOCKS, name, float* dq, const float* out, const float* dout, const float* stats, TRAIN_PARAMS) {              \
        TRAIN_SHARED;                                                                                                          \
        TrainArgs args = TRAIN_ARGS;                                                                                           \
        TrainBackward given = {out, dout, stats};                                                                              \
        train_dq<WIDTH>(args, given, dq, work, weights, numbers);                                                              \
    }
// (ceil(longest sequence / 32), n_kv_heads, sequences) blocks. dk, dv (T, n_kv_heads, dim).
#define TRAIN_DKV(WIDTH, BLOCKS, name)                                                                                         \
    KERNEL(256, BLOCKS, name, float* dk, float* dv, const float* out, const float* dout, const float* stats, TRAIN_PARAMS) {   \
        TRAIN_SHARED;                                                                                                          \
        TrainArgs args = TRAIN_ARGS;                                                                                           \
        TrainBackward given = {out, dout, stats};                                                                              \
        train_dkv<WIDTH>(args, given, dk, dv, work, weights, numbers);                                                         \
    }
#if LICHEN_ARCH < 80
TRAIN_DQ(64, 2, attention_dq_64)
TRAIN_DQ(128, 2, attention_dq_128)
TRAIN_DKV(64, 2, attention_dkv_64)
TRAIN_DKV(128, 2, attention_dkv_128)
#endif
// Also for devices with tensor cores and the 99 KiB of sm_86, too few for the widest heads there (backward_mma.cu).
TRAIN_DQ(256, 1, attention_dq_256)
TRAIN_DKV(256, 1, attention_dkv_256)
