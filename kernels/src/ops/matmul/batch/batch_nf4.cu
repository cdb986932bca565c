// Products of 1 to 64 rows with NF4 weights.
#include "batch.cuh"

#if LICHEN_ARCH >= 80
BATCH_KERNELS(nf4, NF4, 512, 4)
#endif
