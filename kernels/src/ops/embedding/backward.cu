// Backward of the embedding lookup: rows of one token are added by one block, in order.
#include "elements.cuh"

const u32 EMBEDDING_THREADS = 256;
// Rows whose values are on their way at once.
const u32 EMBEDDING_AHEAD = 4;

// Adds the rows that `list` (n) names to the n_values values of `to`, in the list's order. dx is at the first of the columns.
template <u32 n_values>
DEVICE void embedding_add(float* to, const float* dx, const u32* list, u32 n, u32 dim, float scale) {
    auto sum = load_floats<n_values>(to);
    for (u32 i = 0; i < n; i += EMBEDDING_AHEAD) {
        Floats<n_values> rows[EMBEDDING_AHEAD];
#pragma unroll
        for (u32 j = 0; j < EMBEDDING_AHEAD; j++) {
            // The last row again instead of none: it is not added.
            u32 t = list[i + j < n ? i + j : n - 1];
            rows[j] = load_floats<n_values>(dx + (u64)t * dim);
        }
#pragma unroll
        for (u32 j = 0; j < EMBEDDING_AHEAD; j++) {
#pragma unroll
            for (u32 k = 0; k < n_values; k++) {
                float with = sum.v[k] + scale * rows[j].v[k];
                sum.v[k] = i + j < n ? with : sum.v[k];
            }
        }
    }
    store_floats(to, sum);
}

// dtable[tokens[t]] += scale * dx[t], in order of t. dtable (V, dim), dx (T, dim), tokens (T). The block of row t = block_x
// does nothing when an earlier row has its token, else it adds the rows of its token, for columns from 1024 block_y on.
KERNEL(256, 4, embedding_backward, float* dtable, const float* dx, const u32* tokens, u32 n_rows, u32 dim, float scale) {
    SHARED(u32, list, EMBEDDING_THREADS);
    SHARED(u32, masks, EMBEDDING_THREADS / 32);
    u32 mine = block_x(), token = tokens[mine];
    bool is_repeated = false;
    for (u32 t = thread_idx(); t < mine; t += EMBEDDING_THREADS) is_repeated = is_repeated || tokens[t] == token;
    u32 found = ballot(is_repeated);
    if (lane_idx() == 0) masks[warp_idx()] = found;
    sync_block();
    for (u32 i = 1; i < EMBEDDING_THREADS / 32; i++) found |= masks[i];
    // The same in every thread.
    if (found | masks[0]) return;
    u32 width = dim % 4 == 0 && is_aligned16(dtable) && is_aligned16(dx) ? 4 : 1;
    u32 first_column = block_y() * 4 * EMBEDDING_THREADS, end_column = first_column + 4 * EMBEDDING_THREADS;
    if (end_column > dim) end_column = dim;
    dtable += (u64)token * dim;
    for (u32 base = mine; base < n_rows; base += EMBEDDING_THREADS) {
        // The rows of this stretch that have the token, in order.
        u32 t = base + thread_idx();
        bool is_one = t < n_rows && tokens[t] == token;
        u32 ones = ballot(is_one);
        sync_block();
        if (lane_idx() == 0) masks[warp_idx()] = ones;
        sync_block();
        u32 n = 0, before = (u32)__builtin_popcount(ones & ((1u << lane_idx()) - 1));
        for (u32 i = 0; i < EMBEDDING_THREADS / 32; i++) {
            u32 count = (u32)__builtin_popcount(masks[i]);
            if (i < warp_idx()) before += count;
            n += count;
        }
        if (is_one) list[before] = t;
        sync_block();
        if (n == 0) continue;
        for (u32 c = first_column + thread_idx() * width; c < end_column; c += EMBEDDING_THREADS * width) {
            if (width == 4) {
                embedding_add<4>(dtable + c, dx + c, list, n, dim, scale);
            } else {
                embedding_add<1>(dtable + c, dx + c, list, n, dim, scale);
            }
        }
    }
}
