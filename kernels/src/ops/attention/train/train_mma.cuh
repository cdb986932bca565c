// Attention of whole sequences for training on tensor cores: what its kernels share.
//
// A block of four warps has 64 rows in shared memory, 16 a warp, and goes through the columns that any of them sees, COLUMNS
// at a time. Forward and for dq rows are queries and columns keys; for dk and dv it is the other way round.
//
// A number is the sum of two bf16, the nearest and the nearest to the rest, which leaves out 2^-18 of it whatever its size.
// Scores, slopes and outputs are sums of three products of such terms (the rests' own is another 2^-18); what is added up
// into gradients, one product of the first terms, as in every backward product.
#pragma once
#include "../cache/prefill_mma.cuh"
#include "train.cuh"

#if LICHEN_ARCH >= 80

const u32 SPLIT_ROWS = 64;

// Both terms of two numbers.
DEVICE void split_pair(u32& first, u32& rest, float low, float high) {
    first = pack_bf16(low, high);
    rest = pack_bf16(low - f32_from_bits(first << 16), high - f32_from_bits(first & 0xffff0000));
}

// Eight values of a row of a tile: (ROWS, DIM) first terms, then as many rests, in the order of mma_chunk.
template <int DIM, int ROWS> DEVICE void split_store(u16* tile, u32 row, u32 chunk, const f32x4& x, const f32x4& y) {
    u32x4 first, rest;
    split_pair(first.x, rest.x, x.x, x.y);
    split_pair(first.y, rest.y, x.z, x.w);
    split_pair(first.z, rest.z, y.x, y.y);
    split_pair(first.w, rest.w, y.z, y.w);
    u16* to = mma_chunk<DIM>(tile, row, chunk);
    *(u32x4*)to = first;
    *(u32x4*)(to + ROWS * DIM) = rest;
}

// How a tile of ROWS rows is loaded: thread i has chunk i % CHUNKS of every STEP'th row, BATCH of them at once.
template <int DIM, int ROWS, int AT_ONCE> struct SplitLoad {
    static constexpr u32 CHUNKS = DIM / 8, STEP = MMA_THREADS / CHUNKS, LOADS = ROWS / STEP;
    static constexpr u32 BATCH = LOADS < AT_ONCE ? LOADS : AT_ONCE;
};

// A tile from global memory; zeros past the last value, and any row past the last. There after a barrier.
template <int DIM, int ROWS, int AT_ONCE = 4> DEVICE void split_load(u16* tile, const TrainTile& from, u32 dim) {
    typedef SplitLoad<DIM, ROWS, AT_ONCE> Load;
    // Opaque: read again for each tile: no register holds it between two of them.
    u32 tid = opaque(thread_idx()), row = tid / Load::CHUNKS, chunk = tid % Load::CHUNKS;
#pragma unroll 1
    for (u32 n = 0; n < Load::LOADS; n += Load::BATCH) {
        f32x4 x[Load::BATCH], y[Load::BATCH];
#pragma unroll
        for (u32 i = 0; i < Load::BATCH; i++) {
            x[i] = train_load(from, row + (n + i) * Load::STEP, chunk * 8, dim);
            y[i] = train_load(from, row + (n + i) * Load::STEP, chunk * 8 + 4, dim);
        }
#pragma unroll
        for (u32 i = 0; i < Load::BATCH; i++) split_store<DIM, ROWS>(tile, row + (n + i) * Load::STEP, chunk, x[i], y[i]);
    }
}

// A tile of `dout`, and of its queries what every score's slope needs.
template <int DIM, int ROWS>
DEVICE void split_load_dout(u16* tile, const TrainQueries& to, const TrainTile& dout, const TrainTile& out,
                            const float* stats, u32 stats_stride, u32 dim) {
    typedef SplitLoad<DIM, ROWS, 2> Load;
    // Opaque: read again for each tile: no register holds it between two of them.
    u32 tid = opaque(thread_idx()), row = tid / Load::CHUNKS, chunk = tid % Load::CHUNKS;
#pragma unroll 1
    for (u32 n = 0; n < Load::LOADS; n += Load::BATCH) {
        f32x4 x[Load::BATCH], y[Load::BATCH], u[Load::BATCH], v[Load::BATCH];
#pragma unroll
        for (u32 i = 0; i < Load::BATCH; i++) {
            x[i] = train_load(dout, row + (n + i) * Load::STEP, chunk * 8, dim);
            y[i] = train_load(dout, row + (n + i) * Load::STEP, chunk * 8 + 4, dim);
            u[i] = train_load(out, row + (n + i) * Load::STEP, chunk * 8, dim);
            v[i] = train_load(out, row + (n + i) * Load::STEP, chunk * 8 + 4, dim);
        }
#pragma unroll
        for (u32 i = 0; i < Load::BATCH; i++) {
            u32 r = row + (n + i) * Load::STEP;
            split_store<DIM, ROWS>(tile, r, chunk, x[i], y[i]);
            float delta = train_dot(y[i], v[i], train_dot(x[i], u[i], 0.0f));
            // The lanes of a row are neighbours.
            delta = warp_sum<Load::CHUNKS>(delta);
            if (chunk == 0) train_query(to, r, r < out.n, delta, stats + (u64)r * stats_stride);
        }
    }
}

// A lane's place in a row of a tile: chunk `chunk` + 1 if `is_next`, in the order of mma_chunk. `chunk` is even and best a
// constant: what differs from chunk to chunk is then in the instructions, not in registers.
struct SplitLane {
    u16* row;
    u32 swizzle;
    DEVICE_MEMBER u16* chunk(u32 chunk) const { return row + (chunk & ~7u) * 8 + ((chunk & 7) ^ swizzle) * 8; }
};
template <int DIM> DEVICE SplitLane split_lane(u16* tile, u32 row, u32 is_next) { return {tile + row * DIM, is_next ^ (row & 7)}; }

// sums[from ..] += the 16 x 16 fragment `a` . `b`, fragments of two times eight columns.
template <int COLUMNS, int N>
DEVICE void split_products(float (&sums)[N][4], const u32 (&a)[4], const u32 (&b)[COLUMNS / 16][4], u32 from = 0) {
#pragma unroll
    for (u32 n = 0; n < COLUMNS / 8; n++) {
        const u32 pair[2] = {b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]};
        mma_bf16(sums[from + n], a, pair);
    }
}

// sums += the warp's 16 rows of `a` (64, DIM) . all rows of `b`.
template <int DIM, int COLUMNS> DEVICE void split_dots(float (&sums)[COLUMNS / 8][4], u16* a, u16* b) {
    // Opaque: read again here: no register holds it through the loops before.
    u32 lane = opaque(lane_idx());
    SplitLane a_lane = split_lane<DIM>(a, warp_idx() * 16 + (lane & 15), lane >> 4);
    SplitLane b_lane = split_lane<DIM>(b, (lane & 7) + (lane >> 4) * 8, lane >> 3 & 1);
#pragma unroll 2
    for (u32 k = 0; k < DIM / 16; k++) {
        u32 a_first[4], a_rest[4], b_first[COLUMNS / 16][4], b_rest[COLUMNS / 16][4];
        u16* from = a_lane.chunk(2 * k);
        ldmatrix_x4(a_first, from);
        ldmatrix_x4(a_rest, from + SPLIT_ROWS * DIM);
#pragma unroll
        for (u32 n = 0; n < COLUMNS / 16; n++) {
            u16* from = b_lane.chunk(2 * k) + n * 16 * DIM;
            ldmatrix_x4(b_first[n], from);
            ldmatrix_x4(b_rest[n], from + COLUMNS * DIM);
        }
        // Products of one sum are apart, so that they need not wait for each other.
        split_products<COLUMNS>(sums, a_rest, b_first);
        split_products<COLUMNS>(sums, a_first, b_rest);
        split_products<COLUMNS>(sums, a_first, b_first);
    }
}

// sums += the 16 x COLUMNS `weights`, which the warp holds as it does sums of products, . all rows of `b`.
template <bool IS_SPLIT, int DIM, int COLUMNS>
DEVICE void split_add(float (&sums)[DIM / 8][4], const float (&weights)[COLUMNS / 8][4], u16* b) {
    // Opaque: read again here: no register holds it through the loops before.
    u32 lane = opaque(lane_idx());
    SplitLane b_lane = split_lane<DIM>(b, lane & 15, lane >> 4);
#pragma unroll
    for (u32 k = 0; k < COLUMNS / 16; k++) {
        u32 first[4], rest[4];
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const float* w = weights[2 * k + i / 2] + i % 2 * 2;
            split_pair(first[i], rest[i], w[0], w[1]);
        }
#pragma unroll
        for (u32 n = 0; n < DIM / 32; n++) {
            u32 b_first[2][4], b_rest[2][4];
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                u16* from = b_lane.chunk(4 * n + 2 * half) + k * 16 * DIM;
                ldmatrix_x4_transposed(b_first[half], from);
                if (IS_SPLIT) ldmatrix_x4_transposed(b_rest[half], from + COLUMNS * DIM);
            }
            if (IS_SPLIT) {
                split_products<32>(sums, rest, b_first, 4 * n);
                split_products<32>(sums, first, b_rest, 4 * n);
            }
            split_products<32>(sums, first, b_first, 4 * n);
        }
    }
}

template <int N> DEVICE void split_clear(float (&sums)[N][4]) {
#pragma unroll
    for (u32 n = 0; n < N; n++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) sums[n][i] = 0.0f;
}

// A warp's 16 of the 64 rows from `rows` on, `n_rows` of which are there: the lane's are lane / 4 and lane / 4 + 8, times a
// factor each.
template <int DIM>
DEVICE void split_write(const float (&sums)[DIM / 8][4], float* rows, u32 stride, u32 n_rows, u32 dim, const float (&factors)[2]) {
#pragma unroll
    for (u32 h = 0; h < 2; h++) {
        u32 row = warp_idx() * 16 + lane_idx() / 4 + h * 8;
        if (row >= n_rows) continue;
        float* to = rows + (u64)row * stride + (lane_idx() & 3) * 2;
#pragma unroll
        for (u32 n = 0; n < DIM / 8; n++) {
            if (n * 8 >= dim) continue;
            u32x2 pair = {f32_bits(sums[n][2 * h] * factors[h]), f32_bits(sums[n][2 * h + 1] * factors[h])};
            *(u32x2*)(to + n * 8) = pair;
        }
    }
}

#endif
