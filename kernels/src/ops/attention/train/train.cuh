// Attention of whole sequences for training, in f32: what its three kernels share. Blocks of 256 threads, 16 x 16: thread
// (ty, tx) has rows ty + 16 i and columns tx + 16 j of a tile of scores, and of what is summed over scores the same rows
// and columns 4 tx + 64 c .. 4 tx + 64 c + 3.
//
// Scores come from slices of 32 values of both their vectors, rows 36 floats apart: eight neighbouring rows then start in
// different banks, and a thread reads four values at once. A multiprocessor has two blocks: one loads while the other
// multiplies, which costs no registers.
#pragma once
#include "../rows.cuh"

const u32 TRAIN_THREADS = 256;
// A tile of scores: with 64 keys too, a thread of sm_53 had too few registers (128) and a multiprocessor one block.
const u32 TRAIN_QUERIES = 64;
const u32 TRAIN_KEYS = 32;
const u32 SLICE = 32;
const u32 SLICE_STRIDE = 36;
// Floats of the shared memory that slices of both tiles, or a part of one tile with all its values, pass through.
const u32 TRAIN_WORK = (TRAIN_QUERIES + TRAIN_KEYS) * SLICE_STRIDE;
const u32 TRAIN_PART = 2048;
// Floats of shared memory for the weights: rows of 32 keys are 36 apart, rows of 64 queries 68.
const u32 TRAIN_WEIGHTS = TRAIN_QUERIES * (TRAIN_KEYS + 4);

struct TrainArgs {
    // (T, n_heads, dim), (T, n_kv_heads, dim)
    const float *q, *k, *v;
    // Sequence z has rows starts[z] .. starts[z + 1]; null: there is one, of n_rows.
    const u32* starts;
    float scale;
    // `per_kv`: query heads of a kv head.
    u32 window, n_rows, n_heads, per_kv, dim;
};
#define TRAIN_PARAMS                                                                                                           \
    const float *q, const float *k, const float *v, const u32 *starts, float scale, u32 window, u32 n_rows, u32 n_heads,       \
        u32 per_kv, u32 dim
#define TRAIN_ARGS                                                                                                             \
    { q, k, v, starts, scale, window, n_rows, n_heads, per_kv, dim }

// The rows of the block's sequence.
struct TrainRows {
    u32 first, n;
};
DEVICE TrainRows train_rows(const TrainArgs& a) {
    if (!a.starts) return {0, a.n_rows};
    u32 first = a.starts[block_z()];
    return {first, a.starts[block_z() + 1] - first};
}

// Some rows of one head: row i at `rows + i * stride`, `n` of them.
struct TrainTile {
    const float* rows;
    u32 stride, n;
};
// At most `wanted` rows of head `head` from row `row` of the sequence on. Where it is used: kept, the addresses of all tiles
// of a step would be spilled.
DEVICE TrainTile train_tile(const float* x, const TrainRows& s, u32 row, u32 wanted, u32 head, u32 n_heads, u32 dim) {
    row = opaque(row);
    u32 n = s.n - row < wanted ? s.n - row : wanted;
    return {x + ((u64)(s.first + row) * n_heads + head) * dim, n_heads * dim, n};
}

DEVICE TrainTile train_queries_tile(const TrainArgs& a, const float* x, const TrainRows& s, u32 query, u32 head) {
    return train_tile(x, s, query, TRAIN_QUERIES, head, a.n_heads, a.dim);
}
DEVICE TrainTile train_keys_tile(const TrainArgs& a, const float* x, const TrainRows& s, u32 key, u32 kv_head) {
    return train_tile(x, s, key, TRAIN_KEYS, kv_head, a.n_heads / a.per_kv, a.dim);
}

// What the backward kernels read beside them.
struct TrainBackward {
    // (T, n_heads, dim); stats (T, n_heads, 2) of the forward pass.
    const float *out, *dout, *stats;
};

DEVICE bool train_visible(u32 query, u32 key, u32 n_rows, u32 window) {
    return key <= query && query - key < window && query < n_rows;
}

// Four values; zeros past the last one. Past the last row the last one once more, which no weight takes: so that there is no
// branch, and loads wait for each other's data alone.
DEVICE f32x4 train_load(const TrainTile& tile, u32 row, u32 column, u32 dim) {
    // Opaque: the address is computed where it is used; kept, those of all loads of a tile would be spilled.
    row = opaque(row < tile.n ? row : tile.n - 1);
    bool is_inside = column < dim;
    f32x4 v = *(const f32x4*)(tile.rows + (row * tile.stride + (is_inside ? column : 0)));
    return {is_inside ? v.x : 0.0f, is_inside ? v.y : 0.0f, is_inside ? v.z : 0.0f, is_inside ? v.w : 0.0f};
}

// sums[i][j] += the dot product of row ty + 16 i of `a` and row tx + 16 j of `b`. Begins with a barrier, before which nobody
// may need what is in `work`.
template <int RA, int RB>
DEVICE void train_dots(float (&sums)[RA][RB], const TrainTile& a, const TrainTile& b, u32 dim, float* work) {
    // Opaque: read again for each tile: no register holds it between two of them.
    u32 tid = opaque(thread_idx()), row = tid / 8, chunk = tid % 8 * 4;
    float *a_work = work, *b_work = work + 16 * RA * SLICE_STRIDE;
#pragma unroll 1
    for (u32 from = 0; from < dim; from += SLICE) {
        f32x4 x[RA / 2], y[RB / 2];
#pragma unroll
        for (u32 n = 0; n < RA / 2; n++) x[n] = train_load(a, row + 32 * n, from + chunk, dim);
#pragma unroll
        for (u32 n = 0; n < RB / 2; n++) y[n] = train_load(b, row + 32 * n, from + chunk, dim);
        sync_block();
#pragma unroll
        for (u32 n = 0; n < RA / 2; n++) *(f32x4*)(a_work + (row + 32 * n) * SLICE_STRIDE + chunk) = x[n];
#pragma unroll
        for (u32 n = 0; n < RB / 2; n++) *(f32x4*)(b_work + (row + 32 * n) * SLICE_STRIDE + chunk) = y[n];
        sync_block();
        const float *a_row = a_work + tid / 16 * SLICE_STRIDE, *b_row = b_work + tid % 16 * SLICE_STRIDE;
#pragma unroll 1
        for (u32 d = 0; d < SLICE; d += 4) {
            f32x4 x[RA];
#pragma unroll
            for (u32 i = 0; i < RA; i++) x[i] = *(const f32x4*)(a_row + 16 * i * SLICE_STRIDE + d);
#pragma unroll
            for (u32 j = 0; j < RB; j++) {
                f32x4 y = *(const f32x4*)(b_row + 16 * j * SLICE_STRIDE + d);
#pragma unroll
                for (u32 i = 0; i < RA; i++) {
                    sums[i][j] = fma(x[i].x, y.x, sums[i][j]);
                    sums[i][j] = fma(x[i].y, y.y, sums[i][j]);
                    sums[i][j] = fma(x[i].z, y.z, sums[i][j]);
                    sums[i][j] = fma(x[i].w, y.w, sums[i][j]);
                }
            }
        }
    }
}

DEVICE void train_weights(float (&w)[1], const float* from) { w[0] = *from; }
DEVICE void train_weights(float (&w)[4], const float* from) {
    f32x4 four = *(const f32x4*)from;
    w[0] = four.x;
    w[1] = four.y;
    w[2] = four.z;
    w[3] = four.w;
}

// sums[i][c] += the rows of `b` (COLUMNS at most) by row ty + 16 i of `weights`, whose rows are COLUMNS + 4 apart. Begins with
// a barrier, before which the weights are written and after which nobody may need what was in `work`; ends without one.
template <int COLUMNS, int R, int WIDTH>
DEVICE void train_add(float (&sums)[R][WIDTH / 64][4], const float* weights, const TrainTile& b, u32 dim, float* work) {
    const u32 PART_ROWS = TRAIN_PART / WIDTH, CHUNKS = WIDTH / 4;
    // Opaque: read again for each tile: no register holds it between two of them.
    u32 tid = opaque(thread_idx()), row = tid / CHUNKS, column = tid % CHUNKS * 4;
    const u32 ROW_STEP = TRAIN_THREADS / CHUNKS, LOADS = TRAIN_PART / 4 / TRAIN_THREADS, STRIDE = COLUMNS + 4;
#pragma unroll 1
    for (u32 part = 0; part < b.n; part += PART_ROWS) {
        f32x4 next[LOADS];
#pragma unroll
        for (u32 n = 0; n < LOADS; n++) next[n] = train_load(b, part + row + n * ROW_STEP, column, dim);
        sync_block();
#pragma unroll
        for (u32 n = 0; n < LOADS; n++) *(f32x4*)(work + (row + n * ROW_STEP) * WIDTH + column) = next[n];
        sync_block();
        const float *w_row = weights + tid / 16 * STRIDE + part, *b_column = work + tid % 16 * 4;
        // A thread of sm_53 has no registers for more than one row's products at a time with 256 values.
        const u32 STEP = WIDTH == 256 ? 1 : 4;
#pragma unroll 1
        for (u32 k = 0; k < PART_ROWS; k += STEP) {
            float w[R][STEP];
#pragma unroll
            for (u32 i = 0; i < R; i++) train_weights(w[i], w_row + 16 * i * STRIDE + k);
#pragma unroll
            for (u32 kk = 0; kk < STEP; kk++)
#pragma unroll
                for (u32 c = 0; c < WIDTH / 64; c++) {
                    f32x4 y = *(const f32x4*)(b_column + (k + kk) * WIDTH + 64 * c);
#pragma unroll
                    for (u32 i = 0; i < R; i++) {
                        sums[i][c][0] = fma(w[i][kk], y.x, sums[i][c][0]);
                        sums[i][c][1] = fma(w[i][kk], y.y, sums[i][c][1]);
                        sums[i][c][2] = fma(w[i][kk], y.z, sums[i][c][2]);
                        sums[i][c][3] = fma(w[i][kk], y.w, sums[i][c][3]);
                    }
                }
        }
    }
}

template <int R, int WIDTH> DEVICE void train_clear(float (&sums)[R][WIDTH / 64][4]) {
#pragma unroll
    for (u32 i = 0; i < R; i++)
#pragma unroll
        for (u32 c = 0; c < WIDTH / 64; c++)
#pragma unroll
            for (u32 e = 0; e < 4; e++) sums[i][c][e] = 0.0f;
}

template <int RA, int RB> DEVICE void train_clear_scores(float (&scores)[RA][RB]) {
#pragma unroll
    for (u32 i = 0; i < RA; i++)
#pragma unroll
        for (u32 j = 0; j < RB; j++) scores[i][j] = 0.0f;
}

// Row ty + 16 i of a tile becomes sums[i].
template <int R, int WIDTH>
DEVICE void train_write(const float (&sums)[R][WIDTH / 64][4], float* rows, u32 stride, u32 n, u32 dim) {
#pragma unroll
    for (u32 i = 0; i < R; i++) {
        u32 row = thread_idx() / 16 + 16 * i;
#pragma unroll
        for (u32 c = 0; c < WIDTH / 64; c++) {
            u32 column = thread_idx() % 16 * 4 + 64 * c;
            if (row >= n || column >= dim) continue;
            f32x4 four = {sums[i][c][0], sums[i][c][1], sums[i][c][2], sums[i][c][3]};
            *(f32x4*)(rows + (u64)row * stride + column) = four;
        }
    }
}

DEVICE float train_dot(const f32x4& x, const f32x4& y, float sum) {
    return fma(x.w, y.w, fma(x.z, y.z, fma(x.y, y.y, fma(x.x, y.x, sum))));
}

// Of some queries what every score's slope needs: the largest score, the inverse of the sum of exponentials, and dout . out.
// Past the last query zeros, and some dout . out.
struct TrainQueries {
    float *tops, *inverses, *deltas;
};
DEVICE TrainQueries train_shared_queries(float* memory, u32 n) { return {memory, memory + n, memory + 2 * n}; }
DEVICE void train_query(const TrainQueries& to, u32 row, bool is_there, float delta, const float* stats) {
    to.tops[row] = is_there ? stats[0] : 0.0f;
    to.inverses[row] = is_there ? divide(1.0f, stats[1]) : 0.0f;
    to.deltas[row] = delta;
}
// Of 64 queries; there after the next barrier.
DEVICE void train_queries(const TrainQueries& to, const TrainTile& out, const TrainTile& dout, const float* stats,
                          u32 stats_stride, u32 dim) {
    // Opaque: read again for each tile: no register holds it between two of them.
    u32 tid = opaque(thread_idx()), row = tid / 4;
    float delta = 0.0f;
#pragma unroll 1
    for (u32 column = tid % 4 * 4; column < dim; column += 16) {
        f32x4 x = train_load(out, row, column, dim), y = train_load(dout, row, column, dim);
        delta = train_dot(x, y, delta);
    }
    delta = warp_sum<4>(delta);
    if (tid % 4 == 0) train_query(to, row, row < out.n, delta, stats + (u64)row * stats_stride);
}

// The probability of a key, and the slope of the query's score.
struct TrainSlope {
    float p, ds;
};
// From the dot product of query and key, and that of dout and value.
DEVICE TrainSlope train_slope(float score, float dp, float scale, float top, float inverse, float delta, bool visible) {
    float p = exp2_approx((score * scale - top) * LOG2_E) * inverse;
    if (!visible) return {0.0f, 0.0f};
    return {p, p * (dp - delta) * scale};
}
