// Products of 1 to 64 rows of x on tensor cores (sm_80 and later): weights stream past them once, straight from their packed
// layout into the fragments of mma.sync m16n8k16 as its A operand; columns of products are tokens. Up to three matrices of
// one format that meet the same x lie one below the other, so that small ones do not have a launch to themselves.
//
// A block has four or eight warps of 32 weight rows each and takes K in steps of 128. A lane (g = lane / 4, t = lane % 4)
// loads sixteen bytes of the rows g, g + 8, g + 16 and g + 24: which k those are is the format's business, as long as the
// tokens' fragments take the same ones. A step's codes, scales and activations lie in STAGES rings of shared memory
// (cp.async); codes are read by the lane that copied them. Rows of x are 16 chunks of 8 k, in the order in which lanes read
// them, and 64 bytes apart beyond that: every bank once.
//
// A token's sums do not depend on the others: its column of every product is its own, and K is cut by the matrices and the
// device alone (batch_sum.cu adds the segments).
#pragma once
#include "batch_args.cuh"
#include "batch_pairs.cuh"

#if LICHEN_ARCH >= 80

const u32 BATCH_WARP_ROWS = 32;
// Bytes of a row of x in shared memory.
const u32 BATCH_X_STRIDE = 320;

template <class W> struct BatchScales {
    // Rows and scale bytes of a tile of codes.
    static constexpr u32 TILE_ROWS = W::K_PER_LOAD == 16 ? 4 : 8;
    static constexpr u32 TILE_BYTES = 512 / W::SCALE_RATIO;
    static constexpr u32 PIECES = BATCH_WARP_ROWS / TILE_ROWS * TILE_BYTES / 16;
};

template <class W, u32 COLUMNS, u32 STAGES> struct BatchTile {
    // Groups of eight tokens.
    static constexpr u32 NT = COLUMNS / 8;
    // Loads of a row in a step, and chunks of eight k in a load.
    static constexpr u32 LOADS = 32 / W::K_PER_LOAD, CHUNKS = W::K_PER_LOAD / 8;
    static constexpr u32 CODE_BYTES = 4 * LOADS * 512;
    static constexpr u32 SCALE_BYTES = W::PLAIN ? 0 : 256;
    static constexpr u32 X_BYTES = COLUMNS * BATCH_X_STRIDE;
    static constexpr u32 TABLE_BYTES = BatchCodes<W>::TABLE_BYTES;

    // Bytes from one step to the next, in a row of codes.
    static constexpr u32 STEP_BYTES = W::PLAIN ? 256 : 512;

    const BatchArgs& a;
    BatchPart part;
    // The warp's first weight row, of the part.
    u32 first_row;
    // Shared memory: the table, then the stages: x, codes and scales of each warp.
    u8* stages;
    const u8* table;
    u32 stage_bytes;
    // What the next copies read: this lane's codes in row g, in rows g + 8 q `q_at[q - 1]` bytes on, its piece of the scales, its
    // chunk of x, and one as many rows below it as the block takes at once; that goes to `x_to` of a stage.
    const u8* codes_from;
    const u8* scales_from;
    const u8* x_from;
    u32 q_at[3], x_to;

    DEVICE_MEMBER BatchTile(const BatchArgs& args, const BatchPart& of, u32 tile, u8* memory) : a(args), part(of) {
        u32 n_warps = block_dim() / 32;
        first_row = (tile * n_warps + warp_idx()) * BATCH_WARP_ROWS;
        stages = memory + TABLE_BYTES;
        table = memory;
        stage_bytes = n_warps * (CODE_BYTES + SCALE_BYTES) + X_BYTES;
    }

    // Rows past the last are computed from the last and not kept.
    DEVICE_MEMBER u32 inside(u32 row) const { return row < part.n_rows ? row : part.n_rows - 1; }

    DEVICE_MEMBER u8* x_of(u32 stage) const { return stages + stage * stage_bytes; }
    DEVICE_MEMBER u8* codes_of(u32 stage) const { return x_of(stage) + X_BYTES + warp_idx() * (CODE_BYTES + SCALE_BYTES); }
    DEVICE_MEMBER u8* scales_of(u32 stage) const { return codes_of(stage) + CODE_BYTES; }

    // Copies begin with this step.
    DEVICE_MEMBER void start_at(u32 step) {
        u32 lane = lane_idx(), g = lane >> 2, t = lane & 3;
        u64 first = W::code_offset(inside(first_row + g), t * W::K_PER_LOAD, a.k_tiles);
        codes_from = part.codes + first + (u64)step * STEP_BYTES;
#pragma unroll
        for (u32 q = 1; q < 4; q++)
            q_at[q - 1] = (u32)(W::code_offset(inside(first_row + g + 8 * q), t * W::K_PER_LOAD, a.k_tiles) - first);
        if constexpr (!W::PLAIN) {
            typedef BatchScales<W> S;
            u32 tile = lane / (S::TILE_BYTES / 16), at = lane % (S::TILE_BYTES / 16) * 16;
            u32 row = inside(first_row + tile * S::TILE_ROWS);
            scales_from = (const u8*)part.scales + ((u64)(row / S::TILE_ROWS) * a.k_tiles + step) * S::TILE_BYTES + at;
        }
        u32 x_row = thread_idx() / 16;
        u32 chunk = thread_idx() % 16, load = chunk / (4 * CHUNKS), of = chunk / CHUNKS % 4, j = chunk % CHUNKS;
        x_from = (const u8*)a.x + ((u64)x_row * a.k_tiles + step) * 256 + chunk * 16;
        x_to = x_row * BATCH_X_STRIDE + ((load * CHUNKS + j) * 4 + of) * 16;
    }

    // The copies of the next step, when there is one; a group of their own even when there is none.
    DEVICE_MEMBER void copy_step(bool is_there, u32 stage) {
        if (is_there) {
            u8* codes = codes_of(stage) + lane_idx() * 16;
#pragma unroll
            for (u32 q = 0; q < 4; q++) {
                const u8* from = q == 0 ? codes_from : codes_from + q_at[q > 0 ? q - 1 : 0];
#pragma unroll
                for (u32 l = 0; l < LOADS; l++) copy_async(codes + (q * LOADS + l) * 512, from + l * 64, true);
            }
            codes_from += STEP_BYTES;
            if constexpr (!W::PLAIN) {
                if (lane_idx() < BatchScales<W>::PIECES) copy_async(scales_of(stage) + lane_idx() * 16, scales_from, true);
                scales_from += BatchScales<W>::TILE_BYTES;
            }
            copy_x(x_of(stage) + x_to);
        }
        copy_async_commit();
    }

    DEVICE_MEMBER void copy_x(u8* to) {
        u32 rows = block_dim() / 16;
        const u8* from = x_from;
        for (u32 row = thread_idx() / 16; row < COLUMNS; row += rows) {
            copy_async(to, from, true);
            to += rows * BATCH_X_STRIDE;
            from += (u64)rows * a.k_tiles * 256;
        }
        x_from += 256;
    }

    // The scale of what this lane loaded of row g + 8 q, in both halves.
    DEVICE_MEMBER u32 scale_of(u32 stage, u32 q, u32 l) const {
        if constexpr (W::PLAIN) {
            return 0;
        } else {
            u32 g = lane_idx() >> 2, t = lane_idx() & 3;
            u32 at = (u32)W::code_offset(g + 8 * q, (4 * l + t) * W::K_PER_LOAD, 1) / (2 * W::SCALE_RATIO) * 2;
            return both_halves(*(const u16*)(scales_of(stage) + at));
        }
    }

    DEVICE_MEMBER void multiply_step(float (&sums)[2][NT][4], u32 stage) const {
        u32 lane = lane_idx();
        const u8* x = x_of(stage) + (lane >> 2) * BATCH_X_STRIDE + (lane & 3) * 16;
#pragma unroll
        for (u32 l = 0; l < LOADS; l++) {
            u32x4 codes[4];
            u32 scales[4];
#pragma unroll
            for (u32 q = 0; q < 4; q++) {
                codes[q] = *(const u32x4*)(codes_of(stage) + (q * LOADS + l) * 512 + lane * 16);
                scales[q] = scale_of(stage, q, l);
            }
#pragma unroll
            for (u32 j = 0; j < CHUNKS; j++) {
                u32 w[4][4];
#pragma unroll
                for (u32 q = 0; q < 4; q++) {
                    // With 64 columns the rows of x fill shared memory's time: half of the levels leave it alone.
                    if (COLUMNS == 64 && q % 2 == 1) batch_pairs_aside(W{}, table, codes[q], j, w[q]);
                    else batch_pairs(W{}, table, codes[q], j, w[q]);
                    if constexpr (!W::PLAIN) {
#pragma unroll
                        for (u32 i = 0; i < 4; i++) w[q][i] = mul_f16x2(w[q][i], scales[q]);
                    }
                }
                multiply_chunk(sums, w, x + (l * CHUNKS + j) * 64);
            }
        }
    }

    // Eight k of every lane's rows, by those of all tokens.
    DEVICE_MEMBER void multiply_chunk(float (&sums)[2][NT][4], const u32 (&w)[4][4], const u8* x) const {
#pragma unroll
        for (u32 n = 0; n < NT; n++) {
            u32x4 b = *(const u32x4*)(x + n * 8 * BATCH_X_STRIDE);
            const u32 first[2] = {b.x, b.y}, second[2] = {b.z, b.w};
#pragma unroll
            for (u32 m = 0; m < 2; m++) {
                const u32 lower[4] = {w[2 * m][0], w[2 * m + 1][0], w[2 * m][1], w[2 * m + 1][1]};
                const u32 upper[4] = {w[2 * m][2], w[2 * m + 1][2], w[2 * m][3], w[2 * m + 1][3]};
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

    // A lane holds rows g and g + 8 of two tokens. `partials`: of this segment and part, or null.
    DEVICE_MEMBER void put(const float (&sums)[2][NT][4], float* partials, u32 all_rows) const {
        u32 lane = forget(lane_idx()), stride = partials ? all_rows : part.n_rows;
        float* out = partials ? partials : part.out;
#pragma unroll
        for (u32 n = 0; n < NT; n++)
#pragma unroll
            for (u32 odd = 0; odd < 2; odd++) {
                u32 token = 8 * n + (lane & 3) * 2 + odd;
                if (token >= a.n_tokens) continue;
                float x_scale = partials ? 0.0f : a.x_scales[token];
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    u32 row = first_row + 8 * i + (lane >> 2);
                    if (row >= part.n_rows) continue;
                    float sum = sums[i / 2][n][i % 2 * 2 + odd];
                    out[(u64)token * stride + row] = partials ? sum : batch_finish(part, sum, x_scale, row);
                }
            }
    }

    // The products of k-tiles begin..end.
    DEVICE_MEMBER void sum(float (&sums)[2][NT][4], u32 begin, u32 end) {
#pragma unroll
        for (u32 m = 0; m < 2; m++)
#pragma unroll
            for (u32 n = 0; n < NT; n++)
#pragma unroll
                for (u32 i = 0; i < 4; i++) sums[m][n][i] = 0.0f;
        start_at(begin);
        for (u32 s = 0; s < STAGES - 1; s++) copy_step(begin + s < end, s);
        // Seen by all from the first step's barrier on.
        BatchCodes<W>::fill(stages - TABLE_BYTES);
        u32 stage = 0, free_stage = STAGES - 1;
        for (u32 step = begin; step < end; step++) {
            // This step is there for all, and nobody reads the one before any more.
            copy_async_wait<STAGES - 2>();
            sync_block();
            copy_step(step + STAGES - 1 < end, free_stage);
            multiply_step(sums, stage);
            free_stage = stage;
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
    }
};

// One tile of one part, one segment of K: that of block_z.
template <class W, u32 COLUMNS, u32 STAGES>
DEVICE void batch_run(const BatchArgs& a, const BatchPart (&parts)[BATCH_PARTS], u8* memory) {
    u32 rows = block_dim() / 32 * BATCH_WARP_ROWS, tile = block_x(), before = 0, all_rows = 0;
    BatchPart part = parts[0];
#pragma unroll
    for (u32 i = 0; i + 1 < BATCH_PARTS; i++) {
        u32 tiles = div_up(part.n_rows, rows);
        if (tile >= tiles) {
            tile -= tiles;
            before += part.n_rows;
            part = parts[i + 1];
        } else {
            break;
        }
    }
#pragma unroll
    for (u32 i = 0; i < BATCH_PARTS; i++) all_rows += parts[i].n_rows;
    BatchTile<W, COLUMNS, STAGES> t(a, part, tile, memory);
    float sums[2][COLUMNS / 8][4];
    u32 segment = block_z();
    t.sum(sums, segment * a.k_tiles / a.n_segments, (segment + 1) * a.k_tiles / a.n_segments);
    float* partials = a.partials ? a.partials + (u64)segment * a.n_tokens * all_rows + before : nullptr;
    t.put(sums, partials, all_rows);
}

// Of blocks of eight warps two run on a processor where shared memory holds them: from sm_90 on.
#define BATCH_TWO (LICHEN_ARCH >= 90 ? 2 : 1)

#define BATCH_KERNEL(name, format, columns, stages, threads, blocks)                                                           \
    KERNEL(threads, blocks, matmul_batch_##name##_##columns, BATCH_PARAMS) {                                                  \
        DYNAMIC_SHARED(u8, memory);                                                                                           \
        BatchArgs args = BATCH_ARGS;                                                                                          \
        const BatchPart parts[BATCH_PARTS] = BATCH_PARTS_GIVEN;                                                               \
        batch_run<format, columns, stages>(args, parts, memory);                                                              \
    }

#endif
