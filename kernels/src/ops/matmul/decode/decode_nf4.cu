// Products of one to eight rows with NF4 weights.
#include "decode.cuh"
#include "nf4.cuh"

// A block of a Jetson Nano has 32768 registers, 64 for each thread, and its table leaves room for no second block.
#if LICHEN_ARCH == 53
MATMUL_DECODE_KERNEL(512, 1, matmul_decode_nf4_t1, Nf4, 1)
MATMUL_DECODE_KERNEL(512, 1, matmul_decode_nf4_t2, Nf4, 2)
#else
MATMUL_DECODE_KERNEL(512, 2, matmul_decode_nf4_t1, Nf4, 1)
MATMUL_DECODE_KERNEL(512, 1, matmul_decode_nf4_t2, Nf4, 2)
MATMUL_DECODE_KERNEL(512, 1, matmul_decode_nf4_t4, Nf4, 4)
#endif
