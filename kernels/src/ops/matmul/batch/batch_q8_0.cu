// Products of 1 to 64 rows with Q8_0 weights.
#include "batch.cuh"

#if LICHEN_ARCH >= 80
BATCH_KERNEL(q8_0, Q8_0, 8, 3, 256, BATCH_TWO)
BATCH_KERNEL(q8_0, Q8_0, 16, 2, 256, BATCH_TWO)
BATCH_KERNEL(q8_0, Q8_0, 32, 2, 256, BATCH_TWO)
BATCH_KERNEL(q8_0, Q8_0, 64, 3, 256, 1)
#endif
