#include "tile.cuh"

PREFILL_KERNELS(bf16, BF16)
