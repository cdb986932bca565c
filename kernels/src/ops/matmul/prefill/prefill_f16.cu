#include "tile.cuh"

PREFILL_KERNELS(f16, F16)
