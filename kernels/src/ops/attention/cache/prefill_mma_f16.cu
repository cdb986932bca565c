// Prefill attention on tensor cores over f16 keys and values: a file of its own, because a driver
// compiles the modules that a session needs.
#include "prefill_mma.cuh"

#if LICHEN_ARCH >= 80
PREFILL_MMA_KERNEL(KV_F16, 64, 64, attention_mma_f16_64)
PREFILL_MMA_KERNEL(KV_F16, 128, 64, attention_mma_f16_128)
PREFILL_MMA_KERNEL(KV_F16, 256, 32, attention_mma_f16_256)
#endif
