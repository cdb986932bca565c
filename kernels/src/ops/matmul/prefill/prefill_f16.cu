// Products of many rows with F16 weights.
#include "tile.cuh"

PREFILL_KERNELS(f16, F16)
