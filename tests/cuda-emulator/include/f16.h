// 16-bit floats, bit for bit as the device rounds them. Part of emulator.h.
#pragma once

#ifdef __F16C__
typedef short emulated_f16x8 __attribute__((vector_size(16)));
typedef float emulated_floats __attribute__((vector_size(16)));
DEVICE float f16_to_f32(u16 v) {
    emulated_f16x8 h = {(short)v, 0, 0, 0, 0, 0, 0, 0};
    return __builtin_ia32_vcvtph2ps(h)[0];
}
DEVICE u16 f32_to_f16(float v) {
    // The device knows one NaN.
    if (v != v) return 0x7fff;
    emulated_floats f = {v, 0, 0, 0};
    return (u16)__builtin_ia32_vcvtps2ph(f, 0)[0];
}
#else
DEVICE float f16_to_f32(u16 v) {
    u32 sign = (u32)(v & 0x8000) << 16;
    u32 exponent = v >> 10 & 31;
    u32 fraction = v & 0x3ff;
    if (exponent == 31) return f32_from_bits(sign | 0x7f800000 | fraction << 13);
    if (exponent > 0) return f32_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
    // Subnormals count in units of 2^-24: exact.
    return f32_from_bits(sign | f32_bits((float)fraction * 5.9604644775390625e-8f));
}
DEVICE u16 f32_to_f16(float v) {
    u32 sign = f32_bits(v) >> 16 & 0x8000;
    u32 bits = f32_bits(v) & 0x7fffffff;
    if (bits > 0x7f800000) return 0x7fff;
    // 65520 and above round to infinity.
    if (bits >= 0x477ff000) return (u16)(sign | 0x7c00);
    // Below 2^-14 the unit is 2^-24: adding 0.5, whose unit is that one, rounds to it.
    if (bits < 0x38800000) return (u16)(sign | (f32_bits(f32_from_bits(bits) + 0.5f) - 0x3f000000));
    u32 rounded = bits - 0x38000000 + 0xfff + (bits >> 13 & 1);
    return (u16)(sign | rounded >> 13);
}
#endif

// a * b + c rounded once to 16 bits. The product of f16 is exact in f32. The sum is rounded there to odd: with 24 bits
// against 11 the second rounding then goes where a single one would have gone.
DEVICE u16 fma_f16(u16 a, u16 b, u16 c) {
    float product = f16_to_f32(a) * f16_to_f32(b);
    float addend = f16_to_f32(c);
    float sum = product + addend;
    float back = sum - product;
    float error = (product - (sum - back)) + (addend - back);
    if (error != 0 && !(f32_bits(sum) & 1) && error == error && f32_bits(sum - sum) == 0) {
        bool is_outwards = (error > 0) == (sum > 0);
        sum = f32_from_bits(f32_bits(sum) + (is_outwards ? 1 : -1));
    }
    return f32_to_f16(sum);
}
DEVICE u32 fma_f16x2(u32 a, u32 b, u32 c) {
    u32 low = fma_f16((u16)a, (u16)b, (u16)c);
    return low | (u32)fma_f16((u16)(a >> 16), (u16)(b >> 16), (u16)(c >> 16)) << 16;
}
DEVICE u32 add_f16x2(u32 a, u32 b) { return fma_f16x2(a, 0x3c003c00, b); }
DEVICE u32 mul_f16x2(u32 a, u32 b) { return fma_f16x2(a, b, 0x80008000); }
