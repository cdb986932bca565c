// The largest of each row of logits, where they are; the grid's y counts rows, its x blocks of a row. A logit and its id make one key that orders as (logit, then lower id
// first); NaN and minus infinity have the key 0, which is no candidate. Keys differ, so the result has no room for chance.
#include "common.cuh"

const u32 SAMPLING_WARPS = 8;
// The length of a list of keys, sorted, greatest first: two keys a lane, element `lane + 32 j`.
const u32 LIST = 64;

DEVICE u64 sampling_key(float logit, u32 id) {
    if (!(logit > f32_from_bits(0xff800000))) return 0;
    // -0 and 0 are equal.
    u32 bits = f32_bits(logit + 0.0f);
    u32 ordered = bits >> 31 ? ~bits : bits | 0x80000000;
    return (u64)ordered << 32 | (u32)~id;
}

// Writes what key i of the result stands for: (id, bits of the logit).
DEVICE void sampling_write(u32* found, u32 i, u64 key) {
    u32 ordered = (u32)(key >> 32);
    found[2 * i] = key == 0 ? 0xffffffff : ~(u32)key;
    found[2 * i + 1] = ordered >> 31 ? ordered ^ 0x80000000 : ~ordered;
}

DEVICE u64 max_key(u64 a, u64 b) { return a > b ? a : b; }
DEVICE u64 min_key(u64 a, u64 b) { return a > b ? b : a; }
DEVICE u64 shuffle_xor_key(u64 v, u32 mask) {
    return (u64)shuffle_xor((u32)(v >> 32), mask) << 32 | shuffle_xor((u32)v, mask);
}
DEVICE u64 shuffle_from_key(u64 v, u32 lane) {
    return (u64)shuffle_from((u32)(v >> 32), lane) << 32 | shuffle_from((u32)v, lane);
}
DEVICE u64 load_key(const u32* p) { return (u64)load_coherent(p + 1) << 32 | load_coherent(p); }
DEVICE void store_key(u32* p, u64 key) {
    p[0] = (u32)key;
    p[1] = (u32)(key >> 32);
}

// Words of a row's workspace: workspace_len of cuda.rs.
DEVICE u32 sampling_workspace() { return 2 + grid_x() * LIST * 2; }

// True in every thread of the last block of a row that comes here; the counter is zero again. What the blocks wrote before is seen.
DEVICE bool sampling_is_last(u32* counter, u32* flag) {
    fence_device();
    sync_block();
    if (thread_idx() == 0) {
        bool is_last = atomic_add(counter, 1) + 1 == grid_x();
        if (is_last) *counter = 0;
        *flag = is_last;
        fence_device();
    }
    sync_block();
    return *flag;
}

// The greatest key of the block, in the first thread.
DEVICE u64 sampling_block_max(u64 key, u64* shared) {
    for (u32 mask = 16; mask > 0; mask /= 2) key = max_key(key, shuffle_xor_key(key, mask));
    if (lane_idx() == 0) shared[warp_idx()] = key;
    sync_block();
    for (u32 i = 0; i < SAMPLING_WARPS; i++) key = max_key(key, shared[i]);
    return key;
}

// found (R, 1, 2) = the greatest of each row of logits (R, n). workspace, of each row: a counter (zero before and after), one
// word unused, a list of LIST keys a block, of which the first is used.
KERNEL(256, 2, sampling_argmax, const float* logits, u32 n, u32* workspace, u32* found) {
    SHARED(u64, keys, SAMPLING_WARPS);
    SHARED(u32, flag, 1);
    logits += (u64)block_y() * n;
    workspace += block_y() * sampling_workspace();
    u64 key = 0;
    for (u32 i = block_x() * 256 + thread_idx(); i < n; i += grid_x() * 256) key = max_key(key, sampling_key(logits[i], i));
    key = sampling_block_max(key, keys);
    if (thread_idx() == 0) store_key(workspace + 2 + 2 * block_x(), key);
    if (!sampling_is_last(workspace, flag)) return;
    key = 0;
    for (u32 i = thread_idx(); i < grid_x(); i += 256) key = max_key(key, load_key(workspace + 2 + 2 * i));
    key = sampling_block_max(key, keys);
    if (thread_idx() == 0) sampling_write(found, block_y(), key);
}

// One step of a bitonic network over the warp's list; `descending` of the lane's first and second key.
DEVICE void sampling_exchange(u64 (&list)[2], u32 stride, bool descending_0, bool descending_1) {
    bool lower = (lane_idx() & stride) == 0;
    u64 other_0 = shuffle_xor_key(list[0], stride), other_1 = shuffle_xor_key(list[1], stride);
    list[0] = lower == descending_0 ? max_key(list[0], other_0) : min_key(list[0], other_0);
    list[1] = lower == descending_1 ? max_key(list[1], other_1) : min_key(list[1], other_1);
}

// Sorts a list that rises and then falls, or any rotation of that.
DEVICE void sampling_sort_bitonic(u64 (&list)[2]) {
    u64 high = max_key(list[0], list[1]);
    list[1] = min_key(list[0], list[1]);
    list[0] = high;
    for (u32 stride = 16; stride > 0; stride /= 2) sampling_exchange(list, stride, true, true);
}

DEVICE void sampling_sort(u64 (&list)[2]) {
    for (u32 size = 2; size <= 32; size *= 2) {
        // Runs of `size`, falling and rising by turns: the second key is 32 elements on.
        bool descending = (lane_idx() & size) == 0;
        for (u32 stride = size / 2; stride > 0; stride /= 2)
            sampling_exchange(list, stride, size == 32 || descending, size == 32 ? false : descending);
    }
    sampling_sort_bitonic(list);
}

// The greatest keys of two sorted lists, sorted.
DEVICE void sampling_merge(u64 (&list)[2], const u64 (&other)[2]) {
    u64 reversed_0 = shuffle_from_key(other[1], 31 - lane_idx()), reversed_1 = shuffle_from_key(other[0], 31 - lane_idx());
    list[0] = max_key(list[0], reversed_0);
    list[1] = max_key(list[1], reversed_1);
    sampling_sort_bitonic(list);
}

// The first warp gets the greatest keys of all warps' lists. `shared` (SAMPLING_WARPS, LIST).
DEVICE void sampling_merge_warps(u64 (&list)[2], u64* shared) {
    sync_block();
    for (u32 step = 1; step < SAMPLING_WARPS; step *= 2) {
        u64* mine = shared + warp_idx() * LIST + lane_idx();
        mine[0] = list[0];
        mine[32] = list[1];
        sync_block();
        if (warp_idx() % (2 * step) == 0) {
            u64 other[2] = {mine[step * LIST], mine[step * LIST + 32]};
            sampling_merge(list, other);
        }
        sync_block();
    }
}

// found (R, k, 2) = the k <= 64 greatest of each row of logits (R, n), greatest first. workspace, of each row: a counter
// (zero before and after), one word unused, a list a block.
KERNEL(256, 2, sampling_top_k, const float* logits, u32 n, u32 k, u32* workspace, u32* found) {
    SHARED(u64, lists, SAMPLING_WARPS * LIST);
    SHARED(u32, flag, 1);
    logits += (u64)block_y() * n;
    workspace += block_y() * sampling_workspace();
    found += block_y() * k * 2;
    u64 list[2] = {0, 0};
    u32 warp = block_x() * SAMPLING_WARPS + warp_idx(), n_warps = grid_x() * SAMPLING_WARPS;
    for (u32 base = warp * LIST; base < n; base += n_warps * LIST) {
        u64 next[2];
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
            u32 i = base + 32 * j + lane_idx();
            next[j] = i < n ? sampling_key(logits[i], i) : 0;
        }
        // Most of what comes is below the least of the list.
        u64 least = shuffle_from_key(list[1], 31);
        if (!ballot(max_key(next[0], next[1]) > least)) continue;
        sampling_sort(next);
        sampling_merge(list, next);
    }
    sampling_merge_warps(list, lists);
    u32* mine = workspace + 2 + (block_x() * LIST + lane_idx()) * 2;
    if (warp_idx() == 0) {
        store_key(mine, list[0]);
        store_key(mine + 64, list[1]);
    }
    if (!sampling_is_last(workspace, flag)) return;
    list[0] = list[1] = 0;
    for (u32 block = warp_idx(); block < grid_x(); block += SAMPLING_WARPS) {
        const u32* from = workspace + 2 + (block * LIST + lane_idx()) * 2;
        u64 other[2] = {load_key(from), load_key(from + 64)};
        sampling_merge(list, other);
    }
    sampling_merge_warps(list, lists);
    if (warp_idx() != 0) return;
    if (lane_idx() < k) sampling_write(found, lane_idx(), list[0]);
    if (lane_idx() + 32 < k) sampling_write(found, lane_idx() + 32, list[1]);
}
