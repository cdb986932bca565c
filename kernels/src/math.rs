//! Elementary functions with one definition for every instruction set: plain arithmetic, so loops over them vectorise
//! and every machine gives the same bits.

/// Adding and subtracting 1.5 * 2^23 rounds an f32 below 2^22 to the nearest integer.
const ROUND: f32 = 12_582_912.0;

/// e^x within 2 units in the last place; 0 below -87.3, infinity above 88.7, NaN stays NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Cody and Waite: x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts, the first exact in 9 bits.
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.4, 88.8);
    let n = clamped.mul_add(std::f32::consts::LOG2_E, ROUND) - ROUND;
    let r = n.mul_add(-LN2_LO, n.mul_add(-LN2_HI, clamped));
    // Taylor to r^7: the first term left out is below 2^-24 for |r| <= 0.3466.
    let mut p = 1.0f32 / 5040.0;
    p = p.mul_add(r, 1.0 / 720.0);
    p = p.mul_add(r, 1.0 / 120.0);
    p = p.mul_add(r, 1.0 / 24.0);
    p = p.mul_add(r, 1.0 / 6.0);
    p = p.mul_add(r, 0.5);
    p = p.mul_add(r, 1.0);
    p = p.mul_add(r, 1.0);
    // 2^n in two factors, so that n = 128 and n = -126 neither overflow nor vanish.
    let half = (n * 0.5).mul_add(1.0, ROUND) - ROUND;
    let value = p * power_of_two(half) * power_of_two(n - half);
    if x > 88.722_84 {
        f32::INFINITY
    } else if x < -87.336_54 {
        0.0
    } else {
        value
    }
}

/// 2^n for a whole n in -126..=127. NaN gives some number: the caller's product stays NaN through the other factor.
#[inline(always)]
fn power_of_two(n: f32) -> f32 {
    // The low bits of n + 1.5 * 2^23 are n in two's complement.
    let biased = (n + ROUND).to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    f32::from_bits(biased << 23)
}

/// The logistic function times x (SwiGLU's gate).
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// GELU, tanh approximation (Gemma's gate): 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
#[inline(always)]
pub fn gelu_tanh(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    let inner = SQRT_2_OVER_PI * (0.044_715 * x * x).mul_add(x, x);
    // 0.5 (1 + tanh y) = 1 / (1 + e^-2y): one exponential and no cancellation.
    x / (1.0 + exp(-2.0 * inner))
}

/// [`silu`] and its derivative: s + x s (1 - s) for s = 1 / (1 + e^-x).
#[inline(always)]
pub fn silu_and_slope(x: f32) -> (f32, f32) {
    let s = 1.0 / (1.0 + exp(-x));
    (x * s, s * (1.0 - s).mul_add(x, 1.0))
}

/// [`gelu_tanh`] and its derivative: x s has s + 2 x s (1 - s) y' for s = 1 / (1 + e^-2y), y' = sqrt(2/pi) (1 + 3 * 0.044715 x^2).
#[inline(always)]
pub fn gelu_tanh_and_slope(x: f32) -> (f32, f32) {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    let square = 0.044_715 * x * x;
    let y = SQRT_2_OVER_PI * square.mul_add(x, x);
    let dy = SQRT_2_OVER_PI * 3.0f32.mul_add(square, 1.0);
    let s = 1.0 / (1.0 + exp(-2.0 * y));
    // Where s is 0 or 1 the slope is too; the product with a large x would be 0 times infinity.
    let bend = s * (1.0 - s);
    let bend = if bend > 0.0 { 2.0 * x * bend * dy } else { 0.0 * bend };
    (x * s, s + bend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_of_the_f64_value() {
        for i in -87_000..88_700 {
            let x = i as f32 * 0.001;
            let want = (x as f64).exp();
            let ulp = (want as f32).to_bits();
            let unit = (f32::from_bits(ulp + 1) - f32::from_bits(ulp)) as f64;
            let error = (exp(x) as f64 - want).abs() / unit;
            assert!(error <= 2.0, "exp({x}): {} instead of {want}, {error} units", exp(x));
        }
    }

    #[test]
    fn the_ends_of_the_range_are_exact_and_nan_stays() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(1e30), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn gates_match_their_f64_formulas() {
        for i in -4000..4000 {
            let x = i as f32 * 0.01;
            let y = x as f64;
            let gelu = 0.5 * y * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (y + 0.044715 * y * y * y)).tanh());
            let silu_want = y / (1.0 + (-y).exp());
            // Both are x times a logistic value in 0..1, which is good to a few units of 2^-24.
            assert!((gelu_tanh(x) as f64 - gelu).abs() <= 4e-7 * y.abs(), "gelu({x})");
            assert!((silu(x) as f64 - silu_want).abs() <= 4e-7 * y.abs(), "silu({x})");
        }
    }
}
