// AdamW, element by element, the bits of the CPU.
#include "elements.cuh"

// Elements whose first moments lie together, their second moments behind them.
const u32 ADAMW_CHUNK = 16384;
const u32 ADAMW_THREADS = 256;
const u32 ADAMW_BLOCK = 4 * ADAMW_THREADS;

struct AdamwFactors {
    float keep, beta1, rest1, beta2, rest2, rate, root, eps, gradient_scale;
};

template <u32 n> DEVICE void adamw_update(float* p, const float* g, float* m, float* v, const AdamwFactors& f) {
    auto ps = load_floats<n>(p), gs = load_floats<n>(g), ms = load_floats<n>(m), vs = load_floats<n>(v);
#pragma unroll
    for (u32 j = 0; j < n; j++) {
        float d = gs.v[j] * f.gradient_scale;
        ms.v[j] = fma(f.beta1, ms.v[j], f.rest1 * d);
        vs.v[j] = fma(f.beta2, vs.v[j], f.rest2 * d * d);
        float denominator = divide(square_root(vs.v[j]), f.root) + f.eps;
        ps.v[j] = fma(-f.rate, divide(ms.v[j], denominator), ps.v[j] * f.keep);
    }
    store_floats(p, ps);
    store_floats(m, ms);
    store_floats(v, vs);
}

// p, g (n); moments (2 n): chunks of m, each followed by as many of v. A block takes ADAMW_BLOCK elements of one chunk.
KERNEL(256, 4, adamw_step, float* p, const float* g, float* moments, u64 n, float keep, float beta1, float rest1, float beta2,
       float rest2, float rate, float root, float eps, float gradient_scale) {
    AdamwFactors f = {keep, beta1, rest1, beta2, rest2, rate, root, eps, gradient_scale};
    u64 first = (u64)block_x() * ADAMW_BLOCK, chunk = first / ADAMW_CHUNK * ADAMW_CHUNK;
    u32 chunk_len = n - chunk < ADAMW_CHUNK ? (u32)(n - chunk) : ADAMW_CHUNK;
    u32 count = n - first < ADAMW_BLOCK ? (u32)(n - first) : ADAMW_BLOCK;
    p += first;
    g += first;
    float* m = moments + 2 * chunk + (first - chunk);
    float* v = m + chunk_len;
    u32 n_wide = is_aligned16(p) && is_aligned16(g) && is_aligned16(m) && is_aligned16(v) ? count / 4 * 4 : 0;
    u32 i = 4 * thread_idx();
    if (i < n_wide) adamw_update<4>(p + i, g + i, m + i, v + i, f);
    for (i = n_wide + thread_idx(); i < count; i += ADAMW_THREADS) adamw_update<1>(p + i, g + i, m + i, v + i, f);
}
