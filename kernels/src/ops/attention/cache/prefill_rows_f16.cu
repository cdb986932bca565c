// Prefill attention, row by row, over f16 keys and values: a file of its own, because a driver
// compiles the modules that a session needs.
#include "prefill_rows.cuh"

// Tensor cores serve later architectures.
#if LICHEN_ARCH < 80
PREFILL_KERNEL(KV_F16, 2, 8, attention_prefill_f16_64)
PREFILL_KERNEL(KV_F16, 4, 8, attention_prefill_f16_128)
PREFILL_KERNEL(KV_F16, 8, 4, attention_prefill_f16_256)
#endif
