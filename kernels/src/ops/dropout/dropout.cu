// Dropout as a function of (key, index), the bits of the CPU.
#include "elements.cuh"

// The finaliser of SplitMix64.
DEVICE u64 dropout_mix(u64 z) {
    z += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// out[i] = x[i] * factor where the upper 32 bits of the hash reach `threshold`, else 0, for i < n; out may be x.
KERNEL(256, 4, dropout_forward, float* out, const float* x, u64 n, u64 key, u64 threshold, float factor) {
    for_elements(n, is_aligned16(out) && is_aligned16(x), [=](auto count, u64 i) {
        auto a = load_floats<decltype(count)::value>(x + i);
#pragma unroll
        for (u32 j = 0; j < decltype(count)::value; j++)
            a.v[j] = dropout_mix(key ^ (i + j)) >> 32 >= threshold ? a.v[j] * factor : 0.0f;
        store_floats(out + i, a);
    });
}
