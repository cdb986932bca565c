// Before the attention of several rows: QK-norm and RoPE of queries and keys, keys and values into the cache.
#include "prepare.cuh"

// One warp a vector. Vector i of row t: i < n_heads is a query, then come n_kv_heads keys and as many values.
// q (T, n_heads, dim) is changed in place; k, v (T, n_kv_heads, dim); the cache's planes are (n_kv_heads, n_slots, dim) and
// (n_kv_heads, n_slots); row t is at position *position + t, in a ring or, where `pages` (n_entries) is not null, in pages.
// cos, sin (positions, dim / 2).
KERNEL(128, 4, attention_prepare, float* q, const float* k, const float* v, u8* key_cells, float* key_scales,
       u8* value_cells, float* value_scales, const float* cos, const float* sin, const float* q_norm, const float* k_norm,
       const u32* position, const u32* pages, float eps, u32 n_rows, u32 n_heads, u32 n_kv_heads, u32 dim, u32 n_slots,
       u32 n_entries, u32 format) {
    SHARED(float, rows, 4 * 256);
    u32 per_row = n_heads + 2 * n_kv_heads;
    u32 item = block_x() * 4 + warp_idx();
    if (item >= n_rows * per_row) return;
    u32 t = item / per_row, i = item - t * per_row;
    float* row = rows + warp_idx() * 256;
    u32 at = *position + t;
    u64 angle = (u64)at * (dim / 2);
    if (i < n_heads) {
        float* head = q + (u64)(t * n_heads + i) * dim;
        norm_and_rotate(row, head, dim, q_norm, eps, cos + angle, sin + angle);
        for (u32 d = lane_idx(); d < dim; d += 32) head[d] = row[d];
        return;
    }
    i -= n_heads;
    bool is_key = i < n_kv_heads;
    if (!is_key) i -= n_kv_heads;
    const float* from = (is_key ? k : v) + (u64)(t * n_kv_heads + i) * dim;
    norm_and_rotate(row, from, dim, is_key ? k_norm : nullptr, eps, is_key ? cos + angle : nullptr, sin + angle);
    u64 vector = (u64)i * n_slots + (pages ? page_slot(pages, n_entries, at) : at % n_slots);
    u64 value_bytes = format == KV_F32 ? 4 : format == KV_F16 ? 2 : 1;
    store_vector(format, row, dim, (is_key ? key_cells : value_cells) + vector * dim * value_bytes,
                 (is_key ? key_scales : value_scales) + vector);
}
