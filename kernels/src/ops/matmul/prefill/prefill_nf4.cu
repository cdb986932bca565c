// Products of many rows with NF4 weights.
#include "tile.cuh"

PREFILL_KERNELS(nf4, NF4)
