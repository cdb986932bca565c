// Products of 1 to 64 rows of x on tensor cores (sm_80 and later): weights stream past them once, straight from their packed
// layout into the fragments of mma.sync m16n8k16 as its A operand; columns of products are tokens.
//
// A block has four warps of 32 weight rows each and takes K in steps of 128. A lane (g = lane / 4, t = lane % 4) loads
// sixteen bytes of the rows g, g + 8, g + 16 and g + 24: which k those are is the format's business, as long as the tokens'
// fragments take the same ones. A step's codes, scales and activations lie in STAGES rings of shared memory (cp.async);
// codes are read by the lane that copied them. Rows of x are 16 chunks of 8 k, in the order in which lanes read them, and 64
// bytes apart beyond that: every bank once.
//
// A token's sums do not depend on the others: its column of every product is its own, and K is cut by the matrix and the
// device alone (epilogue.cuh adds the segments).
#pragma once
#include "../prefill/epilogue.cuh"
#include "../prefill/weights.cuh"

#if LICHEN_ARCH >= 80

const u32 BATCH_WARPS = 4;
const u32 BATCH_WARP_ROWS = 32;
// Bytes of a row of x in shared memory.
const u32 BATCH_X_STRIDE = 320;

// Codes j of a load of sixteen bytes: eight k as four pairs of halves.
DEVICE void batch_pairs(Q8_0, const u32x4& codes, u32 j, u32 (&out)[4]) {
    const u32 words[2] = {j == 0 ? codes.x : codes.z, j == 0 ? codes.y : codes.w};
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        u32 biased = words[i] ^ 0x80808080;
        out[2 * i] = add_f16x2(permute_bytes(biased, 0x64646464, 0x4140), 0xe480e480);
        out[2 * i + 1] = add_f16x2(permute_bytes(biased, 0x64646464, 0x4342), 0xe480e480);
    }
}
DEVICE void batch_pairs(Q4_0, const u32x4& codes, u32 j, u32 (&out)[4]) {
    const u32 words[2] = {j % 2 == 0 ? codes.x : codes.z, j % 2 == 0 ? codes.y : codes.w};
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        u32 bytes = permute_bytes(words[i / 2], 0, i % 2 == 0 ? 0x4140 : 0x4342);
        if (j < 2) out[i] = add_f16x2((bytes & 0x000f000f) | 0x64006400, 0xe408e408);
        else out[i] = fma_f16x2((bytes & 0x00f000f0) | 0x64006400, 0x2c002c00, 0xd480d480);
    }
}
DEVICE void batch_pairs(NF4, const u32x4& codes, u32 j, u32 (&out)[4]) {
    u32 word = j == 0 ? codes.x : j == 1 ? codes.y : j == 2 ? codes.z : codes.w;
    u32 top_bits = word >> 3 & 0x11111111;
    NF4::four(word, top_bits, out[0], out[1]);
    NF4::four(word >> 16, top_bits >> 16, out[2], out[3]);
}
DEVICE void batch_plain(const u32x4& codes, u32 (&out)[4]) {
    out[0] = codes.x;
    out[1] = codes.y;
    out[2] = codes.z;
    out[3] = codes.w;
}
DEVICE void batch_pairs(F16, const u32x4& codes, u32, u32 (&out)[4]) { batch_plain(codes, out); }
DEVICE void batch_pairs(BF16, const u32x4& codes, u32, u32 (&out)[4]) { batch_plain(codes, out); }

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
    static constexpr u32 STAGE_BYTES = BATCH_WARPS * (CODE_BYTES + SCALE_BYTES) + X_BYTES;
    static constexpr u32 SHARED_BYTES = STAGES * STAGE_BYTES;

    const PrefillArgs& a;
    u8* shared;
    // The warp's first weight row.
    u32 first_row;

    DEVICE_MEMBER BatchTile(const PrefillArgs& args, u8* memory) : a(args), shared(memory) {
        first_row = (block_x() * BATCH_WARPS + warp_idx()) * BATCH_WARP_ROWS;
    }

    // Rows past the last are computed from the last and not kept.
    DEVICE_MEMBER u32 inside(u32 row) const { return row < a.n_rows ? row : a.n_rows - 1; }

    DEVICE_MEMBER u8* codes_of(u32 stage) const { return shared + stage * STAGE_BYTES + warp_idx() * CODE_BYTES; }
    DEVICE_MEMBER u8* scales_of(u32 stage) const {
        return shared + stage * STAGE_BYTES + BATCH_WARPS * CODE_BYTES + warp_idx() * SCALE_BYTES;
    }
    DEVICE_MEMBER u8* x_of(u32 stage) const {
        return shared + stage * STAGE_BYTES + BATCH_WARPS * (CODE_BYTES + SCALE_BYTES);
    }

    // The copies of one step; a group of its own even when the step is past the end.
    DEVICE_MEMBER void copy_step(u32 step, u32 end, u32 stage) const {
        if (step < end) {
            u32 lane = lane_idx(), g = lane >> 2, t = lane & 3;
            u8* codes = codes_of(stage) + lane * 16;
#pragma unroll
            for (u32 q = 0; q < 4; q++) {
#pragma unroll
                for (u32 l = 0; l < LOADS; l++) {
                    u32 k = step * 128 + (4 * l + t) * W::K_PER_LOAD;
                    copy_async(codes + (q * LOADS + l) * 512, a.codes + W::code_offset(inside(first_row + g + 8 * q), k, a.k_tiles),
                               true);
                }
            }
            copy_scales(step, stage);
            copy_x(step, stage);
        }
        copy_async_commit();
    }

    DEVICE_MEMBER void copy_scales(u32 step, u32 stage) const {
        if constexpr (!W::PLAIN) {
            typedef BatchScales<W> S;
            u32 piece = lane_idx();
            if (piece < S::PIECES) {
                u32 tile = piece / (S::TILE_BYTES / 16), at = piece % (S::TILE_BYTES / 16) * 16;
                u32 row = inside(first_row + tile * S::TILE_ROWS);
                u64 from = ((u64)(row / S::TILE_ROWS) * a.k_tiles + step) * S::TILE_BYTES + at;
                copy_async(scales_of(stage) + piece * 16, (const u8*)a.scales + from, true);
            }
        }
    }

    DEVICE_MEMBER void copy_x(u32 step, u32 stage) const {
        u8* x = x_of(stage);
#pragma unroll
        for (u32 i = 0; i < NT; i++) {
            u32 at = i * BATCH_WARPS * 32 + thread_idx(), column = at / 16, chunk = at % 16;
            u32 load = chunk / (4 * CHUNKS), t = chunk / CHUNKS % 4, j = chunk % CHUNKS;
            const u16* from = a.x + (u64)column * a.k_tiles * 128 + step * 128 + chunk * 8;
            copy_async(x + column * BATCH_X_STRIDE + ((load * CHUNKS + j) * 4 + t) * 16, from, true);
        }
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
                    batch_pairs(W{}, codes[q], j, w[q]);
                    if constexpr (!W::PLAIN) {
#pragma unroll
                        for (u32 i = 0; i < 4; i++) w[q][i] = mul_f16x2(w[q][i], scales[q]);
                    }
                }
#pragma unroll
                for (u32 n = 0; n < NT; n++) {
                    u32x4 b = *(const u32x4*)(x + n * 8 * BATCH_X_STRIDE + (l * CHUNKS + j) * 64);
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
        }
    }

    // A lane holds rows g and g + 8 of two tokens.
    DEVICE_MEMBER void put(u32 index, const float (&sums)[2][NT][4]) const {
        Sink sink = sink_of_segment(a, index);
        u32 lane = forget(lane_idx());
#pragma unroll
        for (u32 m = 0; m < 2; m++)
#pragma unroll
            for (u32 n = 0; n < NT; n++)
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    u32 row = first_row + 16 * m + (lane >> 2) + (i / 2) * 8, token = 8 * n + (lane & 3) * 2 + i % 2;
                    if (row >= a.n_rows || token >= a.n_tokens) continue;
                    float sum = sums[m][n][i];
                    float* out = sink.out + (u64)token * a.n_rows + row;
                    if (sink.finish) {
                        sum = sum * a.weight_scale * a.x_scales[token];
                        if (a.bias) sum += a.bias[row];
                        if (a.accumulate) sum += *out;
                    }
                    *out = sum;
                }
    }

    // One segment of K: that of block_z.
    DEVICE_MEMBER void run() const {
        u32 begin = segment_start(a, block_z()), end = segment_start(a, block_z() + 1);
        float sums[2][NT][4];
#pragma unroll
        for (u32 m = 0; m < 2; m++)
#pragma unroll
            for (u32 n = 0; n < NT; n++)
#pragma unroll
                for (u32 i = 0; i < 4; i++) sums[m][n][i] = 0.0f;
        for (u32 s = 0; s < STAGES - 1; s++) copy_step(begin + s, end, s);
        u32 stage = 0, free_stage = STAGES - 1;
        for (u32 step = begin; step < end; step++) {
            // This step is there for all, and nobody reads the one before any more.
            copy_async_wait<STAGES - 2>();
            sync_block();
            copy_step(step + STAGES - 1, end, free_stage);
            multiply_step(sums, stage);
            free_stage = stage;
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
        put(block_z(), sums);
    }
};

#define BATCH_KERNEL(name, format, columns, stages, blocks)                                                                    \
    KERNEL(128, blocks, matmul_batch_##name##_##columns, PREFILL_PARAMS) {                                                    \
        DYNAMIC_SHARED(u8, memory);                                                                                           \
        PrefillArgs args = PREFILL_ARGS;                                                                                      \
        BatchTile<format, columns, stages>(args, memory).run();                                                               \
    }

#define BATCH_KERNELS(name, format, stages, stages_64)                                                                         \
    BATCH_KERNEL(name, format, 8, stages, 2)                                                                                  \
    BATCH_KERNEL(name, format, 16, stages, 2)                                                                                 \
    BATCH_KERNEL(name, format, 32, stages, 2)                                                                                 \
    BATCH_KERNEL(name, format, 64, stages_64, 2)

#else
#define BATCH_KERNELS(name, format, stages, stages_64)
#endif
