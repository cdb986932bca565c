// Tiles for sm_72: wmma m16n16k16 of f16 with f32 sums. A block of four warps computes 128 tokens x 64 rows, a warp
// 64 x 32, in steps of 32 k. The next step's activations and codes are loaded into registers while this one's products
// run (there is no cp.async), and stored to the other half of shared memory; weights are decoded to f16 once per block.
// Rows of a step are 40 f16 apart: eight rows then start in different groups of four banks.
#pragma once
#include "epilogue.cuh"
#include "weights.cuh"

template <class W> struct WmmaTile {
    static constexpr u32 TOKENS = 128, ROWS = 64, THREADS = 128, STRIDE = 40;
    static constexpr u32 STAGE = (TOKENS + ROWS) * STRIDE;
    static constexpr u32 LOADS_PER_ROW = 32 / W::K_PER_LOAD;
    // Q4_0 and NF4: half the threads load.
    static constexpr u32 LOADS = (ROWS * LOADS_PER_ROW + THREADS - 1) / THREADS;
    static constexpr u32 ROW_STRIDE = THREADS / LOADS_PER_ROW;

    struct Staged {
        u32x4 x[4], codes[LOADS];
        u16 scales[LOADS];
    };

    const PrefillArgs& a;
    u16* shared;
    TilePlace place;
    const u8* x_from;
    const u8* w_from;
    const u8* scales_from;
    u32 w_at[LOADS];
    u32 row, k;
    bool loads_codes;

    DEVICE_MEMBER WmmaTile(const PrefillArgs& args, u16* memory) : a(args), shared(memory) {
        u32 tid = thread_idx();
        place = tile_place<TOKENS, ROWS>(a);
        x_from = (const u8*)(a.x + (u64)(place.token + tid / 4) * a.k_tiles * 128 + tid % 4 * 8);
        u64 tile = W::code_offset(place.row, 0, a.k_tiles);
        w_from = a.codes + tile;
        if constexpr (!W::PLAIN) scales_from = (const u8*)a.scales + tile / W::SCALE_RATIO;
        row = tid / LOADS_PER_ROW;
        k = tid % LOADS_PER_ROW * W::K_PER_LOAD;
        loads_codes = row < ROWS;
        // Rows past the last are computed from the last and not kept.
        u32 last = a.n_rows - 1 - place.row;
#pragma unroll
        for (u32 i = 0; i < LOADS; i++) {
            u32 r = row + i * ROW_STRIDE;
            w_at[i] = (u32)W::code_offset(r < last ? r : last, k, a.k_tiles);
        }
    }

    DEVICE_MEMBER void load(Staged& s, u32 step) const {
        u64 stride = (u64)32 * a.k_tiles * 256;
#pragma unroll
        for (u32 i = 0; i < 4; i++) s.x[i] = *(const u32x4*)(x_from + (u64)step * 64 + i * stride);
        if (!loads_codes) return;
        u64 at = W::code_offset(0, step * 32, 0);
#pragma unroll
        for (u32 i = 0; i < LOADS; i++) {
            s.codes[i] = load_stream((const u32x4*)(w_from + (at + w_at[i])));
            if constexpr (!W::PLAIN)
                s.scales[i] = load_stream((const u16*)(scales_from + (at + w_at[i]) / (2 * W::SCALE_RATIO) * 2));
        }
    }

    DEVICE_MEMBER void store(const Staged& s, u32 stage) const {
        u16* x = shared + stage * STAGE;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32x4 v = {s.x[i].x, s.x[i].y, s.x[i].z, s.x[i].w};
            *(u32x4*)(x + (thread_idx() / 4 + i * 32) * STRIDE + thread_idx() % 4 * 8) = v;
        }
        if (!loads_codes) return;
#pragma unroll
        for (u32 i = 0; i < LOADS; i++) {
            u32 pairs[W::K_PER_LOAD / 2];
            W::pairs(s.codes[i], pairs);
            if constexpr (!W::PLAIN) {
                u32 scale = both_halves(s.scales[i]);
#pragma unroll
                for (u32 j = 0; j < W::K_PER_LOAD / 2; j++) pairs[j] = mul_f16x2(pairs[j], scale);
            }
            u16* to = x + (TOKENS + row + i * ROW_STRIDE) * STRIDE + k;
#pragma unroll
            for (u32 j = 0; j < W::K_PER_LOAD / 8; j++)
                *(u32x4*)(to + 8 * j) = u32x4{pairs[4 * j], pairs[4 * j + 1], pairs[4 * j + 2], pairs[4 * j + 3]};
        }
    }

    DEVICE_MEMBER void multiply(WmmaC (&sums)[4][2], u32 stage) const {
        const u16* x = shared + stage * STAGE + warp_idx() / 2 * 64 * STRIDE;
        const u16* w = shared + stage * STAGE + (TOKENS + warp_idx() % 2 * 32) * STRIDE;
#pragma unroll
        for (u32 ki = 0; ki < 32; ki += 16) {
            WmmaB b[2] = {wmma_load_b(w + ki, STRIDE), wmma_load_b(w + 16 * STRIDE + ki, STRIDE)};
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                WmmaA f = wmma_load_a(x + i * 16 * STRIDE + ki, STRIDE);
                wmma_mma(sums[i][0], f, b[0]);
                wmma_mma(sums[i][1], f, b[1]);
            }
        }
    }

    // Which sum a register holds is not known: through shared memory, 16 x 16 at a time, a warp in its own part.
    DEVICE_MEMBER void put(const Sink& sink, const WmmaC (&sums)[4][2]) const {
        // Opaque: read again behind the products: no register holds it through them.
        u32 lane = opaque(lane_idx());
        float* part = (float*)shared + warp_idx() * 16 * 20;
        u32 t = place.token + warp_idx() / 2 * 64 + lane / 4, n = place.row + warp_idx() % 2 * 32 + lane % 4 * 4;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
#pragma unroll
            for (u32 j = 0; j < 2; j++) {
                sync_warp();
                wmma_store(part, sums[i][j], 20);
                sync_warp();
#pragma unroll
                for (u32 half = 0; half < 2; half++) {
                    const float* from = part + (lane / 4 + 8 * half) * 20 + lane % 4 * 4;
                    float four[4] = {from[0], from[1], from[2], from[3]};
                    u32 token = t + 16 * i + 8 * half, row = n + 16 * j;
                    put_four(a, sink, token, row, four, four_before(a, sink, token, row));
                }
            }
        }
    }

    DEVICE_MEMBER void split(u32 index) const {
        u32 begin = 4 * split_start(a, index), end = 4 * split_start(a, index + 1);
        WmmaC sums[4][2];
#pragma unroll
        for (u32 i = 0; i < 4; i++)
#pragma unroll
            for (u32 j = 0; j < 2; j++)
#pragma unroll
                for (u32 e = 0; e < 8; e++) sums[i][j].r[e] = 0.0f;
        Staged staged;
        load(staged, begin);
        store(staged, 0);
        sync_block();
        for (u32 step = begin; step < end; step++) {
            u32 stage = (step - begin) & 1;
            if (step + 1 < end) load(staged, step + 1);
            multiply(sums, stage);
            if (step + 1 < end) store(staged, stage ^ 1);
            sync_block();
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
