#include "tile.cuh"

PREFILL_KERNELS(nf4, NF4)
