// Gated feed-forward activations, element by element, the bits of the CPU.
#include "math.cuh"

// gate[i] = act(gate[i]) * up[i] for i < n. `activation`: 0 GELU (tanh), 1 SiLU.
KERNEL(256, 2, activation_gated, float* gate, const float* up, u64 n, u32 activation) {
    u64 stride = (u64)grid_x() * block_dim();
    for (u64 i = (u64)block_x() * block_dim() + thread_idx(); i < n; i += stride) {
        float g = gate[i];
        gate[i] = (activation == 0 ? gelu_tanh(g) : silu(g)) * up[i];
    }
}
