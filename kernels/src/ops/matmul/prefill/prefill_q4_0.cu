// Products of many rows with Q4_0 weights.
#include "tile.cuh"

PREFILL_KERNELS(q4_0, Q4_0)
