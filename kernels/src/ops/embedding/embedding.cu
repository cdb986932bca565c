// out[t, i] = table[tokens[t], i] * scale: out (T, D), table (V, D) packed. The grid's y counts rows, a thread makes one value.
#include "../../formats/packed.cuh"

#define EMBEDDING_KERNEL(name, value)                                                                                          \
    KERNEL(256, 4, name, float* out, const u32* tokens, const u8* codes, const u8* scales, u32 dim, float absmax_scale,        \
           float scale) {                                                                                                      \
        const u32 k = block_x() * 256 + thread_idx(), row = tokens[block_y()], n_tiles = div_up(dim, 128);                     \
        if (k < dim) out[(u64)block_y() * dim + k] = value * scale;                                                            \
    }

EMBEDDING_KERNEL(embedding_q8_0, packed_q8_0(codes, scales, n_tiles, row, k))
EMBEDDING_KERNEL(embedding_q4_0, packed_q4_0(codes, scales, n_tiles, row, k))
EMBEDDING_KERNEL(embedding_nf4, packed_nf4(codes, scales, n_tiles, row, k, absmax_scale))
EMBEDDING_KERNEL(embedding_f32, packed_f32(codes, n_tiles, row, k))
EMBEDDING_KERNEL(embedding_f16, packed_f16(codes, n_tiles, row, k))
EMBEDDING_KERNEL(embedding_bf16, packed_bf16(codes, n_tiles, row, k))
