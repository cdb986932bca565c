// Products of 1 to 64 rows with F16 weights.
#include "batch.cuh"

BATCH_KERNELS(f16, F16, 3, 2)
