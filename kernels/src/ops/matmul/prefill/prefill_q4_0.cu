#include "tile.cuh"

PREFILL_KERNELS(q4_0, Q4_0)
