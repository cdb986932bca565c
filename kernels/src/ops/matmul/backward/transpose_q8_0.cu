// Q8_0 weights as f16, and transposed.
#include "transpose.cuh"

TRANSPOSE_KERNEL(q8_0, Q8_0, false)
WIDEN_KERNEL(q8_0, Q8_0)
