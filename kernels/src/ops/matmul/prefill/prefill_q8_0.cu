#include "tile.cuh"

PREFILL_KERNELS(q8_0, Q8_0)
