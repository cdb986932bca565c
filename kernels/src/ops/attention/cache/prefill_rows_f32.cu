// Prefill attention, row by row, over f32 keys and values: a file of its own, because a driver
// compiles the modules that a session needs.
#include "prefill_rows.cuh"

PREFILL_KERNEL(KV_F32, 2, 8, attention_prefill_f32_64)
PREFILL_KERNEL(KV_F32, 4, 8, attention_prefill_f32_128)
PREFILL_KERNEL(KV_F32, 8, 4, attention_prefill_f32_256)
