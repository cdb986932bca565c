// out[i] = x[i] + y[i] for i < n; out may be x.
#include "elements.cuh"

KERNEL(256, 4, residual_sum, float* out, const float* x, const float* y, u64 n) {
    bool is_wide = is_aligned16(out) && is_aligned16(x) && is_aligned16(y);
    for_elements(n, is_wide, [=](auto count, u64 i) {
        auto a = load_floats<decltype(count)::value>(x + i), b = load_floats<decltype(count)::value>(y + i);
#pragma unroll
        for (u32 j = 0; j < decltype(count)::value; j++) a.v[j] += b.v[j];
        store_floats(out + i, a);
    });
}
