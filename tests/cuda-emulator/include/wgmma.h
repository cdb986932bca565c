// kernels/cuda/wgmma.cuh on a processor: products are done when they are asked for, so what a wait is missing for is not seen.
#pragma once

// A matrix in shared memory: eight columns by eight k are 128 bytes.
struct WgmmaB {
    const u8* at;
    u32 k_bytes, column_bytes;
};
DEVICE WgmmaB wgmma_b(const u8* at, u32 k_bytes, u32 column_bytes) { return {at, k_bytes, column_bytes}; }
DEVICE WgmmaB wgmma_ahead(const WgmmaB& b, u32 bytes) { return {b.at + bytes, b.k_bytes, b.column_bytes}; }

DEVICE void wgmma_begin() {}
DEVICE void wgmma_commit() {}
template <int pending> DEVICE void wgmma_wait() {}
DEVICE void wgmma_publish() {}
DEVICE void wgmma_settle(float&) {}

// Each warp multiplies its sixteen rows, eight columns at a time.
template <u32 NT> DEVICE void wgmma_f16(float (&d)[NT][4], const u32 (&a)[4], const WgmmaB& b) {
    u32 g = (thread_idx() & 31) / 4, t = thread_idx() & 3;
    for (u32 n = 0; n < NT; n++) {
        const u8* k = b.at + n * b.column_bytes + g * 16 + t * 4;
        const u32 fragment[2] = {*(const u32*)k, *(const u32*)(k + b.k_bytes)};
        mma_f16(d[n], a, fragment);
    }
}
