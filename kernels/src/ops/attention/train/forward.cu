// Forward attention of whole sequences in f32, with the softmax's two numbers: a block has 64 queries of a head and goes
// through the keys that any of them sees, 32 at a time.
#include "train.cuh"

// Later ones have tensor cores, and shared memory for every head (forward_mma.cu).
#if LICHEN_ARCH < 80

// A thread's rows ty + 16 i of queries, shared by the sixteen lanes with the same ty.
template <int WIDTH> struct TrainForward {
    float out[4][WIDTH / 64][4];
    float top[4], sum[4];
};

// Scores (natural logarithms of weights) become weights in shared memory; sums and results so far follow the new maximum.
template <int WIDTH>
DEVICE void train_softmax(TrainForward<WIDTH>& f, float (&scores)[4][2], float* weights, const TrainArgs& a, u32 query,
                          u32 key, u32 n_rows) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        float top = minus_infinity();
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
            bool visible = train_visible(query + 16 * i, key + 16 * j, n_rows, a.window);
            scores[i][j] = visible ? scores[i][j] * a.scale : minus_infinity();
            top = max_f32(top, scores[i][j]);
        }
        top = max_f32(f.top[i], warp_max<16>(top));
        // A row that has seen nothing yet has no maximum to subtract.
        float base = top == minus_infinity() ? 0.0f : top;
        float shrink = exp2_approx((f.top[i] - base) * LOG2_E), sum = 0.0f;
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
            float weight = exp2_approx((scores[i][j] - base) * LOG2_E);
            sum += weight;
            weights[(thread_idx() / 16 + 16 * i) * (TRAIN_KEYS + 4) + thread_idx() % 16 + 16 * j] = weight;
        }
        f.top[i] = top;
        f.sum[i] = fma(f.sum[i], shrink, warp_sum<16>(sum));
#pragma unroll
        for (u32 c = 0; c < WIDTH / 64; c++)
#pragma unroll
            for (u32 e = 0; e < 4; e++) f.out[i][c][e] *= shrink;
    }
}

template <int WIDTH> DEVICE void train_forward(const TrainArgs& a, float* out, float* stats, float* work, float* weights) {
    TrainRows s = train_rows(a);
    // The longest rows of keys first.
    u32 first = (grid_x() - 1 - block_x()) * TRAIN_QUERIES, head = block_y(), kv_head = head / a.per_kv;
    if (first >= s.n) return;
    u32 n_queries = s.n - first < TRAIN_QUERIES ? s.n - first : TRAIN_QUERIES, last = first + n_queries - 1;
    u32 ty = thread_idx() / 16, tx = thread_idx() % 16;
    TrainForward<WIDTH> f;
    train_clear<4, WIDTH>(f.out);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        f.top[i] = minus_infinity();
        f.sum[i] = 0.0f;
    }
    for (u32 key = first_visible(first, a.window) / TRAIN_KEYS * TRAIN_KEYS; key <= last; key += TRAIN_KEYS) {
        float scores[4][2];
        train_clear_scores(scores);
        train_dots(scores, train_queries_tile(a, a.q, s, first, head), train_keys_tile(a, a.k, s, key, kv_head), a.dim, work);
        train_softmax(f, scores, weights, a, first + ty, key + tx, s.n);
        train_add<TRAIN_KEYS, 4, WIDTH>(f.out, weights, train_keys_tile(a, a.v, s, key, kv_head), a.dim, work);
    }
    u64 item = (u64)(s.first + first) * a.n_heads + head;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        u32 row = ty + 16 * i;
        if (tx == 0 && row < n_queries) {
            float* pair = stats + (item + (u64)row * a.n_heads) * 2;
            pair[0] = f.top[i];
            pair[1] = f.sum[i];
        }
        float inverse = divide(1.0f, f.sum[i]);
#pragma unroll
        for (u32 c = 0; c < WIDTH / 64; c++)
#pragma unroll
            for (u32 e = 0; e < 4; e++) f.out[i][c][e] *= inverse;
    }
    train_write<4, WIDTH>(f.out, out + item * a.dim, a.n_heads * a.dim, n_queries, a.dim);
}

// (ceil(longest sequence / 64), n_heads, sequences) blocks. out (T, n_heads, dim), stats (T, n_heads, 2).
#define TRAIN_FORWARD(WIDTH, BLOCKS, name)                                                                                     \
    KERNEL(256, BLOCKS, name, float* out, float* stats, TRAIN_PARAMS) {                                                        \
        SHARED(float, work, TRAIN_WORK);                                                                                       \
        SHARED(float, weights, TRAIN_WEIGHTS);                                                                                 \
        TrainArgs args = TRAIN_ARGS;                                                                                           \
        train_forward<WIDTH>(args, out, stats, work, weights);                                                                 \
    }
TRAIN_FORWARD(64, 2, attention_train_64)
TRAIN_FORWARD(128, 2, attention_train_128)
TRAIN_FORWARD(256, 1, attention_train_256)

#endif
