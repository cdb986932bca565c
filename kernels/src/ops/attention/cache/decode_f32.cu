// Decode attention over f32 keys and values: a file of its own, because a driver compiles the modules that a session
// needs.
#include "decode.cuh"

DECODE_KERNEL(KV_F32, 2, 8, attention_decode_f32_64)
DECODE_KERNEL(KV_F32, 4, 8, attention_decode_f32_128)
DECODE_KERNEL(KV_F32, 8, 4, attention_decode_f32_256)
