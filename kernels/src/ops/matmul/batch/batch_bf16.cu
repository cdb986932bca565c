// Products of 1 to 64 rows with BF16 weights.
#include "batch.cuh"

#if LICHEN_ARCH >= 80
BATCH_KERNELS(bf16, BF16, 512, 4)
#endif
