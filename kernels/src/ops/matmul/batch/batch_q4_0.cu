// Products of 1 to 64 rows with Q4_0 weights.
#include "batch.cuh"

#if LICHEN_ARCH >= 80
BATCH_KERNELS(q4_0, Q4_0, 256, 2)
#endif
