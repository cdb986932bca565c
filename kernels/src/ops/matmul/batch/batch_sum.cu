// The second kernel of products whose splits had blocks of their own.
#include "batch_args.cuh"

#if LICHEN_ARCH >= 80

// Each output is the sum of its splits, in order. A thread an output, block_y a token.
KERNEL(256, 1, matmul_batch_sum, BATCH_PARAMS) {
    BatchArgs a = BATCH_ARGS;
    launch_dependents();
    wait_for_primary();
    u32 all_rows = n_rows0 + n_rows1 + n_rows2, at = block_x() * 256 + thread_idx(), token = block_y();
    if (at >= all_rows) return;
    BatchPart part = BATCH_PART_GIVEN(0);
    u32 row = at;
    if (row >= n_rows0) {
        row -= n_rows0;
        part = BatchPart BATCH_PART_GIVEN(1);
        if (row >= n_rows1) {
            row -= n_rows1;
            part = BatchPart BATCH_PART_GIVEN(2);
        }
    }
    const float* sums = a.partials + (u64)token * all_rows + at;
    u64 stride = (u64)a.n_tokens * all_rows;
    float terms[BATCH_SPLITS_MAX];
    // All on their way before the first is added.
#pragma unroll
    for (u32 s = 0; s < BATCH_SPLITS_MAX; s++) terms[s] = s < a.n_splits ? sums[s * stride] : 0.0f;
    float sum = terms[0];
#pragma unroll
    for (u32 s = 1; s < BATCH_SPLITS_MAX; s++)
        if (s < a.n_splits) sum += terms[s];
    part.out[(u64)token * part.n_rows + row] = batch_finish(part, sum, a.x_scales[token], row);
}

#endif
