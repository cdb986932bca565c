// NF4 weights as halves, and transposed.
#include "transpose.cuh"

TRANSPOSE_KERNEL(nf4, NF4, false)
WIDEN_KERNEL(nf4, NF4)
