//! How high a statistic gets once in a long while: peaks over threshold, with a generalised Pareto tail.
//!
//! What is fed are maxima over blocks of readings of one car, so that neighbours in time do not count as independent. The tail's shape and
//! scale come from probability-weighted moments (Hosking & Wallis 1987), robust where maximum likelihood is not: few peaks.

/// So many of the highest maxima are kept.
const KEPT: usize = 4096;
/// The tail is fitted to this part of the maxima at the most, and to no fewer than `FEWEST` of them.
const TAIL_PART: f64 = 0.1;
const FEWEST: usize = 20;
/// Shapes beyond these say more about a short sample than about the tail.
const SHAPE: (f64, f64) = (-0.25, 0.3);

/// The highest block maxima of a statistic.
#[derive(Debug, Clone, Default)]
pub(super) struct Peaks {
    highest: Vec<f32>,
    blocks: u64,
}

impl Peaks {
    /// Takes the maximum of another block.
    pub fn push(&mut self, maximum: f32) {
        self.blocks += 1;
        if maximum.is_finite() {
            self.highest.push(maximum);
        }
        if self.highest.len() >= 2 * KEPT {
            self.cut();
        }
    }

    /// How many blocks there were.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The level that one block in `1 / probability` exceeds; `None` without any block.
    pub fn level(&mut self, probability: f64) -> Option<f32> {
        self.cut();
        let sorted = &self.highest;
        let most = (self.blocks as f64 * TAIL_PART) as usize;
        let count = most.max(FEWEST).min(sorted.len().saturating_sub(1));
        let &top = sorted.first()?;
        if count < FEWEST {
            // Too few to fit anything: the highest there was, and half as much again.
            return Some(top * 1.5);
        }
        let base = f64::from(sorted[count]);
        let excesses: Vec<f64> = sorted[..count].iter().rev().map(|&peak| f64::from(peak) - base).collect();
        let (shape, scale) = pareto(&excesses);
        let ratio = count as f64 / (self.blocks as f64 * probability);
        if ratio <= 1.0 {
            let rank = (self.blocks as f64 * probability) as usize;
            return Some(sorted[rank.min(sorted.len() - 1)]);
        }
        let excess = if shape.abs() < 1e-6 { scale * ratio.ln() } else { scale / shape * (ratio.powf(shape) - 1.0) };
        Some((base + excess) as f32)
    }

    /// Sorts the maxima, highest first, and forgets those below the `KEPT` highest.
    fn cut(&mut self) {
        self.highest.sort_unstable_by(|a, b| b.total_cmp(a));
        self.highest.truncate(KEPT);
    }
}

/// Shape and scale of the generalised Pareto distribution of these excesses, ascending, by probability-weighted moments.
fn pareto(excesses: &[f64]) -> (f64, f64) {
    let n = excesses.len() as f64;
    let mean = excesses.iter().sum::<f64>() / n;
    let weighted = excesses.iter().enumerate().map(|(i, x)| (1.0 - (i as f64 + 1.0 - 0.35) / n) * x).sum::<f64>() / n;
    let shape = (2.0 - mean / (mean - 2.0 * weighted)).clamp(SHAPE.0, SHAPE.1);
    let shape = if shape.is_finite() { shape } else { 0.0 };
    (shape, mean * (1.0 - shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    fn exponential(n: usize) -> Peaks {
        let mut random = rand_pcg::Pcg64Mcg::seed_from_u64(1);
        let mut peaks = Peaks::default();
        for _ in 0..n {
            peaks.push(-random.random_range(f32::MIN_POSITIVE..1.0).ln());
        }
        peaks
    }

    #[test]
    fn the_level_of_an_exponential_tail_is_found_within_and_beyond_the_sample() {
        let mut peaks = exponential(10_000);
        for probability in [1e-2, 1e-3, 1e-5] {
            let level = f64::from(peaks.level(probability).unwrap());
            let truth = -f64::ln(probability);
            assert!((level / truth - 1.0).abs() < 0.15, "{probability}: {level} is not about {truth}");
        }
    }

    #[test]
    fn a_rarer_level_is_never_lower() {
        let mut peaks = exponential(500);
        let levels: Vec<f32> = (1..60).map(|n| peaks.level(0.5f64.powi(n)).unwrap()).collect();
        assert!(levels.is_sorted(), "{levels:?}");
    }

    #[test]
    fn few_blocks_give_a_level_above_all_of_them_and_none_gives_none() {
        let mut peaks = Peaks::default();
        assert_eq!(peaks.level(0.1), None);
        peaks.push(2.0);
        peaks.push(f32::NAN);
        assert_eq!(peaks.level(0.1), Some(3.0));
    }

    #[test]
    fn a_statistic_that_never_moves_has_its_value_for_a_level() {
        let mut peaks = Peaks::default();
        (0..1000).for_each(|_| peaks.push(0.5));
        assert_eq!(peaks.level(1e-6), Some(0.5));
    }
}
