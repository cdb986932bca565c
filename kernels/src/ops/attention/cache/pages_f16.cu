// Decode attention of a batch over f16 keys and values in pages: a file of its own, because a driver compiles the modules
// that a session or a batch needs.
#include "decode.cuh"

PAGES_KERNEL(KV_F16, 2, 8, attention_pages_f16_64)
PAGES_KERNEL(KV_F16, 4, 8, attention_pages_f16_128)
PAGES_KERNEL(KV_F16, 8, 4, attention_pages_f16_256)
