// Forward attention of whole sequences on tensor cores, with the softmax's two numbers.
#include "train_mma.cuh"

#if LICHEN_ARCH >= 80

// A warp's 16 queries: the lane has rows lane / 4 and lane / 4 + 8, `[0]` and `[1]` here.
template <int DIM> struct SplitForward {
    float out[DIM / 8][4];
    float top[2], sum[2];
};

// Scores become weights relative to the new maximum; sums and results so far follow it. `query` and `key` are the lane's
// first.
template <int DIM, int KEYS>
DEVICE void split_softmax(SplitForward<DIM>& f, float (&scores)[KEYS / 8][4], const TrainArgs& a, u32 query, u32 key,
                          u32 n_rows) {
    float top[2] = {f.top[0], f.top[1]}, shrink[2], base[2];
#pragma unroll
    for (u32 n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            bool visible = train_visible(query + i / 2 * 8, key + n * 8 + i % 2, n_rows, a.window);
            scores[n][i] = visible ? scores[n][i] * a.scale : minus_infinity();
            top[i / 2] = max_f32(top[i / 2], scores[n][i]);
        }
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        top[h] = max_f32(top[h], shuffle_xor(top[h], 1));
        top[h] = max_f32(top[h], shuffle_xor(top[h], 2));
        // A row that has seen nothing yet has no maximum to subtract.
        base[h] = top[h] == minus_infinity() ? 0.0f : top[h];
        shrink[h] = exp2_approx((f.top[h] - base[h]) * LOG2_E);
        f.top[h] = top[h];
        f.sum[h] *= shrink[h];
    }
#pragma unroll
    for (u32 n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            scores[n][i] = exp2_approx((scores[n][i] - base[i / 2]) * LOG2_E);
            f.sum[i / 2] += scores[n][i];
        }
    if (ballot(shrink[0] != 1.0f || shrink[1] != 1.0f)) {
#pragma unroll
        for (u32 n = 0; n < DIM / 8; n++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) f.out[n][i] *= shrink[i / 2];
    }
}

template <int DIM, int KEYS> DEVICE void split_forward(const TrainArgs& a, float* out, float* stats, u16* shared) {
    TrainRows s = train_rows(a);
    // The longest rows of keys first.
    u32 first = (grid_x() - 1 - block_x()) * SPLIT_ROWS, head = block_y();
    if (first >= s.n) return;
    u16 *queries = shared, *keys = queries + 2 * SPLIT_ROWS * DIM, *values = keys + 2 * KEYS * DIM;
    u32 end = s.n - first < SPLIT_ROWS ? s.n : first + SPLIT_ROWS;
    split_load<DIM, SPLIT_ROWS>(queries, train_tile(a.q, s, first, SPLIT_ROWS, head, a.n_heads, a.dim), a.dim);
    SplitForward<DIM> f;
    split_clear(f.out);
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        f.top[h] = minus_infinity();
        f.sum[h] = 0.0f;
    }
    for (u32 key = first_visible(first, a.window) / KEYS * KEYS; key < end; key += KEYS) {
        // Nobody needs the tiles before.
        sync_block();
        // Opaque: read again here: no register holds it through the loops before.
        u32 kv_head = opaque(block_y()) / a.per_kv, n_kv_heads = a.n_heads / a.per_kv;
        // More at once has no registers beside the widest results.
        const u32 AT_ONCE = DIM == 256 ? 2 : 4;
        split_load<DIM, KEYS, AT_ONCE>(keys, train_tile(a.k, s, key, KEYS, kv_head, n_kv_heads, a.dim), a.dim);
        split_load<DIM, KEYS, AT_ONCE>(values, train_tile(a.v, s, key, KEYS, kv_head, n_kv_heads, a.dim), a.dim);
        sync_block();
        // Opaque: read again here: no register holds it through the loops before.
        u32 warp_first = first + opaque(warp_idx()) * 16, lane = opaque(lane_idx());
        // Nothing to do for a warp whose rows see none of the tile.
        if (warp_first >= s.n || key > warp_first + 15 || key + KEYS <= first_visible(warp_first, a.window)) continue;
        float scores[KEYS / 8][4];
        split_clear(scores);
        split_dots<DIM, KEYS>(scores, queries, keys);
        split_softmax<DIM, KEYS>(f, scores, a, warp_first + lane / 4, key + lane % 4 * 2, s.n);
        split_add<true, DIM, KEYS>(f.out, scores, values);
    }
    u64 item = (u64)(s.first + first) * a.n_heads + head;
    // Opaque: read again here: no register holds it through the loops before.
    u32 lane = opaque(lane_idx());
    float inverses[2];
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        u32 row = warp_idx() * 16 + lane / 4 + h * 8;
        float sum = f.sum[h] + shuffle_xor(f.sum[h], 1);
        sum += shuffle_xor(sum, 2);
        inverses[h] = divide(1.0f, sum);
        if (lane % 4 == 0 && first + row < end) {
            float* pair = stats + (item + (u64)row * a.n_heads) * 2;
            pair[0] = f.top[h];
            pair[1] = sum;
        }
    }
    split_write<DIM>(f.out, out + item * a.dim, a.n_heads * a.dim, end - first, a.dim, inverses);
}

// (ceil(longest sequence / 64), n_heads, sequences) blocks; (128 + 4 KEYS) * DIM bf16 of shared memory. out (T, n_heads,
// dim), stats (T, n_heads, 2).
#define SPLIT_FORWARD(DIM, KEYS, BLOCKS, name)                                                                                 \
    KERNEL(128, BLOCKS, name, float* out, float* stats, TRAIN_PARAMS) {                                                        \
        DYNAMIC_SHARED(u16, shared);                                                                                           \
        TrainArgs args = TRAIN_ARGS;                                                                                           \
        split_forward<DIM, KEYS>(args, out, stats, shared);                                                                    \
    }
SPLIT_FORWARD(64, 32, 3, attention_train_mma_64)
SPLIT_FORWARD(128, 32, LICHEN_ARCH >= 90 ? 3 : 2, attention_train_mma_128)
SPLIT_FORWARD(256, 16, 2, attention_train_mma_256)

#endif
