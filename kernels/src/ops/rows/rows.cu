// Rows of an array to other places.
#include "elements.cuh"

const u32 ROWS_THREADS = 128;

// Row i = block_x of the shorter array, whose place in the longer one is rows[i]: out[i] = x[rows[i]], or, where `is_scatter`,
// out[rows[i]] = x[i]. Rows of dim values.
KERNEL(128, 8, rows_move, float* out, const float* x, const u32* rows, u32 dim, u32 is_scatter) {
    u64 near = block_x(), far = rows[block_x()];
    bool is_wide = dim % 4 == 0 && is_aligned16(out) && is_aligned16(x);
    out += (is_scatter ? far : near) * dim;
    x += (is_scatter ? near : far) * dim;
    u32 first = block_y() * ROWS_THREADS + thread_idx(), stride = grid_y() * ROWS_THREADS;
    if (is_wide) {
        for (u32 i = first; i < dim / 4; i += stride) store_floats(out + 4 * i, load_floats<4>(x + 4 * i));
    } else {
        for (u32 i = first; i < dim; i += stride) out[i] = x[i];
    }
}
