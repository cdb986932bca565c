// NF4 weights as f16, and transposed.
#include "transpose.cuh"

TRANSPOSE_KERNEL(nf4, NF4, false)
WIDEN_KERNEL(nf4, NF4)
