// The dialect every .cu file is written in, in two builds: the device's (clang to PTX, no CUDA SDK: intrinsics are inline
// PTX) and the host's (the emulator's C++, one fiber per thread: emulator.h gives the same functions).
//
// LICHEN_ARCH is the architecture being compiled for: 53, 72, 80, 87 or 90. f16 travel as u16, pairs of them as u32
// (element 0 in the low bits): clang's own half types differ from version to version. Products and sums are fused only
// where `fma` says so: both builds use -ffp-contract=off.
#pragma once

typedef signed char s8;
typedef unsigned char u8;
typedef short s16;
typedef unsigned short u16;
typedef int s32;
typedef unsigned int u32;
typedef long long s64;
typedef unsigned long long u64;

struct alignas(8) u32x2 {
    u32 x, y;
};
struct alignas(16) u32x4 {
    u32 x, y, z, w;
};
struct alignas(16) f32x4 {
    float x, y, z, w;
};

#ifdef __CUDA__

#define DEVICE static __inline__ __attribute__((device, always_inline))
// A member function that is not static.
#define DEVICE_MEMBER __inline__ __attribute__((device, always_inline))
// A constant table that kernels read: `CONSTANT float LEVELS[16] = {..};`
#define CONSTANT static __attribute__((constant)) const

// KERNEL(max_threads, min_blocks_per_sm, name, parameters..) { body }. Parameters are pointers, 32- or 64-bit integers and
// floats. The launch bounds cap the registers: 65536 / (max_threads * min_blocks).
#define KERNEL(max_threads, min_blocks, name, ...)                                                                             \
    extern "C" __attribute__((global)) __attribute__((launch_bounds(max_threads, min_blocks))) void name(__VA_ARGS__)

// SHARED(type, name, count): an array of the block, 16-byte aligned, not initialised.
#define SHARED(type, name, count) static __attribute__((shared)) __attribute__((aligned(16))) type name[count]
// DYNAMIC_SHARED(type, name): the bytes the launch asks for, 16-byte aligned. Once in a kernel.
extern __attribute__((shared)) __attribute__((aligned(16))) u8 lichen_dynamic_shared[];
#define DYNAMIC_SHARED(type, name) type* name = (type*)lichen_dynamic_shared

// Blocks are one-dimensional, grids have up to three dimensions.
DEVICE u32 thread_idx() { return __nvvm_read_ptx_sreg_tid_x(); }
DEVICE u32 block_dim() { return __nvvm_read_ptx_sreg_ntid_x(); }
DEVICE u32 block_x() { return __nvvm_read_ptx_sreg_ctaid_x(); }
DEVICE u32 block_y() { return __nvvm_read_ptx_sreg_ctaid_y(); }
DEVICE u32 block_z() { return __nvvm_read_ptx_sreg_ctaid_z(); }
DEVICE u32 grid_x() { return __nvvm_read_ptx_sreg_nctaid_x(); }
DEVICE u32 grid_y() { return __nvvm_read_ptx_sreg_nctaid_y(); }
DEVICE u32 grid_z() { return __nvvm_read_ptx_sreg_nctaid_z(); }

// All threads of the block, or of the warp, must arrive: none may have left the kernel.
DEVICE void sync_block() { __syncthreads(); }
DEVICE void sync_warp() { asm volatile("bar.warp.sync 0xffffffff;" ::: "memory"); }

// Whole warps alone.
DEVICE u32 shuffle_xor(u32 v, u32 mask) {
    u32 r;
    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(r) : "r"(v), "r"(mask));
    return r;
}
DEVICE u32 shuffle_from(u32 v, u32 lane) {
    u32 r;
    asm volatile("shfl.sync.idx.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(r) : "r"(v), "r"(lane));
    return r;
}
// One bit per lane.
DEVICE u32 ballot(bool v) {
    u32 r;
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %1, 0; vote.sync.ballot.b32 %0, p, 0xffffffff; }" : "=r"(r) : "r"((u32)v));
    return r;
}

// Read once and not again: weights.
DEVICE u32x4 load_stream(const u32x4* p) {
    u32x4 v;
#if LICHEN_ARCH >= 87
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
#else
    asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
#endif
    return v;
}
DEVICE u32x2 load_stream(const u32x2* p) {
    u32x2 v;
#if LICHEN_ARCH >= 87
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
#else
    asm volatile("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
#endif
    return v;
}
DEVICE u16 load_stream(const u16* p) {
    u16 v;
    asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(v) : "l"(p));
    return v;
}
DEVICE u32 load_stream(const u32* p) {
    u32 v;
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(p));
    return v;
}
// Asks for a line of 128 bytes of global memory, and waits for nothing.
DEVICE void prefetch_l2(const void* p) { asm volatile("prefetch.global.L2 [%0];" :: "l"(p)); }
// Programmatic dependent launch, PDL: from sm_90 on a kernel that Cuda::launch_pdl gives may begin while the one before it, its
// primary, still runs. Waits until the primary has ended and what it wrote is seen.
DEVICE void wait_for_primary() {
#if LICHEN_ARCH >= 90
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The next kernel may begin, if it is a PDL launch, once every block has come here or ended.
DEVICE void launch_dependents() {
#if LICHEN_ARCH >= 90
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Past the first-level cache: what another block of this launch may have written.
DEVICE u32 load_coherent(const u32* p) {
    u32 v;
    asm volatile("ld.volatile.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}
DEVICE float load_coherent(const float* p) {
    float v;
    asm volatile("ld.volatile.global.f32 %0, [%1];" : "=f"(v) : "l"(p) : "memory");
    return v;
}
// Writes before are seen by the device before writes after.
DEVICE void fence_device() { asm volatile("membar.gl;" ::: "memory"); }
// Global memory; the value before.
DEVICE u32 atomic_add(u32* p, u32 v) {
    u32 r;
    asm volatile("atom.global.add.u32 %0, [%1], %2;" : "=r"(r) : "l"(p), "r"(v) : "memory");
    return r;
}
DEVICE u64 atomic_max(u64* p, u64 v) {
    u64 r;
    asm volatile("atom.global.max.u64 %0, [%1], %2;" : "=l"(r) : "l"(p), "l"(v) : "memory");
    return r;
}

// The same value, of which the compiler knows nothing: what is computed from it is computed again and not kept in registers
// since an earlier use. Each use says why that is better there.
DEVICE u32 opaque(u32 v) {
    asm volatile("" : "+r"(v));
    return v;
}

DEVICE u32 f32_bits(float v) { return __builtin_bit_cast(u32, v); }
DEVICE float f32_from_bits(u32 v) { return __builtin_bit_cast(float, v); }
DEVICE float fma(float a, float b, float c) {
    float r;
    asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(r) : "f"(a), "f"(b), "f"(c));
    return r;
}
// IEEE division and square root, rounded to nearest: the operators would do the same; the names say that they are slow.
DEVICE float divide(float a, float b) {
    float r;
    asm("div.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}
DEVICE float square_root(float a) {
    float r;
    asm("sqrt.rn.f32 %0, %1;" : "=f"(r) : "f"(a));
    return r;
}
// 2^x within 2 units in the last place (22 bits on the oldest parts).
DEVICE float exp2_approx(float x) {
    float r;
    asm("ex2.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
DEVICE float max_f32(float a, float b) {
    float r;
    asm("max.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}

// Conversions round to nearest, ties to even.
DEVICE float f16_to_f32(u16 v) {
    float r;
    asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(v));
    return r;
}
DEVICE u16 f32_to_f16(float v) {
    u16 r;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(v));
    return r;
}
DEVICE float s32_to_f32(s32 v) {
    float r;
    asm("cvt.rn.f32.s32 %0, %1;" : "=f"(r) : "r"(v));
    return r;
}
// The nearest integer, ties to even, of a value inside the range of s32.
DEVICE s32 f32_to_s32(float v) {
    s32 r;
    asm("cvt.rni.s32.f32 %0, %1;" : "=r"(r) : "f"(v));
    return r;
}

// Pairs of f16.
DEVICE u32 fma_f16x2(u32 a, u32 b, u32 c) {
    u32 r;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}
DEVICE u32 add_f16x2(u32 a, u32 b) {
    u32 r;
    asm("{ .reg .b32 one; mov.b32 one, 0x3c003c00; fma.rn.f16x2 %0, %1, one, %2; }" : "=r"(r) : "r"(a), "r"(b));
    return r;
}
DEVICE u32 mul_f16x2(u32 a, u32 b) {
    u32 r;
    asm("{ .reg .b32 z; mov.b32 z, 0x80008000; fma.rn.f16x2 %0, %1, %2, z; }" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

// Byte i of the result is byte `selector >> 4 i & 7` of b:a (a the low four); bit 3 of it replicates that byte's sign.
DEVICE u32 permute_bytes(u32 a, u32 b, u32 selector) {
    u32 r;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(selector));
    return r;
}
// c + a * b, halves of registers as signed 16-bit: one XMAD on Maxwell.
DEVICE s32 mad_low16(u32 a, u32 b, s32 c) {
    s32 r;
    asm("{ .reg .b16 al, ah, bl, bh; mov.b32 {al, ah}, %1; mov.b32 {bl, bh}, %2; mad.wide.s16 %0, al, bl, %3; }"
        : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}
DEVICE s32 mad_high16(u32 a, u32 b, s32 c) {
    s32 r;
    asm("{ .reg .b16 al, ah, bl, bh; mov.b32 {al, ah}, %1; mov.b32 {bl, bh}, %2; mad.wide.s16 %0, ah, bh, %3; }"
        : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}
#if LICHEN_ARCH >= 72
// c + the four products of signed bytes.
DEVICE s32 dot4(u32 a, u32 b, s32 c) {
    s32 r;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}

// 16 x 16 x 16 products of f16 by a whole warp, f32 sums. a is row-major (16, k) with `stride` f16 between rows, b
// column-major (its columns are rows of (n, k)), c row-major f32. Shared or global memory, 16-byte aligned. Which element
// a register holds is the hardware's secret.
struct WmmaA {
    u32 r[8];
};
struct WmmaB {
    u32 r[8];
};
struct WmmaC {
    float r[8];
};
DEVICE WmmaA wmma_load_a(const u16* p, u32 stride) {
    WmmaA f;
    asm volatile("wmma.load.a.sync.aligned.row.m16n16k16.f16 {%0, %1, %2, %3, %4, %5, %6, %7}, [%8], %9;"
                 : "=r"(f.r[0]), "=r"(f.r[1]), "=r"(f.r[2]), "=r"(f.r[3]), "=r"(f.r[4]), "=r"(f.r[5]), "=r"(f.r[6]),
                   "=r"(f.r[7])
                 : "l"(p), "r"(stride) : "memory");
    return f;
}
DEVICE WmmaB wmma_load_b(const u16* p, u32 stride) {
    WmmaB f;
    asm volatile("wmma.load.b.sync.aligned.col.m16n16k16.f16 {%0, %1, %2, %3, %4, %5, %6, %7}, [%8], %9;"
                 : "=r"(f.r[0]), "=r"(f.r[1]), "=r"(f.r[2]), "=r"(f.r[3]), "=r"(f.r[4]), "=r"(f.r[5]), "=r"(f.r[6]),
                   "=r"(f.r[7])
                 : "l"(p), "r"(stride) : "memory");
    return f;
}
DEVICE void wmma_mma(WmmaC& c, const WmmaA& a, const WmmaB& b) {
    asm volatile("wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32 {%0, %1, %2, %3, %4, %5, %6, %7}, "
                 "{%8, %9, %10, %11, %12, %13, %14, %15}, {%16, %17, %18, %19, %20, %21, %22, %23}, "
                 "{%0, %1, %2, %3, %4, %5, %6, %7};"
                 : "+f"(c.r[0]), "+f"(c.r[1]), "+f"(c.r[2]), "+f"(c.r[3]), "+f"(c.r[4]), "+f"(c.r[5]), "+f"(c.r[6]),
                   "+f"(c.r[7])
                 : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(a.r[4]), "r"(a.r[5]), "r"(a.r[6]), "r"(a.r[7]),
                   "r"(b.r[0]), "r"(b.r[1]), "r"(b.r[2]), "r"(b.r[3]), "r"(b.r[4]), "r"(b.r[5]), "r"(b.r[6]), "r"(b.r[7]));
}
DEVICE void wmma_store(float* p, const WmmaC& c, u32 stride) {
    asm volatile("wmma.store.d.sync.aligned.row.m16n16k16.f32 [%0], {%1, %2, %3, %4, %5, %6, %7, %8}, %9;"
                 :: "l"(p), "f"(c.r[0]), "f"(c.r[1]), "f"(c.r[2]), "f"(c.r[3]), "f"(c.r[4]), "f"(c.r[5]), "f"(c.r[6]),
                    "f"(c.r[7]), "r"(stride) : "memory");
}
#endif

#if LICHEN_ARCH >= 80
// An address in shared memory as instructions want it.
DEVICE u32 shared_address(const void* p) { return (u32)(u64)(__attribute__((address_space(3))) const void*)p; }

// Tensor cores, whole warps; g = lane / 4, t = lane % 4 (PTX ISA, "Matrix Fragments for mma.m16n8k16").
// a: a[0] = (row g, k 2t..), a[1] = (row g + 8, same k), a[2] = (g, k + 8), a[3] = (g + 8, k + 8).
// b: b[0] = (k 2t.., column g), b[1] = (k + 8). c: c[0], c[1] = (row g, columns 2t, 2t + 1), c[2], c[3] = row g + 8.
DEVICE void mma_f16(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void mma_bf16(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// Two bf16, to nearest, ties to even; `low` in the low bits.
DEVICE u32 pack_bf16(float low, float high) {
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
// The nearest tf32: the range of f32 with eleven bits, ties away from zero.
DEVICE u32 f32_to_tf32(float v) {
    u32 r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(v));
    return r;
}
// m16n8k8: a[0] = (row g, k t), a[1] = (row g + 8, k t), a[2] = (g, t + 4), a[3] = (g + 8, t + 4); b[0] = (k t, column g),
// b[1] = (k t + 4, column g); c as above.
DEVICE void mma_tf32(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// Four 8 x 8 matrices of f16 from shared memory: lane i gives the address of row i % 8 of matrix i / 8; register j gets
// (row g, columns 2t, 2t + 1) of matrix j. The transposed form gets (rows 2t, 2t + 1, column g).
DEVICE void ldmatrix_x4(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
DEVICE void ldmatrix_x4_transposed(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
// Sixteen bytes from global to shared memory behind the threads' backs, zeros when `valid` is false (the address must be
// readable all the same): there after a wait that lets at most `pending` later groups stay open, and a barrier.
DEVICE void copy_async(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(shared_address(shared)), "l"(global), "r"(valid ? 16u : 0u) : "memory");
}
DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int pending> DEVICE void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" :: "n"(pending) : "memory");
}
#endif

#else
#include "emulator.h"
#endif

// Both builds.
DEVICE u32 lane_idx() { return thread_idx() & 31; }
DEVICE u32 warp_idx() { return thread_idx() >> 5; }
DEVICE float shuffle_xor(float v, u32 mask) { return f32_from_bits(shuffle_xor(f32_bits(v), mask)); }
DEVICE s32 shuffle_xor(s32 v, u32 mask) { return (s32)shuffle_xor((u32)v, mask); }
DEVICE float shuffle_from(float v, u32 lane) { return f32_from_bits(shuffle_from(f32_bits(v), lane)); }
DEVICE float bf16_to_f32(u16 v) { return f32_from_bits((u32)v << 16); }
DEVICE u16 f32_to_bf16(float v) {
    u32 bits = f32_bits(v);
    // NaN keeps its top bits and stays NaN.
    if ((bits & 0x7fffffff) > 0x7f800000) return (u16)(bits >> 16 | 0x40);
    return (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
DEVICE u32 pack16(u16 low, u16 high) { return (u32)low | (u32)high << 16; }
DEVICE u32 div_up(u32 a, u32 b) { return (a + b - 1) / b; }
// Sums over the lanes that differ in the bits of `width - 1` (a power of two): every lane gets the same bits.
template <int width> DEVICE float warp_sum(float v) {
    for (u32 mask = width / 2; mask > 0; mask /= 2) v += shuffle_xor(v, mask);
    return v;
}
template <int width> DEVICE float warp_max(float v) {
    for (u32 mask = width / 2; mask > 0; mask /= 2) v = max_f32(v, shuffle_xor(v, mask));
    return v;
}
