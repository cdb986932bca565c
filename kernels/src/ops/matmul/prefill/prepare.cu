// Activations as 16-bit floats, and split-K partials.
#include "prepare.cuh"

// One block a row.
KERNEL(256, 1, matmul_prepare_f16, u16* rows, float* scales, const float* x, u32 n_rows, u32 cols, u32 padded_cols,
       u32 stride, u32* overflows) {
    prepare_f16(rows, scales, x, n_rows, cols, padded_cols, stride, overflows);
}

#if LICHEN_ARCH >= 80
KERNEL(256, 1, matmul_prepare_bf16, u16* rows, float* scales, const float* x, u32 n_rows, u32 cols, u32 padded_cols,
       u32 stride, u32*) {
    prepare_bf16(rows, scales, x, n_rows, cols, padded_cols, stride);
}
#endif

// out[t, n] = finish(sum over splits s, in order, of partials[s, t, n]): what a block does itself when it computes all
// splits of a tile, so that both ways give the same bits.
KERNEL(256, 1, matmul_reduce_splits, float* out, const float* partials, const float* scales, const float* bias,
       u32 n_tokens, u32 n_rows, u32 n_splits, float weight_scale, u32 accumulate) {
    u32 n = block_x() * 256 + thread_idx();
    u32 t = block_y();
    if (n >= n_rows) return;
    u64 at = (u64)t * n_rows + n;
    u64 split = (u64)n_tokens * n_rows;
    float sum = partials[at];
    for (u32 s = 1; s < n_splits; s++) sum += partials[s * split + at];
    float y = sum * weight_scale * scales[t];
    if (bias) y += bias[n];
    out[at] = accumulate ? y + out[at] : y;
}
