// Elementary functions, operation for operation those of kernels/src/math.rs: the CPU and every architecture give the
// same bits.
#pragma once
#include "common.cuh"

// 2^n for a whole n in -126..=127.
DEVICE float power_of_two(float n) {
    // Adding 1.5 * 2^23 leaves n in two's complement in the low bits.
    u32 biased = f32_bits(n + 12582912.0f) - f32_bits(12582912.0f) + 127;
    return f32_from_bits(biased << 23);
}

// e^x within 2 units in the last place; 0 below -87.3, infinity above 88.7, NaN stays NaN.
DEVICE float exp_f32(float x) {
    const float round = 12582912.0f;
    float clamped = x < -87.4f ? -87.4f : x;
    clamped = clamped > 88.8f ? 88.8f : clamped;
    float n = fma(clamped, 1.44269504088896340736f, round) - round;
    float r = fma(n, 2.1219444e-4f, fma(n, -0.6933594f, clamped));
    float p = 1.0f / 5040.0f;
    p = fma(p, r, 1.0f / 720.0f);
    p = fma(p, r, 1.0f / 120.0f);
    p = fma(p, r, 1.0f / 24.0f);
    p = fma(p, r, 1.0f / 6.0f);
    p = fma(p, r, 0.5f);
    p = fma(p, r, 1.0f);
    p = fma(p, r, 1.0f);
    float half = (n * 0.5f + round) - round;
    float value = p * power_of_two(half) * power_of_two(n - half);
    if (x > 88.72284f) return f32_from_bits(0x7f800000);
    if (x < -87.33654f) return 0.0f;
    return value;
}

// The logistic function times x (SwiGLU's gate).
DEVICE float silu(float x) { return divide(x, 1.0f + exp_f32(-x)); }

// GELU, tanh approximation (Gemma's gate).
DEVICE float gelu_tanh(float x) {
    float inner = 0.7978846f * fma(0.044715f * x * x, x, x);
    return divide(x, 1.0f + exp_f32(-2.0f * inner));
}
