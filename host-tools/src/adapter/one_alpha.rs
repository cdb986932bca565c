//! Both formats have one alpha for all pairs and scale each by alpha / rank. An adapter whose scales follow no single alpha
//! is brought to one by multiplying the B of the pairs that differ.

use lichen_runtime::files::adapter_file::AdapterTarget;

/// Pairs that are scaled by `alpha / rank`, whatever they say themselves.
pub struct OneAlpha {
    pub alpha: f32,
    pub targets: Vec<AdapterTarget>,
    /// Pairs whose B was multiplied.
    pub n_folded: usize,
}

impl OneAlpha {
    /// Takes the alpha that is right for most pairs as they are.
    pub fn of(mut targets: Vec<AdapterTarget>) -> OneAlpha {
        let alpha = common_alpha(&targets);
        let mut n_folded = 0;
        for target in &mut targets {
            let scale = alpha / target.rank as f32;
            if scale != target.scale {
                // In f64: one rounding for each value.
                let factor = target.scale as f64 / scale as f64;
                target.b.iter_mut().for_each(|b| *b = (*b as f64 * factor) as f32);
                target.scale = scale;
                n_folded += 1;
            }
        }
        OneAlpha { alpha, targets, n_folded }
    }
}

/// The first of the alphas that give the most pairs their scale exactly.
fn common_alpha(targets: &[AdapterTarget]) -> f32 {
    let mut candidates: Vec<f32> = Vec::new();
    for target in targets {
        let alpha = alpha_of(target.scale, target.rank);
        if !candidates.contains(&alpha) {
            candidates.push(alpha);
        }
    }
    let n_right = |alpha: f32| targets.iter().filter(|t| alpha / t.rank as f32 == t.scale).count();
    let mut best = candidates[0];
    for alpha in candidates {
        if n_right(alpha) > n_right(best) {
            best = alpha;
        }
    }
    best
}

/// The alpha with `alpha / rank == scale` in f32 where there is one, else the nearest. Rounding the quotient moved it by half
/// a unit in the last place at most, which is up to two units of alpha; of several, a whole number is what was meant.
fn alpha_of(scale: f32, rank: usize) -> f32 {
    let nearest = scale * rank as f32;
    let neighbours = [nearest.round(), nearest, nearest.next_up(), nearest.next_down()];
    let further = [neighbours[2].next_up(), neighbours[3].next_down()];
    let exact = |alpha: &f32| alpha / rank as f32 == scale;
    neighbours.into_iter().chain(further).find(|alpha| *alpha > 0.0 && exact(alpha)).unwrap_or(nearest)
}

#[cfg(test)]
mod tests {
    use lichen_runtime::Part;

    use super::*;

    fn target(rank: usize, scale: f32) -> AdapterTarget {
        AdapterTarget { part: Part::AttnQ, layer: 0, rank, scale, a: vec![1.0; rank], b: vec![0.75; 3 * rank] }
    }

    #[test]
    fn the_alpha_that_was_meant_is_found() {
        for rank in 1..=256 {
            for alpha in [0.1f32, 1.0, 3.0, 7.3, 8.0, 16.0, 31.0, 100.0, 511.0] {
                let found = alpha_of(alpha / rank as f32, rank);
                assert_eq!(found / rank as f32, alpha / rank as f32, "{alpha} / {rank}");
                if alpha.fract() == 0.0 {
                    assert_eq!(found, alpha, "{alpha} / {rank}");
                }
            }
        }
    }

    #[test]
    fn pairs_of_one_alpha_stay_as_they_are() {
        let targets: Vec<_> = [1, 3, 7, 16].into_iter().map(|rank| target(rank, 24.0 / rank as f32)).collect();
        let one = OneAlpha::of(targets.clone());
        assert_eq!((one.alpha, one.n_folded, one.targets), (24.0, 0, targets));
    }

    #[test]
    fn pairs_that_differ_keep_their_product() {
        let one = OneAlpha::of(vec![target(3, 5.0), target(4, 2.0), target(8, 1.0), target(16, 0.3)]);
        assert_eq!((one.alpha, one.n_folded), (8.0, 2));
        let want = [5.0 * 0.75, 2.0 * 0.75, 0.75, 0.3 * 0.75];
        for (target, want) in one.targets.iter().zip(want) {
            assert_eq!(target.scale, 8.0 / target.rank as f32);
            // Two roundings: B's, and this product's.
            let product = target.b[0] * target.scale;
            assert!((product - want).abs() <= want * f32::EPSILON, "{product} for {want}");
        }
    }
}
