// Linear combinations of rows on tensor cores (sm_80 and later), both factors rounded to tf32: combine.cu's for adapters, whose
// inner side is narrow, so that they move bytes rather than multiply. Eleven bits, as f16, with the range of f32.
//
// A block computes ROWS x COLUMNS outputs, a warp 32 x WARP_COLUMNS, in steps of 32 terms that cp.async brings through STAGES
// rings of shared memory. A factor whose terms lie side by side keeps rows of 32 terms and 4 more words, one whose other side
// does keeps rows of that side and 8 more: fragments meet every bank once either way. Sixteen bytes at a time: strides, sides
// and addresses are multiples of four floats.
#include "combine.cuh"

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

template <u32 ROWS, u32 COLUMNS, u32 WARP_COLUMNS, u32 STAGES, bool A_ALONG, bool B_ALONG> struct MmaCombination {
    static constexpr u32 WARPS_M = ROWS / 32, WARPS_N = COLUMNS / WARP_COLUMNS;
    static constexpr u32 THREADS = 32 * WARPS_M * WARPS_N;
    typedef MmaSlice<ROWS, A_ALONG> A;
    typedef MmaSlice<COLUMNS, B_ALONG> B;
    static constexpr u32 STAGE_FLOATS = A::FLOATS + B::FLOATS;
    static constexpr u32 NT = WARP_COLUMNS / 8;

    DEVICE void copy_step(const CombineArgs& g, float* stage, u32 row, u32 column, u32 l, u32 end) {
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

    DEVICE void run(const CombineArgs& g, float* shared) {
        u32 row_tiles = div_up(g.m, ROWS);
        u32 first_row = block_x() % row_tiles * ROWS, first_column = block_x() / row_tiles * COLUMNS;
        u32 row = warp_idx() % WARPS_M * 32, column = warp_idx() / WARPS_M * WARP_COLUMNS;
        u32 begin = block_z() * g.part_terms, end = g.k - begin < g.part_terms ? g.k : begin + g.part_terms;
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
        u32 lane = forget(lane_idx());
#pragma unroll
        for (u32 m = 0; m < 2; m++)
#pragma unroll
            for (u32 n = 0; n < NT; n++)
#pragma unroll
                for (u32 i = 0; i < 4; i++)
                    combine_put(g, first_row + row + 16 * m + (lane >> 2) + i / 2 * 8,
                                first_column + column + 8 * n + (lane & 3) * 2 + i % 2, sums[m][n][i]);
    }
};

#define COMBINE_MMA(threads, blocks, rows, columns, warp_columns, stages, a_along, b_along, layout)                            \
    KERNEL(threads, blocks, combine_mma_##rows##x##columns##_##layout, COMBINE_PARAMS) {                                      \
        DYNAMIC_SHARED(float, memory);                                                                                        \
        CombineArgs args = COMBINE_ARGS;                                                                                      \
        MmaCombination<rows, columns, warp_columns, stages, a_along, b_along>::run(args, memory);                             \
    }

// u = x A^T; v = dy B; dB = dy^T u; dA = v^T x; y += u B^T; dx += v A. Layout: t where the terms of a factor lie side by side.
COMBINE_MMA(128, 2, 128, 32, 32, 4, true, true, tt)
COMBINE_MMA(128, 2, 128, 32, 32, 4, true, false, ts)
COMBINE_MMA(128, 2, 128, 32, 32, 4, false, false, ss)
COMBINE_MMA(128, 2, 32, 128, 32, 4, false, false, ss)
COMBINE_MMA(256, 2, 128, 128, 64, 2, true, true, tt)
COMBINE_MMA(256, 2, 128, 128, 64, 2, true, false, ts)
COMBINE_MMA(256, 2, 128, 128, 64, 2, false, false, ss)
#endif
