// The kernels of one format: the family of the architecture, in the tile shapes that plan.rs chooses among. Every shape
// gives the same bits. One file a format, so that a device's driver compiles them side by side.
#pragma once
#include "common.cuh"

#if LICHEN_ARCH >= 80
#include "mma.cuh"

#define MMA_KERNEL(name, min_blocks, format, tokens, rows, warps_t, warps_n, stages)                                           \
    KERNEL(32 * warps_t * warps_n, min_blocks, name, PREFILL_PARAMS) {                                                         \
        DYNAMIC_SHARED(u8, shared);                                                                                            \
        PrefillArgs args = PREFILL_ARGS;                                                                                       \
        MmaTile<format, tokens, rows, warps_t, warps_n, stages>(args, shared).run();                                           \
    }
// 256 tokens x 128 rows: 64 x 64 a warp, one block an SM; each weight is decoded once for 256 tokens. 128 x 128: four warps
// of 64 x 64, two blocks an SM where shared memory allows. 64 x 64: four warps of 32 x 32, for few tokens or few rows.
#define PREFILL_KERNELS(name, format)                                                                                          \
    MMA_KERNEL(matmul_mma_##name##_256x128, 1, format, 256, 128, 4, 2, 3)                                                      \
    MMA_KERNEL(matmul_mma_##name##_128x128, 2, format, 128, 128, 2, 2, 3)                                                      \
    MMA_KERNEL(matmul_mma_##name##_64x64, 3, format, 64, 64, 2, 2, 4)

#elif LICHEN_ARCH >= 72
#include "wmma.cuh"

#define PREFILL_KERNELS(name, format)                                                                                          \
    KERNEL(128, 2, matmul_wmma_##name, PREFILL_PARAMS) {                                                                       \
        SHARED(u16, memory, 2 * WmmaTile<format>::STAGE);                                                                      \
        PrefillArgs args = PREFILL_ARGS;                                                                                       \
        WmmaTile<format>(args, memory).run();                                                                                  \
    }

#else
#include "half2.cuh"

#define PREFILL_KERNELS(name, format)                                                                                          \
    KERNEL(64, 4, matmul_half2_##name, PREFILL_PARAMS) {                                                                       \
        SHARED(HalfTile<format>::Memory, memory, 1);                                                                           \
        PrefillArgs args = PREFILL_ARGS;                                                                                       \
        HalfTile<format>(args, memory[0]).run();                                                                               \
    }
#endif
