// GEMM on tensor cores (sm_80 and later), both factors rounded to tf32: gemm.cu's for adapters, whose
// inner side is narrow, so that they move bytes rather than multiply. Eleven bits, as f16, with the range of f32.
//
// A block computes ROWS x COLUMNS outputs, a warp 32 x WARP_COLUMNS, in steps of 32 terms that cp.async brings through
// STAGES rings of shared memory. A factor whose terms lie side by side keeps rows of 32 terms and 4 more words, one whose
// other side does keeps rows of that side and 8 more: fragments meet every bank once either way. Sixteen bytes at a time:
// strides, sides and addresses are multiples of four floats.
#include "gemm.cuh"

#if LICHEN_ARCH >= 80

const u32 MMA_TERMS = 32;

// A slice of SIDE x 32 of one factor.
template <u32 SIDE, bool ALONG_TERMS> struct MmaSlice {
    static constexpr u32 STRIDE = ALONG_TERMS ? MMA_TERMS + 4 : SIDE + 8;
    static constexpr u32 FLOATS = ALONG_TERMS ? SIDE * STRIDE : MMA_TERMS * STRIDE;

    DEVICE void copy(float* to, const float* from, u32 stride, u32 first, u32 n_sides, u32 l, u32 end, u32 threads) {
        constexpr u32 RUN = ALONG_TERMS ? MMA_TERMS / 4 : SIDE / 4;
        for (u32 i = thread_idx(); i < SIDE * MMA_TERMS / 4; i += threads) {
            u32 line = i / RUN, at = i % RUN * 4;
            u32 side = first + (ALONG_TERMS ? line : at), term = l + (ALONG_TERMS ? at : line);
            bool inside = side < n_sides && term < end;
            u64 offset = ALONG_TERMS ? (u64)side * stride + term : (u64)term * stride + side;
            copy_async(to + line * STRIDE + at, from + (inside ? offset : 0), inside);
        }
    }
    DEVICE u32 get(const float* slice, u32 side, u32 term) {
        return f32_to_tf32(slice[ALONG_TERMS ? side * STRIDE + term : term * STRIDE + side]);
    }
};

template <u32 ROWS, u32 COLUMNS, u32 WARP_COLUMNS, u32 STAGES, bool A_ALONG, bool B_ALONG> struct MmaGemm {
    static constexpr u32 WARPS_M = ROWS / 32, WARPS_N = COLUMNS / WARP_COLUMNS;
    static constexpr u32 THREADS = 32 * WARPS_M * WARPS_N;
    typedef MmaSlice<ROWS, A_ALONG> A;
    typedef MmaSlice<COLUMNS, B_ALONG> B;
    static constexpr u32 STAGE_FLOATS = A::FLOATS + B::FLOATS;
    static constexpr u32 NT = WARP_COLUMNS / 8;

    DEVICE void copy_step(const GemmArgs& g, float* stage, u32 row, u32 column, u32 l, u32 end) {
        if (l < end) {
            A::copy(stage, g.a, A_ALONG ? g.a_row : g.a_column, row, g.m, l, end, THREADS);
            B::copy(stage + A::FLOATS, g.b, B_ALONG ? g.b_column : g.b_row, column, g.n, l, end, THREADS);
        }
        copy_async_commit();
    }

    DEVICE void multiply_step(float (&sums)[2][NT][4], const float* stage, u32 row, u32 column) {
        const float* b = stage + A::FLOATS;
        u32 g = lane_idx() >> 2, t = lane_idx() & 3;
#pragma unroll
        for (u32 k = 0; k < MMA_TERMS; k += 8) {
            u32 x[2][4];
#pragma unroll
            for (u32 m = 0; m < 2; m++)
#pragma unroll
                for (u32 i = 0; i < 4; i++) x[m][i] = A::get(stage, row + 16 * m + g + i % 2 * 8, k + t + i / 2 * 4);
#pragma unroll
            for (u32 n = 0; n < NT; n++) {
                const u32 y[2] = {B::get(b, column + 8 * n + g, k + t), B::get(b, column + 8 * n + g, k + t + 4)};
#pragma unroll
                for (u32 m = 0; m < 2; m++) mma_tf32(sums[m][n], x[m], y);
            }
        }
    }

    DEVICE void run(const GemmArgs& g, float* shared) {
        u32 row_tiles = div_up(g.m, ROWS);
        u32 first_row = block_x() % row_tiles * ROWS, first_column = block_x() / row_tiles * COLUMNS;
        u32 row = warp_idx() % WARPS_M * 32, column = warp_idx() / WARPS_M * WARP_COLUMNS;
        u32 begin = block_z() * g.split_terms, end = g.k - begin < g.split_terms ? g.k : begin + g.split_terms;
        float sums[2][NT][4];
#pragma unroll
        for (u32 m = 0; m < 2; m++)
#pragma unroll
            for (u32 n = 0; n < NT; n++)
#pragma unroll
                for (u32 i = 0; i < 4; i++) sums[m][n][i] = 0.0f;
        for (u32 s = 0; s < STAGES - 1; s++)
            copy_step(g, shared + s * STAGE_FLOATS, first_row, first_column, begin + s * MMA_TERMS, end);
        u32 stage = 0, free_stage = STAGES - 1;
        for (u32 l = begin; l < end; l += MMA_TERMS) {
            // This step is there for all, and nobody reads the one before any more.
            copy_async_wait<STAGES - 2>();
            sync_block();
            copy_step(g, shared + free_stage * STAGE_FLOATS, first_row, first_column, l + (STAGES - 1) * MMA_TERMS, end);
            multiply_step(sums, shared + stage * STAGE_FLOATS, row, column);
            free_stage = stage;
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
        // Opaque: read again behind the sum: no register holds it through that.
        u32 lane = opaque(lane_idx());
        row += first_row + (lane >> 2);
        column += first_column + (lane & 3) * 2;
        bool in_pairs = (g.n & 1) == 0 && ((u64)(g.partials ? g.partials : g.c) & 7) == 0;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            // Rows 8 i of a warp.
            if (in_pairs) put_row(g, row + 8 * i, column, sums[i / 2], i % 2 * 2);
            else
#pragma unroll
                for (u32 n = 0; n < NT; n++)
#pragma unroll
                    for (u32 j = 0; j < 2; j++)
                        gemm_put(g, row + 8 * i, column + 8 * n + j, sums[i / 2][n][i % 2 * 2 + j]);
        }
    }

    // A lane's numbers of one row, two at a time. What is added to is read before anything is written: one at a time, each
    // would wait for the one before.
    DEVICE void put_row(const GemmArgs& g, u32 row, u32 column, const float (&sums)[NT][4], u32 first) {
        if (row >= g.m) return;
        if (g.partials) {
            float* to = g.partials + ((u64)block_z() * g.m + row) * g.n + column;
#pragma unroll
            for (u32 n = 0; n < NT; n++)
                if (column + 8 * n < g.n)
                    *(u32x2*)(to + 8 * n) = u32x2{f32_bits(sums[n][first]), f32_bits(sums[n][first + 1])};
            return;
        }
        float* to = g.c + (u64)row * g.n + column;
        u32x2 before[NT];
#pragma unroll
        for (u32 n = 0; n < NT; n++) {
            before[n] = u32x2{0, 0};
            if (g.add && column + 8 * n < g.n) before[n] = *(const u32x2*)(to + 8 * n);
        }
#pragma unroll
        for (u32 n = 0; n < NT; n++) {
            if (column + 8 * n >= g.n) continue;
            float low = f32_from_bits(before[n].x), high = f32_from_bits(before[n].y);
            if (g.bias) {
                low += g.bias[column + 8 * n];
                high += g.bias[column + 8 * n + 1];
            }
            *(u32x2*)(to + 8 * n) = u32x2{f32_bits(fma(sums[n][first], g.scale, low)),
                                          f32_bits(fma(sums[n][first + 1], g.scale, high))};
        }
    }
};

// Few outputs of many terms: 32 x 32 a block, whose four warps each take a quarter of the 128 terms of a step; their sums
// are added in order. Both factors' terms lie side by side.
template <u32 STAGES> struct MmaDots {
    static constexpr u32 TERMS = 4 * MMA_TERMS, STRIDE = TERMS + 4, FACTOR_FLOATS = 32 * STRIDE;
    static constexpr u32 STAGE_FLOATS = 2 * FACTOR_FLOATS;

    DEVICE void copy(float* to, const float* from, u32 stride, u32 first, u32 n_sides, u32 l, u32 end) {
        for (u32 i = thread_idx(); i < 32 * TERMS / 4; i += 128) {
            u32 side = i / (TERMS / 4), at = i % (TERMS / 4) * 4;
            bool inside = first + side < n_sides && l + at < end;
            copy_async(to + side * STRIDE + at, from + (inside ? (u64)(first + side) * stride + l + at : 0), inside);
        }
    }
    DEVICE void copy_step(const GemmArgs& g, float* stage, u32 row, u32 column, u32 l) {
        if (l < g.k) {
            copy(stage, g.a, g.a_row, row, g.m, l, g.k);
            copy(stage + FACTOR_FLOATS, g.b, g.b_column, column, g.n, l, g.k);
        }
        copy_async_commit();
    }

    DEVICE void multiply_step(float (&sums)[2][4][4], const float* a) {
        const float* b = a + FACTOR_FLOATS;
        u32 g = lane_idx() >> 2, t = warp_idx() * MMA_TERMS + (lane_idx() & 3);
#pragma unroll
        for (u32 k = 0; k < MMA_TERMS; k += 8) {
            u32 x[2][4];
#pragma unroll
            for (u32 m = 0; m < 2; m++)
#pragma unroll
                for (u32 i = 0; i < 4; i++) x[m][i] = f32_to_tf32(a[(16 * m + g + i % 2 * 8) * STRIDE + t + k + i / 2 * 4]);
#pragma unroll
            for (u32 n = 0; n < 4; n++) {
                const float* y_row = b + (8 * n + g) * STRIDE + t + k;
                const u32 y[2] = {f32_to_tf32(y_row[0]), f32_to_tf32(y_row[4])};
#pragma unroll
                for (u32 m = 0; m < 2; m++) mma_tf32(sums[m][n], x[m], y);
            }
        }
    }

    DEVICE void run(const GemmArgs& g, float* shared) {
        u32 row_tiles = div_up(g.m, 32);
        u32 first_row = block_x() % row_tiles * 32, first_column = block_x() / row_tiles * 32;
        float sums[2][4][4];
#pragma unroll
        for (u32 m = 0; m < 2; m++)
#pragma unroll
            for (u32 n = 0; n < 4; n++)
#pragma unroll
                for (u32 i = 0; i < 4; i++) sums[m][n][i] = 0.0f;
        for (u32 s = 0; s < STAGES - 1; s++) copy_step(g, shared + s * STAGE_FLOATS, first_row, first_column, s * TERMS);
        u32 stage = 0, free_stage = STAGES - 1;
        for (u32 l = 0; l < g.k; l += TERMS) {
            copy_async_wait<STAGES - 2>();
            sync_block();
            copy_step(g, shared + free_stage * STAGE_FLOATS, first_row, first_column, l + (STAGES - 1) * TERMS);
            multiply_step(sums, shared + stage * STAGE_FLOATS);
            free_stage = stage;
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
        // Nobody reads a stage any more, and none is on its way: past the end nothing was copied.
        copy_async_wait<0>();
        sync_block();
        u32 lane = lane_idx();
#pragma unroll
        for (u32 m = 0; m < 2; m++)
#pragma unroll
            for (u32 n = 0; n < 4; n++)
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    u32 row = 16 * m + (lane >> 2) + i / 2 * 8, column = 8 * n + (lane & 3) * 2 + i % 2;
                    shared[warp_idx() * 1024 + row * 32 + column] = sums[m][n][i];
                }
        sync_block();
        for (u32 i = thread_idx(); i < 1024; i += 128) {
            float sum = shared[i];
            for (u32 w = 1; w < 4; w++) sum += shared[w * 1024 + i];
            gemm_put(g, first_row + i / 32, first_column + i % 32, sum);
        }
    }
};

KERNEL(128, 2, gemm_mma_32x32, GEMM_PARAMS) {
    DYNAMIC_SHARED(float, memory);
    GemmArgs args = GEMM_ARGS;
    MmaDots<3>::run(args, memory);
}

#define GEMM_MMA(threads, blocks, rows, columns, warp_columns, stages, a_along, b_along, layout)                            \
    KERNEL(threads, blocks, gemm_mma_##rows##x##columns##_##layout, GEMM_PARAMS) {                                      \
        DYNAMIC_SHARED(float, memory);                                                                                        \
        GemmArgs args = GEMM_ARGS;                                                                                      \
        MmaGemm<rows, columns, warp_columns, stages, a_along, b_along>::run(args, memory);                             \
    }

// v = dy B; dB = dy^T u; dA = v^T x; y += u B^T; dx += v A (u = x A^T is above). Layout: t where the terms of a factor lie
// side by side.
GEMM_MMA(128, 2, 128, 32, 32, 4, true, false, ts)
GEMM_MMA(128, 2, 128, 32, 32, 4, false, false, ss)
GEMM_MMA(128, 2, 32, 128, 32, 4, false, false, ss)
GEMM_MMA(256, 2, 128, 128, 64, 2, true, true, tt)
GEMM_MMA(256, 2, 128, 128, 64, 2, true, false, ts)
GEMM_MMA(256, 2, 128, 128, 64, 2, false, false, ss)
#endif
