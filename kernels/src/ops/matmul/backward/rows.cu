// Both factors of a gradient of weights as rows of bf16 whose elements are tokens: dw = (dy^T) (x^T)^T.
#include "common.cuh"

#if LICHEN_ARCH >= 80
// out[c, t] = x[t, c] for 64 tokens and 32 columns; grid (tiles of tokens of the padded length, tiles of columns). x (T, C),
// out (rows of at least C, out_stride): tokens from T on are zeros; rows from C up to `rows` are too. Null scales: none
// are written, else 1 for each row.
KERNEL(256, 2, matmul_transpose_rows, u16* out, float* scales, const float* x, u32 n_tokens, u32 cols, u32 rows, u32 out_stride) {
    SHARED(float, tile, 64 * 33);
    u32 first_token = block_x() * 64, first_column = block_y() * 32;
    for (u32 t = warp_idx(); t < 64; t += 8) {
        u32 token = first_token + t, column = first_column + lane_idx();
        bool inside = token < n_tokens && column < cols;
        tile[t * 33 + lane_idx()] = inside ? x[(u64)token * cols + column] : 0.0f;
    }
    sync_block();
    for (u32 c = warp_idx(); c < 32; c += 8) {
        u32 row = first_column + c;
        if (row >= rows) return;
        float low = tile[2 * lane_idx() * 33 + c], high = tile[(2 * lane_idx() + 1) * 33 + c];
        u32* to = (u32*)(out + (u64)row * out_stride + first_token);
        to[lane_idx()] = pack16(f32_to_bf16(low), f32_to_bf16(high));
        if (scales && first_token == 0 && lane_idx() == 0) scales[row] = 1.0f;
    }
}
#endif
