// Products of one to eight rows with Q4_0 weights.
#include "decode.cuh"
#include "q4_0.cuh"

MATMUL_DECODE_KERNEL(256, 3, matmul_decode_q4_0_t1, Q4_0, 1)
MATMUL_DECODE_KERNEL(256, 2, matmul_decode_q4_0_t2, Q4_0, 2)
MATMUL_DECODE_KERNEL(256, 2, matmul_decode_q4_0_t4, Q4_0, 4)
MATMUL_DECODE_KERNEL(256, 2, matmul_decode_q4_0_t8, Q4_0, 8)
