// What the kernels of norms share.
#pragma once
#include "common.cuh"

const u32 NORM_THREADS = 256;

// The sum over the block, the same bits in every thread. `partial` (8) is free again after the next barrier.
DEVICE float norm_block_sum(float v, float* partial) {
    v = warp_sum<32>(v);
    if (lane_idx() == 0) partial[warp_idx()] = v;
    sync_block();
    float sum = 0.0f;
    for (u32 i = 0; i < NORM_THREADS / 32; i++) sum += partial[i];
    return sum;
}

DEVICE float norm_reciprocal_rms(float sum_of_squares, u32 dim, float eps) {
    return divide(1.0f, square_root(divide(sum_of_squares, s32_to_f32((s32)dim)) + eps));
}
