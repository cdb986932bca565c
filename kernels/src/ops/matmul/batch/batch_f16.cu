// Products of 1 to 64 rows with F16 weights.
#include "batch.cuh"

#if LICHEN_ARCH >= 80
BATCH_KERNELS(f16, F16, 512, 4)
#endif
