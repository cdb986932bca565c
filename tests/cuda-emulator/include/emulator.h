// The host half of kernels/cuda/common.cuh: the same names, run by fibers. Included inside an unnamed namespace, one per
// kernel file and architecture, so nothing here has a name outside it.
#pragma once

#define DEVICE static inline
#define DEVICE_MEMBER inline
#define CONSTANT static const

// The kernel, and an entry in the list of kernels with the sizes of its parameters and a function that unpacks them.
#define KERNEL(max_threads, min_blocks, name, ...) EMULATOR_KERNEL(max_threads, min_blocks, name, #name, __VA_ARGS__)
#define EMULATOR_KERNEL(max_threads, min_blocks, name, text, ...)                                                              \
    static void name(__VA_ARGS__);                                                                                             \
    static emulated::Registration<decltype(&name), &name> name##_registration(text, max_threads, min_blocks);                  \
    static void name(__VA_ARGS__)

// Each declaration is one array of the block, filled with 0xff before the block begins: NaN for floats.
#define SHARED(type, name, count)                                                                                              \
    static const char name##_site = 0;                                                                                         \
    typedef type name##_array[count];                                                                                          \
    name##_array& name = *(name##_array*)lichen_emulator_calls.shared(lichen_emulator_thread, &name##_site, #name, sizeof(name##_array))
#define DYNAMIC_SHARED(type, name) type* name = (type*)lichen_emulator_thread->block->dynamic_shared

namespace emulated {

template <u32... i> struct Indices {};
template <class T, T... i> struct Sequence {
    typedef Indices<i...> Type;
};

template <class F, F kernel> struct Registration;
template <class... P, void (*kernel)(P...)> struct Registration<void (*)(P...), kernel> {
    static constexpr u32 n_params = sizeof...(P);
    static inline const u32 bytes[n_params + 1] = {(u32)sizeof(P)..., 0};
    ::emulator::Kernel entry;

    template <u32... i> static void call(void* const* params, Indices<i...>) { kernel(*(P*)params[i]...); }
    static void invoke(void* const* params) { call(params, typename __make_integer_seq<Sequence, u32, n_params>::Type()); }

    Registration(const char* name, u32 max_threads, u32 min_blocks)
        : entry{name, invoke, bytes, lichen_emulator_kernels, n_params, LICHEN_ARCH, max_threads, min_blocks} {
        lichen_emulator_kernels = &entry;
    }
};

// One rendezvous of the 32 lanes.
template <class Slot> DEVICE void meet(const ::emulator::Collective& what, Slot& mine) {
    lichen_emulator_calls.warp(lichen_emulator_thread, &what, &mine);
}

struct Exchange {
    u32 value;
    u32 lane;
    u32 result;
};
DEVICE Exchange& lane(void* const* slots, u32 i) { return *(Exchange*)slots[i]; }
static void combine_nothing(void* const*) {}
static void combine_xor(void* const* slots) {
    for (u32 i = 0; i < 32; i++) lane(slots, i).result = lane(slots, (i ^ lane(slots, i).lane) & 31).value;
}
static void combine_from(void* const* slots) {
    for (u32 i = 0; i < 32; i++) lane(slots, i).result = lane(slots, lane(slots, i).lane & 31).value;
}
static void combine_ballot(void* const* slots) {
    u32 bits = 0;
    for (u32 i = 0; i < 32; i++) bits |= (u32)(lane(slots, i).value != 0) << i;
    for (u32 i = 0; i < 32; i++) lane(slots, i).result = bits;
}
static const ::emulator::Collective SYNC_WARP = {"sync_warp", combine_nothing};
static const ::emulator::Collective SHUFFLE_XOR = {"shuffle_xor", combine_xor};
static const ::emulator::Collective SHUFFLE_FROM = {"shuffle_from", combine_from};
static const ::emulator::Collective BALLOT = {"ballot", combine_ballot};

}  // namespace emulated

DEVICE u32 thread_idx() { return lichen_emulator_thread->index; }
DEVICE u32 block_dim() { return lichen_emulator_thread->block->dim; }
DEVICE u32 block_x() { return lichen_emulator_thread->block->index[0]; }
DEVICE u32 block_y() { return lichen_emulator_thread->block->index[1]; }
DEVICE u32 block_z() { return lichen_emulator_thread->block->index[2]; }
DEVICE u32 grid_x() { return lichen_emulator_thread->block->grid[0]; }
DEVICE u32 grid_y() { return lichen_emulator_thread->block->grid[1]; }
DEVICE u32 grid_z() { return lichen_emulator_thread->block->grid[2]; }

DEVICE void sync_block() { lichen_emulator_calls.sync_block(lichen_emulator_thread); }
DEVICE void sync_warp() {
    u32 nothing = 0;
    emulated::meet(emulated::SYNC_WARP, nothing);
}
DEVICE u32 shuffle_xor(u32 v, u32 mask) {
    emulated::Exchange mine = {v, mask, 0};
    emulated::meet(emulated::SHUFFLE_XOR, mine);
    return mine.result;
}
DEVICE u32 shuffle_from(u32 v, u32 lane) {
    emulated::Exchange mine = {v, lane, 0};
    emulated::meet(emulated::SHUFFLE_FROM, mine);
    return mine.result;
}
DEVICE u32 ballot(bool v) {
    emulated::Exchange mine = {v, 0, 0};
    emulated::meet(emulated::BALLOT, mine);
    return mine.result;
}

// The compiler checks the alignment of numbers. Copies of structs are checked where it chose an instruction for aligned
// operands, and wherever this is called.
DEVICE void check_aligned16(const void* p) {
    typedef u32 aligned __attribute__((aligned(16)));
    u32 word = *(const aligned*)p;
    (void)word;
}
DEVICE u32x4 load_stream(const u32x4* p) {
    check_aligned16(p);
    return *p;
}
DEVICE u32x2 load_stream(const u32x2* p) { return *p; }
DEVICE u16 load_stream(const u16* p) { return *p; }
DEVICE u32 load_stream(const u32* p) { return *p; }
DEVICE u32 load_coherent(const u32* p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
DEVICE float load_coherent(const float* p) { return __builtin_bit_cast(float, __atomic_load_n((const u32*)p, __ATOMIC_RELAXED)); }
// Launches come one after the other, early ones too: a wait that is missing is not seen.
DEVICE void wait_for_primary() {}
DEVICE void launch_dependents() {}
// Memory that is not there is noticed here.
DEVICE void prefetch_l2(const void* p) { (void)*(const volatile u8*)p; }
DEVICE void fence_device() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
DEVICE u32 atomic_add(u32* p, u32 v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
DEVICE u64 atomic_max(u64* p, u64 v) {
    u64 old = __atomic_load_n(p, __ATOMIC_SEQ_CST);
    while (old < v && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
    return old;
}

DEVICE u32 opaque(u32 v) { return v; }
DEVICE u32 computed_here(u32 v) { return v; }

DEVICE u32 f32_bits(float v) { return __builtin_bit_cast(u32, v); }
DEVICE float f32_from_bits(u32 v) { return __builtin_bit_cast(float, v); }
DEVICE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEVICE float divide(float a, float b) { return a / b; }
DEVICE float square_root(float a) { return __builtin_sqrtf(a); }
DEVICE float exp2_approx(float x) { return __builtin_exp2f(x); }
// NaN gives way to a number, and -0 to 0.
DEVICE float max_f32(float a, float b) {
    if (a == b) return f32_from_bits(f32_bits(a) & f32_bits(b));
    return a > b || b != b ? a : b;
}

DEVICE float s32_to_f32(s32 v) { return (float)v; }
// Past the range the nearest end, and 0 for NaN.
DEVICE s32 f32_to_s32(float v) {
    if (!(v > -2147483648.0f)) return v != v ? 0 : -2147483647 - 1;
    return v >= 2147483648.0f ? 2147483647 : (s32)__builtin_rintf(v);
}

DEVICE u32 permute_bytes(u32 a, u32 b, u32 selector) {
    u64 both = (u64)b << 32 | a;
    u32 r = 0;
    for (u32 i = 0; i < 4; i++) {
        u32 pick = selector >> 4 * i & 15;
        u32 byte = (u32)(both >> 8 * (pick & 7)) & 0xff;
        r |= (pick & 8 ? (byte & 0x80 ? 0xffu : 0u) : byte) << 8 * i;
    }
    return r;
}
DEVICE s32 mad_low16(u32 a, u32 b, s32 c) { return (s32)((u32)((s32)(s16)a * (s32)(s16)b) + (u32)c); }
DEVICE s32 mad_high16(u32 a, u32 b, s32 c) { return mad_low16(a >> 16, b >> 16, c); }

#include "f16.h"
#if LICHEN_ARCH >= 72
#include "tensor.h"
DEVICE s32 dot4(u32 a, u32 b, s32 c) {
    u32 sum = (u32)c;
    for (u32 i = 0; i < 4; i++) sum += (u32)((s32)(s8)(a >> 8 * i) * (s32)(s8)(b >> 8 * i));
    return (s32)sum;
}
#endif
#if LICHEN_ARCH >= 80
// The device knows one NaN.
DEVICE u32 nearest_bf16(float v) {
    u32 bits = f32_bits(v);
    return v != v ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
DEVICE u32 pack_bf16(float low, float high) { return nearest_bf16(low) | nearest_bf16(high) << 16; }
DEVICE void copy_async(void* shared, const void* global, bool valid) {
    lichen_emulator_calls.copy_async(lichen_emulator_thread, shared, global, valid);
}
DEVICE void copy_async_commit() { lichen_emulator_calls.copy_async_commit(lichen_emulator_thread); }
template <int pending> DEVICE void copy_async_wait() {
    lichen_emulator_calls.copy_async_wait(lichen_emulator_thread, pending);
}
#endif
