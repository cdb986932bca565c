// What both kinds of batch kernels share: a lane's weights on their way from memory to fragments of tensor cores, and its sums
// on their way back.
//
// A lane (g = lane / 4, t = lane % 4) has N rows of its warp: rows g and g + 8 of sixteen, and the same of the next sixteen,
// which begin SPREAD eights further. It loads sixteen bytes of each at once: which k those are is the format's business, as
// long as the tokens' fragments take the same ones. They go to registers, the next ones while these are multiplied: through
// shared memory they would pass twice, and shared memory is what these kernels wait for on an H200.
#pragma once
#include "batch_args.cuh"
#include "batch_pairs.cuh"

#if LICHEN_ARCH >= 80

// Steps of 128 k that a ring of x holds.
const u32 BATCH_STEPS = 2;

template <class W, u32 N, u32 SPREAD> struct BatchRows {
    // Loads of a row in a step, and chunks of eight k in a load.
    static constexpr u32 LOADS = 32 / W::K_PER_LOAD, CHUNKS = W::K_PER_LOAD / 8;
    // Bytes from one step to the next, in a row of codes.
    static constexpr u32 STEP_BYTES = W::PLAIN ? 256 : 512;

    struct Loaded {
        u32x4 codes[N];
        u16 scales[N];
    };

    // This lane's in row g of the next load. Eight rows further are `eight_bytes` on, up to the `last`-th eight.
    const u8* codes;
    const u8* scales;
    u32 eight_bytes, last;

    // Of the lane's i-th row, in eights.
    DEVICE u32 eight_of(u32 i) { return i / 2 * SPREAD + i % 2; }

    // Matrices are packed with whole groups of eight rows: those past the last are computed from it and not kept.
    DEVICE_MEMBER void start(const BatchPart& part, u32 first_row, u32 step, u32 k_tiles) {
        u32 lane = lane_idx(), first_eight = first_row / 8, last_eight = (part.n_rows - 1) / 8;
        if (first_eight > last_eight) first_eight = last_eight;
        last = last_eight - first_eight;
        eight_bytes = (u32)W::code_offset(8, 0, k_tiles);
        u64 at = W::code_offset(8 * first_eight + lane / 4, lane % 4 * W::K_PER_LOAD, k_tiles) + (u64)step * STEP_BYTES;
        codes = part.codes + at;
        if constexpr (!W::PLAIN) scales = (const u8*)part.scales + at / (2 * W::SCALE_RATIO) * 2;
    }

    // The l-th load of the step; the last moves on to the next step.
    DEVICE_MEMBER void load(Loaded& to, u32 l) {
#pragma unroll
        for (u32 i = 0; i < N; i++) {
            u32 at = (eight_of(i) < last ? eight_of(i) : last) * eight_bytes;
            to.codes[i] = load_stream((const u32x4*)(codes + at + l * 64));
            if constexpr (!W::PLAIN)
                to.scales[i] = load_stream((const u16*)(scales + at / W::SCALE_RATIO + l * 64 / W::SCALE_RATIO));
        }
        if (l + 1 == LOADS) {
            codes += STEP_BYTES;
            if constexpr (!W::PLAIN) scales += STEP_BYTES / W::SCALE_RATIO;
        }
    }

    // Chunk j of a load as weights: of each row four pairs of 16-bit floats.
    DEVICE void decode(const Loaded& from, u32 j, const u8* table, u32 (&rows)[N][4]) {
#pragma unroll
        for (u32 i = 0; i < N; i++) {
            batch_pairs(W{}, table, from.codes[i], j, rows[i]);
            if constexpr (!W::PLAIN) {
                u32 scale = both_halves(from.scales[i]);
#pragma unroll
                for (u32 p = 0; p < 4; p++) rows[i][p] = mul_f16x2(rows[i][p], scale);
            }
        }
    }

    // Rows 2 m and 2 m + 1 as A operands of products over the chunk's first four pairs of k, and its last (common.cuh,
    // mma_f16).
    DEVICE void fragments(const u32 (&rows)[N][4], u32 m, u32 (&lower)[4], u32 (&upper)[4]) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            lower[i] = rows[2 * m + i % 2][i / 2];
            upper[i] = rows[2 * m + i % 2][2 + i / 2];
        }
    }

    template <u32 NT> DEVICE void clear(float (&sums)[N / 2][NT][4]) {
#pragma unroll
        for (u32 m = 0; m < N / 2; m++)
#pragma unroll
            for (u32 n = 0; n < NT; n++)
#pragma unroll
                for (u32 i = 0; i < 4; i++) sums[m][n][i] = 0.0f;
    }

    // A lane's sums: its rows, of two tokens of every eight. `partials`: of this split and part, or null.
    template <u32 NT>
    DEVICE void put(const BatchArgs& a, const BatchPart& part, u32 first_row, const float (&sums)[N / 2][NT][4],
                    float* partials, u32 all_rows) {
        // Opaque: read again behind the sum: no register holds it through that.
        u32 lane = opaque(lane_idx()), stride = partials ? all_rows : part.n_rows;
        float* out = partials ? partials : part.out;
#pragma unroll
        for (u32 n = 0; n < NT; n++)
#pragma unroll
            for (u32 odd = 0; odd < 2; odd++) {
                u32 token = 8 * n + (lane & 3) * 2 + odd;
                if (token >= a.n_tokens) continue;
                float x_scale = partials ? 0.0f : a.x_scales[token];
#pragma unroll
                for (u32 i = 0; i < N; i++) {
                    u32 row = first_row + 8 * eight_of(i) + (lane >> 2);
                    if (row >= part.n_rows) continue;
                    float sum = sums[i / 2][n][i % 2 * 2 + odd];
                    out[(u64)token * stride + row] = partials ? sum : batch_finish(part, sum, x_scale, row);
                }
            }
    }
};

// Where a block's rows are: a part, its tile of so many rows, and the rows of the parts before.
struct BatchPlace {
    BatchPart part;
    u32 tile, before;
};

DEVICE BatchPlace batch_place(const BatchPart (&parts)[BATCH_PARTS], u32 tile, u32 rows) {
    BatchPlace p = {parts[0], tile, 0};
#pragma unroll
    for (u32 i = 0; i + 1 < BATCH_PARTS; i++) {
        u32 tiles = div_up(p.part.n_rows, rows);
        if (p.tile < tiles) break;
        p.tile -= tiles;
        p.before += p.part.n_rows;
        p.part = parts[i + 1];
    }
    return p;
}

// One tile of one part, one split of K: that of block_z.
template <class Tile> DEVICE void batch_run(const BatchArgs& a, const BatchPart (&parts)[BATCH_PARTS], u8* memory) {
    float sums[Tile::M_TILES][Tile::NT][4];
    u32 split = block_z();
    launch_dependents();
    {
        BatchPlace place = batch_place(parts, block_x(), Tile::rows_of_block());
        Tile tile(a, place.part, Tile::first_row(place.tile), memory);
        tile.sum(sums, split * a.k_tiles / a.n_splits, (split + 1) * a.k_tiles / a.n_splits);
    }
    // Found again: during the sum it would take ten registers.
    BatchPlace place = batch_place(parts, opaque(block_x()), Tile::rows_of_block());
    u32 all_rows = 0;
#pragma unroll
    for (u32 i = 0; i < BATCH_PARTS; i++) all_rows += parts[i].n_rows;
    float* partials = a.partials ? a.partials + (u64)split * a.n_tokens * all_rows + place.before : nullptr;
    Tile::Rows::put(a, place.part, Tile::first_row(place.tile), sums, partials, all_rows);
}

#define BATCH_KERNEL(name, threads, ...)                                                                                       \
    KERNEL(threads, 1, name, BATCH_PARAMS) {                                                                                   \
        DYNAMIC_SHARED(u8, memory);                                                                                            \
        BatchArgs args = BATCH_ARGS;                                                                                           \
        const BatchPart parts[BATCH_PARTS] = BATCH_PARTS_GIVEN;                                                                \
        batch_run<__VA_ARGS__>(args, parts, memory);                                                                           \
    }

#endif
