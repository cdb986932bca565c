// Attention of one new token, or of one of each sequence of a batch: QK-norm, RoPE, the write to the cache and the attention
// in one launch.
//
// Block (split, kv head and group of its query heads, row of the batch). The visible older positions are cut into as many
// KV splits as the grid is wide, fewer where there are few of them; the block of the last KV split also prepares and stores the
// newest key and value, and is the only one to read them. Blocks without a KV split leave. The last block to finish merges the
// KV splits in order.
//
// A batch keeps its positions in pages (PAGED). Its KV splits begin at whole pages, and their length is what the row's own
// positions want: a row's sums depend on its position alone, neither on the rows beside it nor on the grid (see page_splits
// of cuda.rs).
#pragma once
#include "prepare.cuh"

const u32 WARPS = 4;
// KV splits are at least this long: two groups of keys a warp.
const u32 SPLIT_MIN = 2 * WARPS * GROUP;
// The grid's width at most.
const u32 SPLITS_MAX = 64;
// The slot of a padding row.
const u32 NO_SLOT = 0xffffffff;

struct DecodeArgs {
    // (n_heads, dim)
    float* out;
    const float* q;
    // (n_kv_heads, dim)
    const float* k;
    const float* v;
    // (n_kv_heads, n_slots, dim), (n_kv_heads, n_slots)
    u8* key_cells;
    float* key_scales;
    u8* value_cells;
    float* value_scales;
    // (positions, dim / 2)
    const float* cos;
    const float* sin;
    // (dim) or null
    const float* q_norm;
    const float* k_norm;
    u32 position;
    // (grid_y), zeros before and after
    u32* finished;
    // (n_heads, grid_x, dim + 2): maximum, sum of exponentials, sum of values
    float* partial;
    float eps, scale;
    u32 window, n_heads, n_kv_heads, dim, n_slots;
    // Pages alone: those of the sequence (n_entries), and the least length of a KV split, whole pages.
    const u32* pages;
    u32 n_entries, split_min;
};

// Shared memory, floats: `work` (WARPS * ROWS * dim) holds the prepared vectors, then the warps' results, then the merge
// weights; `newest` the two stored vectors.
template <int FORMAT, int DIMS, int ROWS> struct DecodeSizes {
    static const u32 WORK = WARPS * ROWS * DIMS * 32 > SPLITS_MAX * ROWS * 2 ? WARPS * ROWS * DIMS * 32 : SPLITS_MAX * ROWS * 2;
    static const u32 NEWEST = 2 * DIMS * 32;
};

struct DecodeShared {
    float* work;
    u32* newest;
    float* newest_scales; // 2
    float* tops;          // WARPS * ROWS
    float* sums;          // WARPS * ROWS
    u32* is_last;
};

// What a block does, the same in all its threads.
struct KvSplit {
    u32 kv_head, first_head, n_rows;
    // The KV split's older positions, `begin..end`: in a ring counted from the oldest that is visible, which is in slot
    // `start`; in pages as they are, and `start` is the oldest that is visible.
    u32 begin, end, start;
    u32 position, n_splits;
    bool owns_newest;
};

template <int ROWS, bool PAGED> DEVICE KvSplit kv_split(const DecodeArgs& a) {
    KvSplit p;
    u32 per_kv = a.n_heads / a.n_kv_heads, groups = div_up(per_kv, ROWS);
    p.kv_head = block_y() / groups;
    u32 group = block_y() - p.kv_head * groups;
    p.first_head = p.kv_head * per_kv + group * ROWS;
    p.n_rows = per_kv - group * ROWS < ROWS ? per_kv - group * ROWS : ROWS;
    p.position = a.position;
    u32 n_older = p.position < a.window - 1 ? p.position : a.window - 1;
    if (PAGED) {
        p.start = p.position - n_older;
        u32 base = n_older == 0 ? p.position : p.start / PAGE * PAGE;
        u32 length = div_up(div_up(p.position - base, grid_x()), PAGE) * PAGE;
        if (length < a.split_min) length = a.split_min;
        p.n_splits = n_older == 0 ? 1 : div_up(p.position - base, length);
        p.begin = base + block_x() * length;
        p.end = p.begin + length < p.position ? p.begin + length : p.position;
    } else {
        p.start = (p.position - n_older) % a.n_slots;
        u32 length = div_up(div_up(n_older, grid_x()), WARPS * GROUP) * WARPS * GROUP;
        if (length < SPLIT_MIN) length = SPLIT_MIN;
        p.n_splits = n_older == 0 ? 1 : div_up(n_older, length);
        p.begin = block_x() * length;
        p.end = p.begin + length < n_older ? p.begin + length : n_older;
    }
    p.owns_newest = block_x() + 1 == p.n_splits;
    return p;
}

// The block's query heads into `work` (n_rows, dim), and with the last KV split the newest key and value into `newest` and,
// by the first group of heads, into the cache.
template <int FORMAT, int DIMS, int ROWS, bool PAGED>
DEVICE void decode_prepare(const DecodeArgs& a, const KvSplit& p, const DecodeShared& s) {
    u64 angle = (u64)p.position * (a.dim / 2);
    u32 n_vectors = p.n_rows + (p.owns_newest ? 2 : 0);
    for (u32 i = warp_idx(); i < n_vectors; i += WARPS) {
        float* row = s.work + i * a.dim;
        if (i < p.n_rows) {
            norm_and_rotate(row, a.q + (u64)(p.first_head + i) * a.dim, a.dim, a.q_norm, a.eps, a.cos + angle, a.sin + angle);
            continue;
        }
        bool is_key = i == p.n_rows;
        norm_and_rotate(row, (is_key ? a.k : a.v) + (u64)p.kv_head * a.dim, a.dim, is_key ? a.k_norm : nullptr, a.eps,
                        is_key ? a.cos + angle : nullptr, a.sin + angle);
        u32* stored = s.newest + (is_key ? 0 : DIMS * 32);
        float* scale = s.newest_scales + (is_key ? 0 : 1);
        store_vector(FORMAT, row, a.dim, stored, scale);
        sync_warp();
        if (p.first_head == p.kv_head * (a.n_heads / a.n_kv_heads)) {
            u32 slot = PAGED ? page_slot(a.pages, a.n_entries, p.position) : p.position % a.n_slots;
            u64 vector = (u64)p.kv_head * a.n_slots + slot;
            u32* cells = (u32*)((is_key ? a.key_cells : a.value_cells) + vector * kv_bytes<FORMAT>(a.dim));
            for (u32 d = lane_idx(); d < kv_bytes<FORMAT>(a.dim) / 4; d += 32) cells[d] = stored[d];
            if (FORMAT == KV_I8 && lane_idx() == 0) (is_key ? a.key_scales : a.value_scales)[vector] = *scale;
        }
    }
}

// Where a ring has visible older position i.
DEVICE u32 decode_slot(const DecodeArgs& a, const KvSplit& p, u32 i) {
    u32 slot = p.start + i;
    return slot >= a.n_slots ? slot - a.n_slots : slot;
}

// The keys and values of the KV split that are the warp's: every WARPS-th group, and before them the newest, a group of one, by
// the first warp of the block that has it. Groups in pages begin at multiples of their length: one lies in one page, and
// the first ones may hold positions that are not visible any more.
template <int FORMAT, int DIMS, int ROWS, bool PAGED>
DEVICE void decode_attend(const DecodeArgs& a, const KvSplit& p, const DecodeShared& s, FlashRows<FORMAT, DIMS, ROWS>& f) {
    u64 plane = (u64)p.kv_head * a.n_slots;
    u32 bytes = kv_bytes<FORMAT>(a.dim);
    bool has_dims = lane_idx() * DIMS < a.dim;
    bool is_newest = p.owns_newest && warp_idx() == 0;
    u32 i = p.begin + warp_idx() * GROUP;
    while (is_newest || i < p.end) {
        Packed<FORMAT, DIMS> keys[GROUP], values[GROUP];
        u32 n = is_newest ? 1 : p.end - i;
        u32 n_skipped = PAGED && !is_newest && i < p.start ? p.start - i : 0;
        u32 group_slot = PAGED && !is_newest ? page_slot(a.pages, a.n_entries, i) : 0;
#pragma unroll
        for (int j = 0; j < (int)GROUP; j++) {
            keys[j] = values[j] = packed_zeros<FORMAT, DIMS>();
            if ((u32)j >= n_skipped && (u32)j < n && has_dims) {
                u64 vector = (plane + (PAGED ? group_slot + j : decode_slot(a, p, i + j))) * bytes;
                keys[j] = packed_load<FORMAT, DIMS>(is_newest ? (const u8*)s.newest : a.key_cells + vector, lane_idx());
                values[j] = packed_load<FORMAT, DIMS>(is_newest ? (const u8*)(s.newest + DIMS * 32) : a.value_cells + vector,
                                                      lane_idx());
            }
        }
        bool visible = flash_key() >= n_skipped && flash_key() < n;
        float key_scale = 1.0f, value_scale = 1.0f;
        if (FORMAT == KV_I8 && visible) {
            u64 vector = plane + (PAGED ? group_slot + flash_key() : decode_slot(a, p, i + flash_key()));
            key_scale = is_newest ? s.newest_scales[0] : a.key_scales[vector];
            value_scale = is_newest ? s.newest_scales[1] : a.value_scales[vector];
        }
        float weight = flash_keys(f, keys, visible, key_scale);
        flash_values(f, values, weight * value_scale);
        if (!is_newest) i += WARPS * GROUP;
        is_newest = false;
    }
}

// A warp leaves its results where decode_merge_warps finds them. The queries have been read by all.
template <int FORMAT, int DIMS, int ROWS>
DEVICE void write_partials(const DecodeArgs& a, const DecodeShared& s, const FlashRows<FORMAT, DIMS, ROWS>& f) {
    float sum = flash_sum(f);
    u32 warp = warp_idx(), first = lane_idx() * DIMS;
    if (flash_key() == 0) {
        s.tops[warp * ROWS + flash_row<ROWS>()] = f.top;
        s.sums[warp * ROWS + flash_row<ROWS>()] = sum;
    }
    if (first < a.dim) {
#pragma unroll
        for (int r = 0; r < ROWS; r++)
#pragma unroll
            for (int d = 0; d < DIMS; d++) s.work[(warp * ROWS + r) * a.dim + first + d] = f.o[r][d];
    }
}

// The warps' results, (WARPS, ROWS) maxima and sums and (WARPS, ROWS, dim) values in `work`, are merged and written: to
// `out` where the block did everything, else to `partial`.
template <int ROWS> DEVICE void decode_merge_warps(const DecodeArgs& a, const KvSplit& p, const DecodeShared& s) {
    for (u32 r = 0; r < p.n_rows; r++) {
        float top = s.tops[r], total = 0.0f, weights[WARPS];
        for (u32 w = 1; w < WARPS; w++) top = max_f32(top, s.tops[w * ROWS + r]);
        for (u32 w = 0; w < WARPS; w++) {
            weights[w] = exp2_approx(s.tops[w * ROWS + r] - top);
            total = fma(weights[w], s.sums[w * ROWS + r], total);
        }
        u64 head = p.first_head + r;
        float* partial = a.partial + (head * grid_x() + block_x()) * (a.dim + 2);
        for (u32 d = thread_idx(); d < a.dim; d += WARPS * 32) {
            float v = 0.0f;
            for (u32 w = 0; w < WARPS; w++) v = fma(weights[w], s.work[(w * ROWS + r) * a.dim + d], v);
            if (p.n_splits == 1) a.out[head * a.dim + d] = divide(v, total);
            else partial[2 + d] = v;
        }
        if (p.n_splits > 1 && thread_idx() == 0) {
            partial[0] = top;
            partial[1] = total;
        }
    }
}

// The last block merges what all blocks of its heads left.
template <int ROWS> DEVICE void merge_kv_splits(const DecodeArgs& a, const KvSplit& p, const DecodeShared& s) {
    u32 stride = a.dim + 2;
    const float* partial = a.partial + (u64)p.first_head * grid_x() * stride;
    // A warp has a row, and each lane two KV splits of it: their weights into `work` (ROWS, SPLITS_MAX), zeros behind the last.
    for (u32 r = warp_idx(); r < p.n_rows; r += WARPS) {
        float tops[2], sums[2];
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
            u32 split = lane_idx() + 32 * j;
            const float* from = partial + ((u64)r * grid_x() + split) * stride;
            tops[j] = split < p.n_splits ? load_coherent(from) : minus_infinity();
            sums[j] = split < p.n_splits ? load_coherent(from + 1) : 0.0f;
        }
        float top = warp_max<32>(max_f32(tops[0], tops[1])), total = 0.0f;
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
            float weight = exp2_approx(tops[j] - top);
            s.work[r * SPLITS_MAX + lane_idx() + 32 * j] = weight;
            total = fma(weight, sums[j], total);
        }
        total = warp_sum<32>(total);
        if (lane_idx() == 0) s.sums[r] = total;
    }
    sync_block();
    // Sixteen loads at a time are on their way: eight KV splits of two values.
    const u32 AT_ONCE = 8, THREADS = WARPS * 32;
    u32 n_values = p.n_rows * a.dim;
    for (u32 i = thread_idx(); i < n_values; i += 2 * THREADS) {
        float v[2] = {0.0f, 0.0f};
        u32 rows[2];
        const float* from[2];
#pragma unroll
        for (u32 k = 0; k < 2; k++) {
            // Behind the last value the first of the two again.
            u32 value = i + k * THREADS < n_values ? i + k * THREADS : i;
            rows[k] = value / a.dim;
            from[k] = partial + (u64)rows[k] * grid_x() * stride + 2 + (value - rows[k] * a.dim);
        }
        for (u32 split = 0; split < p.n_splits; split += AT_ONCE) {
            float terms[2][AT_ONCE];
#pragma unroll
            for (u32 k = 0; k < 2; k++)
#pragma unroll
                for (u32 j = 0; j < AT_ONCE; j++)
                    terms[k][j] = split + j < p.n_splits ? load_coherent(from[k] + (u64)(split + j) * stride) : 0.0f;
#pragma unroll
            for (u32 k = 0; k < 2; k++)
#pragma unroll
                for (u32 j = 0; j < AT_ONCE; j++)
                    if (split + j < p.n_splits) v[k] = fma(s.work[rows[k] * SPLITS_MAX + split + j], terms[k][j], v[k]);
        }
#pragma unroll
        for (u32 k = 0; k < 2; k++)
            if (i + k * THREADS < n_values)
                a.out[(u64)p.first_head * a.dim + i + k * THREADS] = divide(v[k], s.sums[rows[k]]);
    }
}

// After every warp has left its results: the block merges them, and the last of its heads' blocks what all gave.
template <int ROWS> DEVICE void decode_finish(const DecodeArgs& a, const KvSplit& p, const DecodeShared& s) {
    sync_block();
    decode_merge_warps<ROWS>(a, p, s);
    if (p.n_splits == 1) return;
    fence_device();
    sync_block();
    if (thread_idx() == 0) {
        bool is_last = atomic_add(a.finished + block_y(), 1) + 1 == p.n_splits;
        if (is_last) a.finished[block_y()] = 0;
        *s.is_last = is_last;
        fence_device();
    }
    sync_block();
    if (*s.is_last) merge_kv_splits<ROWS>(a, p, s);
}

template <int FORMAT, int DIMS, int ROWS, bool PAGED> DEVICE void decode(const DecodeArgs& a, const DecodeShared& s) {
    KvSplit p = kv_split<ROWS, PAGED>(a);
    if (block_x() >= p.n_splits) return;
    decode_prepare<FORMAT, DIMS, ROWS, PAGED>(a, p, s);
    sync_block();
    FlashRows<FORMAT, DIMS, ROWS> f;
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        flash_load(f, r, (u32)r < p.n_rows ? s.work + r * a.dim : nullptr, a.dim, a.scale * LOG2_E);
    flash_reset(f);
    decode_attend<FORMAT, DIMS, ROWS, PAGED>(a, p, s, f);
    // The queries have been read: their memory takes the results.
    sync_block();
    write_partials(a, s, f);
    decode_finish<ROWS>(a, p, s);
}

#define DECODE_SHARED(FORMAT, DIMS, ROWS)                                                                                      \
    typedef DecodeSizes<FORMAT, DIMS, ROWS> Sizes;                                                                             \
    SHARED(float, work, Sizes::WORK);                                                                                          \
    SHARED(u32, newest, Sizes::NEWEST);                                                                                        \
    SHARED(float, newest_scales, 2);                                                                                           \
    SHARED(float, tops, WARPS* ROWS);                                                                                          \
    SHARED(float, sums, WARPS* ROWS);                                                                                          \
    SHARED(u32, is_last, 1);                                                                                                   \
    DecodeShared shared = {work, newest, newest_scales, tops, sums, is_last};

// (n_splits, n_kv_heads * groups of ROWS heads) blocks. At most 32 * DIMS values a head.
#define DECODE_KERNEL(FORMAT, DIMS, ROWS, name)                                                                                \
    KERNEL(128, 3, name, float* out, const float* q, const float* k, const float* v, u8* key_cells, float* key_scales,         \
           u8* value_cells, float* value_scales, const float* cos, const float* sin, const float* q_norm,                      \
           const float* k_norm, const u32* position, u32* finished, float* partial, float eps, float scale, u32 window,        \
           u32 n_heads, u32 n_kv_heads, u32 dim, u32 n_slots) {                                                                \
        DECODE_SHARED(FORMAT, DIMS, ROWS)                                                                                      \
        DecodeArgs args = {out,      q,        k,       v,   key_cells, key_scales, value_cells, value_scales,                 \
                           cos,      sin,      q_norm,  k_norm,  *position, finished,   partial,     eps,                      \
                           scale,    window,   n_heads, n_kv_heads, dim,    n_slots,    nullptr,     0,                        \
                           0};                                                                                                 \
        decode<FORMAT, DIMS, ROWS, false>(args, shared);                                                                       \
    }

// As many blocks for each row. q, k, v and out have a row each; `positions` and `slots` (rows) say where it is and whose
// pages of `table` (slots, n_entries) it sees. A row of no slot leaves its part of `out` as it is. The function that comes
// last does the work.
#define PAGES_KERNEL_OF(FORMAT, DIMS, ROWS, MIN_BLOCKS, name, ...)                                                             \
    KERNEL(128, MIN_BLOCKS, name, float* out, const float* q, const float* k, const float* v, u8* key_cells,                   \
           float* key_scales,                                                                                                  \
           u8* value_cells, float* value_scales, const float* cos, const float* sin, const float* q_norm,                      \
           const float* k_norm, const u32* positions, const u32* slots, const u32* table, u32* finished, float* partial,       \
           float eps, float scale, u32 window, u32 n_heads, u32 n_kv_heads, u32 dim, u32 n_slots, u32 n_entries,               \
           u32 split_min) {                                                                                                     \
        DECODE_SHARED(FORMAT, DIMS, ROWS)                                                                                      \
        launch_dependents();                                                                                                      \
        wait_for_primary();                                                                                                   \
        u32 row = block_z(), slot = slots[row];                                                                                \
        if (slot == NO_SLOT) return;                                                                                           \
        u64 q_row = (u64)row * n_heads * dim, kv_row = (u64)row * n_kv_heads * dim;                                            \
        DecodeArgs args = {out + q_row,                                                                                        \
                           q + q_row,                                                                                          \
                           k + kv_row,                                                                                         \
                           v + kv_row,                                                                                         \
                           key_cells,                                                                                          \
                           key_scales,                                                                                         \
                           value_cells,                                                                                        \
                           value_scales,                                                                                       \
                           cos,                                                                                                \
                           sin,                                                                                                \
                           q_norm,                                                                                             \
                           k_norm,                                                                                             \
                           positions[row],                                                                                     \
                           finished + row * grid_y(),                                                                          \
                           partial + (u64)row * n_heads * grid_x() * (dim + 2),                                                \
                           eps,                                                                                                \
                           scale,                                                                                              \
                           window,                                                                                             \
                           n_heads,                                                                                            \
                           n_kv_heads,                                                                                         \
                           dim,                                                                                                \
                           n_slots,                                                                                            \
                           table + (u64)slot * n_entries,                                                                      \
                           n_entries,                                                                                          \
                           split_min};                                                                                          \
        __VA_ARGS__(args, shared);                                                                                             \
    }

#define PAGES_KERNEL(FORMAT, DIMS, ROWS, name)                                                                                 \
    PAGES_KERNEL_OF(FORMAT, DIMS, ROWS, 3, name, decode<FORMAT, DIMS, ROWS, true>)
