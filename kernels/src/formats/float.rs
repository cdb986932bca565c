//! F32, F16 and BF16: one number per value, little endian, no alignment assumed (safetensors and GGUF offsets are
//! multiples of 8 or 32, but a shared byte range need not be).

use half::{bf16, f16};

/// Decodes a row of little-endian f32.
#[inline(always)]
pub fn decode_f32(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * 4);
    for (o, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
        *o = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    }
}

/// Decodes a row of little-endian IEEE half floats.
#[inline(always)]
pub fn decode_f16(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * 2);
    for (o, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *o = f16::from_le_bytes([b[0], b[1]]).to_f32();
    }
}

/// Decodes a row of little-endian bfloat16 (the upper half of an f32).
#[inline(always)]
pub fn decode_bf16(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * 2);
    for (o, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *o = f32::from_bits((u16::from_le_bytes([b[0], b[1]]) as u32) << 16);
    }
}

/// Encodes to little-endian bf16, round to nearest even.
pub fn encode_bf16(x: &[f32], out: &mut Vec<u8>) {
    for v in x {
        out.extend_from_slice(&bf16::from_f32(*v).to_le_bytes());
    }
}

/// The same into `out`, two bytes a value.
pub fn encode_bf16_into(x: &[f32], out: &mut [u8]) {
    assert_eq!(out.len(), 2 * x.len());
    for (b, v) in out.chunks_exact_mut(2).zip(x) {
        b.copy_from_slice(&bf16::from_f32(*v).to_le_bytes());
    }
}

/// Encodes to little-endian f16, round to nearest even.
pub fn encode_f16(x: &[f32], out: &mut Vec<u8>) {
    for v in x {
        out.extend_from_slice(&f16::from_f32(*v).to_le_bytes());
    }
}
