// Q4_0 weights as f16, and transposed.
#include "transpose.cuh"

TRANSPOSE_KERNEL(q4_0, Q4_0, false)
WIDEN_KERNEL(q4_0, Q4_0)
