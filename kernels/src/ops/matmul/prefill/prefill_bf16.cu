// Products of many rows with BF16 weights.
#include "tile.cuh"

PREFILL_KERNELS(bf16, BF16)
