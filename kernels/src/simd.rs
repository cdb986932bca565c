//! Instruction sets, chosen at run time, and the one rule that makes them agree.
//!
//! Every op has a fixed order of operations (the *numerical contract*, ARCHITECTURE.md): sums run in sixteen lanes that
//! are folded by a fixed tree, products and sums are fused, integer blocks are exact. So the scalar oracle, AVX2,
//! AVX-512 and NEON give the same bits, as do any number of threads and any batch size.

/// An instruction set this build has kernels for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// The oracle: plain Rust, one value at a time.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, VL, DQ and VNNI.
    Avx512,
    /// ARMv8.0 Advanced SIMD (Cortex-A57).
    Neon,
    /// ARMv8.2 with the dot product extension (`asimddp`).
    NeonDot,
}

impl Isa {
    pub const ALL: [Isa; 5] = [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Neon, Isa::NeonDot];

    /// The best one here; `LICHEN_ISA` (scalar, avx2, avx512, neon, neon-dot) forces another that is available.
    pub fn detect() -> Isa {
        let best = Isa::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Isa::Scalar);
        match std::env::var("LICHEN_ISA") {
            Ok(name) => match Isa::ALL.into_iter().find(|isa| isa.name() == name && isa.is_available()) {
                Some(isa) => isa,
                None => {
                    log::warn!("LICHEN_ISA={name} is not available here; using {}", best.name());
                    best
                }
            },
            Err(_) => best,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
            Isa::NeonDot => "neon-dot",
        }
    }

    /// True when this machine executes it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => true,
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }
}

/// Defines a function whose body is plain Rust, compiled once per instruction set and chosen by its first argument.
/// The body must keep to the numerical contract: explicit lanes for sums, `mul_add` where products are fused.
macro_rules! per_isa {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path;) => {
        $(#[$doc])*
        #[allow(unsafe_code)]
        $vis fn $name(isa: $crate::simd::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $ty),*) $(-> $ret)? { $body($($arg),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
            fn avx512($($arg: $ty),*) $(-> $ret)? { $body($($arg),*) }
            match isa {
                // SAFETY:
                // - An `Isa` is only put to use where `Isa::is_available` said yes.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Isa::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY:
                // - As above.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Isa::Avx512 => unsafe { avx512($($arg),*) },
                _ => $body($($arg),*),
            }
        }
    };
}
pub(crate) use per_isa;

/// Four f16 as f32. Rust has the intrinsic since 1.94 only, so the instruction is written out.
#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code)]
#[inline(always)]
pub fn widen_f16(bits: std::arch::aarch64::uint16x4_t) -> std::arch::aarch64::float32x4_t {
    let floats;
    // SAFETY:
    // - `fcvtl` from half to single belongs to the target's base; it touches two registers and nothing else.
    unsafe {
        std::arch::asm!("fcvtl {floats:v}.4s, {bits:v}.4h", floats = out(vreg) floats, bits = in(vreg) bits,
            options(pure, nomem, nostack, preserves_flags));
    }
    floats
}

/// f16 to f32 by arithmetic alone, so that loops vectorise: the bits are moved into an f32 2^112 too small, and one exact
/// product puts subnormals right too.
#[inline(always)]
pub(crate) fn half_to_float(h: u16) -> f32 {
    let magnitude = ((h & 0x7fff) as u32) << 13;
    let scaled = f32::from_bits(magnitude) * f32::from_bits(0x7780_0000);
    let special = if h & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(scaled.to_bits() | special | ((h & 0x8000) as u32) << 16)
}

/// Lanes of every floating-point sum.
pub const LANES: usize = 16;

/// Folds sixteen partial sums: lane `i` with `i + 8`, then 4, 2, 1.
#[inline(always)]
pub fn fold_lanes(mut acc: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            acc[i] += acc[i + half];
        }
        half /= 2;
    }
    acc[0]
}

/// The dot product of the numerical contract: lane `i` sums the products at `i, i + 16, ..`, fused, then the tree.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let mut acc = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_tail, b_tail) = (a_chunks.remainder(), b_chunks.remainder());
    for (x, y) in a_chunks.zip(b_chunks) {
        for i in 0..LANES {
            acc[i] = x[i].mul_add(y[i], acc[i]);
        }
    }
    for (i, (x, y)) in a_tail.iter().zip(b_tail).enumerate() {
        acc[i] = x.mul_add(*y, acc[i]);
    }
    fold_lanes(acc)
}

#[cfg(test)]
mod tests {
    use super::Isa;

    /// `LICHEN_EXPECT_ISA` names what `detect` must find: an emulator that lacks an extension would otherwise pass its
    /// tests without having run them.
    #[test]
    fn the_best_instruction_set_here_is_found_and_is_the_expected_one() {
        let found = Isa::detect();
        assert!(found.is_available());
        println!("best instruction set here: {}", found.name());
        if let Ok(expected) = std::env::var("LICHEN_EXPECT_ISA") {
            assert_eq!(found.name(), expected);
        }
    }
}
