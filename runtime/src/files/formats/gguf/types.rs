//! Tensor types by their numbers (ggml `ggml.h`, `enum ggml_type`).

use lichen_kernels::Format;

/// The types that are read.
const FORMATS: [(u32, Format); 22] = [
    (0, Format::F32),
    (1, Format::F16),
    (2, Format::Q4_0),
    (3, Format::Q4_1),
    (6, Format::Q5_0),
    (7, Format::Q5_1),
    (8, Format::Q8_0),
    (10, Format::Q2_K),
    (11, Format::Q3_K),
    (12, Format::Q4_K),
    (13, Format::Q5_K),
    (14, Format::Q6_K),
    (16, Format::IQ2_XXS),
    (17, Format::IQ2_XS),
    (18, Format::IQ3_XXS),
    (19, Format::IQ1_S),
    (20, Format::IQ4_NL),
    (21, Format::IQ3_S),
    (22, Format::IQ2_S),
    (23, Format::IQ4_XS),
    (29, Format::IQ1_M),
    (30, Format::BF16),
];

/// Types that exist but are refused, by name.
const REFUSED: [(u32, &str); 13] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
    (42, "Q2_0"),
];

/// The formats this reader takes, by the type number of the file; the other numbers are refused.
pub fn format_of_type_id(id: u32) -> Option<Format> {
    FORMATS.iter().find(|(n, _)| *n == id).map(|(_, format)| *format)
}

/// The number of a weight format in the tensor table. Panics for NF4, which GGUF does not have.
pub fn type_id(format: Format) -> u32 {
    FORMATS.iter().find(|(_, f)| *f == format).expect("GGUF has every format but NF4").0
}

/// Why a type number is refused.
pub(super) fn unsupported(type_id: u32) -> String {
    let supported: Vec<&str> = Format::ALL.iter().filter(|f| **f != Format::NF4).map(|f| f.name()).collect();
    let name = REFUSED.iter().find(|(n, _)| *n == type_id).map_or(String::new(), |(_, name)| format!(" ({name})"));
    format!("type {type_id}{name} is not supported (supported: {})", supported.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_but_nf4_has_one_number() {
        for format in Format::ALL.into_iter().filter(|f| *f != Format::NF4) {
            assert_eq!(format_of_type_id(type_id(format)), Some(format));
        }
        assert_eq!(FORMATS.len(), Format::ALL.len() - 1);
        assert!(REFUSED.iter().all(|(id, _)| format_of_type_id(*id).is_none()));
    }
}
