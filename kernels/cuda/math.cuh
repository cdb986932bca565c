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

// A function and its derivative at one point.
struct ValueAndSlope {
    float value, slope;
};

// The logistic function times x (SwiGLU's gate).
DEVICE float silu(float x) { return divide(x, 1.0f + exp_f32(-x)); }

// GELU, tanh approximation (Gemma's gate).
DEVICE float gelu_tanh(float x) {
    float inner = 0.7978846f * fma(0.044715f * x * x, x, x);
    return divide(x, 1.0f + exp_f32(-2.0f * inner));
}

// silu and its derivative: s + x s (1 - s) for s = 1 / (1 + e^-x).
DEVICE ValueAndSlope silu_and_slope(float x) {
    float s = divide(1.0f, 1.0f + exp_f32(-x));
    return {x * s, s * fma(1.0f - s, x, 1.0f)};
}

// gelu_tanh and its derivative: x s has s + 2 x s (1 - s) y' for s = 1 / (1 + e^-2y), y' = sqrt(2/pi) (1 + 3 * 0.044715 x^2).
DEVICE ValueAndSlope gelu_tanh_and_slope(float x) {
    float square = 0.044715f * x * x;
    float y = 0.7978846f * fma(square, x, x);
    float dy = 0.7978846f * fma(3.0f, square, 1.0f);
    float s = divide(1.0f, 1.0f + exp_f32(-2.0f * y));
    // Where s is 0 or 1 the slope is too; the product with a large x would be 0 times infinity.
    float bend = s * (1.0f - s);
    bend = bend > 0.0f ? 2.0f * x * bend * dy : 0.0f * bend;
    return {x * s, s + bend};
}

// The natural logarithm within 2 units of 2^-53 of a normal number above 0; infinity and NaN stay. In doubles, which most
// parts compute slowly: for what is done once a row.
DEVICE double ln_f64(double x) {
    u64 bits = __builtin_bit_cast(u64, x);
    if (bits >> 52 >= 0x7ff) return x;
    // x = 2^n m with m in sqrt(1/2)..sqrt(2).
    s32 n = (s32)(bits >> 52) - 1023;
    double m = __builtin_bit_cast(double, (bits & 0xfffffffffffffull) | 0x3ff0000000000000ull);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        n += 1;
    }
    // ln m = 2 atanh(s), s = (m - 1) / (m + 1): |s| <= 0.1716, so the first term left out is 2^-57 of the first.
    double s = (m - 1.0) / (m + 1.0), z = s * s, p = 1.0 / 21.0;
#pragma unroll
    for (s32 k = 19; k >= 3; k -= 2) p = p * z + 1.0 / k;
    return n * 0.6931471805599453 + (2.0 * s + 2.0 * s * z * p);
}
