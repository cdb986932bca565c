// Attention of several new tokens in f32, after attention_prepare: f32 stores everywhere, and every format on the
// architectures that have no mma.sync (prefill_mma.cuh).
//
// A block takes 8 * ROWS neighbouring rows (t, head of the group) of one kv head, ROWS a warp; tiles of stored keys and
// values pass through shared memory as they are. Tiles and groups begin at multiples of their length in positions, so a
// row's sums do not depend on the rows beside it.
#pragma once
#include "../rows.cuh"

const u32 PREFILL_WARPS = 8;

// Keys of a tile: 32 KiB of shared memory for both planes, 16 for int8.
template <int FORMAT, int DIMS> struct PrefillTile {
    static const u32 KEYS = (FORMAT == KV_F32 ? 128 : 256) / DIMS;
    static const u32 BYTES = KEYS * DIMS * 32 * (FORMAT == KV_F32 ? 4 : FORMAT == KV_F16 ? 2 : 1);
};

// Shared memory of a tile: keys and values (KEYS, dim) as stored, and their scales.
struct PrefillShared {
    u8* keys;
    u8* values;
    float* key_scales;
    float* value_scales;
};

// Positions base .. base + KEYS into shared memory, zeros for those outside `first..=last`.
template <int FORMAT, int DIMS>
DEVICE void prefill_load(const PrefillArgs& a, const PrefillShared& s, u32 kv_head, u32 base, u32 first, u32 last) {
    u32 bytes = kv_bytes<FORMAT>(a.dim);
    for (u32 j = warp_idx(); j < PrefillTile<FORMAT, DIMS>::KEYS; j += PREFILL_WARPS) {
        bool is_seen = base + j >= first && base + j <= last;
        u64 vector = (u64)kv_head * a.n_slots + (is_seen ? prefill_slot(a, base + j) : 0);
        const u32x2* keys = (const u32x2*)(a.key_cells + vector * bytes);
        const u32x2* values = (const u32x2*)(a.value_cells + vector * bytes);
        for (u32 i = lane_idx(); i < bytes / 8; i += 32) {
            u32x2 key = {0, 0}, value = {0, 0};
            if (is_seen) {
                key = keys[i];
                value = values[i];
            }
            ((u32x2*)(s.keys + j * bytes))[i] = key;
            ((u32x2*)(s.values + j * bytes))[i] = value;
        }
        if (FORMAT == KV_I8 && lane_idx() == 0) {
            s.key_scales[j] = is_seen ? a.key_scales[vector] : 0.0f;
            s.value_scales[j] = is_seen ? a.value_scales[vector] : 0.0f;
        }
    }
}

// The vectors (GROUP, dim) at `from`.
template <int FORMAT, int DIMS> DEVICE void prefill_group(Packed<FORMAT, DIMS> (&group)[GROUP], const u8* from, u32 dim) {
#pragma unroll
    for (int i = 0; i < (int)GROUP; i++) {
        group[i] = packed_zeros<FORMAT, DIMS>();
        if (lane_idx() * DIMS < dim) group[i] = packed_load<FORMAT, DIMS>(from + i * kv_bytes<FORMAT>(dim), lane_idx());
    }
}

template <int FORMAT, int DIMS, int ROWS> DEVICE void prefill_rows(const PrefillArgs& a, const PrefillShared& s) {
    const u32 KEYS = PrefillTile<FORMAT, DIMS>::KEYS;
    u32 per_kv = a.per_kv, kv_head = block_y(), total = a.n_rows * per_kv;
    u32 position = *a.position, bytes = kv_bytes<FORMAT>(a.dim);
    // Rows of the block, of the warp, and the lane's own; a warp past the end repeats the last row and writes nothing.
    u32 block_first = block_x() * PREFILL_WARPS * ROWS;
    u32 block_last = block_first + PREFILL_WARPS * ROWS - 1 < total ? block_first + PREFILL_WARPS * ROWS - 1 : total - 1;
    u32 first = block_first + warp_idx() * ROWS, last = first + ROWS - 1;
    first = first < total ? first : total - 1;
    last = last < total ? last : total - 1;
    u32 mine = first + flash_row<ROWS>() < last ? first + flash_row<ROWS>() : last;
    // Positions of the last row and the lane's, and what the first and the lane's see.
    u32 block_until = position + block_last / per_kv, until = position + mine / per_kv;
    u32 block_from = first_visible(position + block_first / per_kv, a.window), from = first_visible(until, a.window);

    FlashRows<FORMAT, DIMS, ROWS> f;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        u32 row = first + r < last ? first + r : last, t = row / per_kv;
        const float* q = a.q + ((u64)t * a.n_heads + kv_head * per_kv + row - t * per_kv) * a.dim;
        flash_load(f, r, q, a.dim, a.scale * LOG2_E);
    }
    flash_reset(f);

    for (u32 base = block_from / KEYS * KEYS; base <= block_until; base += KEYS) {
        sync_block();
        prefill_load<FORMAT, DIMS>(a, s, kv_head, base, block_from, block_until);
        sync_block();
        for (u32 j = 0; j < KEYS; j += GROUP) {
            u32 key = base + j + flash_key();
            bool visible = key >= from && key <= until, is_i8 = FORMAT == KV_I8;
            if (!ballot(visible)) continue;
            Packed<FORMAT, DIMS> group[GROUP];
            prefill_group(group, s.keys + j * bytes, a.dim);
            float weight = flash_keys(f, group, visible, is_i8 ? s.key_scales[j + flash_key()] : 1.0f);
            prefill_group(group, s.values + j * bytes, a.dim);
            flash_values(f, group, is_i8 ? weight * s.value_scales[j + flash_key()] : weight);
        }
    }

    float inverse = divide(1.0f, flash_sum(f));
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float scale = shuffle_from(inverse, flash_lane<ROWS>(0, r));
        u32 row = block_first + warp_idx() * ROWS + r, t = row / per_kv;
        if (row >= total || lane_idx() * DIMS >= a.dim) continue;
        float* out = a.out + ((u64)t * a.n_heads + kv_head * per_kv + row - t * per_kv) * a.dim + lane_idx() * DIMS;
#pragma unroll
        for (int d = 0; d < DIMS; d++) out[d] = f.o[r][d] * scale;
    }
}

// (ceil(T * heads of a kv head / (8 * ROWS)), n_kv_heads) blocks. At most 32 * DIMS values a head.
#define PREFILL_KERNEL(FORMAT, DIMS, ROWS, name)                                                                               \
    KERNEL(256, 2, name, float* out, const float* q, const u8* key_cells, const float* key_scales, const u8* value_cells,      \
           const float* value_scales, const u32* position, const u32* pages, float scale, u32 window, u32 n_rows, u32 n_heads, \
           u32 per_kv, u32 dim, u32 n_slots, u32 n_entries) {                                                                  \
        typedef PrefillTile<FORMAT, DIMS> Tile;                                                                                \
        SHARED(u8, tile_keys, Tile::BYTES);                                                                                    \
        SHARED(u8, tile_values, Tile::BYTES);                                                                                  \
        SHARED(float, tile_key_scales, FORMAT == KV_I8 ? Tile::KEYS : 1);                                                      \
        SHARED(float, tile_value_scales, FORMAT == KV_I8 ? Tile::KEYS : 1);                                                    \
        PrefillShared shared = {tile_keys, tile_values, tile_key_scales, tile_value_scales};                                   \
        PrefillArgs args = {out,    q,      key_cells, key_scales, value_cells, value_scales, position, pages,                 \
                            scale,  window, n_rows,    n_heads,    per_kv,      dim,          n_slots,  n_entries};            \
        prefill_rows<FORMAT, DIMS, ROWS>(args, shared);                                                                        \
    }
