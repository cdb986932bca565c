// Products of a warpgroup (four neighbouring warps) on sm_90's tensor cores: wgmma.mma_async, m64 n{8, 16, 32, 64} k16, of
// f16 with f32 sums (PTX ISA 8.0, "Asynchronous Warpgroup Level Matrix Instructions"). Its target is sm_90a, which later
// devices do not run: build.rs compiles files named wgmma_* for it.
//
// a: 16 rows of the 64 for each warp, in registers as mma_f16 has them. b: eight columns by eight k are 128 bytes of shared
// memory without a gap, a column's eight k side by side. d: as mma_f16 has c, of every eight columns.
//
// They run behind the threads' backs: after wgmma_begin their registers must not be touched until a wait for the group that
// wgmma_commit closed.
#pragma once
#include "common.cuh"

#if LICHEN_ARCH == 90
#ifdef __CUDA__

// A matrix b. `k_bytes` lie between its eights of k, `column_bytes` between its eights of columns: multiples of 16.
struct WgmmaB {
    u64 descriptor;
};
DEVICE WgmmaB wgmma_b(const u8* at, u32 k_bytes, u32 column_bytes) {
    return {(u64)(shared_address(at) >> 4) | (u64)(k_bytes >> 4) << 16 | (u64)(column_bytes >> 4) << 32};
}
// The matrix `bytes` further.
DEVICE WgmmaB wgmma_ahead(const WgmmaB& b, u32 bytes) { return {b.descriptor + (bytes >> 4)}; }

DEVICE void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until at most `pending` of the latest groups are open.
template <int pending> DEVICE void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory"); }
// What this thread wrote to shared memory, cp.async that it has waited for too, is seen by products after the next barrier.
DEVICE void wgmma_publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// After the last wait: reads of the sums do not move up.
DEVICE void wgmma_settle(float& d) { asm volatile("" : "+f"(d)::"memory"); }

#define WGMMA_FOUR(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define WGMMA_REST "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.descriptor)
DEVICE void wgmma_f16(float (&d)[1][4], const u32 (&a)[4], const WgmmaB& b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {"
                 "%0, %1, %2, %3"
                 "}, {%4, %5, %6, %7}, %8, 1, 1, 1, 0;"
                 : WGMMA_FOUR(0)
                 : WGMMA_REST);
}
DEVICE void wgmma_f16(float (&d)[2][4], const u32 (&a)[4], const WgmmaB& b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7"
                 "}, {%8, %9, %10, %11}, %12, 1, 1, 1, 0;"
                 : WGMMA_FOUR(0), WGMMA_FOUR(1)
                 : WGMMA_REST);
}
DEVICE void wgmma_f16(float (&d)[4][4], const u32 (&a)[4], const WgmmaB& b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
                 "}, {%16, %17, %18, %19}, %20, 1, 1, 1, 0;"
                 : WGMMA_FOUR(0), WGMMA_FOUR(1), WGMMA_FOUR(2), WGMMA_FOUR(3)
                 : WGMMA_REST);
}
DEVICE void wgmma_f16(float (&d)[8][4], const u32 (&a)[4], const WgmmaB& b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15,"
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
                 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 0;"
                 : WGMMA_FOUR(0), WGMMA_FOUR(1), WGMMA_FOUR(2), WGMMA_FOUR(3), WGMMA_FOUR(4), WGMMA_FOUR(5), WGMMA_FOUR(6),
                   WGMMA_FOUR(7)
                 : WGMMA_REST);
}
#undef WGMMA_FOUR
#undef WGMMA_REST

#else
#include "wgmma.h"
#endif
#endif
