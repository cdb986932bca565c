//! Weight formats: one file per format, byte layouts identical to the files that carry them.
//!
//! `F32 F16 BF16 Q8_0 Q4_0 Q5_0 NF4` are computed with as they are. All others, which llama.cpp's quantiser writes, are read
//! and transcoded to Q8_0 at load. Layouts: ggml `ggml-common.h` (GGUF types), bitsandbytes `functional.py` (NF4).

use std::fmt;

pub mod float;
mod grid;
pub mod iq1_m;
pub mod iq1_s;
pub mod iq2_s;
pub mod iq2_xs;
pub mod iq2_xxs;
pub mod iq3_s;
pub mod iq3_xxs;
pub mod iq4_nl;
pub mod iq4_xs;
pub mod nf4;
pub mod q2_k;
pub mod q3_k;
pub mod q4_0;
pub mod q4_1;
pub mod q4_k;
pub mod q5_0;
pub mod q5_1;
pub mod q5_k;
pub mod q6_k;
pub mod q8_0;

/// How the numbers of a matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)]
pub enum Format {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    /// bitsandbytes NF4, blocks of 64; the nibbles alone, scales are a second plane of [`crate::Matrix`].
    NF4,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ1_S,
    IQ1_M,
    IQ2_XXS,
    IQ2_XS,
    IQ2_S,
    IQ3_XXS,
    IQ3_S,
    IQ4_NL,
    IQ4_XS,
}

impl Format {
    /// Every format, in the order messages list them.
    pub const ALL: [Format; 23] = [
        Format::F32,
        Format::F16,
        Format::BF16,
        Format::Q8_0,
        Format::Q4_0,
        Format::NF4,
        Format::Q4_1,
        Format::Q5_0,
        Format::Q5_1,
        Format::Q2_K,
        Format::Q3_K,
        Format::Q4_K,
        Format::Q5_K,
        Format::Q6_K,
        Format::IQ1_S,
        Format::IQ1_M,
        Format::IQ2_XXS,
        Format::IQ2_XS,
        Format::IQ2_S,
        Format::IQ3_XXS,
        Format::IQ3_S,
        Format::IQ4_NL,
        Format::IQ4_XS,
    ];

    /// Values per block; a row is a whole number of blocks.
    pub const fn block_len(self) -> usize {
        match self {
            Format::F32 | Format::F16 | Format::BF16 => 1,
            Format::Q8_0 | Format::Q4_0 | Format::Q4_1 | Format::Q5_0 | Format::Q5_1 | Format::IQ4_NL => 32,
            Format::NF4 => 64,
            Format::Q2_K | Format::Q3_K | Format::Q4_K | Format::Q5_K | Format::Q6_K => 256,
            Format::IQ1_S | Format::IQ1_M | Format::IQ4_XS => 256,
            Format::IQ2_XXS | Format::IQ2_XS | Format::IQ2_S | Format::IQ3_XXS | Format::IQ3_S => 256,
        }
    }

    /// Bytes per block (for NF4 the nibbles without their scale).
    pub const fn block_bytes(self) -> usize {
        match self {
            Format::F32 => 4,
            Format::F16 | Format::BF16 => 2,
            Format::Q8_0 => 34,
            Format::Q4_0 | Format::IQ4_NL => 18,
            Format::NF4 => 32,
            Format::Q4_1 => 20,
            Format::Q5_0 => 22,
            Format::Q5_1 => 24,
            Format::Q2_K => 84,
            Format::Q3_K => 110,
            Format::Q4_K => 144,
            Format::Q5_K => 176,
            Format::Q6_K => 210,
            Format::IQ1_S => 50,
            Format::IQ1_M => 56,
            Format::IQ2_XXS => 66,
            Format::IQ2_XS => 74,
            Format::IQ2_S => 82,
            Format::IQ3_XXS => 98,
            Format::IQ3_S => 110,
            Format::IQ4_XS => 136,
        }
    }

    /// Bytes of a row of `cols` values; `None` when the row is not whole blocks or the product overflows.
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())
    }

    /// True for the formats the kernels compute with directly; the others are transcoded to Q8_0 at load.
    pub const fn is_computed(self) -> bool {
        matches!(
            self,
            Format::F32 | Format::F16 | Format::BF16 | Format::Q8_0 | Format::Q4_0 | Format::Q5_0 | Format::NF4
        )
    }

    /// What a matrix of this format is on a GPU: no kernel there reads five bits, and the codes of a Q5_0 block are codes of
    /// a Q8_0 block with the same scale.
    pub const fn on_gpu(self) -> Format {
        match self {
            Format::Q5_0 => Format::Q8_0,
            other => other,
        }
    }

    /// True for formats with a plain number per value.
    pub const fn is_float(self) -> bool {
        matches!(self, Format::F32 | Format::F16 | Format::BF16)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Format::F32 => "F32",
            Format::F16 => "F16",
            Format::BF16 => "BF16",
            Format::Q8_0 => "Q8_0",
            Format::Q4_0 => "Q4_0",
            Format::NF4 => "NF4",
            Format::Q4_1 => "Q4_1",
            Format::Q5_0 => "Q5_0",
            Format::Q5_1 => "Q5_1",
            Format::Q2_K => "Q2_K",
            Format::Q3_K => "Q3_K",
            Format::Q4_K => "Q4_K",
            Format::Q5_K => "Q5_K",
            Format::Q6_K => "Q6_K",
            Format::IQ1_S => "IQ1_S",
            Format::IQ1_M => "IQ1_M",
            Format::IQ2_XXS => "IQ2_XXS",
            Format::IQ2_XS => "IQ2_XS",
            Format::IQ2_S => "IQ2_S",
            Format::IQ3_XXS => "IQ3_XXS",
            Format::IQ3_S => "IQ3_S",
            Format::IQ4_NL => "IQ4_NL",
            Format::IQ4_XS => "IQ4_XS",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Decodes whole blocks of any format but NF4, whose scales are a plane of their own. Panics when the lengths of `bytes`
/// and `out` do not belong to each other.
pub fn decode(format: Format, bytes: &[u8], out: &mut [f32]) {
    match format {
        Format::F32 => float::decode_f32(bytes, out),
        Format::F16 => float::decode_f16(bytes, out),
        Format::BF16 => float::decode_bf16(bytes, out),
        Format::Q8_0 => q8_0::decode(bytes, out),
        Format::Q4_0 => q4_0::decode(bytes, out),
        Format::NF4 => panic!("NF4 is decoded with its scales: nf4::decode"),
        Format::Q4_1 => q4_1::decode(bytes, out),
        Format::Q5_0 => q5_0::decode(bytes, out),
        Format::Q5_1 => q5_1::decode(bytes, out),
        Format::Q2_K => q2_k::decode(bytes, out),
        Format::Q3_K => q3_k::decode(bytes, out),
        Format::Q4_K => q4_k::decode(bytes, out),
        Format::Q5_K => q5_k::decode(bytes, out),
        Format::Q6_K => q6_k::decode(bytes, out),
        Format::IQ1_S => iq1_s::decode(bytes, out),
        Format::IQ1_M => iq1_m::decode(bytes, out),
        Format::IQ2_XXS => iq2_xxs::decode(bytes, out),
        Format::IQ2_XS => iq2_xs::decode(bytes, out),
        Format::IQ2_S => iq2_s::decode(bytes, out),
        Format::IQ3_XXS => iq3_xxs::decode(bytes, out),
        Format::IQ3_S => iq3_s::decode(bytes, out),
        Format::IQ4_NL => iq4_nl::decode(bytes, out),
        Format::IQ4_XS => iq4_xs::decode(bytes, out),
    }
}
