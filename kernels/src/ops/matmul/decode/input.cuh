// How the rows of x reach the kernels of decoding: as they are, or as the norm of the residual stream after the pending
// output was added. Every block computes what it multiplies; block 0 alone writes the new stream and its norm.
#pragma once
#include "common.cuh"

// Values of x (K) that a warp brings into shared memory at once, and the width of a tile of weights.
const u32 TILE_K = 128;

struct MatmulInput {
    // (T, K): x itself, or the residual stream.
    const float* x;
    // (T, K): the pending output, or null.
    const float* y;
    // (K): the norm of the pending output, or null.
    const float* post_weight;
    // (K): the norm of the stream; null: x is multiplied as it is.
    const float* weight;
    // (T, K): the new stream, or null; never x.
    float* x_new;
    // (T, K): its norm; null with a null weight.
    float* h;
    float eps;
    u32 n_rows;
    u32 cols;
};

// What the rows of a block's column group are multiplied by, in shared memory.
struct RowFactors {
    // 1 / rms of the pending output, and of the new stream.
    float post, norm;
    // A power of two that brings the largest magnitude into [1024, 2048), and its inverse. Formats that need it alone.
    float to_half, from_half;
};

// The rows of x of this block's column group: the first of them, and how many.
// Opaque: read again at each use: no register holds it through the products.
template <int columns> DEVICE u32 first_column() { return opaque(block_y()) * columns; }
template <int columns> DEVICE u32 count_columns(u32 n_rows) {
    const u32 rest = n_rows - first_column<columns>();
    return rest < columns ? rest : columns;
}

// Four values at k..k + 4 of a row of `cols`; zeros behind its end. `whole`: rows are multiples of four values.
template <bool whole> DEVICE void load_four(const float* row, u32 k, u32 cols, float (&v)[4]) {
    if (whole) {
        f32x4 four = {0.0f, 0.0f, 0.0f, 0.0f};
        if (k < cols) four = *(const f32x4*)(row + k);
        v[0] = four.x;
        v[1] = four.y;
        v[2] = four.z;
        v[3] = four.w;
    } else {
        for (u32 i = 0; i < 4; i++) v[i] = k + i < cols ? row[k + i] : 0.0f;
    }
}

template <bool whole> DEVICE void store_four(float* row, u32 k, u32 cols, const float (&v)[4]) {
    if (whole && k < cols) *(f32x4*)(row + k) = {v[0], v[1], v[2], v[3]};
    if (whole) return;
    for (u32 i = 0; i < 4; i++) {
        if (k + i < cols) row[k + i] = v[i];
    }
}

// The stream with the pending output, before the norm.
template <bool whole> DEVICE void load_stream_four(const MatmulInput& in, u32 row, u32 k, float post, float (&v)[4]) {
    u64 at = (u64)row * in.cols;
    load_four<whole>(in.x + at, k, in.cols, v);
    if (!in.y) return;
    float y[4];
    load_four<whole>(in.y + at, k, in.cols, y);
    if (in.post_weight) {
        float w[4];
        load_four<whole>(in.post_weight, k, in.cols, w);
        for (u32 i = 0; i < 4; i++) y[i] = y[i] * post * w[i];
    }
    for (u32 i = 0; i < 4; i++) v[i] += y[i];
}

// What is multiplied at k..k + 4; `keep` writes the stream and its norm on the way.
template <bool whole>
DEVICE void load_input_four(const MatmulInput& in, u32 row, u32 k, const RowFactors& f, bool keep, float (&v)[4]) {
    load_stream_four<whole>(in, row, k, f.post, v);
    if (!in.weight) return;
    u64 at = (u64)row * in.cols;
    if (keep && in.x_new) store_four<whole>(in.x_new + at, k, in.cols, v);
    float w[4];
    load_four<whole>(in.weight, k, in.cols, w);
    for (u32 i = 0; i < 4; i++) v[i] = v[i] * f.norm * w[i];
    if (keep) store_four<whole>(in.h + at, k, in.cols, v);
}

// 1 / rms from a block's partial sums of squares.
template <u32 n_warps> DEVICE float reciprocal_rms(const float* partial, u32 cols, float eps) {
    float sum = 0.0f;
    for (u32 i = 0; i < n_warps; i++) sum += partial[i];
    return divide(1.0f, square_root(divide(sum, s32_to_f32((s32)cols)) + eps));
}

// The power of two for a row whose largest magnitude is `largest`: exponents that overflow are cut off, and infinities
// stay what they are.
DEVICE void half_factors(float largest, RowFactors& f) {
    s32 exponent = (s32)(f32_bits(largest) >> 23) - 127;
    if (exponent > 127) exponent = 10;
    if (exponent < -100) exponent = -100;
    f.to_half = f32_from_bits((u32)(10 - exponent + 127) << 23);
    f.from_half = f32_from_bits((u32)(exponent - 10 + 127) << 23);
}

// Fills `factors` (columns) for the block's rows of the input; all threads of the block, which sees them after its next
// barrier. Sums run over the threads' own values in order of k, then lanes, then warps. `half` asks for the powers of two.
template <int columns, u32 n_warps, bool half, bool whole>
DEVICE void compute_row_factors(const MatmulInput& in, RowFactors* factors) {
    const u32 first = first_column<columns>(), n_columns = count_columns<columns>(in.n_rows);
    SHARED(float, partial, columns * n_warps);
    SHARED(float, largest, columns * n_warps);
    if (!half && !in.weight) return;
    const u32 stride = n_warps * 32 * 4;
    if (in.y && in.post_weight) {
        for (u32 c = 0; c < n_columns; c++) {
            float sum = 0.0f;
            for (u32 k = thread_idx() * 4; k < in.cols; k += stride) {
                float y[4];
                load_four<whole>(in.y + (u64)(first + c) * in.cols, k, in.cols, y);
                for (u32 i = 0; i < 4; i++) sum = fma(y[i], y[i], sum);
            }
            sum = warp_sum<32>(sum);
            if (lane_idx() == 0) partial[c * n_warps + warp_idx()] = sum;
        }
        sync_block();
        if (thread_idx() < n_columns) {
            factors[thread_idx()].post = reciprocal_rms<n_warps>(partial + thread_idx() * n_warps, in.cols, in.eps);
        }
        sync_block();
    }
    for (u32 c = 0; c < n_columns; c++) {
        float sum = 0.0f, most = 0.0f;
        for (u32 k = thread_idx() * 4; k < in.cols; k += stride) {
            float v[4];
            load_stream_four<whole>(in, first + c, k, factors[c].post, v);
            for (u32 i = 0; i < 4; i++) sum = fma(v[i], v[i], sum);
            if (half && in.weight) {
                float w[4];
                load_four<whole>(in.weight, k, in.cols, w);
                for (u32 i = 0; i < 4; i++) v[i] *= w[i];
            }
            if (half) {
                for (u32 i = 0; i < 4; i++) most = max_f32(most, f32_from_bits(f32_bits(v[i]) & 0x7fffffff));
            }
        }
        sum = warp_sum<32>(sum);
        if (half) most = warp_max<32>(most);
        if (lane_idx() == 0) {
            partial[c * n_warps + warp_idx()] = sum;
            if (half) largest[c * n_warps + warp_idx()] = most;
        }
    }
    sync_block();
    if (thread_idx() < n_columns) {
        RowFactors& f = factors[thread_idx()];
        f.norm = 1.0f;
        if (in.weight) f.norm = reciprocal_rms<n_warps>(partial + thread_idx() * n_warps, in.cols, in.eps);
        if (half) {
            float most = 0.0f;
            for (u32 i = 0; i < n_warps; i++) most = max_f32(most, largest[thread_idx() * n_warps + i]);
            half_factors(most * f.norm, f);
        }
    }
}
