// What the tile kernels share: where a block's tile lies, which splits of K it computes, and what happens to sums.
//
// K is cut into `n_splits` splits, each summed from zero in order of k; the split-K partials are then added in order.
// The cut depends on the matrix and the device, not on the number of tokens, and a tile shape decides only which block
// computes an element. So a token's outputs do not depend on its batch. Few tokens: blocks of grid_z compute one split
// each and leave their sums in `partials` (matmul_reduce_splits adds them). Many: one block goes through all splits
// and keeps the sum so far in `out`.
#pragma once
#include "common.cuh"

struct PrefillArgs {
    // (n_tokens, n_rows).
    float* out;
    // (grid_z, n_tokens, n_rows), or null when grid_z = 1.
    float* partials;
    // (n_tokens padded to whole tiles, k_tiles * 128) and their scales (n_tokens).
    const u16* x;
    const float* x_scales;
    const u8* codes;
    const u16* scales;
    // (n_rows) or null.
    const float* bias;
    u32 n_tokens, n_rows, k_tiles, n_splits;
    float weight_scale;
    // What is in `out` is added to. It then holds no split-K partials: there is one, or `partials` takes them.
    u32 accumulate;
};

#define PREFILL_PARAMS                                                                                                         \
    float *out, float *partials, const u16 *x, const float *x_scales, const u8 *codes, const u16 *scales, const float *bias,  \
        u32 n_tokens, u32 n_rows, u32 k_tiles, u32 n_splits, float weight_scale, u32 accumulate
#define PREFILL_ARGS                                                                                                           \
    PrefillArgs {                                                                                                             \
        out, partials, x, x_scales, codes, scales, bias, n_tokens, n_rows, k_tiles, n_splits, weight_scale, accumulate       \
    }

// Blocks that run together share tiles in the second-level cache: they go through groups of eight tiles of tokens, all
// rows of a group before the next group, tokens fastest.
struct TilePlace {
    u32 token, row;
};
template <u32 TOKENS, u32 ROWS> DEVICE TilePlace tile_place(const PrefillArgs& a) {
    u32 token_tiles = div_up(a.n_tokens, TOKENS), row_tiles = div_up(a.n_rows, ROWS);
    u32 group = block_x() / (8 * row_tiles);
    u32 in_group = token_tiles - 8 * group < 8 ? token_tiles - 8 * group : 8;
    u32 at = block_x() - group * 8 * row_tiles;
    return TilePlace{(8 * group + at % in_group) * TOKENS, at / in_group * ROWS};
}

// The splits of this block; a split starts at a k-tile of 128.
struct Splits {
    u32 first, end;
};
DEVICE Splits splits_of_block(const PrefillArgs& a) {
    return a.partials ? Splits{block_z(), block_z() + 1} : Splits{0, a.n_splits};
}
DEVICE u32 split_start(const PrefillArgs& a, u32 split) {
    return split * a.k_tiles / a.n_splits;
}

struct Sink {
    float* out;
    bool add, finish, vector;
};
DEVICE Sink sink_of_split(const PrefillArgs& a, u32 split) {
    Sink s;
    s.out = a.partials ? a.partials + (u64)split * a.n_tokens * a.n_rows : a.out;
    s.add = !a.partials && split > 0;
    s.finish = !a.partials && split + 1 == a.n_splits;
    s.vector = (a.n_rows & 3) == 0 && ((u64)s.out & 15) == 0;
    return s;
}

// What put_four adds to: read for many of them before the first writes, since each read after a write would wait for it.
DEVICE f32x4 four_before(const PrefillArgs& a, const Sink& s, u32 t, u32 n) {
    f32x4 before = {0.0f, 0.0f, 0.0f, 0.0f};
    if (!a.accumulate || !s.finish || t >= a.n_tokens || n >= a.n_rows) return before;
    const float* out = s.out + (u64)t * a.n_rows + n;
    if (s.vector) return *(const f32x4*)out;
    before.x = out[0];
    if (n + 1 < a.n_rows) before.y = out[1];
    if (n + 2 < a.n_rows) before.z = out[2];
    if (n + 3 < a.n_rows) before.w = out[3];
    return before;
}

// The sums of token t, rows n..n + 3, of which those inside the matrix are kept. There are up to 64 of these calls in a
// kernel: the common case alone has instructions of its own.
DEVICE void put_four(const PrefillArgs& a, const Sink& s, u32 t, u32 n, float (&sum)[4], const f32x4& before) {
    if (t >= a.n_tokens || n >= a.n_rows) return;
    float* out = s.out + (u64)t * a.n_rows + n;
    if (s.add) {
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            if (n + i < a.n_rows) sum[i] = out[i] + sum[i];
    }
    if (s.finish) {
        float x_scale = a.x_scales[t];
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            sum[i] = sum[i] * a.weight_scale * x_scale;
            if (a.bias && n + i < a.n_rows) sum[i] += a.bias[n + i];
        }
        if (a.accumulate) {
            sum[0] += before.x;
            sum[1] += before.y;
            sum[2] += before.z;
            sum[3] += before.w;
        }
    }
    if (s.vector) {
        *(f32x4*)out = f32x4{sum[0], sum[1], sum[2], sum[3]};
    } else {
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            if (n + i < a.n_rows) out[i] = sum[i];
    }
}
