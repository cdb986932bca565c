// What the kernels of batches are given: up to three matrices of one format, and the rows of x that all of them meet.
#pragma once
#include "common.cuh"

const u32 BATCH_PARTS = 3;
// Splits of K at most: SPLITS_MAX of kernel.rs.
const u32 BATCH_SPLITS_MAX = 8;

// One of the matrices; n_rows is 0 where there is none.
struct BatchPart {
    // (n_tokens, n_rows).
    float* out;
    const u8* codes;
    const u16* scales;
    // (n_rows) or null.
    const float* bias;
    u32 n_rows;
    float weight_scale;
};

struct BatchArgs {
    // (n_splits, n_tokens, rows of all parts), or null for one split.
    float* partials;
    // (n_tokens padded to whole tiles, k_tiles * 128) and their scales (n_tokens).
    const u16* x;
    const float* x_scales;
    u32 n_tokens, k_tiles, n_splits;
};

#define BATCH_PART_PARAMS(i)                                                                                                   \
    float *out##i, const u8 *codes##i, const u16 *scales##i, const float *bias##i, u32 n_rows##i, float weight_scale##i
#define BATCH_PARAMS                                                                                                           \
    BATCH_PART_PARAMS(0), BATCH_PART_PARAMS(1), BATCH_PART_PARAMS(2), float *partials, const u16 *x, const float *x_scales,    \
        u32 n_tokens, u32 k_tiles, u32 n_splits
#define BATCH_PART_GIVEN(i)                                                                                                    \
    { out##i, codes##i, scales##i, bias##i, n_rows##i, weight_scale##i }
#define BATCH_PARTS_GIVEN                                                                                                      \
    { BATCH_PART_GIVEN(0), BATCH_PART_GIVEN(1), BATCH_PART_GIVEN(2) }
#define BATCH_ARGS                                                                                                             \
    BatchArgs { partials, x, x_scales, n_tokens, k_tiles, n_splits }

// A sum over all of K as it is kept.
DEVICE float batch_finish(const BatchPart& part, float sum, float x_scale, u32 row) {
    float y = sum * part.weight_scale * x_scale;
    return part.bias ? y + part.bias[row] : y;
}
