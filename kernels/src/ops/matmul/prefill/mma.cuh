// Tiles for sm_80 and later: mma.sync m16n8k16 with f32 sums, tokens as its rows, weight rows as its columns.
//
// A block computes TOKENS x ROWS outputs, a warp (TOKENS / WARPS_T) x (ROWS / WARPS_N), in steps of 64 k. Shared memory
// holds STAGES steps of activations (cp.async) and the weights of as many steps (plain formats, cp.async) or of two
// (quantised: codes are loaded into registers a step ahead, decoded to f16 there and stored, once per block). A row of a
// step is 128 bytes, its eight 16-byte chunks at chunk ^ (row & 7): ldmatrix and stores meet every bank once. Fragments
// are loaded one k16 ahead of the products that use them, across the barrier too.
#pragma once
#include "epilogue.cuh"
#include "weights.cuh"

template <class W, u32 TOKENS, u32 ROWS, u32 WARPS_T, u32 WARPS_N, u32 STAGES> struct MmaTile {
    static constexpr u32 THREADS = 32 * WARPS_T * WARPS_N;
    // Fragments of a warp: 16 tokens and 16 rows (two columns of products) each.
    static constexpr u32 FT = TOKENS / WARPS_T / 16, FN = ROWS / WARPS_N / 16;
    static constexpr u32 X_STEP = TOKENS * 128, W_STEP = ROWS * 128;
    static constexpr u32 W_STAGES = W::PLAIN ? STAGES : 2;
    static constexpr u32 SHARED_BYTES = STAGES * X_STEP + W_STAGES * W_STEP;

    // Quantised weights: loads of sixteen bytes a thread makes per step.
    static constexpr u32 LOADS_PER_ROW = 64 / W::K_PER_LOAD;
    static constexpr u32 LOADS = W::PLAIN ? 1 : ROWS * LOADS_PER_ROW / THREADS;
    static constexpr u32 ROW_STRIDE = THREADS / LOADS_PER_ROW;
    // Copies of sixteen bytes a thread makes per step, and the rows between them.
    static constexpr u32 COPY_STRIDE = THREADS / 8;

    struct Codes {
        u32x4 codes[LOADS];
        u16 scales[LOADS];
    };
    // Quantised weights of a 64 x 64 warp leave no registers for a second set of row fragments.
    static constexpr u32 W_SETS = !W::PLAIN && FT * FN >= 16 ? 1 : 2;

    const PrefillArgs& a;
    u8* x_shared;
    u8* w_shared;
    const u8* x_from;
    const u8* w_from;
    const u8* scales_from;
    // From w_from; scales lie in the same order, SCALE_RATIO times closer.
    u32 w_at[W::PLAIN ? ROWS / COPY_STRIDE : LOADS];
    u32 copy_to, decode_to, decode_chunk;
    u32 x_row, w_row, x_chunk, w_chunk;
    TilePlace place;

    DEVICE_MEMBER MmaTile(const PrefillArgs& args, u8* shared) : a(args) {
        u32 tid = thread_idx(), lane = lane_idx();
        place = tile_place<TOKENS, ROWS>(a);
        x_shared = shared;
        w_shared = shared + STAGES * X_STEP;
        u32 row = tid / 8, chunk = tid % 8;
        copy_to = row * 128 + ((chunk ^ (row & 7)) << 4);
        x_from = (const u8*)(a.x + (u64)(place.token + row) * a.k_tiles * 128 + chunk * 8);
        u64 tile = W::code_offset(place.row, 0, a.k_tiles);
        w_from = a.codes + tile;
        if constexpr (W::PLAIN) {
#pragma unroll
            for (u32 i = 0; i < ROWS / COPY_STRIDE; i++)
                w_at[i] = (u32)W::code_offset(inside(row + i * COPY_STRIDE), chunk * 8, a.k_tiles);
        } else {
            u32 r = tid / LOADS_PER_ROW, k = tid % LOADS_PER_ROW * W::K_PER_LOAD;
            decode_to = r * 128;
            decode_chunk = k / 8;
            scales_from = (const u8*)a.scales + tile / W::SCALE_RATIO;
#pragma unroll
            for (u32 i = 0; i < LOADS; i++) w_at[i] = (u32)W::code_offset(inside(r + i * ROW_STRIDE), k, a.k_tiles);
        }
        u32 warp_t = warp_idx() % WARPS_T, warp_n = warp_idx() / WARPS_T;
        x_row = (warp_t * FT * 16 + (lane & 15)) * 128;
        x_chunk = lane >> 4 ^ (lane & 7);
        w_row = (warp_n * FN * 16 + (lane & 7) + (lane >> 4 << 3)) * 128;
        w_chunk = (lane >> 3 & 1) ^ (lane & 7);
    }

    // Rows past the last are computed from the last and not kept.
    DEVICE_MEMBER u32 inside(u32 row) const {
        u32 last = a.n_rows - 1 - place.row;
        return row < last ? row : last;
    }

    // The copies of one step; a group of its own even when the step is past the end.
    DEVICE_MEMBER void copy_step(u32 step, u32 end, u32 stage) const {
        if (step < end) {
            const u8* from = x_from + (u64)step * 128;
            u8* to = x_shared + stage * X_STEP + copy_to;
            u64 stride = (u64)COPY_STRIDE * a.k_tiles * 256;
#pragma unroll
            for (u32 i = 0; i < TOKENS / COPY_STRIDE; i++) copy_async(to + i * COPY_STRIDE * 128, from + i * stride, true);
            if constexpr (W::PLAIN) {
                u8* w_to = w_shared + stage * W_STEP + copy_to;
#pragma unroll
                for (u32 i = 0; i < ROWS / COPY_STRIDE; i++)
                    copy_async(w_to + i * COPY_STRIDE * 128, w_from + ((u64)step * 128 + w_at[i]), true);
            }
        }
        copy_async_commit();
    }

    DEVICE_MEMBER void load_codes(Codes& c, u32 step) const {
        // A k-tile of 128 is two steps: the second lies half a row of codes further.
        u64 at = (u64)(step >> 1) * 512 + (step & 1) * W::code_offset(0, 64, 1);
#pragma unroll
        for (u32 i = 0; i < LOADS; i++) {
            c.codes[i] = load_stream((const u32x4*)(w_from + (at + w_at[i])));
            c.scales[i] = load_stream((const u16*)(scales_from + (at + w_at[i]) / (2 * W::SCALE_RATIO) * 2));
        }
    }

    DEVICE_MEMBER void decode(const Codes& c, u32 load, u32 stage) const {
        u32 pairs[W::K_PER_LOAD / 2];
        W::pairs(c.codes[load], pairs);
        u32 scale = both_halves(c.scales[load]);
        u32 row = decode_to + load * ROW_STRIDE * 128;
        u8* to = w_shared + stage * W_STEP + row;
#pragma unroll
        for (u32 j = 0; j < W::K_PER_LOAD / 8; j++) {
            u32x4 v = {mul_f16x2(pairs[4 * j], scale), mul_f16x2(pairs[4 * j + 1], scale),
                       mul_f16x2(pairs[4 * j + 2], scale), mul_f16x2(pairs[4 * j + 3], scale)};
            *(u32x4*)(to + (((decode_chunk + j) ^ (row >> 7 & 7)) << 4)) = v;
        }
    }

    DEVICE_MEMBER void load_x(u32 (&f)[FT][4], u32 stage, u32 ki) const {
        const u8* x = x_shared + stage * X_STEP + x_row + ((2 * ki ^ x_chunk) << 4);
#pragma unroll
        for (u32 i = 0; i < FT; i++) ldmatrix_x4(f[i], x + i * 2048);
    }

    DEVICE_MEMBER void load_w(u32 (&f)[FN][4], u32 stage, u32 ki) const {
        const u8* w = w_shared + stage * W_STEP + w_row + ((2 * ki ^ w_chunk) << 4);
#pragma unroll
        for (u32 j = 0; j < FN; j++) ldmatrix_x4(f[j], w + j * 2048);
    }

    DEVICE_MEMBER void multiply(float (&sums)[FT][2 * FN][4], const u32 (&x)[FT][4], const u32 (&w)[FN][4]) const {
#pragma unroll
        for (u32 i = 0; i < FT; i++) {
#pragma unroll
            for (u32 j = 0; j < 2 * FN; j++) {
                const u32 pair[2] = {w[j / 2][j % 2 * 2], w[j / 2][j % 2 * 2 + 1]};
                if constexpr (W::BFLOAT) mma_bf16(sums[i][j], x[i], pair);
                else mma_f16(sums[i][j], x[i], pair);
            }
        }
    }

    // A lane holds two neighbouring rows of two tokens: of four lanes, even ones take the first token's of their
    // neighbour, odd ones the second's, so that each has four rows of one token.
    DEVICE_MEMBER void put(const Sink& sink, float (&sums)[FT][2 * FN][4]) const {
        // Else the addresses of all stores are computed before the products, and spilled.
        u32 lane = opaque(lane_idx()), odd = lane & 1;
        u32 t0 = place.token + warp_idx() % WARPS_T * FT * 16 + (lane >> 2) + 8 * odd;
        u32 n0 = place.row + warp_idx() / WARPS_T * FN * 16 + (lane & 2) * 2;
#pragma unroll
        for (u32 i = 0; i < FT; i++) {
            f32x4 before[2 * FN];
#pragma unroll
            for (u32 j = 0; j < 2 * FN; j++) before[j] = four_before(a, sink, t0 + 16 * i, n0 + 8 * j);
#pragma unroll
            for (u32 j = 0; j < 2 * FN; j++) {
                float(&c)[4] = sums[i][j];
                float got0 = shuffle_xor(odd ? c[0] : c[2], 1), got1 = shuffle_xor(odd ? c[1] : c[3], 1);
                float four[4] = {odd ? got0 : c[0], odd ? got1 : c[1], odd ? c[2] : got0, odd ? c[3] : got1};
                put_four(a, sink, t0 + 16 * i, n0 + 8 * j, four, before[j]);
            }
        }
    }

    DEVICE_MEMBER void split(u32 index) const {
        u32 begin = 2 * split_start(a, index), end = 2 * split_start(a, index + 1);
        float sums[FT][2 * FN][4];
#pragma unroll
        for (u32 i = 0; i < FT; i++)
#pragma unroll
            for (u32 j = 0; j < 2 * FN; j++)
#pragma unroll
                for (u32 e = 0; e < 4; e++) sums[i][j][e] = 0.0f;
        Codes codes;
        u32 x_fragments[2][FT][4], w_fragments[W_SETS][FN][4];
        for (u32 s = 0; s < STAGES - 1; s++) copy_step(begin + s, end, s);
        if constexpr (!W::PLAIN) {
            load_codes(codes, begin);
#pragma unroll
            for (u32 i = 0; i < LOADS; i++) decode(codes, i, 0);
            load_codes(codes, begin + 1);
        }
        copy_async_wait<STAGES - 2>();
        sync_block();
        load_x(x_fragments[0], 0, 0);
        if constexpr (W_SETS == 2) load_w(w_fragments[0], 0, 0);
        // The last step loads and decodes what nobody uses, which is cheaper than a branch between products.
        u32 stage = 0, w_stage = 0, free_stage = STAGES - 1;
        for (u32 step = begin; step < end; step++) {
            u32 next = stage + 1 == STAGES ? 0 : stage + 1;
            u32 w_next = W::PLAIN ? next : w_stage ^ 1;
#pragma unroll
            for (u32 ki = 0; ki < 4; ki++) {
                u32 set = ki % W_SETS;
                if (W_SETS == 1) load_w(w_fragments[0], w_stage, ki);
                if (ki < 3) {
                    load_x(x_fragments[(ki + 1) % 2], stage, ki + 1);
                    if (W_SETS == 2) load_w(w_fragments[set ^ 1], w_stage, ki + 1);
                } else {
                    // The next step is there for all, and nobody reads this one any more.
                    copy_async_wait<STAGES - 2>();
                    sync_block();
                    load_x(x_fragments[0], next, 0);
                    if (W_SETS == 2) load_w(w_fragments[0], w_next, 0);
                }
                if (ki == 0) copy_step(step + STAGES - 1, end, free_stage);
                if constexpr (!W::PLAIN) {
#pragma unroll
                    for (u32 i = 0; i < LOADS; i++)
                        if (i * 2 / LOADS == ki) decode(codes, i, w_next);
                    if (ki == 1) load_codes(codes, step + 2 < end ? step + 2 : begin);
                }
                multiply(sums, x_fragments[ki % 2], w_fragments[set]);
            }
            free_stage = stage;
            stage = next;
            w_stage = w_next;
        }
        put(sink_of_split(a, index), sums);
    }

    DEVICE_MEMBER void run() const {
        Splits s = splits_of_block(a);
        for (u32 i = s.first; i < s.end; i++) {
            if (i > s.first) sync_block();
            split(i);
        }
    }
};
