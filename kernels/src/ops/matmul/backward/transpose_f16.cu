// F16 weights transposed.
#include "transpose.cuh"

TRANSPOSE_KERNEL(f16, F16, false)
