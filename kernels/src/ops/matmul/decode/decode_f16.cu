// Products of one to eight rows with F16 weights.
#include "decode.cuh"
#include "float.cuh"

MATMUL_DECODE_KERNEL(256, 3, matmul_decode_f16_t1, Floats<AsF16>, 1)
MATMUL_DECODE_KERNEL(256, 2, matmul_decode_f16_t2, Floats<AsF16>, 2)
MATMUL_DECODE_KERNEL(256, 2, matmul_decode_f16_t4, Floats<AsF16>, 4)
MATMUL_DECODE_KERNEL(256, 2, matmul_decode_f16_t8, Floats<AsF16>, 8)
