// Element by element over arrays of f32, four elements of a thread at once where every array begins at a multiple of 16
// bytes: the arrays are those of the caller's body, the grid is any, the block ELEMENTS_THREADS.
#pragma once
#include "common.cuh"

const u32 ELEMENTS_THREADS = 256;

DEVICE bool is_aligned16(const void* p) { return ((u64)p & 15) == 0; }

// Neighbouring values: four of them are one access of 16 bytes.
template <u32 n> struct Floats {
    float v[n];
};
template <u32 n> DEVICE Floats<n> load_floats(const float* p) {
    Floats<n> r;
    if constexpr (n == 4) {
        f32x4 q = *(const f32x4*)p;
        r.v[0] = q.x;
        r.v[1] = q.y;
        r.v[2] = q.z;
        r.v[3] = q.w;
    } else {
#pragma unroll
        for (u32 i = 0; i < n; i++) r.v[i] = p[i];
    }
    return r;
}
template <u32 n> DEVICE void store_floats(float* p, const Floats<n>& r) {
    if constexpr (n == 4) {
        f32x4 q = {r.v[0], r.v[1], r.v[2], r.v[3]};
        *(f32x4*)p = q;
    } else {
#pragma unroll
        for (u32 i = 0; i < n; i++) p[i] = r.v[i];
    }
}

// A number that is a type.
template <u32 n> struct Count {
    static const u32 value = n;
};

// Calls body(Count<4>, i) for whole groups, and body(Count<1>, i) for what is left, or for everything where not `is_wide`.
template <class Body> DEVICE void for_elements(u64 n, bool is_wide, Body body) {
    u64 first = (u64)block_x() * ELEMENTS_THREADS + thread_idx(), stride = (u64)grid_x() * ELEMENTS_THREADS;
    u64 n_groups = is_wide ? n / 4 : 0;
    for (u64 i = first; i < n_groups; i += stride) body(Count<4>(), 4 * i);
    for (u64 i = 4 * n_groups + first; i < n; i += stride) body(Count<1>(), i);
}
