// BF16 weights transposed: as they are where there are products of bf16, else as f16.
#include "transpose.cuh"

TRANSPOSE_KERNEL(bf16, BF16, (LICHEN_ARCH >= 80))
