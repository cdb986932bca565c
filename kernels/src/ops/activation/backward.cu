// Backward of gated activations, element by element, the bits of the CPU.
#include "elements.cuh"
#include "math.cuh"

// gate[i] becomes dout[i] * up[i] * act'(gate[i]), up[i] becomes dout[i] * act(gate[i]), for i < n. `activation`: 0 GELU
// (tanh), 1 SiLU.
KERNEL(256, 2, activation_backward, float* gate, float* up, const float* dout, u64 n, u32 activation) {
    bool is_wide = is_aligned16(gate) && is_aligned16(up) && is_aligned16(dout);
    for_elements(n, is_wide, [=](auto count, u64 i) {
        auto g = load_floats<decltype(count)::value>(gate + i), u = load_floats<decltype(count)::value>(up + i);
        auto d = load_floats<decltype(count)::value>(dout + i);
#pragma unroll
        for (u32 j = 0; j < decltype(count)::value; j++) {
            ValueAndSlope act = activation == 0 ? gelu_tanh_and_slope(g.v[j]) : silu_and_slope(g.v[j]);
            g.v[j] = d.v[j] * u.v[j] * act.slope;
            u.v[j] = d.v[j] * act.value;
        }
        store_floats(gate + i, g);
        store_floats(up + i, u);
    });
}
