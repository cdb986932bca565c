// What comes before products of batches: activations as 16-bit floats, and meanwhile the first weights on their way.
#include "../prefill/prepare.cuh"

#if LICHEN_ARCH >= 80

// Where the blocks of a product begin to read: `n_segments` places in each of its tiles of rows, whose k-tiles are
// `step_bytes` and lie one behind the other.
struct Beginnings {
    const u8* codes;
    u32 tile_rows, k_tiles, n_segments, step_bytes;
};

// Thread `index` of all brings one line of 128 bytes into the second-level cache: the first of every beginning, then the
// second. What one block needs alone would only let it wait for the others.
DEVICE void prefetch_line(const Beginnings& b, u32 index) {
    u32 n = b.tile_rows * b.n_segments, line = index / n, place = index % n;
    u32 row = place / b.n_segments, segment = place % b.n_segments;
    u64 at = ((u64)row * b.k_tiles + segment * b.k_tiles / b.n_segments) * b.step_bytes + line * 128;
    if (at < (u64)b.tile_rows * b.k_tiles * b.step_bytes) prefetch_second_level(b.codes + at);
}

// The first n_padded blocks have a row each, the others prefetch.
#define BATCH_PREPARE(name, ...)                                                                                               \
    KERNEL(256, 1, name, u16* rows, float* scales, const float* x, u32 n_rows, u32 n_padded, u32 cols, u32 padded_cols,       \
           const u8* codes, u32 tile_rows, u32 k_tiles, u32 n_segments, u32 step_bytes) {                                     \
        if (block_x() < n_padded) {                                                                                           \
            __VA_ARGS__;                                                                                                      \
        } else {                                                                                                              \
            Beginnings b = {codes, tile_rows, k_tiles, n_segments, step_bytes};                                               \
            prefetch_line(b, (block_x() - n_padded) * 256 + thread_idx());                                                    \
        }                                                                                                                     \
    }

BATCH_PREPARE(matmul_batch_prepare_f16, prepare_f16(rows, scales, x, n_rows, cols, padded_cols, cols, nullptr))
BATCH_PREPARE(matmul_batch_prepare_bf16, prepare_bf16(rows, scales, x, n_rows, cols, padded_cols, cols))

#endif
