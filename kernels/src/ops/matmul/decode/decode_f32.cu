// Products of one to eight rows with F32 weights.
#include "decode.cuh"
#include "float.cuh"

MATMUL_DECODE_KERNEL(256, 3, matmul_decode_f32_t1, Floats<AsF32>, 1)
MATMUL_DECODE_KERNEL(256, 2, matmul_decode_f32_t2, Floats<AsF32>, 2)
MATMUL_DECODE_KERNEL(256, 2, matmul_decode_f32_t4, Floats<AsF32>, 4)
MATMUL_DECODE_KERNEL(256, 2, matmul_decode_f32_t8, Floats<AsF32>, 8)
