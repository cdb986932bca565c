// Sums of squares of a long vector, in chunks: the order of the CPU's sums, so its bits.
#include "elements.cuh"

const u32 SQUARES_CHUNK = 4096;
const u32 SQUARES_THREADS = 128;

// partials[c] = the sum over chunk c of x (n), in sixteen lanes that are folded by halves: four threads with four lanes each,
// so that four threads together read 64 bytes.
KERNEL(128, 8, sum_of_squares_partials, double* partials, const float* x, u64 n) {
    u32 chunk = block_x() * (SQUARES_THREADS / 4) + thread_idx() / 4;
    u64 first = (u64)chunk * SQUARES_CHUNK + thread_idx() % 4 * 4;
    u64 end = (u64)(chunk + 1) * SQUARES_CHUNK;
    float lanes[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (end <= n && is_aligned16(x)) {
#pragma unroll 8
        for (u32 i = 0; i < SQUARES_CHUNK; i += 16) {
            auto v = load_floats<4>(x + first + i);
#pragma unroll
            for (u32 j = 0; j < 4; j++) lanes[j] = fma(v.v[j], v.v[j], lanes[j]);
        }
    } else {
        for (u64 i = first; i < n && i < end; i += 16) {
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                if (i + j < n) lanes[j] = fma(x[i + j], x[i + j], lanes[j]);
            }
        }
    }
    // Lane i with i + 8, then 4: two threads on, then one. All threads come here.
#pragma unroll
    for (u32 j = 0; j < 4; j++) lanes[j] += shuffle_xor(lanes[j], 2);
#pragma unroll
    for (u32 j = 0; j < 4; j++) lanes[j] += shuffle_xor(lanes[j], 1);
    float sum = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
    if (thread_idx() % 4 == 0 && (u64)chunk * SQUARES_CHUNK < n) partials[chunk] = sum;
}
