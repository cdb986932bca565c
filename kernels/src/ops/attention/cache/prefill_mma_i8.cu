// Prefill attention on tensor cores over int8 keys and values: a file of its own, because a driver
// compiles the modules that a session needs.
#include "prefill_mma.cuh"

#if LICHEN_ARCH >= 80
PREFILL_MMA_KERNEL(KV_I8, 64, 64, attention_mma_i8_64)
PREFILL_MMA_KERNEL(KV_I8, 128, 64, attention_mma_i8_128)
PREFILL_MMA_KERNEL(KV_I8, 256, 32, attention_mma_i8_256)
#endif
