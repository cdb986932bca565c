// The emulator's own kernels: one for each promise it makes.
#include "common.cuh"

// out[i] = a[i] + scale * b[i].
KERNEL(256, 1, emulator_axpy, float* out, const float* a, const float* b, float scale, u32 n) {
    u32 i = block_x() * block_dim() + thread_idx();
    if (i < n) out[i] = a[i] + scale * b[i];
}

// out[block] = the sum of the block's part of x (blocks, block_dim), through shuffles and shared memory.
KERNEL(1024, 1, emulator_sum, float* out, const float* x) {
    SHARED(float, parts, 32);
    float sum = warp_sum<32>(x[block_x() * block_dim() + thread_idx()]);
    if (lane_idx() == 0) parts[warp_idx()] = sum;
    sync_block();
    if (thread_idx() == 0) {
        float total = 0;
        for (u32 i = 0; i < block_dim() / 32; i++) total += parts[i];
        out[block_x()] = total;
    }
}
