// Products of 1 to 64 rows with Q4_0 weights.
#include "batch.cuh"

#if LICHEN_ARCH >= 80
BATCH_KERNEL(q4_0, Q4_0, 8, 4, 256, BATCH_TWO)
BATCH_KERNEL(q4_0, Q4_0, 16, 4, 256, BATCH_TWO)
BATCH_KERNEL(q4_0, Q4_0, 32, 3, 256, BATCH_TWO)
BATCH_KERNEL(q4_0, Q4_0, 64, 4, 256, 1)
#endif
