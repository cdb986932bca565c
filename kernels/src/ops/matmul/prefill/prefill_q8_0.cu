// Products of many rows with Q8_0 weights.
#include "tile.cuh"

PREFILL_KERNELS(q8_0, Q8_0)
