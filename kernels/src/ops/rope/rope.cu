// Rotary position embedding of rows that training holds, the bits of the CPU. (At inference the attention rotates.)
#include "elements.cuh"

const u32 ROPE_THREADS = 128;

// Pairs (i, i + half) of a head, `n` of them from i on.
template <u32 n> DEVICE void rope_pairs(float* head, const float* cos, const float* sin, u32 i, u32 half, float direction) {
    auto a = load_floats<n>(head + i), b = load_floats<n>(head + i + half);
    auto c = load_floats<n>(cos + i), s = load_floats<n>(sin + i);
#pragma unroll
    for (u32 j = 0; j < n; j++) {
        float u = a.v[j], v = b.v[j], sine = direction * s.v[j];
        a.v[j] = u * c.v[j] - v * sine;
        b.v[j] = v * c.v[j] + u * sine;
    }
    store_floats(head + i, a);
    store_floats(head + i + half, b);
}

// x (T, n_heads, 2 half) in place, row t = block_x is at position positions[t]; cos, sin (positions, half). `direction` is 1,
// or -1 for the opposite angle.
KERNEL(128, 8, rope_rotate, float* x, const float* cos, const float* sin, const u32* positions, u32 n_heads, u32 half,
       float direction) {
    u32 group = half % 4 == 0 && is_aligned16(x) && is_aligned16(cos) && is_aligned16(sin) ? 4 : 1;
    x += (u64)block_x() * n_heads * 2 * half;
    u64 row = (u64)positions[block_x()] * half;
    cos += row;
    sin += row;
    u32 per_head = half / group;
    for (u32 item = block_y() * ROPE_THREADS + thread_idx(); item < n_heads * per_head; item += grid_y() * ROPE_THREADS) {
        u32 head = item / per_head, i = (item - head * per_head) * group;
        float* at = x + (u64)head * 2 * half;
        if (group == 4) {
            rope_pairs<4>(at, cos, sin, i, half, direction);
        } else {
            rope_pairs<1>(at, cos, sin, i, half, direction);
        }
    }
}
