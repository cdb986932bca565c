// Products of one to eight rows with BF16 weights.
#include "decode.cuh"
#include "float.cuh"

MATMUL_DECODE_KERNEL(256, 3, matmul_decode_bf16_t1, Floats<AsBf16>, 1)
MATMUL_DECODE_KERNEL(256, 2, matmul_decode_bf16_t2, Floats<AsBf16>, 2)
MATMUL_DECODE_KERNEL(256, 2, matmul_decode_bf16_t4, Floats<AsBf16>, 4)
MATMUL_DECODE_KERNEL(256, 2, matmul_decode_bf16_t8, Floats<AsBf16>, 8)
