// GEMM of any strides in f32: c[i, j] = scale * sum over l of a(i, l) b(l, j) + bias[j], added to c or in its place.
// Every product of training that has no packed weights goes through here, and those with f32 weights.
//
// A block computes ROWS x COLUMNS outputs, a thread four by four, in steps of 16 terms through shared memory. Both factors
// have any two strides, one of which is 1 where it matters: reads run along that one. An output is one chain of fused
// multiply-adds in order of l within a split; grid_z cuts the terms into splits, whose sums gemm_reduce adds in order.
#include "gemm.cuh"

const u32 GEMM_TERMS = 16;
const u32 GEMM_THREADS = 256;

// A slice of SIDE x 16 of one factor on its way: each thread holds some of it in registers, then stores it as [term][side].
// One pad word in 32 keeps the stores of a run along the terms off one bank.
template <u32 SIDE> struct Slice {
    static constexpr u32 PER_THREAD = SIDE * GEMM_TERMS / GEMM_THREADS;
    static constexpr u32 STRIDE = SIDE + 4;
    float held[PER_THREAD];

    // Element i of a thread: which side, which term. Consecutive threads run along the stride of 1.
    DEVICE void place(u32 i, bool along_terms, u32& side, u32& term) {
        u32 at = i * GEMM_THREADS + thread_idx();
        side = along_terms ? at / GEMM_TERMS : at % SIDE;
        term = along_terms ? at % GEMM_TERMS : at / SIDE;
    }
    DEVICE_MEMBER void load(const float* from, u32 first, u32 n_sides, u32 side_stride, u32 l, u32 end, u32 term_stride) {
#pragma unroll
        for (u32 i = 0; i < PER_THREAD; i++) {
            u32 side, term;
            place(i, term_stride == 1, side, term);
            bool inside = first + side < n_sides && l + term < end;
            held[i] = inside ? from[(u64)(first + side) * side_stride + (u64)(l + term) * term_stride] : 0.0f;
        }
    }
    DEVICE_MEMBER void store(float* shared, bool along_terms) const {
#pragma unroll
        for (u32 i = 0; i < PER_THREAD; i++) {
            u32 side, term;
            place(i, along_terms, side, term);
            shared[term * STRIDE + side] = held[i];
        }
    }
};

// (ROWS / 4) x (COLUMNS / 4) = 256 threads.
template <u32 ROWS, u32 COLUMNS> DEVICE void gemm_tile(const GemmArgs& g, float* a_shared, float* b_shared) {
    static_assert(ROWS * COLUMNS == 16 * GEMM_THREADS, "four by four outputs a thread");
    u32 row_tiles = div_up(g.m, ROWS);
    u32 first_row = block_x() % row_tiles * ROWS, first_column = block_x() / row_tiles * COLUMNS;
    u32 row = thread_idx() / (COLUMNS / 4) * 4, column = thread_idx() % (COLUMNS / 4) * 4;
    u32 begin = block_z() * g.split_terms, end = g.k - begin < g.split_terms ? g.k : begin + g.split_terms;
    float sums[4][4];
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 j = 0; j < 4; j++) sums[i][j] = 0.0f;
    Slice<ROWS> a;
    Slice<COLUMNS> b;
    a.load(g.a, first_row, g.m, g.a_row, begin, end, g.a_column);
    b.load(g.b, first_column, g.n, g.b_column, begin, end, g.b_row);
    for (u32 l = begin; l < end; l += GEMM_TERMS) {
        a.store(a_shared, g.a_column == 1);
        b.store(b_shared, g.b_row == 1);
        sync_block();
        // The next slice is on its way while this one is multiplied; past the end it is zeros.
        a.load(g.a, first_row, g.m, g.a_row, l + GEMM_TERMS, end, g.a_column);
        b.load(g.b, first_column, g.n, g.b_column, l + GEMM_TERMS, end, g.b_row);
#pragma unroll
        for (u32 t = 0; t < GEMM_TERMS; t++) {
            f32x4 x = *(const f32x4*)(a_shared + t * Slice<ROWS>::STRIDE + row);
            f32x4 y = *(const f32x4*)(b_shared + t * Slice<COLUMNS>::STRIDE + column);
            const float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
            for (u32 i = 0; i < 4; i++)
#pragma unroll
                for (u32 j = 0; j < 4; j++) sums[i][j] = fma(xs[i], ys[j], sums[i][j]);
        }
        sync_block();
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 j = 0; j < 4; j++) gemm_put(g, first_row + row + i, first_column + column + j, sums[i][j]);
}

#define GEMM_KERNEL(rows, columns)                                                                                          \
    KERNEL(256, 2, gemm_##rows##x##columns, GEMM_PARAMS) {                                                              \
        SHARED(float, a_shared, GEMM_TERMS * Slice<rows>::STRIDE);                                                         \
        SHARED(float, b_shared, GEMM_TERMS * Slice<columns>::STRIDE);                                                      \
        GemmArgs args = GEMM_ARGS;                                                                                      \
        gemm_tile<rows, columns>(args, a_shared, b_shared);                                                               \
    }

GEMM_KERNEL(64, 64)
// Narrow outputs, as the rank's: tall or flat.
GEMM_KERNEL(128, 32)
GEMM_KERNEL(32, 128)

// c[i, j] = scale * sum over p, in order, of partials[p, i, j], with the bias, added or in its place.
KERNEL(256, 2, gemm_reduce, float* c, const float* partials, const float* bias, u32 m, u32 n, u32 n_splits, u32 add,
       float scale) {
    u64 at = (u64)block_x() * GEMM_THREADS + thread_idx(), size = (u64)m * n;
    if (at >= size) return;
    float sum = partials[at];
    for (u32 p = 1; p < n_splits; p++) sum += partials[p * size + at];
    gemm_finish(c + at, sum, bias ? bias[at % n] : 0.0f, add, scale);
}

// c[j] += sum over i, in order, of x[i, j]: the gradient of a bias. Eight runs of rows, their sums in order.
KERNEL(256, 2, gemm_column_sums, float* c, const float* x, u32 n_rows, u32 n) {
    SHARED(float, partial, 8 * 32);
    u32 column = block_x() * 32 + lane_idx(), run = div_up(n_rows, 8), first = warp_idx() * run;
    u32 end = first + run < n_rows ? first + run : n_rows;
    float sum = 0.0f;
    if (column < n)
        for (u32 i = first; i < end; i++) sum += x[(u64)i * n + column];
    partial[thread_idx()] = sum;
    sync_block();
    if (warp_idx() > 0 || column >= n) return;
    for (u32 w = 1; w < 8; w++) sum += partial[w * 32 + lane_idx()];
    c[column] += sum;
}
