// What the GEMM kernels share: their arguments, and where a sum goes.
#pragma once
#include "common.cuh"

struct GemmArgs {
    float* c;
    // (grid_z, m, n), or null when grid_z = 1.
    float* partials;
    const float* a;
    const float* b;
    // (n) or null.
    const float* bias;
    u32 a_row, a_column, b_row, b_column, m, n, k, split_terms, add;
    float scale;
};

#define GEMM_PARAMS                                                                                                         \
    float *c, float *partials, const float *a, const float *b, const float *bias, u32 a_row, u32 a_column, u32 b_row,         \
        u32 b_column, u32 m, u32 n, u32 k, u32 split_terms, u32 add, float scale
#define GEMM_ARGS                                                                                                           \
    GemmArgs { c, partials, a, b, bias, a_row, a_column, b_row, b_column, m, n, k, split_terms, add, scale }

DEVICE void gemm_finish(float* out, float sum, float bias, u32 add, float scale) {
    *out = fma(sum, scale, add ? *out + bias : bias);
}

DEVICE void gemm_put(const GemmArgs& g, u32 i, u32 j, float sum) {
    if (i >= g.m || j >= g.n) return;
    if (g.partials) {
        g.partials[((u64)block_z() * g.m + i) * g.n + j] = sum;
        return;
    }
    gemm_finish(g.c + (u64)i * g.n + j, sum, g.bias ? g.bias[j] : 0.0f, g.add, g.scale);
}
