// Tensor cores: warp collectives, computed by the lane that arrives last. Part of emulator.h.
//
// Products of f16, and of tf32, are exact in f32; each element is c plus its products in order of k.
#pragma once

namespace emulated {

// c (16, n) += a (16, 16) * b (n, 16) transposed, each in f32.
template <u32 n> DEVICE void multiply(float (&c)[16][n], const float (&a)[16][16], const float (&b)[16][n]) {
    for (u32 k = 0; k < 16; k++)
        for (u32 i = 0; i < 16; i++)
            for (u32 j = 0; j < n; j++) c[i][j] += a[i][k] * b[k][j];
}

}  // namespace emulated

// Element (row, column) of a fragment: lane 2 row + column / 8, place column % 8. Hardware has its own order, and holds the
// elements of a and b twice; here the second copy is poison.
struct WmmaA {
    u32 r[8];
};
struct WmmaB {
    u32 r[8];
};
struct WmmaC {
    float r[8];
};

namespace emulated {

struct WmmaSlot {
    WmmaC* c;
    const WmmaA* a;
    const WmmaB* b;
};
static void combine_wmma(void* const* slots) {
    float c[16][16], a[16][16], b[16][16];
    for (u32 i = 0; i < 32; i++) {
        const WmmaSlot& slot = *(const WmmaSlot*)slots[i];
        for (u32 j = 0; j < 8; j++) {
            c[i / 2][i % 2 * 8 + j] = slot.c->r[j];
            a[i / 2][i % 2 * 8 + j] = f16_to_f32((u16)(slot.a->r[j / 2] >> 16 * (j % 2)));
            // Lane 2 column + k / 8 of b.
            b[i % 2 * 8 + j][i / 2] = f16_to_f32((u16)(slot.b->r[j / 2] >> 16 * (j % 2)));
        }
    }
    multiply(c, a, b);
    for (u32 i = 0; i < 32; i++)
        for (u32 j = 0; j < 8; j++) ((const WmmaSlot*)slots[i])->c->r[j] = c[i / 2][i % 2 * 8 + j];
}
static const ::emulator::Collective WMMA_LOAD = {"wmma_load", combine_nothing};
static const ::emulator::Collective WMMA_STORE = {"wmma_store", combine_nothing};
static const ::emulator::Collective WMMA_MMA = {"wmma_mma", combine_wmma};

// The hardware wants fragments at 16 bytes, and rows at multiples of them.
DEVICE void check_fragment(const void* p, u32 stride_bytes) {
    check_aligned16(p);
    check_aligned16((const u8*)p + stride_bytes);
}
template <class Fragment> DEVICE Fragment wmma_load(const u16* p, u32 stride) {
    check_fragment(p, stride * 2);
    Fragment f;
    u32 lane = lichen_emulator_thread->index & 31;
    const u16* row = p + (u64)(lane / 2) * stride + lane % 2 * 8;
    for (u32 j = 0; j < 4; j++) {
        f.r[j] = (u32)row[2 * j] | (u32)row[2 * j + 1] << 16;
        f.r[4 + j] = 0xffffffff;
    }
    meet(WMMA_LOAD, f);
    return f;
}

}  // namespace emulated

DEVICE WmmaA wmma_load_a(const u16* p, u32 stride) { return emulated::wmma_load<WmmaA>(p, stride); }
DEVICE WmmaB wmma_load_b(const u16* p, u32 stride) { return emulated::wmma_load<WmmaB>(p, stride); }
DEVICE void wmma_mma(WmmaC& c, const WmmaA& a, const WmmaB& b) {
    emulated::WmmaSlot mine = {&c, &a, &b};
    emulated::meet(emulated::WMMA_MMA, mine);
}
DEVICE void wmma_store(float* p, const WmmaC& c, u32 stride) {
    emulated::check_fragment(p, stride * 4);
    u32 lane = lichen_emulator_thread->index & 31;
    float* row = p + (u64)(lane / 2) * stride + lane % 2 * 8;
    for (u32 j = 0; j < 8; j++) row[j] = c.r[j];
    u32 nothing = 0;
    emulated::meet(emulated::WMMA_STORE, nothing);
}

#if LICHEN_ARCH >= 80
DEVICE u32 shared_address(const void* p) { return (u32)((const u8*)p - lichen_emulator_thread->block->shared_base); }

namespace emulated {

struct MmaSlot {
    float* c;
    const u32* a;
    const u32* b;
};
DEVICE float element(const u32* r, u32 i, bool is_bf16) {
    u16 half = (u16)(r[i / 2] >> 16 * (i % 2));
    return is_bf16 ? f32_from_bits((u32)half << 16) : f16_to_f32(half);
}
template <bool is_bf16> static void combine_mma(void* const* slots) {
    float c[16][8], a[16][16], b[16][8];
    for (u32 i = 0; i < 32; i++) {
        const MmaSlot& slot = *(const MmaSlot*)slots[i];
        u32 g = i / 4, t = i % 4;
        for (u32 j = 0; j < 8; j++) a[g + j / 2 % 2 * 8][2 * t + j % 2 + j / 4 * 8] = element(slot.a, j, is_bf16);
        for (u32 j = 0; j < 4; j++) b[2 * t + j % 2 + j / 2 * 8][g] = element(slot.b, j, is_bf16);
        for (u32 j = 0; j < 4; j++) c[g + j / 2 * 8][2 * t + j % 2] = slot.c[j];
    }
    multiply(c, a, b);
    for (u32 i = 0; i < 32; i++)
        for (u32 j = 0; j < 4; j++) ((const MmaSlot*)slots[i])->c[j] = c[i / 4 + j / 2 * 8][2 * (i % 4) + j % 2];
}
// The hardware ignores the last 13 bits.
DEVICE float tf32(u32 bits) { return f32_from_bits(bits & 0xffffe000); }
static void combine_mma_tf32(void* const* slots) {
    float c[16][8], a[16][8], b[8][8];
    for (u32 i = 0; i < 32; i++) {
        const MmaSlot& slot = *(const MmaSlot*)slots[i];
        u32 g = i / 4, t = i % 4;
        for (u32 j = 0; j < 4; j++) a[g + j % 2 * 8][t + j / 2 * 4] = tf32(slot.a[j]);
        for (u32 j = 0; j < 2; j++) b[t + j * 4][g] = tf32(slot.b[j]);
        for (u32 j = 0; j < 4; j++) c[g + j / 2 * 8][2 * t + j % 2] = slot.c[j];
    }
    for (u32 k = 0; k < 8; k++)
        for (u32 i = 0; i < 16; i++)
            for (u32 j = 0; j < 8; j++) c[i][j] += a[i][k] * b[k][j];
    for (u32 i = 0; i < 32; i++)
        for (u32 j = 0; j < 4; j++) ((const MmaSlot*)slots[i])->c[j] = c[i / 4 + j / 2 * 8][2 * (i % 4) + j % 2];
}
struct MatrixSlot {
    u32* r;
    const u16* row;
};
template <bool is_transposed> static void combine_ldmatrix(void* const* slots) {
    for (u32 i = 0; i < 32; i++) {
        for (u32 j = 0; j < 4; j++) {
            u16 pair[2];
            for (u32 e = 0; e < 2; e++) {
                u32 row = is_transposed ? 2 * (i % 4) + e : i / 4;
                u32 column = is_transposed ? i / 4 : 2 * (i % 4) + e;
                pair[e] = ((const MatrixSlot*)slots[8 * j + row])->row[column];
            }
            ((const MatrixSlot*)slots[i])->r[j] = (u32)pair[0] | (u32)pair[1] << 16;
        }
    }
}
static const ::emulator::Collective MMA_F16 = {"mma_f16", combine_mma<false>};
static const ::emulator::Collective MMA_BF16 = {"mma_bf16", combine_mma<true>};
static const ::emulator::Collective MMA_TF32 = {"mma_tf32", combine_mma_tf32};
static const ::emulator::Collective LDMATRIX = {"ldmatrix_x4", combine_ldmatrix<false>};
static const ::emulator::Collective LDMATRIX_TRANSPOSED = {"ldmatrix_x4_transposed", combine_ldmatrix<true>};

}  // namespace emulated

DEVICE void mma_f16(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    emulated::MmaSlot mine = {c, a, b};
    emulated::meet(emulated::MMA_F16, mine);
}
DEVICE void mma_bf16(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    emulated::MmaSlot mine = {c, a, b};
    emulated::meet(emulated::MMA_BF16, mine);
}
DEVICE u32 f32_to_tf32(float v) {
    u32 bits = f32_bits(v);
    return (bits & 0x7f800000) == 0x7f800000 ? bits : (bits + 0x1000) & 0xffffe000;
}
DEVICE void mma_tf32(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    emulated::MmaSlot mine = {c, a, b};
    emulated::meet(emulated::MMA_TF32, mine);
}
DEVICE void ldmatrix_x4(u32 (&r)[4], const void* row) {
    emulated::check_fragment(row, 0);
    emulated::MatrixSlot mine = {r, (const u16*)row};
    emulated::meet(emulated::LDMATRIX, mine);
}
DEVICE void ldmatrix_x4_transposed(u32 (&r)[4], const void* row) {
    emulated::check_fragment(row, 0);
    emulated::MatrixSlot mine = {r, (const u16*)row};
    emulated::meet(emulated::LDMATRIX_TRANSPOSED, mine);
}
#endif
