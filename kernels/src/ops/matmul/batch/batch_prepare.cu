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

// Row block_x as halves in the order of batch_wgmma.cuh, which formats with K_PER_LOAD = `k_per_load` take: a thread makes
// pieces, the pairs of k that the four lanes of a row hold at one place of their chunks.
DEVICE void prepare_pieces(u16* rows, float* scales, const float* x, u32 n_rows, u32 n_padded, u32 cols, u32 padded_cols,
                           u32 k_per_load) {
    u32 row = block_x();
    bool inside = row < n_rows;
    const float* in = x + (u64)(inside ? row : 0) * cols;
    RowFactor factor = row_factor(inside ? largest_bits(in, cols) : 0);
    bool read = inside && factor.is_finite;
    for (u32 piece = thread_idx(); piece < padded_cols / 8; piece += 256) {
        // Of its step, the load of four lanes' k, and the place in a lane's.
        u32 of_load = k_per_load / 2, load = piece % 16 / of_load, place = piece % of_load;
        u32 first = piece / 16 * 128 + load * 4 * k_per_load + 2 * place, pairs[4];
#pragma unroll
        for (u32 t = 0; t < 4; t++) {
            u32 k = first + t * k_per_load;
            u16 low = read && k < cols ? f32_to_f16(in[k] * factor.to_half) : 0;
            u16 high = read && k + 1 < cols ? f32_to_f16(in[k + 1] * factor.to_half) : 0;
            pairs[t] = pack16(low, high);
        }
        ((u32x4*)rows)[(u64)piece * n_padded + row] = {pairs[0], pairs[1], pairs[2], pairs[3]};
    }
    if (inside && thread_idx() == 0) scales[row] = factor.back;
}

// The first n_padded blocks have a row each, the others prefetch. k_per_load is 0 for rows as they are.
#define BATCH_PREPARE(name, ...)                                                                                               \
    KERNEL(256, 1, name, u16* rows, float* scales, const float* x, u32 n_rows, u32 n_padded, u32 cols, u32 padded_cols,       \
           u32 k_per_load, const u8* codes, u32 tile_rows, u32 k_tiles, u32 n_segments, u32 step_bytes) {                     \
        if (block_x() < n_padded) {                                                                                           \
            __VA_ARGS__;                                                                                                      \
        } else {                                                                                                              \
            Beginnings b = {codes, tile_rows, k_tiles, n_segments, step_bytes};                                               \
            prefetch_line(b, (block_x() - n_padded) * 256 + thread_idx());                                                    \
        }                                                                                                                     \
    }

BATCH_PREPARE(matmul_batch_prepare_f16,
              if (k_per_load) prepare_pieces(rows, scales, x, n_rows, n_padded, cols, padded_cols, k_per_load);
              else prepare_f16(rows, scales, x, n_rows, cols, padded_cols, cols, nullptr))
BATCH_PREPARE(matmul_batch_prepare_bf16, prepare_bf16(rows, scales, x, n_rows, cols, padded_cols, cols))

#endif
