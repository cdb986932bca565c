// Decode attention over f16 keys and values: a file of its own, because a driver compiles the modules that a session
// needs.
#include "decode.cuh"

DECODE_KERNEL(KV_F16, 2, 8, attention_decode_f16_64)
DECODE_KERNEL(KV_F16, 4, 8, attention_decode_f16_128)
DECODE_KERNEL(KV_F16, 8, 4, attention_decode_f16_256)
