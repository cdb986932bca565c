// Products of one to eight rows with Q8_0 weights.
#include "decode.cuh"
#include "q8_0.cuh"

MATMUL_DECODE_KERNEL(256, 4, matmul_decode_q8_0_t1, Q8_0, 1)
MATMUL_DECODE_KERNEL(256, 3, matmul_decode_q8_0_t2, Q8_0, 2)
MATMUL_DECODE_KERNEL(256, 2, matmul_decode_q8_0_t4, Q8_0, 4)
MATMUL_DECODE_KERNEL(256, 2, matmul_decode_q8_0_t8, Q8_0, 8)
