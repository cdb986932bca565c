// Root-mean-square norms of rows of f32, and the addition to the residual stream before them: one block a row.
#include "sums.cuh"

// Row t = block_x: x_new = x + (y / rms(y) * post_weight), then h = x_new / rms(x_new) * weight.
// x, x_new, y, h (T, dim); post_weight, weight (dim). Null y: nothing is added. Null post_weight: y as it is. Null x_new:
// the sum is not kept (with null y). x_new may be x, h may be x where x_new is null.
KERNEL(256, 2, rmsnorm_add, const float* x, float* x_new, const float* y, const float* post_weight, const float* weight,
       float* h, u32 dim, float eps) {
    SHARED(float, post_partial, 8);
    SHARED(float, partial, 8);
    u64 row = (u64)block_x() * dim;
    float y_scale = 1.0f;
    if (y && post_weight) {
        float sum = 0.0f;
        for (u32 i = thread_idx(); i < dim; i += NORM_THREADS) sum = fma(y[row + i], y[row + i], sum);
        y_scale = norm_reciprocal_rms(norm_block_sum(sum, post_partial), dim, eps);
    }
    float sum = 0.0f;
    for (u32 i = thread_idx(); i < dim; i += NORM_THREADS) {
        float v = x[row + i];
        if (y) {
            float add = y[row + i];
            if (post_weight) add = add * y_scale * post_weight[i];
            v += add;
        }
        if (x_new) x_new[row + i] = v;
        sum = fma(v, v, sum);
    }
    float scale = norm_reciprocal_rms(norm_block_sum(sum, partial), dim, eps);
    // Each thread reads back what it wrote itself.
    const float* from = x_new ? x_new : x;
    for (u32 i = thread_idx(); i < dim; i += NORM_THREADS) h[row + i] = from[row + i] * scale * weight[i];
}
