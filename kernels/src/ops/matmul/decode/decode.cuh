// Products of T = 1..8 rows of x with a few matrices of one format: `out[t, n] = sum over k of w[n, k] x[t, k] + bias[n]`.
//
// A warp multiplies two tiles of rows at once (a unit), k-tile by k-tile in batches of two; the weights are decoded once for
// all columns. `splits` warps share a unit's batches in turn, and their sums are added in order. So the order of a row's
// sum depends on the format and `splits` alone: not on T, the other rows, or how K was cut into chunks.
//
// A format W gives: TILE_ROWS; N_WARPS of a block; TABLE_BYTES at the head of the dynamic shared memory; X_BYTES of x in
// shared memory for a k-tile and column; USES_HALF; WHOLE_FOURS (K is a multiple of 4); Lane (a lane's addresses); Loaded
// (what a lane holds of one k-tile of both tiles of rows); COLUMNS_AHEAD up to which two k-tiles are loaded at once;
// COLUMNS_UNROLLED up to which they are multiplied side by side; Sums, a lane's accumulators; and the functions
// below.
#pragma once
#include "common.cuh"
#include "math.cuh"
#include "input.cuh"

struct MatmulProduct {
    const u8* codes;
    const u8* scales;
    // (N) or null.
    const float* bias;
    // (T, N).
    float* out;
    u32 n_rows;
    // What sums are multiplied by: NF4's absmax_scale.
    float scale;
};

// How the work is cut. `gate`: 0 separate products; 1, 2: act(product 0) * product 1 goes to out of product 0, the
// activation being GELU (tanh) or SiLU. `chunk_tiles` k-tiles of x lie in shared memory at a time: a multiple of
// BATCH, or all of them. 1 << split_bits warps share a unit.
struct MatmulCut {
    u32 chunk_tiles;
    u32 split_bits;
    u32 gate;
    // Units of all products, of product 0 and of product 1: pairs of row tiles, or the tiles of gate and up.
    u32 n_units, units_0, units_1;
};

const u32 BATCH = 2;

// Where a unit lies: its tiles of rows, both of `a` when the products are separate.
struct MatmulUnit {
    MatmulProduct a, b;
    u32 tile_a, tile_b;
};

template <class W>
DEVICE MatmulUnit find_unit(const MatmulProduct& p0, const MatmulProduct& p1, const MatmulProduct& p2, const MatmulCut& cut,
                            u32 unit) {
    if (cut.gate) return {p0, p1, unit, unit};
    MatmulProduct p = p0;
    if (unit >= cut.units_0) {
        unit -= cut.units_0;
        p = p1;
        if (unit >= cut.units_1) {
            unit -= cut.units_1;
            p = p2;
        }
    }
    // An odd last tile is multiplied twice and stored once.
    u32 last = div_up(p.n_rows, W::TILE_ROWS) - 1;
    return {p, p, unit * 2, unit * 2 < last ? unit * 2 + 1 : last};
}

// Brings k-tiles `from..to` of the columns into shared memory. All warps.
template <class W, int columns>
DEVICE void fill_chunk(const MatmulInput& in, u32 from, u32 to, const RowFactors* factors, bool keep, u8* chunk) {
    const u32 first = first_column<columns>(), n_columns = count_columns<columns>(in.n_rows);
    // Opaque: read again for each chunk: no register holds it through the products.
    const u32 thread = opaque(thread_idx());
    for (u32 c = 0; c < n_columns; c++) {
        RowFactors f = factors[c];
        for (u32 tile = from + thread / 32; tile < to; tile += W::N_WARPS) {
            float v[4];
            load_input_four<W::WHOLE_FOURS>(in, first + c, tile * TILE_K + thread % 32 * 4, f, keep, v);
            W::store_input(chunk + ((tile - from) * columns + c) * W::X_BYTES, thread % 32, v, f.to_half);
        }
    }
}

// The warp's share of a chunk. `at` is its next k-tile, in bytes from the chunk's start, and `lane` is there; afterwards
// `at` counts from the next chunk's start.
template <class W, int columns>
DEVICE void multiply_chunk(typename W::Lane& lane, u32& at, const u8* table, const u8* chunk, u32 n_tiles, u32 step,
                           typename W::template Sums<columns>& sums) {
    const u32 tile_bytes = columns * W::X_BYTES, end = n_tiles * tile_bytes;
    // Tiles whose weights are loaded before the first is multiplied, and how the loop over a batch is unrolled: one by one
    // where many columns take the registers.
    constexpr u32 ahead = columns <= W::COLUMNS_AHEAD ? BATCH : 1, unroll = columns <= W::COLUMNS_UNROLLED ? BATCH : 1;
    for (; at + BATCH * tile_bytes <= end; at += step * tile_bytes) {
#pragma unroll unroll
        for (u32 first = 0; first < BATCH; first += ahead) {
            typename W::Loaded w[ahead];
#pragma unroll
            for (u32 i = 0; i < ahead; i++) w[i] = W::load(lane, first + i);
            if (first + ahead == BATCH) W::advance(lane, step);
#pragma unroll
            for (u32 i = 0; i < ahead; i++) {
                W::template multiply<columns>(w[i], chunk + at + (first + i) * tile_bytes, table, sums);
            }
        }
    }
    // The rest of a batch that the row's end cuts.
    for (; at < end; at += tile_bytes) {
        typename W::Loaded w = W::load(lane, 0);
        W::advance(lane, 1);
        W::template multiply<columns>(w, chunk + at, table, sums);
    }
    at -= end;
}

DEVICE float activate(float x, u32 gate) { return gate == 1 ? gelu_tanh(x) : silu(x); }

// The warps that share a unit: one alone, or any of the block.
DEVICE void sync_splits(u32 bits) {
    if (bits == 0) {
        sync_warp();
    } else {
        sync_block();
    }
}

// Adds the splits' sums and stores the unit's outputs. `partial` is (splits, 2 TILE_ROWS, columns); one warp.
template <class W, int columns>
DEVICE void store_unit(const MatmulUnit& u, const float* partial, u32 splits, u32 gate, u32 n_rows,
                       const RowFactors* factors) {
    const u32 first = first_column<columns>(), n_columns = count_columns<columns>(n_rows);
    const u32 unit_rows = 2 * W::TILE_ROWS, stored_rows = gate ? W::TILE_ROWS : unit_rows;
    // Opaque: read again: no register holds the lane through the products.
    for (u32 i = opaque(lane_idx()); i < stored_rows * n_columns; i += 32) {
        u32 c = i / stored_rows, r = i % stored_rows, row = u.tile_a * W::TILE_ROWS + r;
        if (row >= u.a.n_rows) continue;
        float a = 0.0f, b = 0.0f;
        for (u32 s = 0; s < splits; s++) {
            const float* sums = partial + s * unit_rows * columns;
            a += sums[r * columns + c];
            if (gate) b += sums[(r + W::TILE_ROWS) * columns + c];
        }
        if (W::USES_HALF) {
            a *= u.a.scale * factors[c].from_half;
            b *= u.b.scale * factors[c].from_half;
        }
        if (u.a.bias) a += u.a.bias[row];
        if (gate) {
            if (u.b.bias) b += u.b.bias[row];
            a = activate(a, gate) * b;
        }
        u.a.out[(u64)(first + c) * u.a.n_rows + row] = a;
    }
}

// What a warp works at in a round of the block: the block's first unit, the warp's own, and which of the unit's warps it is.
struct Place {
    u32 first_unit, unit, split;
};

template <class W> DEVICE Place find_place(u32 round, const MatmulCut& cut) {
    // Opaque: found again in each round: no register holds the place through the products.
    const u32 warp = opaque(thread_idx()) / 32, bits = opaque(cut.split_bits);
    const u32 first = (block_x() + round * grid_x()) * (W::N_WARPS >> bits);
    return {first, first + (warp >> bits), warp & ((1u << bits) - 1)};
}

// The kernels' body. The grid's y counts groups of `columns` rows of x. Indices are computed where they are used: registers
// that hold them through the inner loop are missing there.
template <class W, int columns>
DEVICE void matmul_decode(const MatmulInput& in, const MatmulProduct& p0, const MatmulProduct& p1, const MatmulProduct& p2,
                          const MatmulCut& cut) {
    DYNAMIC_SHARED(u8, dynamic);
    SHARED(RowFactors, factors, columns);
    SHARED(float, partial, W::N_WARPS * 2 * W::TILE_ROWS * columns);
    u8* chunk = dynamic + W::TABLE_BYTES;
    W::fill_table(dynamic);
    compute_row_factors<columns, W::N_WARPS, W::USES_HALF, W::WHOLE_FOURS>(in, factors);

    for (u32 round = 0;; round++) {
        typename W::Lane lane;
        u32 at_tile;
        {
            const Place at = find_place<W>(round, cut);
            if (at.first_unit >= cut.n_units) break;
            const u32 unit = at.unit < cut.n_units ? at.unit : at.first_unit;
            lane = W::lane(find_unit<W>(p0, p1, p2, cut, unit), div_up(in.cols, TILE_K));
            W::advance(lane, at.split * BATCH);
            at_tile = at.split * BATCH * columns * W::X_BYTES;
        }
        typename W::template Sums<columns> sums = {};
        for (u32 from = 0; from < div_up(in.cols, TILE_K); from += cut.chunk_tiles) {
            // Opaque: computed again for each chunk: no register holds it through the products.
            const u32 n_tiles = div_up(opaque(in.cols), TILE_K);
            const u32 to = n_tiles - from < cut.chunk_tiles ? n_tiles : from + cut.chunk_tiles;
            // A chunk that is all of x stays for the units to come.
            if (round == 0 || cut.chunk_tiles < n_tiles) {
                sync_block();
                fill_chunk<W, columns>(in, from, to, factors, block_x() == 0 && round == 0, chunk);
                sync_block();
            }
            if (find_place<W>(round, cut).unit < cut.n_units) {
                multiply_chunk<W, columns>(lane, at_tile, dynamic, chunk, to - from, BATCH << cut.split_bits, sums);
            }
        }
        const Place at = find_place<W>(round, cut);
        // Opaque: computed behind the products, not before them.
        float* own = partial + opaque(thread_idx()) / 32 * 2 * W::TILE_ROWS * columns;
        W::template fold<columns>(sums, own);
        sync_splits(cut.split_bits);
        if (at.unit < cut.n_units && at.split == 0) {
            const MatmulUnit unit = find_unit<W>(p0, p1, p2, cut, at.unit);
            // Opaque: read behind the products, not before them.
            store_unit<W, columns>(unit, own, 1u << cut.split_bits, opaque(cut.gate), in.n_rows, factors);
        }
        // The partial sums are read before the next unit's overwrite them.
        sync_splits(cut.split_bits);
    }
}

// The parameters every kernel of decoding has, in the order of `args` in cuda.rs.
#define MATMUL_DECODE_KERNEL(max_threads, min_blocks, name, W, columns)                                                        \
    KERNEL(max_threads, min_blocks, name, const float* x, const float* y, const float* post_weight, const float* weight,       \
           float* x_new, float* h, float eps, u32 n_rows, u32 cols, u32 chunk_tiles, u32 bits_and_gate, u32 n_units,           \
           u32 units_0, u32 units_1, const u8* codes_0, const u8* scales_0, const float* bias_0, float* out_0,                 \
           u32 rows_0, float scale_0, const u8* codes_1, const u8* scales_1, const float* bias_1, float* out_1,                \
           u32 rows_1, float scale_1, const u8* codes_2, const u8* scales_2, const float* bias_2, float* out_2,                \
           u32 rows_2, float scale_2) {                                                                                        \
        MatmulInput in = {x, y, post_weight, weight, x_new, h, eps, n_rows, cols};                                             \
        MatmulProduct p0 = {codes_0, scales_0, bias_0, out_0, rows_0, scale_0};                                                \
        MatmulProduct p1 = {codes_1, scales_1, bias_1, out_1, rows_1, scale_1};                                                \
        MatmulProduct p2 = {codes_2, scales_2, bias_2, out_2, rows_2, scale_2};                                                \
        MatmulCut cut = {chunk_tiles, bits_and_gate & 255, bits_and_gate >> 8, n_units, units_0, units_1};                     \
        matmul_decode<W, columns>(in, p0, p1, p2, cut);                                                                        \
    }
