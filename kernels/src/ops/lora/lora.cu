// Low-rank adaptation beside a frozen matrix, y += B (scale A x), in f32 and in a fixed order.
#include "common.cuh"

const u32 LORA_WARPS = 4;
// Rows of x that share what is read of B.
const u32 LORA_ROWS = 4;
const u32 LORA_RANK_MAX = 256;

// u[t, r] = scale * (a[r] . x[t]): a warp for each r, t = block_y. a (rank, k), x (T, k), u (T, rank).
KERNEL(128, 4, lora_down, float* u, const float* x, const float* a, float scale, u32 k, u32 rank) {
    u32 r = block_x() * LORA_WARPS + warp_idx();
    if (r >= rank) return;
    x += (u64)block_y() * k;
    a += (u64)r * k;
    float sum = 0.0f;
    if (k % 4 == 0) {
        f32x4 sums = {0.0f, 0.0f, 0.0f, 0.0f};
        for (u32 i = lane_idx() * 4; i < k; i += 128) {
            f32x4 p = *(const f32x4*)(a + i), q = *(const f32x4*)(x + i);
            sums.x = fma(p.x, q.x, sums.x);
            sums.y = fma(p.y, q.y, sums.y);
            sums.z = fma(p.z, q.z, sums.z);
            sums.w = fma(p.w, q.w, sums.w);
        }
        sum = (sums.x + sums.y) + (sums.z + sums.w);
    } else {
        for (u32 i = lane_idx(); i < k; i += 32) sum = fma(a[i], x[i], sum);
    }
    sum = warp_sum<32>(sum);
    if (lane_idx() == 0) u[(u64)block_y() * rank + r] = sum * scale;
}

// y[t, i] += b[i] . u[t]: a thread for each i, LORA_ROWS rows a block. b (n, rank), u (T, rank), y (T, n).
KERNEL(256, 2, lora_up, float* y, const float* u, const float* b, u32 n_rows, u32 n, u32 rank) {
    SHARED(float, us, LORA_ROWS * LORA_RANK_MAX);
    u32 first = block_y() * LORA_ROWS;
    u32 rows = n_rows - first < LORA_ROWS ? n_rows - first : LORA_ROWS;
    for (u32 i = thread_idx(); i < LORA_ROWS * rank; i += 256) us[i] = i < rows * rank ? u[(u64)first * rank + i] : 0.0f;
    sync_block();
    u32 col = block_x() * 256 + thread_idx();
    if (col >= n) return;
    b += (u64)col * rank;
    float sums[LORA_ROWS];
#pragma unroll
    for (u32 t = 0; t < LORA_ROWS; t++) sums[t] = 0.0f;
    if (rank % 4 == 0) {
        for (u32 r = 0; r < rank; r += 4) {
            f32x4 p = *(const f32x4*)(b + r);
#pragma unroll
            for (u32 t = 0; t < LORA_ROWS; t++) {
                const float* q = us + t * rank + r;
                sums[t] = fma(p.w, q[3], fma(p.z, q[2], fma(p.y, q[1], fma(p.x, q[0], sums[t]))));
            }
        }
    } else {
        for (u32 r = 0; r < rank; r++) {
#pragma unroll
            for (u32 t = 0; t < LORA_ROWS; t++) sums[t] = fma(b[r], us[t * rank + r], sums[t]);
        }
    }
#pragma unroll
    for (u32 t = 0; t < LORA_ROWS; t++) {
        if (t < rows) y[(u64)(first + t) * n + col] += sums[t];
    }
}
