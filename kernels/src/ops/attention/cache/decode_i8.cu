// Decode attention over int8 keys and values: a file of its own, because a driver compiles the modules that a session
// needs.
#include "decode.cuh"

DECODE_KERNEL(KV_I8, 2, 8, attention_decode_i8_64)
DECODE_KERNEL(KV_I8, 4, 8, attention_decode_i8_128)
DECODE_KERNEL(KV_I8, 8, 4, attention_decode_i8_256)
