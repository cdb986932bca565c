// Products of 1 to 64 rows with NF4 weights.
#include "batch.cuh"

#if LICHEN_ARCH >= 80
BATCH_KERNEL(nf4, NF4, 8, 3, 256, BATCH_TWO)
BATCH_KERNEL(nf4, NF4, 16, 3, 256, BATCH_TWO)
BATCH_KERNEL(nf4, NF4, 32, 2, 256, BATCH_TWO)
BATCH_KERNEL(nf4, NF4, 64, 3, 256, 1)
#endif
