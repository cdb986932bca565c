// Products of 1 to 64 rows with F16 weights.
#include "batch.cuh"

#if LICHEN_ARCH >= 80
BATCH_KERNEL(f16, F16, 8, 3, 128, 2)
BATCH_KERNEL(f16, F16, 16, 3, 128, 2)
BATCH_KERNEL(f16, F16, 32, 2, 128, 2)
BATCH_KERNEL(f16, F16, 64, 2, 128, 2)
#endif
