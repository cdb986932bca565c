// Products of T = 1..8 rows of x with a few matrices of one format: `out[t, n] = sum over k of w[n, k] x[t, k] + bias[n]`.
//
// A warp multiplies two tiles of rows at once (a unit), k-tile by k-tile in batches of two; the weights are decoded once for
// all columns. `splits` warps share a unit's batches in turn, and their sums are added in order. So the order of a row's
// sum depends on the format and `splits` alone: not on T, the other rows, or how K was cut into chunks.
//
// A format W gives: TILE_ROWS; N_WARPS of a block; TABLE_BYTES at the head of the dynamic shared memory; X_BYTES of x in
// shared memory for a k-tile and column; USES_HALF;
// WHOLE_FOURS (K is a multiple of 4); Lane (a lane's addresses); Loaded (what a lane
// holds of one k-tile of both tiles of rows); N_SUMS accumulators of a lane and column; and the functions below.
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
    const u32 first = forget(first_column<columns>()), n_columns = count_columns<columns>(in.n_rows);
    const u32 thread = forget(thread_idx());
    for (u32 c = 0; c < n_columns; c++) {
        RowFactors f = factors[c];
        for (u32 tile = from + thread / 32; tile < to; tile += W::N_WARPS) {
            float v[4];
            load_input_four<W::WHOLE_FOURS>(in, first + c, tile * TILE_K + thread % 32 * 4, f, keep, v);
            W::store_input(chunk + ((tile - from) * columns + c) * W::X_BYTES, thread % 32, v, f.to_half);
        }
    }
}

// The warp's share of k-tiles from..to, which lie in shared memory. `tile` is its next one, wherever that is, and `lane` is
// there.
template <class W, int columns>
DEVICE void multiply_chunk(typename W::Lane& lane, u32& tile, const u8* table, const u8* chunk, u32 from, u32 to, u32 step,
                           float (&sums)[W::N_SUMS][columns]) {
    const u8* x = chunk + (tile - from) * columns * W::X_BYTES;
    for (; tile + BATCH <= to; tile += step) {
        typename W::Loaded w[BATCH];
#pragma unroll
        for (u32 i = 0; i < BATCH; i++) w[i] = W::load(lane, i);
        W::advance(lane, step);
#pragma unroll
        for (u32 i = 0; i < BATCH; i++) W::template multiply<columns>(w[i], x + i * columns * W::X_BYTES, table, sums);
        x += step * columns * W::X_BYTES;
    }
    // The rest of a batch that the row's end cuts.
    for (; tile < to; tile++) {
        typename W::Loaded w = W::load(lane, 0);
        W::advance(lane, 1);
        W::template multiply<columns>(w, x, table, sums);
        x += columns * W::X_BYTES;
    }
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
    for (u32 i = forget(lane_idx()); i < stored_rows * n_columns; i += 32) {
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
        const u32 warp = forget(thread_idx()) / 32, bits = forget(cut.split_bits);
        const u32 base = (block_x() + round * grid_x()) * (W::N_WARPS >> bits), unit = base + (warp >> bits);
        if (base >= cut.n_units) break;
        typename W::Lane lane;
        float sums[W::N_SUMS][columns];
        {
            const u32 n_tiles = div_up(in.cols, TILE_K);
            u32 tile = (warp & ((1u << bits) - 1)) * BATCH;
            lane = W::lane(find_unit<W>(p0, p1, p2, cut, unit < cut.n_units ? unit : base), n_tiles);
            W::advance(lane, tile);
#pragma unroll
            for (int i = 0; i < W::N_SUMS; i++) {
#pragma unroll
                for (int c = 0; c < columns; c++) sums[i][c] = 0.0f;
            }
            for (u32 from = 0; from < n_tiles; from += cut.chunk_tiles) {
                const u32 to = n_tiles - from < cut.chunk_tiles ? n_tiles : from + cut.chunk_tiles;
                // A chunk that is all of x stays for the units to come.
                if (round == 0 || cut.chunk_tiles < n_tiles) {
                    sync_block();
                    fill_chunk<W, columns>(in, from, to, factors, block_x() == 0 && round == 0, chunk);
                    sync_block();
                }
                if (unit < cut.n_units) {
                    multiply_chunk<W, columns>(lane, tile, dynamic, chunk, from, to, BATCH << bits, sums);
                }
            }
        }
        {
            const u32 warp = forget(thread_idx()) / 32, bits = forget(cut.split_bits);
            float* own = partial + warp * 2 * W::TILE_ROWS * columns;
            W::template fold<columns>(sums, own);
            sync_splits(bits);
            const u32 unit = (block_x() + round * grid_x()) * (W::N_WARPS >> bits) + (warp >> bits);
            if (unit < cut.n_units && (warp & ((1u << bits) - 1)) == 0) {
                store_unit<W, columns>(find_unit<W>(p0, p1, p2, cut, unit), own, 1u << bits, cut.gate, in.n_rows, factors);
            }
            // The partial sums are read before the next unit's overwrite them.
            sync_splits(bits);
        }
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
