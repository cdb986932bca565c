// Products of one to eight rows with NF4 weights: with tensor cores where there are those that take f16 one by one,
// without them elsewhere.
#include "decode.cuh"
#include "nf4.cuh"
#include "nf4_mma.cuh"

// A block of a Jetson Nano has 32768 registers, 64 for each thread, and its table leaves room for no second block.
#if LICHEN_ARCH == 53
MATMUL_DECODE_KERNEL(512, 1, matmul_decode_nf4_t1, Nf4, 1)
MATMUL_DECODE_KERNEL(512, 1, matmul_decode_nf4_t2, Nf4, 2)
#elif LICHEN_ARCH == 72
MATMUL_DECODE_KERNEL(512, 2, matmul_decode_nf4_t1, Nf4, 1)
MATMUL_DECODE_KERNEL(512, 1, matmul_decode_nf4_t2, Nf4, 2)
MATMUL_DECODE_KERNEL(512, 1, matmul_decode_nf4_t4, Nf4, 4)
#else
MATMUL_DECODE_KERNEL(256, 3, matmul_decode_nf4_t1, Nf4Mma, 1)
MATMUL_DECODE_KERNEL(256, 2, matmul_decode_nf4_t2, Nf4Mma, 2)
MATMUL_DECODE_KERNEL(256, 2, matmul_decode_nf4_t4, Nf4Mma, 4)
MATMUL_DECODE_KERNEL(256, 2, matmul_decode_nf4_t8, Nf4Mma, 8)
#endif
