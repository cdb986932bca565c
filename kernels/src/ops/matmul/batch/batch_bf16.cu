// Products of 1 to 64 rows with BF16 weights.
#include "batch.cuh"

BATCH_KERNELS(bf16, BF16, 3, 2)
