// Products of 1 to 64 rows with Q4_0 weights.
#include "batch.cuh"

BATCH_KERNELS(q4_0, Q4_0, 6, 3)
