// Softmax cross-entropy over rows of logits, and its gradient in their place: a block a row, which is read twice and written
// once. Exponentials are powers of two by the hardware's instruction, good to 2^-22; they are summed in pairs of f32, and the
// block's sums, the logarithm and the loss are doubles.
#include "elements.cuh"
#include "math.cuh"

const u32 LOSS_THREADS = 512;
const u32 LOSS_WARPS = LOSS_THREADS / 32;
// How far above its base a sum of exponentials may go: rows whose logits lie within 50 move the base six times at most, and
// 2^18 terms of e^8 are far from f32's end.
const float LOSS_HEADROOM = 8.0f;

DEVICE float loss_exp(float x) { return exp2_approx(x * 1.44269504088896340736f); }

DEVICE double shuffle_xor_f64(double v, u32 mask) {
    u64 bits = __builtin_bit_cast(u64, v);
    u32 low = shuffle_xor((u32)bits, mask), high = shuffle_xor((u32)(bits >> 32), mask);
    return __builtin_bit_cast(double, (u64)high << 32 | low);
}

// The sum of e^(z - base) over what a thread has seen.
struct LossSum {
    float top, base;
    // What was added, and what rounding has added too much.
    float sum, excess;
    // NaN once a logit was not finite.
    float poison;
};

template <u32 n> DEVICE void loss_add(LossSum& s, const Floats<n>& z) {
    float top = z.v[0];
#pragma unroll
    for (u32 j = 1; j < n; j++) top = max_f32(top, z.v[j]);
    s.top = max_f32(s.top, top);
    if (top > s.base + LOSS_HEADROOM) {
        float shrink = loss_exp(s.base - top);
        s.sum *= shrink;
        s.excess *= shrink;
        s.base = top;
    }
    Floats<n> e;
#pragma unroll
    for (u32 j = 0; j < n; j++) {
        s.poison = fma(z.v[j], 0.0f, s.poison);
        e.v[j] = loss_exp(z.v[j] - s.base);
    }
    float term = e.v[0];
    if constexpr (n == 4) term = (term + e.v[1]) + (e.v[2] + e.v[3]);
    // Kahan's summation.
    term -= s.excess;
    float sum = s.sum + term;
    s.excess = (sum - s.sum) - term;
    s.sum = sum;
}

template <u32 n> DEVICE LossSum loss_sum(const float* z, u32 vocab) {
    const float least = f32_from_bits(0xff800000);
    LossSum s = {least, least, 0.0f, 0.0f, 0.0f};
    const u32 step = LOSS_THREADS * n;
    u32 i = thread_idx() * n;
    for (; i + 3 * step < vocab; i += 4 * step) {
        Floats<n> values[4];
#pragma unroll
        for (u32 j = 0; j < 4; j++) values[j] = load_floats<n>(z + i + j * step);
#pragma unroll
        for (u32 j = 0; j < 4; j++) loss_add(s, values[j]);
    }
    for (; i < vocab; i += step) loss_add(s, load_floats<n>(z + i));
    return s;
}

// z[i] becomes e^(z[i] - top) * factor.
template <u32 n> DEVICE void loss_gradient(float* z, u32 vocab, float top, float factor) {
    const u32 step = LOSS_THREADS * n;
    u32 i = thread_idx() * n;
    for (; i + 3 * step < vocab; i += 4 * step) {
        Floats<n> values[4];
#pragma unroll
        for (u32 j = 0; j < 4; j++) values[j] = load_floats<n>(z + i + j * step);
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
#pragma unroll
            for (u32 k = 0; k < n; k++) values[j].v[k] = loss_exp(values[j].v[k] - top) * factor;
            store_floats(z + i + j * step, values[j]);
        }
    }
    for (; i < vocab; i += step) {
        Floats<n> v = load_floats<n>(z + i);
#pragma unroll
        for (u32 k = 0; k < n; k++) v.v[k] = loss_exp(v.v[k] - top) * factor;
        store_floats(z + i, v);
    }
}

// Row c = block_x of logits (C, vocab), below 2^31 of them in a row; targets (C); losses (C). The gradient times `scale`
// replaces the logits where `has_gradient`.
KERNEL(512, 2, cross_entropy_rows, float* logits, const u32* targets, double* losses, u32 vocab, float scale,
       u32 has_gradient) {
    SHARED(float, tops, LOSS_WARPS);
    SHARED(double, sums, LOSS_WARPS);
    SHARED(float, shared_factor, 1);
    bool is_wide = vocab % 4 == 0 && is_aligned16(logits);
    float* z = logits + (u64)block_x() * vocab;
    u32 target = targets[block_x()];
    // Before anybody writes.
    float at_target = z[target];
    LossSum s = is_wide ? loss_sum<4>(z, vocab) : loss_sum<1>(z, vocab);
    float top = warp_max<32>(s.top);
    if (lane_idx() == 0) tops[warp_idx()] = top;
    sync_block();
    top = tops[0];
    for (u32 i = 1; i < LOSS_WARPS; i++) top = max_f32(top, tops[i]);
    // A thread that saw nothing has a sum of 0 and a factor of 0.
    double sum = ((double)s.sum - (double)s.excess) * (double)loss_exp(s.base - top) + (double)s.poison;
    for (u32 mask = 16; mask > 0; mask /= 2) sum += shuffle_xor_f64(sum, mask);
    if (lane_idx() == 0) sums[warp_idx()] = sum;
    sync_block();
    if (thread_idx() == 0) {
        sum = sums[0];
        for (u32 i = 1; i < LOSS_WARPS; i++) sum += sums[i];
        losses[block_x()] = ln_f64(sum) - (double)(at_target - top);
        *shared_factor = (float)((double)scale / sum);
    }
    if (!has_gradient) return;
    sync_block();
    float factor = *shared_factor;
    if (is_wide) {
        loss_gradient<4>(z, vocab, top, factor);
    } else {
        loss_gradient<1>(z, vocab, top, factor);
    }
    sync_block();
    if (thread_idx() == 0) z[target] -= scale;
}
