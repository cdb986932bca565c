// Rows of activations on their way to 16-bit floats. A thread takes units of eight numbers, which become sixteen bytes: eight
// neighbours, or the four pairs that lanes hold at one place of their chunks (batch_wgmma.cuh). What a source keeps in memory
// each thread reads back as it wrote it.
#pragma once
#include "../prefill/prepare.cuh"
#include "elements.cuh"
#include "math.cuh"

#if LICHEN_ARCH >= 80

// Where the blocks of a product begin to read: `n_splits` places in each of its tiles of rows, whose k-tiles are
// `step_bytes` and lie one behind the other.
struct Beginnings {
    const u8* codes;
    u32 tile_rows, k_tiles, n_splits, step_bytes;
};

// Thread `index` of all brings one line of 128 bytes into the second-level cache: the first of every beginning, then the
// second. What one block needs alone would only let it wait for the others.
DEVICE void prefetch_line(const Beginnings& b, u32 index) {
    u32 n = b.tile_rows * b.n_splits, line = index / n, place = index % n;
    u32 row = place / b.n_splits, split = place % b.n_splits;
    u64 at = ((u64)row * b.k_tiles + split * b.k_tiles / b.n_splits) * b.step_bytes + line * 128;
    if (at < (u64)b.tile_rows * b.k_tiles * b.step_bytes) prefetch_l2(b.codes + at);
}

// Units that a thread keeps in registers: with 1024 threads rows of 32,768 numbers.
const u32 UNITS_KEPT = 4;

struct Pair {
    float low, high;
};

// Rows as a product wants them: (n_padded, padded_cols) where k_per_load is 0, else in the order of batch_wgmma.cuh for
// formats with so many codes in sixteen bytes. `scales` (n_rows) bring them back. Rows from n_rows on are zeros.
struct Prepared {
    u16* rows;
    float* scales;
    u32 n_rows, n_padded, cols, padded_cols, k_per_load;

    DEVICE_MEMBER u64 row_offset() const { return (u64)block_x() * cols; }
    DEVICE_MEMBER u32 n_units() const { return padded_cols / 8; }

    // The first k of the unit's i-th pair.
    DEVICE_MEMBER u32 k_of(u32 unit, u32 i) const {
        if (k_per_load == 0) return 8 * unit + 2 * i;
        // Of its step of 128 k, the load of four lanes' k, and the place in a lane's.
        u32 of_load = k_per_load / 2, load = unit % 16 / of_load, place = unit % of_load;
        return unit / 16 * 128 + load * 4 * k_per_load + 2 * place + i * k_per_load;
    }
    DEVICE_MEMBER void put(u32 unit, const u32 (&pairs)[4]) const {
        u64 at = k_per_load ? (u64)unit * n_padded + block_x() : (u64)block_x() * n_units() + unit;
        ((u32x4*)rows)[at] = {pairs[0], pairs[1], pairs[2], pairs[3]};
    }

    // Zeros past the last column.
    DEVICE_MEMBER Pair load(const float* x, u32 k) const {
        if (cols % 2 == 0) {
            if (k >= cols) return {0.0f, 0.0f};
            u32x2 v = *(const u32x2*)(x + k);
            return {f32_from_bits(v.x), f32_from_bits(v.y)};
        }
        return {k < cols ? x[k] : 0.0f, k + 1 < cols ? x[k + 1] : 0.0f};
    }
    DEVICE_MEMBER void keep(float* x, u32 k, Pair v) const {
        if (cols % 2 == 0) {
            u32x2 bits = {f32_bits(v.low), f32_bits(v.high)};
            if (k < cols) *(u32x2*)(x + k) = bits;
            return;
        }
        if (k < cols) x[k] = v.low;
        if (k + 1 < cols) x[k + 1] = v.high;
    }

    // Calls body(unit) for this thread's units.
    template <class Body> DEVICE_MEMBER void for_units(Body body) const {
        for (u32 unit = thread_idx(); unit < n_units(); unit += block_dim()) body(unit);
    }
    // Calls body(unit, slot), `slot` the place in the registers, where they hold all units.
    template <class Body> DEVICE_MEMBER void for_kept_units(Body body) const {
#pragma unroll
        for (u32 slot = 0; slot < UNITS_KEPT; slot++) {
            u32 unit = slot * block_dim() + thread_idx();
            if (unit < n_units()) body(unit, slot);
        }
    }
    DEVICE_MEMBER bool are_kept() const { return n_units() <= UNITS_KEPT * block_dim(); }
};

// The sum or the maximum of bits over the block, the same in every thread.
template <bool IS_SUM> DEVICE u32 over_block(u32 v) {
    SHARED(u32, of_warps, 32);
    u32 n_warps = block_dim() / 32;
    for (u32 round = 0; round < 2; round++) {
        for (u32 mask = 16; mask > 0; mask /= 2) {
            u32 other = shuffle_xor(v, mask);
            if (IS_SUM) v = f32_bits(f32_from_bits(v) + f32_from_bits(other));
            else v = other > v ? other : v;
        }
        if (round == 1) return v;
        // Whoever still reads what the call before left.
        sync_block();
        if (lane_idx() == 0) of_warps[warp_idx()] = v;
        sync_block();
        v = lane_idx() < n_warps ? of_warps[lane_idx()] : 0;
    }
    return v;
}
DEVICE float sum_over_block(float v) { return f32_from_bits(over_block<true>(f32_bits(v))); }

struct GivenRow {
    const float* x;

    DEVICE_MEMBER void begin(const Prepared&) {}
    DEVICE_MEMBER Pair make(const Prepared& to, u32 k) const { return to.load(x, k); }
    DEVICE_MEMBER const float* kept() const { return x; }
};

struct GatedRow {
    float* gate;
    const float* up;
    u32 activation;

    // gelu_tanh or silu of math.cuh by the device's own exponential: the row becomes f16, and a processor that has it alone
    // would spend 6 us on the CPU's bits of 29,568 numbers.
    DEVICE_MEMBER float act(float v) const {
        float inner = activation == 0 ? 1.5957691f * fma(0.044715f * v * v, v, v) : v;
        return divide(v, 1.0f + exp2_approx(-1.44269504f * inner));
    }
    DEVICE_MEMBER void begin(const Prepared&) {}
    DEVICE_MEMBER Pair make(const Prepared& to, u32 k) const {
        Pair g = to.load(gate, k), u = to.load(up, k);
        g = {act(g.low) * u.low, act(g.high) * u.high};
        to.keep(gate, k, g);
        return g;
    }
    DEVICE_MEMBER const float* kept() const { return gate; }
};

struct NormedRow {
    float* x;
    const float* y;
    const float* post_weight;
    const float* weight;
    float* h;
    float eps;
    // 1 / rms(x), from begin on.
    float scale;

    DEVICE_MEMBER float reciprocal_rms(const Prepared& to, float sum) const {
        return divide(1.0f, square_root(divide(sum_over_block(sum), s32_to_f32((s32)to.cols)) + eps));
    }
    // The new stream, kept in x.
    DEVICE_MEMBER Pair add(const Prepared& to, u32 k, float y_scale) const {
        Pair v = to.load(x, k);
        if (!y) return v;
        Pair more = to.load(y, k);
        if (post_weight) {
            Pair w = to.load(post_weight, k);
            more = {more.low * y_scale * w.low, more.high * y_scale * w.high};
        }
        v = {v.low + more.low, v.high + more.high};
        to.keep(x, k, v);
        return v;
    }
    DEVICE_MEMBER void begin(const Prepared& to) {
        float y_scale = 1.0f, sum = 0.0f;
        if (y && post_weight) {
            float squares = 0.0f;
            to.for_units([&](u32 unit) {
                for (u32 i = 0; i < 4; i++) {
                    Pair v = to.load(y, to.k_of(unit, i));
                    squares = fma(v.high, v.high, fma(v.low, v.low, squares));
                }
            });
            y_scale = reciprocal_rms(to, squares);
        }
        to.for_units([&](u32 unit) {
            for (u32 i = 0; i < 4; i++) {
                Pair v = add(to, to.k_of(unit, i), y_scale);
                sum = fma(v.high, v.high, fma(v.low, v.low, sum));
            }
        });
        scale = reciprocal_rms(to, sum);
    }
    DEVICE_MEMBER Pair make(const Prepared& to, u32 k) const {
        Pair v = to.load(x, k), w = to.load(weight, k);
        v = {v.low * scale * w.low, v.high * scale * w.high};
        to.keep(h, k, v);
        return v;
    }
    DEVICE_MEMBER const float* kept() const { return h; }
};

DEVICE u32 larger_magnitude(u32 largest, Pair p) {
    u32 low = f32_bits(p.low) & 0x7fffffff, high = f32_bits(p.high) & 0x7fffffff;
    low = low > high ? low : high;
    return low > largest ? low : largest;
}
// A row that is not finite is zeros.
DEVICE u32 as_f16x2(Pair p, const RowFactor& factor) {
    u32 pair = pack16(f32_to_f16(p.low * factor.to_half), f32_to_f16(p.high * factor.to_half));
    return factor.is_finite ? pair : 0;
}

// Row block_x as f16, times a power of two (prepare.cuh).
template <class Source> DEVICE RowFactor prepare_f16(const Prepared& to, const Source& source) {
    u32 largest = 0;
    if (!to.are_kept()) {
        to.for_units([&](u32 unit) {
            for (u32 i = 0; i < 4; i++) largest = larger_magnitude(largest, source.make(to, to.k_of(unit, i)));
        });
        RowFactor factor = row_factor(over_block<false>(largest));
        to.for_units([&](u32 unit) {
            u32 pairs[4];
#pragma unroll
            for (u32 i = 0; i < 4; i++) pairs[i] = as_f16x2(to.load(source.kept(), to.k_of(unit, i)), factor);
            to.put(unit, pairs);
        });
        return factor;
    }
    Pair v[UNITS_KEPT][4];
    to.for_kept_units([&](u32 unit, u32 slot) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            v[slot][i] = source.make(to, to.k_of(unit, i));
            largest = larger_magnitude(largest, v[slot][i]);
        }
    });
    RowFactor factor = row_factor(over_block<false>(largest));
    to.for_kept_units([&](u32 unit, u32 slot) {
        u32 pairs[4];
#pragma unroll
        for (u32 i = 0; i < 4; i++) pairs[i] = as_f16x2(v[slot][i], factor);
        to.put(unit, pairs);
    });
    return factor;
}

// Row block_x. bf16 has the range of f32.
template <bool BFLOAT, class Source> DEVICE void prepare_row(const Prepared& to, Source source) {
    u32 row = block_x();
    if (row >= to.n_rows) {
        to.for_units([&](u32 unit) { to.put(unit, {0, 0, 0, 0}); });
        return;
    }
    source.begin(to);
    float back = 1.0f;
    if constexpr (BFLOAT) {
        to.for_units([&](u32 unit) {
            u32 pairs[4];
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                Pair p = source.make(to, to.k_of(unit, i));
                pairs[i] = pack16(f32_to_bf16(p.low), f32_to_bf16(p.high));
            }
            to.put(unit, pairs);
        });
    } else {
        back = prepare_f16(to, source).back;
    }
    if (thread_idx() == 0) to.scales[row] = back;
}

#endif
