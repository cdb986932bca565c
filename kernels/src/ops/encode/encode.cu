// Float weights from values of f32, into the device's layout (kernels/cuda/LAYOUTS.md): rows padded to whole tiles.
#include "elements.cuh"

const u32 ENCODE_THREADS = 256;

struct EncodeF32 {
    typedef float Code;
    static DEVICE_MEMBER Code of(float v) { return v; }
};
struct EncodeF16 {
    typedef u16 Code;
    static DEVICE_MEMBER Code of(float v) { return f32_to_f16(v); }
};
struct EncodeBf16 {
    typedef u16 Code;
    static DEVICE_MEMBER Code of(float v) { return f32_to_bf16(v); }
};

DEVICE void store_codes(float* to, float a, float b, float c, float d) {
    f32x4 v = {a, b, c, d};
    *(f32x4*)to = v;
}
DEVICE void store_codes(u16* to, u16 a, u16 b, u16 c, u16 d) {
    u32x2 v = {pack16(a, b), pack16(c, d)};
    *(u32x2*)to = v;
}

// Row block_x of codes (rows padded to padded_cols) from that of values (rows, cols). What pads stays as it is.
template <class Encode> DEVICE void encode_row(typename Encode::Code* codes, const float* values, u32 cols, u32 padded_cols) {
    bool is_wide = cols % 4 == 0 && is_aligned16(values);
    codes += (u64)block_x() * padded_cols;
    values += (u64)block_x() * cols;
    u32 first = block_y() * ENCODE_THREADS + thread_idx(), stride = grid_y() * ENCODE_THREADS;
    if (is_wide) {
        for (u32 i = first; i < cols / 4; i += stride) {
            auto v = load_floats<4>(values + 4 * i);
            store_codes(codes + 4 * i, Encode::of(v.v[0]), Encode::of(v.v[1]), Encode::of(v.v[2]), Encode::of(v.v[3]));
        }
    } else {
        for (u32 i = first; i < cols; i += stride) codes[i] = Encode::of(values[i]);
    }
}

KERNEL(256, 4, encode_f32, float* codes, const float* values, u32 cols, u32 padded_cols) {
    encode_row<EncodeF32>(codes, values, cols, padded_cols);
}
KERNEL(256, 4, encode_f16, u16* codes, const float* values, u32 cols, u32 padded_cols) {
    encode_row<EncodeF16>(codes, values, cols, padded_cols);
}
KERNEL(256, 4, encode_bf16, u16* codes, const float* values, u32 cols, u32 padded_cols) {
    encode_row<EncodeBf16>(codes, values, cols, padded_cols);
}
