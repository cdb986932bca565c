// Packed codes as the fragments of batch.cuh take them: codes j of a load of sixteen bytes are eight k as four pairs of f16.
#pragma once
#include "../decode/nf4.cuh"
#include "../prefill/weights.cuh"

#if LICHEN_ARCH >= 80

// NF4 levels come from decode's table in shared memory: picked by byte permutes a level takes three issue slots of the integer
// units, which are half as wide as the others and would read at half of an H200's bandwidth at best; from the table it takes
// one, and half an issue slot of shared memory.
template <class W> struct BatchCodes {
    static constexpr u32 TABLE_BYTES = 0;
    DEVICE void fill(u8*) {}
};
template <> struct BatchCodes<NF4> {
    static constexpr u32 TABLE_BYTES = Nf4::TABLE_BYTES;
    // All threads of the block; to be seen after sync_block.
    DEVICE void fill(u8* table) { Nf4::fill_table(table, block_dim()); }
};

DEVICE void batch_pairs(Q8_0, const u8*, const u32x4& codes, u32 j, u32 (&out)[4]) {
    const u32 words[2] = {j == 0 ? codes.x : codes.z, j == 0 ? codes.y : codes.w};
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
        u32 biased = words[i] ^ 0x80808080;
        out[2 * i] = add_f16x2(permute_bytes(biased, 0x64646464, 0x4140), 0xe480e480);
        out[2 * i + 1] = add_f16x2(permute_bytes(biased, 0x64646464, 0x4342), 0xe480e480);
    }
}
DEVICE void batch_pairs(Q4_0, const u8*, const u32x4& codes, u32 j, u32 (&out)[4]) {
    const u32 words[2] = {j % 2 == 0 ? codes.x : codes.z, j % 2 == 0 ? codes.y : codes.w};
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        u32 bytes = permute_bytes(words[i / 2], 0, i % 2 == 0 ? 0x4140 : 0x4342);
        if (j < 2) out[i] = add_f16x2((bytes & 0x000f000f) | 0x64006400, 0xe408e408);
        else out[i] = fma_f16x2((bytes & 0x00f000f0) | 0x64006400, 0x2c002c00, 0xd480d480);
    }
}
DEVICE void batch_pairs(NF4, const u8* table, const u32x4& codes, u32 j, u32 (&out)[4]) {
    Nf4::decode(j == 0 ? codes.x : j == 1 ? codes.y : j == 2 ? codes.z : codes.w, table, lane_idx() * 4, out);
}
DEVICE void batch_plain(const u32x4& codes, u32 (&out)[4]) {
    out[0] = codes.x;
    out[1] = codes.y;
    out[2] = codes.z;
    out[3] = codes.w;
}
DEVICE void batch_pairs(F16, const u8*, const u32x4& codes, u32, u32 (&out)[4]) { batch_plain(codes, out); }
DEVICE void batch_pairs(BF16, const u8*, const u32x4& codes, u32, u32 (&out)[4]) { batch_plain(codes, out); }

#endif
