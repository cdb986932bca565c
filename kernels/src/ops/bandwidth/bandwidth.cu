// Reads memory as fast as the device can: the roofline that every other kernel is measured against.
#include "common.cuh"

// data (n), 16 bytes each; sums (grid): the sum of the 32-bit words that each block read, so that no read can be left
// out. The grid walks the data together, with `UNROLL` reads of a thread on their way at once.
constexpr u32 THREADS = 256;
constexpr u32 UNROLL = 8;

DEVICE u32 sum_of(u32x4 v) { return v.x + v.y + v.z + v.w; }

KERNEL(256, 2, read_bandwidth, const u32x4* data, u64 n, u32* sums) {
    SHARED(u32, parts, THREADS / 32);
    u64 stride = (u64)grid_x() * THREADS;
    u64 i = (u64)block_x() * THREADS + thread_idx();
    u32 sum = 0;
    for (; i + (UNROLL - 1) * stride < n; i += UNROLL * stride) {
        u32x4 v[UNROLL];
        for (u32 j = 0; j < UNROLL; j++) v[j] = load_stream(data + i + j * stride);
        for (u32 j = 0; j < UNROLL; j++) sum += sum_of(v[j]);
    }
    for (; i < n; i += stride) sum += sum_of(load_stream(data + i));
    for (u32 mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
    if (lane_idx() == 0) parts[warp_idx()] = sum;
    sync_block();
    if (thread_idx() == 0) {
        u32 total = 0;
        for (u32 w = 0; w < THREADS / 32; w++) total += parts[w];
        sums[block_x()] = total;
    }
}
