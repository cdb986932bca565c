// Prefill products for sm_80, sm_87 and sm_90. The launch code chooses among the shapes; every shape gives the same bits.
#include "common.cuh"

#if LICHEN_ARCH >= 80
#include "mma.cuh"

// 256 tokens x 128 rows, 64 x 64 a warp, one block an SM: each weight is decoded once for 256 tokens.
MMA_KERNEL(matmul_mma_q8_0_256x128, 1, Q8_0, 256, 128, 4, 2, 3)
MMA_KERNEL(matmul_mma_q4_0_256x128, 1, Q4_0, 256, 128, 4, 2, 3)
MMA_KERNEL(matmul_mma_nf4_256x128, 1, NF4, 256, 128, 4, 2, 3)
MMA_KERNEL(matmul_mma_f16_256x128, 1, F16, 256, 128, 4, 2, 3)
MMA_KERNEL(matmul_mma_bf16_256x128, 1, BF16, 256, 128, 4, 2, 3)

// 128 x 128 in four warps of 64 x 64, two blocks an SM where shared memory allows.
MMA_KERNEL(matmul_mma_q8_0_128x128, 2, Q8_0, 128, 128, 2, 2, 3)
MMA_KERNEL(matmul_mma_q4_0_128x128, 2, Q4_0, 128, 128, 2, 2, 3)
MMA_KERNEL(matmul_mma_nf4_128x128, 2, NF4, 128, 128, 2, 2, 3)
MMA_KERNEL(matmul_mma_f16_128x128, 2, F16, 128, 128, 2, 2, 3)
MMA_KERNEL(matmul_mma_bf16_128x128, 2, BF16, 128, 128, 2, 2, 3)

// 64 x 64 in four warps of 32 x 32: few tokens, or few rows.
MMA_KERNEL(matmul_mma_q8_0_64x64, 3, Q8_0, 64, 64, 2, 2, 4)
MMA_KERNEL(matmul_mma_q4_0_64x64, 3, Q4_0, 64, 64, 2, 2, 4)
MMA_KERNEL(matmul_mma_nf4_64x64, 3, NF4, 64, 64, 2, 2, 4)
MMA_KERNEL(matmul_mma_f16_64x64, 3, F16, 64, 64, 2, 2, 4)
MMA_KERNEL(matmul_mma_bf16_64x64, 3, BF16, 64, 64, 2, 2, 4)
#endif
