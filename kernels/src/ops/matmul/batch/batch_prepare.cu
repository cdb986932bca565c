// What comes before products of batches: activations as 16-bit floats, and meanwhile the first weights on their way. A block a
// row: as they are, as the norm of the residual stream, or as a gated activation.
#include "batch_prepare.cuh"

#if LICHEN_ARCH >= 80

#define PREPARED Prepared to = {rows, scales, n_rows, n_padded, cols, padded_cols, k_per_load}
#define PREPARED_PARAMS u16 *rows, float *scales, u32 n_rows, u32 n_padded, u32 cols, u32 padded_cols, u32 k_per_load
#define NEXT_PARAMS const u8 *codes, u32 tile_rows, u32 k_tiles, u32 n_splits, u32 step_bytes
// The first n_padded blocks have a row each, the others prefetch.
#define PREFETCH_OR                                                                                                            \
    launch_dependents();                                                                                                          \
    if (block_x() >= n_padded) {                                                                                               \
        Beginnings b = {codes, tile_rows, k_tiles, n_splits, step_bytes};                                                    \
        prefetch_line(b, (block_x() - n_padded) * block_dim() + thread_idx());                                                 \
        return;                                                                                                                \
    }                                                                                                                          \
    wait_for_primary();

// Rows of x (n_rows, cols).
#define PREPARE_ROWS(name, BFLOAT)                                                                                             \
    KERNEL(1024, 1, name, PREPARED_PARAMS, NEXT_PARAMS, const float* x) {                                                      \
        PREFETCH_OR PREPARED;                                                                                                  \
        prepare_row<BFLOAT>(to, GivenRow{x + to.row_offset()});                                                                \
    }
PREPARE_ROWS(matmul_batch_prepare_f16, false)
PREPARE_ROWS(matmul_batch_prepare_bf16, true)

// gate = act(gate) * up, both (n_rows, cols). `activation`: 0 GELU (tanh), 1 SiLU.
#define PREPARE_GATED(name, BFLOAT)                                                                                            \
    KERNEL(1024, 1, name, PREPARED_PARAMS, NEXT_PARAMS, float* gate, const float* up, u32 activation) {                        \
        PREFETCH_OR PREPARED;                                                                                                  \
        prepare_row<BFLOAT>(to, GatedRow{gate + to.row_offset(), up + to.row_offset(), activation});                           \
    }
PREPARE_GATED(matmul_batch_prepare_gated_f16, false)
PREPARE_GATED(matmul_batch_prepare_gated_bf16, true)

// x += y / rms(y) * post_weight, then h = x / rms(x) * weight: x, y, h (n_rows, cols), the weights (cols). Null y: nothing is
// added. Null post_weight: y as it is.
#define PREPARE_NORMED(name, BFLOAT)                                                                                           \
    KERNEL(1024, 1, name, PREPARED_PARAMS, NEXT_PARAMS, float* x, const float* y, const float* post_weight,                    \
           const float* weight, float* h, float eps) {                                                                         \
        PREFETCH_OR PREPARED;                                                                                                  \
        u64 at = to.row_offset();                                                                                              \
        prepare_row<BFLOAT>(to, NormedRow{x + at, y ? y + at : nullptr, post_weight, weight, h + at, eps, 1.0f});              \
    }
PREPARE_NORMED(matmul_batch_prepare_normed_f16, false)
PREPARE_NORMED(matmul_batch_prepare_normed_bf16, true)

#endif
