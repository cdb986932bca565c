// Products of 1 to 64 rows with NF4 weights.
#include "batch.cuh"

BATCH_KERNELS(nf4, NF4, 6, 3)
