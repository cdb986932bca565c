// Gated feed-forward activations, element by element, the bits of the CPU.
#include "elements.cuh"
#include "math.cuh"

// out[i] = act(gate[i]) * up[i] for i < n; out may be gate. `activation`: 0 GELU (tanh), 1 SiLU.
KERNEL(256, 2, activation_gated, float* out, const float* gate, const float* up, u64 n, u32 activation) {
    bool is_wide = is_aligned16(out) && is_aligned16(gate) && is_aligned16(up);
    for_elements(n, is_wide, [=](auto count, u64 i) {
        auto g = load_floats<decltype(count)::value>(gate + i), u = load_floats<decltype(count)::value>(up + i);
#pragma unroll
        for (u32 j = 0; j < decltype(count)::value; j++) g.v[j] = (activation == 0 ? gelu_tanh(g.v[j]) : silu(g.v[j])) * u.v[j];
        store_floats(out + i, g);
    });
}
