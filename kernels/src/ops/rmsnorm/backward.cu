// Backward of the norm: y = x * r * w with r = 1 / sqrt(mean(x^2) + eps); with c = r^2 * mean(dy w x),
// dx = r * (dy w - c x) and dw += dy x r.
#include "elements.cuh"
#include "sums.cuh"

// One row of dx by `threads` threads, of which this is number `thread`: a warp, or a block with `partial` (16) to itself.
// dy, x, dx (dim) of the row, n values of a thread at once. dx may be dy: a thread writes what it alone has read.
template <u32 threads, u32 n>
DEVICE void norm_backward_row(float* dx, const float* dy, const float* x, const float* weight, u32 dim, float eps, bool is_added,
                              u32 thread, float* partial) {
    Floats<n> squares, dots;
#pragma unroll
    for (u32 j = 0; j < n; j++) squares.v[j] = dots.v[j] = 0.0f;
    for (u32 i = thread * n; i < dim; i += threads * n) {
        auto d = load_floats<n>(dy + i), v = load_floats<n>(x + i), w = load_floats<n>(weight + i);
#pragma unroll
        for (u32 j = 0; j < n; j++) {
            squares.v[j] = fma(v.v[j], v.v[j], squares.v[j]);
            dots.v[j] = fma(d.v[j] * w.v[j], v.v[j], dots.v[j]);
        }
    }
    float square = squares.v[0], dot = dots.v[0];
    if constexpr (n == 4) {
        square = (square + squares.v[1]) + (squares.v[2] + squares.v[3]);
        dot = (dot + dots.v[1]) + (dots.v[2] + dots.v[3]);
    }
    if constexpr (threads == 32) {
        square = warp_sum<32>(square);
        dot = warp_sum<32>(dot);
    } else {
        square = norm_block_sum(square, partial);
        dot = norm_block_sum(dot, partial + 8);
    }
    float r = norm_reciprocal_rms(square, dim, eps);
    float c = divide(r * r * dot, s32_to_f32((s32)dim));
    for (u32 i = thread * n; i < dim; i += threads * n) {
        auto d = load_floats<n>(dy + i), v = load_floats<n>(x + i), w = load_floats<n>(weight + i);
#pragma unroll
        for (u32 j = 0; j < n; j++) d.v[j] = r * fma(c, -v.v[j], d.v[j] * w.v[j]);
        if (is_added) {
            auto old = load_floats<n>(dx + i);
#pragma unroll
            for (u32 j = 0; j < n; j++) d.v[j] = old.v[j] + d.v[j];
        }
        store_floats(dx + i, d);
    }
}

template <u32 threads>
DEVICE void norm_backward(float* dx, const float* dy, const float* x, const float* weight, u32 dim, float eps, u32 is_added,
                          u64 row, u32 thread, float* partial) {
    bool is_wide = dim % 4 == 0 && is_aligned16(dx) && is_aligned16(dy) && is_aligned16(x) && is_aligned16(weight);
    dx += row * dim;
    dy += row * dim;
    x += row * dim;
    if (is_wide) {
        norm_backward_row<threads, 4>(dx, dy, x, weight, dim, eps, is_added, thread, partial);
    } else {
        norm_backward_row<threads, 1>(dx, dy, x, weight, dim, eps, is_added, thread, partial);
    }
}

// dx (T, dim) = or += from dy, x (T, dim) and weight (dim): a warp a row, or a block a row where rows are long.
KERNEL(256, 4, rmsnorm_backward_short, float* dx, const float* dy, const float* x, const float* weight, u32 n_rows, u32 dim,
       float eps, u32 is_added) {
    u32 row = block_x() * (NORM_THREADS / 32) + warp_idx();
    if (row >= n_rows) return;
    norm_backward<32>(dx, dy, x, weight, dim, eps, is_added, row, lane_idx(), nullptr);
}
KERNEL(256, 4, rmsnorm_backward_long, float* dx, const float* dy, const float* x, const float* weight, u32 dim, float eps,
       u32 is_added) {
    SHARED(float, partial, 16);
    norm_backward<NORM_THREADS>(dx, dy, x, weight, dim, eps, is_added, block_x(), thread_idx(), partial);
}

template <u32 n> DEVICE float norm_sum_of_squares(const float* x, u32 dim) {
    Floats<n> sums;
#pragma unroll
    for (u32 j = 0; j < n; j++) sums.v[j] = 0.0f;
    for (u32 i = lane_idx() * n; i < dim; i += 32 * n) {
        auto v = load_floats<n>(x + i);
#pragma unroll
        for (u32 j = 0; j < n; j++) sums.v[j] = fma(v.v[j], v.v[j], sums.v[j]);
    }
    float sum = sums.v[0];
    if constexpr (n == 4) sum = (sum + sums.v[1]) + (sums.v[2] + sums.v[3]);
    return warp_sum<32>(sum);
}

// rstd[t] = r of row t of x (T, dim): a warp a row.
KERNEL(256, 4, rmsnorm_rstd, float* rstd, const float* x, u32 n_rows, u32 dim, float eps) {
    u32 row = block_x() * (NORM_THREADS / 32) + warp_idx();
    if (row >= n_rows) return;
    bool is_wide = dim % 4 == 0 && is_aligned16(x);
    x += (u64)row * dim;
    float sum = is_wide ? norm_sum_of_squares<4>(x, dim) : norm_sum_of_squares<1>(x, dim);
    if (lane_idx() == 0) rstd[row] = norm_reciprocal_rms(sum, dim, eps);
}

// Eight columns are a sector of 32 bytes: what memory gives at least.
const u32 NORM_COLUMNS = 8;
const u32 NORM_COLUMN_THREADS = 512;

// dweight[i] += sum over t of dy[t, i] * (x[t, i] * rstd[t]), for the block's columns i. Each of 64 rows of threads sums
// every 64th t in order, then they are folded in a fixed one: nobody else adds to these columns.
KERNEL(512, 2, rmsnorm_backward_weight, float* dweight, const float* dy, const float* x, const float* rstd, u32 n_rows,
       u32 dim) {
    SHARED(float, sums, NORM_COLUMN_THREADS / 32 * NORM_COLUMNS);
    u32 column = block_x() * NORM_COLUMNS + thread_idx() % NORM_COLUMNS;
    const u32 stride = NORM_COLUMN_THREADS / NORM_COLUMNS;
    float sum = 0.0f;
    if (column < dim) {
        u32 t = thread_idx() / NORM_COLUMNS;
        for (; t + 3 * stride < n_rows; t += 4 * stride) {
            float terms[4];
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                u64 at = (u64)(t + j * stride) * dim + column;
                terms[j] = dy[at] * (x[at] * rstd[t + j * stride]);
            }
#pragma unroll
            for (u32 j = 0; j < 4; j++) sum += terms[j];
        }
        for (; t < n_rows; t += stride) sum += dy[(u64)t * dim + column] * (x[(u64)t * dim + column] * rstd[t]);
    }
    sum += shuffle_xor(sum, 8);
    sum += shuffle_xor(sum, 16);
    if (lane_idx() < NORM_COLUMNS) sums[warp_idx() * NORM_COLUMNS + lane_idx()] = sum;
    sync_block();
    if (thread_idx() >= NORM_COLUMNS || column >= dim) return;
    float total = 0.0f;
    for (u32 i = 0; i < NORM_COLUMN_THREADS / 32; i++) total += sums[i * NORM_COLUMNS + thread_idx()];
    dweight[column] += total;
}
