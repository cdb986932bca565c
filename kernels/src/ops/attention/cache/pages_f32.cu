// Decode attention of a batch over f32 keys and values in pages: a file of its own, because a driver compiles the modules
// that a session or a batch needs.
#include "decode.cuh"

PAGES_KERNEL(KV_F32, 2, 8, attention_pages_f32_64)
PAGES_KERNEL(KV_F32, 4, 8, attention_pages_f32_128)
PAGES_KERNEL(KV_F32, 8, 4, attention_pages_f32_256)
