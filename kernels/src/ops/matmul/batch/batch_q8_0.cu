// Products of 1 to 64 rows with Q8_0 weights.
#include "batch.cuh"

#if LICHEN_ARCH >= 80
BATCH_KERNELS(q8_0, Q8_0, 512, 4)
#endif
