// Prefill attention, row by row, over int8 keys and values: a file of its own, because a driver
// compiles the modules that a session needs.
#include "prefill_rows.cuh"

// Tensor cores serve later architectures.
#if LICHEN_ARCH < 80
PREFILL_KERNEL(KV_I8, 2, 8, attention_prefill_i8_64)
PREFILL_KERNEL(KV_I8, 4, 8, attention_prefill_i8_128)
PREFILL_KERNEL(KV_I8, 8, 4, attention_prefill_i8_256)
#endif
