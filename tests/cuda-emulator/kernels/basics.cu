// The emulator's own kernels: one for each promise it makes.
#include "common.cuh"

// out[i] = a[i] + scale * b[i].
KERNEL(256, 1, emulator_axpy, float* out, const float* a, const float* b, float scale, u32 n) {
    u32 i = block_x() * block_dim() + thread_idx();
    if (i < n) out[i] = a[i] + scale * b[i];
}

// out[block] = the sum of the block's part of x (blocks, block_dim), through shuffles and shared memory.
KERNEL(1024, 1, emulator_sum, float* out, const float* x) {
    SHARED(float, parts, 32);
    float sum = warp_sum<32>(x[block_x() * block_dim() + thread_idx()]);
    if (lane_idx() == 0) parts[warp_idx()] = sum;
    sync_block();
    if (thread_idx() == 0) {
        float total = 0;
        for (u32 i = 0; i < block_dim() / 32; i++) total += parts[i];
        out[block_x()] = total;
    }
}

// The block that finishes last adds up what all wrote. counter is 0 before and after.
KERNEL(32, 1, emulator_last_block, u32* out, u32* parts, u32* counter) {
    if (thread_idx() == 0) {
        parts[block_x()] = block_x() + 1;
        fence_device();
        if (atomic_add(counter, 1) == grid_x() - 1) {
            fence_device();
            u32 total = 0;
            for (u32 i = 0; i < grid_x(); i++) total += load_coherent(parts + i);
            *out = total;
            *counter = 0;
        }
    }
}

// `n` rendezvous of one kind: what a measurement divides by.
KERNEL(1024, 1, emulator_shuffles, u32* out, u32 n) {
    u32 v = thread_idx();
    for (u32 i = 0; i < n; i++) v = shuffle_xor(v, 1);
    out[block_x() * block_dim() + thread_idx()] = v;
}
KERNEL(1024, 1, emulator_barriers, u32* out, u32 n) {
    for (u32 i = 0; i < n; i++) sync_block();
    out[block_x() * block_dim() + thread_idx()] = n;
}

// The order in which the threads of a block come by.
KERNEL(1024, 1, emulator_order, u32* out, u32* counter) { out[atomic_add(counter, 1)] = thread_idx(); }

// Threads from `n` on do not come to the barrier: they leave, or wait for their warp.
KERNEL(256, 1, emulator_barrier_below, u32* out, u32 n) {
    if (thread_idx() < n) sync_block();
    out[thread_idx()] = n;
}
KERNEL(256, 1, emulator_barrier_or_warp, u32* out, u32 n) {
    if (thread_idx() < n) {
        sync_block();
    } else {
        sync_warp();
    }
    out[thread_idx()] = n;
}
KERNEL(256, 1, emulator_two_collectives, u32* out, u32 n) {
    out[thread_idx()] = thread_idx() < n ? ballot(true) : shuffle_xor(n, 1);
}

// Reads shared memory that nothing wrote, static and dynamic; and writes behind an end.
KERNEL(64, 1, emulator_unwritten, u32* out, u32 n) {
    SHARED(u32, words, 64);
    DYNAMIC_SHARED(u32, more);
    u32 i = thread_idx();
    out[i] = words[i];
    out[block_dim() + i] = more[i];
    sync_block();
    words[i] = n;
    more[i] = n;
}
KERNEL(64, 1, emulator_overrun, u32* out, u32 n) {
    SHARED(u32, words, 64);
    u32* end = words + n;
    end[thread_idx()] = n;
    sync_block();
    out[thread_idx()] = words[thread_idx()];
}
KERNEL(64, 1, emulator_dynamic, u32* out, u32 at) {
    DYNAMIC_SHARED(u32, words);
    words[at + thread_idx()] = at;
    out[thread_idx()] = words[at + thread_idx()];
}

// One word, anywhere.
KERNEL(64, 1, emulator_poke, u32* out, u32 at) { out[at + thread_idx()] = at; }
KERNEL(64, 1, emulator_misaligned, u32* out, u32 at) {
    out[0] = load_stream((const u32x4*)((const u8*)out + at)).x;
}

#if LICHEN_ARCH >= 80
// Copies 16 bytes a thread to shared memory, and reads them after waiting for the copy, or, when `waits` is 0, without.
KERNEL(64, 1, emulator_copy, u32x4* out, const u32x4* x, u32 waits, u32 n_valid) {
    SHARED(u32x4, tile, 64);
    u32 i = thread_idx();
    copy_async(&tile[i], &x[i], i < n_valid);
    copy_async_commit();
    if (waits) {
        copy_async_wait<0>();
    } else {
        copy_async_wait<1>();
    }
    sync_block();
    out[i] = tile[i ^ 1];
}
#endif
