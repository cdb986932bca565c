// Products of 1 to 64 rows of x on tensor cores (sm_80 and later): weights stream past them once, straight from their packed
// layout into the fragments of mma.sync m16n8k16 as its A operand; columns of products are tokens. Up to three matrices of
// one format that meet the same x lie one below the other, so that small ones do not have a launch to themselves.
//
// A warp takes M_TILES times sixteen weight rows. Rows of x are shared by the block's warps: two rings of two steps of 128 k
// in shared memory (cp.async). In a step a row is 16 chunks of 8 k, in the order in which lanes read them, and 64 bytes
// beyond that: every bank once.
//
// A token's sums do not depend on the others: its column of every product is its own, and K is cut by the matrices and the
// device alone (batch_sum.cu adds the splits).
#pragma once
#include "batch_rows.cuh"

#if LICHEN_ARCH >= 80

// Bytes of a row of x in shared memory, of a step.
const u32 BATCH_X_STRIDE = 320;

template <class W, u32 COLUMNS, u32 TILES> struct BatchTile {
    static constexpr u32 M_TILES = TILES, NT = COLUMNS / 8;
    typedef BatchRows<W, 2 * TILES, 2> Rows;
    static constexpr u32 LOADS = Rows::LOADS, CHUNKS = Rows::CHUNKS;
    static constexpr u32 X_BYTES = COLUMNS * BATCH_X_STRIDE;

    const BatchArgs& a;
    const BatchPart& part;
    // The warp's, of the part.
    u32 first;
    Rows rows;
    // Shared memory: the table, then the rings.
    u8* table;
    u8* rings;
    // The thread's next chunk of x, and where in a ring's step it goes.
    const u8* x_from;
    u32 x_to;

    DEVICE u32 rows_of_block() { return block_dim() / 32 * 16 * TILES; }

    DEVICE u32 first_row(u32 tile) { return tile * rows_of_block() + warp_idx() * 16 * TILES; }

    DEVICE_MEMBER BatchTile(const BatchArgs& args, const BatchPart& of, u32 row, u8* memory) : a(args), part(of), first(row) {
        table = memory;
        rings = memory + BatchCodes<W>::TABLE_BYTES;
    }

    DEVICE_MEMBER void start_at(u32 step) {
        rows.start(part, first, step, a.k_tiles);
        u32 x_row = thread_idx() / 16;
        u32 chunk = thread_idx() % 16, load = chunk / (4 * CHUNKS), of = chunk / CHUNKS % 4, j = chunk % CHUNKS;
        x_from = (const u8*)a.x + ((u64)x_row * a.k_tiles + step) * 256 + chunk * 16;
        x_to = x_row * BATCH_X_STRIDE + ((load * CHUNKS + j) * 4 + of) * 16;
    }

    // The copies of the next ring, of `n_steps` steps, as far as they are there; a group of their own even when none is.
    DEVICE_MEMBER void copy_x(u32 ring, s32 n_steps) {
        u32 rows_at_once = block_dim() / 16;
#pragma unroll
        for (u32 s = 0; s < BATCH_STEPS; s++) {
            if ((s32)s >= n_steps) break;
            u8* to = rings + (ring * BATCH_STEPS + s) * X_BYTES + x_to;
            const u8* from = x_from;
            for (u32 row = thread_idx() / 16; row < COLUMNS; row += rows_at_once) {
                copy_async(to, from, true);
                to += rows_at_once * BATCH_X_STRIDE;
                from += (u64)rows_at_once * a.k_tiles * 256;
            }
            x_from += 256;
        }
        copy_async_commit();
    }

    // Eight k of every lane's rows, by those of all tokens.
    DEVICE_MEMBER void multiply_chunk(float (&sums)[TILES][NT][4], const u32 (&w)[2 * TILES][4], const u8* x) const {
#pragma unroll
        for (u32 n = 0; n < NT; n++) {
            u32x4 b = *(const u32x4*)(x + n * 8 * BATCH_X_STRIDE);
            const u32 first[2] = {b.x, b.y}, second[2] = {b.z, b.w};
#pragma unroll
            for (u32 m = 0; m < TILES; m++) {
                u32 lower[4], upper[4];
                Rows::fragments(w, m, lower, upper);
                if constexpr (W::BFLOAT) {
                    mma_bf16(sums[m][n], lower, first);
                    mma_bf16(sums[m][n], upper, second);
                } else {
                    mma_f16(sums[m][n], lower, first);
                    mma_f16(sums[m][n], upper, second);
                }
            }
        }
    }

    // A step: while a load is multiplied, the next is on its way. `first`: which of the two takes the step's first; `x`: this
    // lane's in the step.
    template <u32 first>
    DEVICE_MEMBER void step(float (&sums)[TILES][NT][4], typename Rows::Loaded (&loaded)[2], const u8* x, bool is_last) {
#pragma unroll
        for (u32 l = 0; l < LOADS; l++) {
            typename Rows::Loaded &now = loaded[(first + l) % 2], &next = loaded[(first + l + 1) % 2];
            if (l + 1 < LOADS) rows.load(next, l + 1);
            else if (!is_last) rows.load(next, 0);
#pragma unroll
            for (u32 j = 0; j < CHUNKS; j++) {
                u32 w[2 * TILES][4];
                Rows::decode(now, j, table, w);
                multiply_chunk(sums, w, x + (l * CHUNKS + j) * 64);
            }
        }
    }

    // The products of k-tiles begin..end.
    DEVICE_MEMBER void sum(float (&sums)[TILES][NT][4], u32 begin, u32 end) {
        Rows::clear(sums);
        typename Rows::Loaded loaded[2];
        start_at(begin);
        rows.load(loaded[0], 0);
        // Seen by all from the first barrier on.
        BatchCodes<W>::fill(table);
        // x is being written; weights were there before.
        wait_for_primary();
        copy_x(0, (s32)(end - begin));
        const u8* x = rings + (lane_idx() >> 2) * BATCH_X_STRIDE + (lane_idx() & 3) * 16;
        u32 ring = 0;
        for (u32 k = begin; k < end; k += BATCH_STEPS) {
            // This ring is there for all, and nobody reads the other any more.
            copy_async_wait<0>();
            sync_block();
            copy_x(ring ^ 1, (s32)(end - k) - (s32)BATCH_STEPS);
            const u8* of_ring = x + ring * BATCH_STEPS * X_BYTES;
            step<0>(sums, loaded, of_ring, k + 1 == end);
            if (k + 1 < end) step<LOADS % 2>(sums, loaded, of_ring + X_BYTES, k + 2 == end);
            ring ^= 1;
        }
    }
};

// With 32 columns a warp has 64 rows where registers hold it all (`tiles_of_32` is 4): rows of x pass shared memory half as
// often.
#define BATCH_KERNELS(name, format, threads_of_16, tiles_of_32)                                                                \
    BATCH_KERNEL(matmul_batch_##name##_8, 512, BatchTile<format, 8, 2>)                                                       \
    BATCH_KERNEL(matmul_batch_##name##_16, threads_of_16, BatchTile<format, 16, 2>)                                           \
    BATCH_KERNEL(matmul_batch_##name##_32, 256, BatchTile<format, 32, tiles_of_32>)                                           \
    BATCH_KERNEL(matmul_batch_##name##_64, 256, BatchTile<format, 64, 2>)

#endif
