// Products of one to eight rows with NF4 weights.
#include "decode.cuh"
#include "nf4.cuh"

MATMUL_DECODE_KERNEL(512, 1, matmul_decode_nf4_t1, Nf4, 1)
MATMUL_DECODE_KERNEL(512, 1, matmul_decode_nf4_t2, Nf4, 2)
MATMUL_DECODE_KERNEL(512, 1, matmul_decode_nf4_t4, Nf4, 4)
