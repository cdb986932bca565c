//! Single instructions against plain arithmetic.

use half::{bf16, f16};

use crate::raw::{self, Arg, Device};

/// Values at which conversions go wrong: ends of ranges, ties, subnormals, and draws.
fn floats() -> Vec<f32> {
    let mut values =
        vec![0.0, -0.0, 1.0, -1.5, 65504.0, 65519.0, 65520.0, 1e30, -1e30, f32::INFINITY, f32::NEG_INFINITY];
    values.extend([0.5, 1.5, 2.5, -2.5, 2147483520.0, -2147483648.0, f32::NAN, f32::MIN_POSITIVE, 1e-40]);
    for scale in [2f32.powi(-14), 2f32.powi(-24), 2f32.powi(-25), 2f32.powi(-20), 1.0, 1024.0] {
        for i in 0..40 {
            values.push((1.0 + i as f32 / 4096.0) * scale);
            values.push(-(i as f32) * 0.5 * scale);
        }
    }
    values.extend(words(400, 1).into_iter().map(f32::from_bits));
    values
}

/// Draws of 32 bits.
fn words(n: usize, seed: u64) -> Vec<u32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    };
    (0..n).map(|_| next()).collect()
}

#[test]
fn conversions_round_to_even() {
    if !raw::is_ready() {
        return;
    }
    let device = Device::open(0);
    let x = floats();
    let out = device.alloc(x.len() * 16);
    let kernel = device.kernel("emulator_conversions", "u64 u64 u32");
    let args = [Arg::Ptr(out), Arg::Ptr(device.upload(&x)), Arg::U32(x.len() as u32)];
    device.run(kernel, x.len().div_ceil(64) as u32, 64, 0, &args);
    for (x, got) in x.iter().zip(device.download::<u32>(out, x.len() * 4).chunks(4)) {
        if x.is_nan() {
            let (half, back, brain) = (f16::from_bits(got[0] as u16), f32::from_bits(got[1]), got[2] as u16);
            assert!(half.is_nan() && back.is_nan() && bf16::from_bits(brain).is_nan(), "{x}: {got:x?}");
            continue;
        }
        let half = f16::from_f32(*x);
        let whole = x.round_ties_even().clamp(-2147483648.0, 2147483647.0) as i32;
        let want = [half.to_bits().into(), half.to_f32().to_bits(), bf16::from_f32(*x).to_bits().into(), whole as u32];
        assert_eq!(got, want, "{x}");
    }
}

/// a * b + c of f16, rounded once. In f64 the product is exact, and so is the sum unless the terms are far apart; then
/// the smaller can only tip a tie, so it is made to count as less than a unit.
fn fma_half(a: f16, b: f16, c: f16) -> f16 {
    let (product, c) = (a.to_f64() * b.to_f64(), c.to_f64());
    let sum = product + c;
    let error = if product.abs() > c.abs() { c - (sum - product) } else { product - (sum - c) };
    let nudged = match error {
        e if !sum.is_finite() || e == 0.0 || sum.to_bits() & 1 == 1 => sum,
        e if (e > 0.0) == (sum > 0.0) => f64::from_bits(sum.to_bits() + 1),
        _ => f64::from_bits(sum.to_bits() - 1),
    };
    f16::from_f64(nudged)
}

fn packed(f: impl Fn(f16, f16, f16) -> f16, a: u32, b: u32, c: u32) -> [f16; 2] {
    [0, 16].map(|shift| {
        let part = |v: u32| f16::from_bits((v >> shift) as u16);
        f(part(a), part(b), part(c))
    })
}

fn permuted(a: u32, b: u32, selector: u32) -> u32 {
    let bytes: Vec<u8> = a.to_le_bytes().into_iter().chain(b.to_le_bytes()).collect();
    let pick = |i: u32| {
        let nibble = selector >> (4 * i) & 15;
        let byte = bytes[(nibble & 7) as usize];
        if nibble & 8 == 0 {
            byte
        } else {
            ((byte as i8) >> 7) as u8
        }
    };
    u32::from_le_bytes([0, 1, 2, 3].map(pick))
}

#[test]
fn packed_instructions_are_exact() {
    if !raw::is_ready() {
        return;
    }
    for (ordinal, arch) in [raw::DEVICES[0], raw::DEVICES[1]] {
        let device = Device::open(ordinal);
        let n = 4000;
        let (a, mut b, mut c) = (words(n, 1), words(n, 2), words(n, 3));
        // f16 near one another, whose sums cancel and round.
        for i in 0..n / 2 {
            b[i] = b[i] & 0x83ff_83ff | 0x3800_3800;
            c[i] = a[i] ^ 0x8000_8000 ^ (c[i] & 0x000f_000f);
        }
        let out = device.alloc(n * 32);
        let kernel = device.kernel("emulator_packed", "u64 u64 u64 u64 u32");
        let at = [&a, &b, &c].map(|v| Arg::Ptr(device.upload(v)));
        let [at_a, at_b, at_c] = at;
        device.run(kernel, n.div_ceil(64) as u32, 64, 0, &[Arg::Ptr(out), at_a, at_b, at_c, Arg::U32(n as u32)]);
        let got = device.download::<u32>(out, n * 8);
        for (i, got) in got.chunks(8).enumerate() {
            let (a, b, c) = (a[i], b[i], c[i]);
            let low = |v: u32| i32::from(v as i16);
            let what = format!("{a:#010x} {b:#010x} {c:#010x}");
            assert_eq!(got[0], permuted(a, b, c), "prmt {what}");
            assert_eq!(got[1] as i32, (low(a) * low(b)).wrapping_add(c as i32), "mad low {what}");
            assert_eq!(got[2] as i32, (low(a >> 16) * low(b >> 16)).wrapping_add(c as i32), "mad high {what}");
            let f16s = [
                packed(fma_half, a, b, c),
                packed(|a, b, _| fma_half(a, f16::ONE, b), a, b, c),
                packed(|a, b, _| fma_half(a, b, f16::NEG_ZERO), a, b, c),
            ];
            for (j, want) in f16s.into_iter().enumerate() {
                for (shift, want) in [0, 16].into_iter().zip(want) {
                    let got = f16::from_bits((got[3 + j] >> shift) as u16);
                    let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
                    assert!(same, "f16s, instruction {j}: {got:?}, expected {want:?}: {what}");
                }
            }
            let fused = f32::from_bits(a).mul_add(f32::from_bits(b), f32::from_bits(c));
            let same = got[6] == fused.to_bits() || fused.is_nan() && f32::from_bits(got[6]).is_nan();
            assert!(same, "fma {what}");
            let bytes = |v: u32| v.to_le_bytes().map(|b| i32::from(b as i8));
            let dot: i32 = bytes(a).iter().zip(bytes(b)).map(|(a, b)| a * b).sum();
            let want = if arch >= 72 { dot.wrapping_add(c as i32) as u32 } else { 0 };
            assert_eq!(got[7], want, "dp4a {what}");
        }
    }
}

#[test]
fn lanes_get_what_lanes_gave() {
    if !raw::is_ready() {
        return;
    }
    let device = Device::open(0);
    let out = device.alloc(128 * 4);
    let kernel = device.kernel("emulator_lanes", "u64 u32 u32");
    for (mask, bits) in [(0, 0), (1, 0x8000_0001), (5, 0xdead_beef), (31, u32::MAX)] {
        device.run(kernel, 1, 32, 0, &[Arg::Ptr(out), Arg::U32(mask), Arg::U32(bits)]);
        let got = device.download::<u32>(out, 128);
        for lane in 0..32 {
            let want = [(lane ^ mask) * 3, (lane * 5 + mask) % 32 * 3, bits, 7f32.to_bits()];
            let got = [0, 32, 64, 96].map(|row| got[row + lane as usize]);
            assert_eq!(got, want, "lane {lane}, mask {mask}");
        }
    }
}
