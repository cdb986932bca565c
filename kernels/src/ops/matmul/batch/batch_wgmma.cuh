// Products of 1 to 64 rows of x on sm_90's tensor cores, beside batch.cuh, whose shape this is: weights are decoded into the
// registers of wgmma's A operand, and its hardware reads rows of x from shared memory, where mma.sync would have every warp
// load them (at 64 columns two thirds of what passed shared memory).
//
// A warpgroup takes TILES times 64 weight rows; of each 64 a warp has sixteen. x comes as matmul_batch_prepare lays it out for
// this: of each step of 128 k sixteen pieces of eight k, and of each piece all COLUMNS tokens, so that a step is copied as it
// lies. A piece has the pairs of k that four neighbouring lanes hold at one place of their chunks.
#pragma once
#include "batch_rows.cuh"
#include "wgmma.cuh"

#if LICHEN_ARCH == 90

// CHUNKS_AT_ONCE: of eight k, decoded before their products are handed over: the warps of a group wait for each other there.
template <class W, u32 COLUMNS, u32 TILES, u32 CHUNKS_AT_ONCE> struct WgmmaTile {
    static constexpr u32 M_TILES = TILES, NT = COLUMNS / 8;
    typedef BatchRows<W, 2 * TILES, 8> Rows;
    static constexpr u32 LOADS = Rows::LOADS, CHUNKS = Rows::CHUNKS;
    static constexpr u32 PIECE_BYTES = COLUMNS * 16, X_BYTES = 16 * PIECE_BYTES;

    const BatchArgs& a;
    const BatchPart& part;
    // The warp's, of the part.
    u32 first;
    Rows rows;
    // Shared memory: the table, then two rings of two steps of x.
    u8* table;
    u8* rings;

    DEVICE u32 rows_of_block() { return block_dim() / 128 * 64 * TILES; }

    DEVICE u32 first_row(u32 tile) {
        return tile * rows_of_block() + warp_idx() / 4 * 64 * TILES + warp_idx() % 4 * 16;
    }

    DEVICE_MEMBER WgmmaTile(const BatchArgs& args, const BatchPart& of, u32 row, u8* memory) : a(args), part(of), first(row) {
        table = memory;
        rings = memory + BatchCodes<W>::TABLE_BYTES;
    }

    // The copies of steps k.., as far as they are there, to a ring.
    DEVICE_MEMBER void copy_x(u32 ring, u32 k, u32 end) {
        u32 n_steps = k >= end ? 0 : end - k < BATCH_STEPS ? end - k : BATCH_STEPS;
        const u8* from = (const u8*)a.x + (u64)k * X_BYTES;
        u8* to = rings + ring * BATCH_STEPS * X_BYTES;
        for (u32 at = thread_idx() * 16; at < n_steps * X_BYTES; at += block_dim() * 16) copy_async(to + at, from + at, true);
        copy_async_commit();
    }

    // A step: while a load is multiplied, the next is on its way. `first`: which of the two takes the step's first.
    template <u32 first>
    DEVICE_MEMBER void step(float (&sums)[TILES][NT][4], typename Rows::Loaded (&loaded)[2], const WgmmaB& x, bool is_last) {
#pragma unroll
        for (u32 l = 0; l < LOADS; l++) {
            typename Rows::Loaded &now = loaded[(first + l) % 2], &next = loaded[(first + l + 1) % 2];
            if (l + 1 < LOADS) rows.load(next, l + 1);
            else if (!is_last) rows.load(next, 0);
#pragma unroll
            for (u32 j = 0; j < CHUNKS; j += CHUNKS_AT_ONCE) {
                u32 w[CHUNKS_AT_ONCE][2 * TILES][4];
#pragma unroll
                for (u32 c = 0; c < CHUNKS_AT_ONCE; c++) Rows::decode(now, j + c, table, w[c]);
                wgmma_begin();
#pragma unroll
                for (u32 c = 0; c < CHUNKS_AT_ONCE; c++)
                    multiply_chunk(sums, w[c], wgmma_ahead(x, (l * CHUNKS + j + c) * 4 * PIECE_BYTES));
                wgmma_commit();
                // The group before is done: its registers take the next weights.
                wgmma_wait<1>();
            }
        }
    }

    // Eight k of every lane's rows, by those of all tokens.
    DEVICE_MEMBER void multiply_chunk(float (&sums)[TILES][NT][4], const u32 (&w)[2 * TILES][4], const WgmmaB& x) const {
#pragma unroll
        for (u32 m = 0; m < TILES; m++) {
            u32 lower[4], upper[4];
            Rows::fragments(w, m, lower, upper);
            wgmma_f16(sums[m], lower, x);
            wgmma_f16(sums[m], upper, wgmma_ahead(x, 2 * PIECE_BYTES));
        }
    }

    // The products of k-tiles begin..end.
    DEVICE_MEMBER void sum(float (&sums)[TILES][NT][4], u32 begin, u32 end) {
        Rows::clear(sums);
        typename Rows::Loaded loaded[2];
        rows.start(part, first, begin, a.k_tiles);
        rows.load(loaded[0], 0);
        // Seen by all from the first barrier on.
        BatchCodes<W>::fill(table);
        // x is being written; weights were there before.
        wait_for_primary();
        copy_x(0, begin, end);
        u32 ring = 0;
        for (u32 k = begin; k < end; k += BATCH_STEPS) {
            // This ring is there for all, and nobody's products read the other any more.
            copy_async_wait<0>();
            wgmma_publish();
            wgmma_wait<0>();
            sync_block();
            copy_x(ring ^ 1, k + BATCH_STEPS, end);
            WgmmaB x = wgmma_b(rings + ring * BATCH_STEPS * X_BYTES, PIECE_BYTES, 128);
            step<0>(sums, loaded, x, k + 1 == end);
            if (k + 1 < end) step<LOADS % 2>(sums, loaded, wgmma_ahead(x, X_BYTES), k + 2 == end);
            ring ^= 1;
        }
        wgmma_wait<0>();
#pragma unroll
        for (u32 m = 0; m < TILES; m++)
#pragma unroll
            for (u32 n = 0; n < NT; n++)
#pragma unroll
                for (u32 i = 0; i < 4; i++) wgmma_settle(sums[m][n][i]);
    }
};

// `tiles`: two where registers hold it all. At 64 columns sums take those of half of the rows.
#define WGMMA_KERNELS(name, format, tiles, tiles_of_32)                                                                        \
    BATCH_KERNEL(matmul_wgmma_##name##_8, 512, WgmmaTile<format, 8, tiles, 2 / tiles>)                                        \
    BATCH_KERNEL(matmul_wgmma_##name##_16, 512, WgmmaTile<format, 16, tiles, 2 / tiles>)                                      \
    BATCH_KERNEL(matmul_wgmma_##name##_32, 512, WgmmaTile<format, 32, tiles_of_32, 2 / tiles_of_32>)                          \
    BATCH_KERNEL(matmul_wgmma_##name##_64, 512, WgmmaTile<format, 64, 1, 2>)

#endif
