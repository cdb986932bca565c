// Products of 1 to 64 rows with BF16 weights.
#include "batch.cuh"

#if LICHEN_ARCH >= 80
BATCH_KERNEL(bf16, BF16, 8, 3, 128, 2)
BATCH_KERNEL(bf16, BF16, 16, 3, 128, 2)
BATCH_KERNEL(bf16, BF16, 32, 2, 128, 2)
BATCH_KERNEL(bf16, BF16, 64, 2, 128, 2)
#endif
