// Decode attention of a batch over int8 keys and values in pages: a file of its own, because a driver compiles the modules
// that a session or a batch needs.
#include "decode.cuh"

PAGES_KERNEL(KV_I8, 2, 8, attention_pages_i8_64)
PAGES_KERNEL(KV_I8, 4, 8, attention_pages_i8_128)
PAGES_KERNEL(KV_I8, 8, 4, attention_pages_i8_256)
