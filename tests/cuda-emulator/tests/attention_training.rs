//! Attention of whole sequences for training, on every architecture: near f64, the same bits every time and in every batch.

mod common;
mod oracle;
mod sequences;

use lichen_kernels::ops::attention::train::Starts;
use lichen_kernels::Device;
use oracle::{assert_same_bits, for_each_arch};
use sequences::{expected, run, Case, Inputs, Results, Roundings};

const ALL: usize = usize::MAX;

const fn case(t: usize, heads: (usize, usize, usize), window: usize) -> Case {
    let (n_heads, n_kv_heads, head_dim) = heads;
    Case { t, n_heads, n_kv_heads, head_dim, window, size: 1.5 }
}

/// Around the tiles of 16, 32 and 64 rows; heads of Gemma 3 1B and Qwen 2.5 among them.
const CASES: [Case; 16] = [
    case(1, (1, 1, 16), 1),
    case(1, (2, 1, 256), ALL),
    case(2, (1, 1, 8), ALL),
    case(31, (4, 2, 32), 7),
    case(32, (2, 1, 64), ALL),
    case(33, (7, 1, 64), 1),
    case(63, (2, 2, 24), 64),
    case(64, (4, 1, 128), ALL),
    case(65, (2, 1, 128), 33),
    case(65, (1, 1, 80), 64),
    case(100, (4, 1, 96), 7),
    case(100, (7, 1, 128), 64),
    case(100, (4, 1, 256), ALL),
    case(97, (2, 1, 200), 40),
    case(129, (14, 2, 64), ALL),
    case(161, (2, 1, 16), 64),
];

/// How far off a sum of many roundings may be, in deviations: the 10^6 of these tests stay below six.
const DEVIATIONS: f64 = 8.0;

/// f32 throughout.
const EXACT: Roundings = Roundings { inner: 0.0, gradient: 0.0 };

/// Two bf16 leave out 2^-18 of a number at most, and their products the rests' own, a third of that; one bf16 leaves out 2^-9
/// at most. The deviation of a product of two is about as much as the most that one factor is off.
const SPLIT: Roundings = Roundings { inner: 1.0 / (1 << 18) as f64, gradient: 1.0 / (1 << 9) as f64 };

fn roundings(arch: u32) -> Roundings {
    if arch >= 80 {
        SPLIT
    } else {
        EXACT
    }
}

fn check(device: &Device, arch: u32, c: &Case) {
    let inputs = Inputs::new(c);
    let got = run(device, c, &inputs, None);
    for ((name, got), want) in got.parts().into_iter().zip(expected(c, &inputs, roundings(arch))) {
        assert_eq!(got.len(), want.len(), "sm_{arch} {c:?}: {name}");
        for (i, (got, (want, variance))) in got.iter().zip(&want).enumerate() {
            let (error, bound) = ((*got as f64 - want).abs(), DEVIATIONS * variance.sqrt() + 1e-30);
            let fits = error <= bound;
            assert!(fits, "sm_{arch} {c:?}: {name}[{i}] is {got}, {want} expected within {bound:e}; off by {error:e}");
        }
    }
}

#[test]
fn both_passes_equal_f64() {
    for_each_arch(|device, arch| {
        // The architectures between the oldest and the newest have the kernels of one of them: a few cases do.
        let every = if matches!(arch, 53 | 90) { 1 } else { 4 };
        CASES.iter().step_by(every).for_each(|c| check(device, arch, c));
    });
}

/// Scores of hundreds, as large keys give: the softmax is nearly one key's.
#[test]
fn large_scores_lose_no_more_than_their_rounding() {
    for_each_arch(|device, arch| check(device, arch, &Case { size: 12.0, ..case(70, (2, 1, 64), ALL) }));
}

fn assert_same(got: &Results, want: &Results, what: &str) {
    for ((name, got), (_, want)) in got.parts().into_iter().zip(want.parts()) {
        assert_same_bits(got, want, &format!("{what}: {name}"));
    }
}

#[test]
fn twice_the_same_bits() {
    for_each_arch(|device, arch| {
        for c in [case(100, (4, 2, 64), 50), case(70, (2, 1, 256), ALL)] {
            let inputs = Inputs::new(&c);
            let first = run(device, &c, &inputs, None);
            assert_same(&run(device, &c, &inputs, None), &first, &format!("sm_{arch} {c:?}"));
        }
    });
}

/// The rows `first..first + t` of an array whose rows are `width` wide.
fn rows(x: &[f32], first: usize, t: usize, width: usize) -> Vec<f32> {
    x[first * width..(first + t) * width].to_vec()
}

/// The CPU's too.
#[test]
fn a_batch_is_its_sequences() {
    let lengths = [65, 1, 33, 100, 0, 7];
    let check = |device: &Device, what: &str| {
        for heads in [(4, 2, 64), (2, 1, 136)] {
            let (t, window) = (lengths.iter().sum(), 40);
            let c = case(t, heads, window);
            let inputs = Inputs::new(&c);
            let mut sequences = Vec::new();
            for n in lengths {
                let first = sequences.last().map_or(0, |rows: &std::ops::Range<usize>| rows.end);
                sequences.push(first..first + n);
            }
            let mut starts = Starts::new(device, 8).unwrap();
            starts.set(&sequences);
            let all = run(device, &c, &inputs, Some(&starts));
            let (wide, narrow) = (c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim);
            for s in sequences.iter().filter(|s| !s.is_empty()) {
                let part = |x: &[f32], width: usize| rows(x, s.start, s.len(), width);
                let alone = Inputs {
                    q: part(&inputs.q, wide),
                    k: part(&inputs.k, narrow),
                    v: part(&inputs.v, narrow),
                    dout: part(&inputs.dout, wide),
                };
                let want = run(device, &case(s.len(), heads, window), &alone, None);
                let got = Results {
                    out: part(&all.out, wide),
                    stats: part(&all.stats, 2 * c.n_heads),
                    dq: part(&all.dq, wide),
                    dk: part(&all.dk, narrow),
                    dv: part(&all.dv, narrow),
                };
                assert_same(&got, &want, &format!("{what} {c:?} {s:?}"));
            }
        }
    };
    check(&oracle::cpu(), "cpu");
    for_each_arch(|device, arch| check(device, &format!("sm_{arch}")));
}

/// Which rows of an array of rows `width` wide hold a NaN.
fn nan_rows(x: &[f32], width: usize) -> Vec<usize> {
    (0..x.len() / width).filter(|i| x[i * width..(i + 1) * width].iter().any(|v| v.is_nan())).collect()
}

/// What is not a number comes out wherever it counts; other queries may get one that lies in their tile of values.
#[test]
fn nan_comes_out() {
    for_each_arch(|device, arch| {
        let (c, at) = (case(70, (1, 1, 64), ALL), 40);
        let clean = Inputs::new(&c);
        for (name, backward_only) in [("q", false), ("k", false), ("v", false), ("dout", true)] {
            let mut inputs = clean.clone();
            let x = match name {
                "q" => &mut inputs.q,
                "k" => &mut inputs.k,
                "v" => &mut inputs.v,
                _ => &mut inputs.dout,
            };
            x[at * c.head_dim + 5] = f32::NAN;
            let got = run(device, &c, &inputs, None);
            let [out, dq, dk, dv] = [&got.out, &got.dq, &got.dk, &got.dv].map(|x| nan_rows(x, c.head_dim));
            let what = format!("sm_{arch}, NaN in {name}: out {out:?}, dq {dq:?}, dk {dk:?}, dv {dv:?}");
            assert_eq!(out.contains(&at), !backward_only, "{what}");
            assert_eq!(out.contains(&69), name == "k" || name == "v", "{what}");
            assert!(dq.contains(&at) && dk.contains(&at), "{what}");
            assert!(name == "v" || !out.contains(&0), "{what}");
        }
    });
}
