//! How large residuals usually are, and how large they get once in a long while: the passes over the held-out readings.

use rustc_hash::FxHashMap;

use super::calibrate::Reading;
use super::calibration::{CarScales, Residuals, SourceKind};
use super::detector::Scratch;
use super::state::CarState;
use super::tail::Peaks;

/// Readings of a block, whose maximum counts as one draw from the tail, of so many readings held out.
///
/// Longer blocks see what is rare as what it is: a manoeuvre driven once an hour makes the tail of blocks of a quarter of an hour,
/// but vanishes among the many peaks of blocks of a minute. They need readings enough to be some hundreds all the same.
pub(super) fn block_length(held_out: u64) -> u32 {
    (held_out / BLOCKS).clamp(64, 1024) as u32
}

/// So many blocks say what a tail is like.
const BLOCKS: u64 = 500;

/// How rarely a block's maximum shall exceed its threshold.
#[derive(Debug)]
pub(super) struct Wish {
    /// That of all sources together;
    together: f64,
    /// those of all channels on their own, together.
    alone: f64,
}

impl Wish {
    /// Half of `probability` is for all sources together, the other half, but never more than half of `strict`, for the channels of
    /// each on its own.
    pub fn new(probability: f64, strict: f64) -> Self {
        Wish { together: probability / 2.0, alone: probability.min(strict) / 2.0 }
    }
}

/// How large residuals usually are: of the fleet, and of each car.
pub(super) struct Sizes {
    s: usize,
    kinds: Vec<SourceKind>,
    /// Readings that count for every source.
    pub held_out: u64,
    fleet: Vec<Moments>,
    cars: FxHashMap<u32, Vec<Moments>>,
}

/// Of the residuals of one source.
#[derive(Clone)]
struct Moments {
    count: f64,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    fn new(n: usize) -> Self {
        Moments { count: 0.0, sum: vec![0.0; n], squares: vec![0.0; n] }
    }

    fn add(&mut self, residuals: &[f32]) {
        self.count += 1.0;
        for ((sum, squares), &r) in self.sum.iter_mut().zip(&mut self.squares).zip(residuals) {
            *sum += f64::from(r);
            *squares += f64::from(r) * f64::from(r);
        }
    }

    fn mean(&self, i: usize) -> f64 {
        self.sum[i] / self.count.max(1.0)
    }

    /// Root mean square.
    fn size(&self, i: usize) -> f64 {
        (self.squares[i] / self.count.max(1.0)).sqrt()
    }

    /// Standard deviation.
    fn around(&self, i: usize) -> f64 {
        (self.squares[i] / self.count.max(1.0) - self.mean(i).powi(2)).max(0.0).sqrt()
    }
}

impl Sizes {
    pub fn new(learned: &Residuals) -> Self {
        let s = learned.mean.len();
        let kinds: Vec<SourceKind> = learned.sources.iter().map(|source| source.kind).collect();
        Sizes { s, held_out: 0, fleet: vec![Moments::new(s); kinds.len()], kinds, cars: FxHashMap::default() }
    }

    pub fn add(&mut self, reading: &Reading<'_>, scratch: &Scratch) {
        let of_model = reading.expected.len() == self.s;
        let whole = of_model || !self.kinds.contains(&SourceKind::Model);
        self.held_out += u64::from(whole);
        let car = self.cars.entry(reading.car).or_insert_with(|| vec![Moments::new(self.s); self.kinds.len()]);
        for (n, residuals) in scratch.residual.chunks_exact(self.s).enumerate() {
            if of_model || self.kinds[n] != SourceKind::Model {
                self.fleet[n].add(residuals);
                car[n].add(residuals);
            }
        }
    }

    pub fn set(&self, learned: &mut Residuals, names: &[String], known_cars: usize) {
        for (source, fleet) in learned.sources.iter_mut().zip(&self.fleet) {
            for i in 0..self.s {
                // Rounding alone leaves residuals of 1e-7 or so of a standard deviation: nothing to stand on.
                let scale = fleet.size(i).max(LEAST_SCALE) as f32;
                source.scale[i] = if learned.deviation[i] > 0.0 { scale } else { 0.0 };
                source.tail[i] = 3.0;
            }
            (source.joint, source.sensor) = (3.0, 1.0);
        }
        learned.together = 3.0;
        if self.cars.len() > known_cars {
            return;
        }
        for (&car, moments) in &self.cars {
            let Some(name) = names.get(car as usize) else { continue };
            let scales = learned.sources.iter().zip(moments).map(|(source, own)| {
                let scaled = |i: usize, x: f64| if source.scale[i] > 0.0 { x as f32 / source.scale[i] } else { 0.0 };
                // Of too few readings nothing is known.
                let known = own.count >= 100.0;
                let bias = (0..self.s).map(|i| if known { scaled(i, own.mean(i)) } else { 0.0 }).collect();
                let spread = |i| if known { scaled(i, own.around(i)).clamp(0.25, 4.0) } else { 1.0 };
                CarScales { bias, spread: (0..self.s).map(spread).collect() }
            });
            learned.cars.insert(name.clone(), scales.collect());
        }
    }
}

/// The least scale of a residual, in standard deviations of its sensor.
const LEAST_SCALE: f64 = 1e-3;

/// What [`Maxima`] are of: each sensor's smoothed residual, or the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Tails,
    Thresholds,
}

/// Block maxima of statistics over held-out readings.
pub(super) struct Maxima {
    stage: Stage,
    s: usize,
    lag_rows: usize,
    tails: Vec<Vec<f32>>,
    rule: (usize, usize),
    block: u32,
    peaks: Vec<Peaks>,
    cars: FxHashMap<u32, Block>,
    statistics: Vec<f32>,
}

struct Block {
    readings: u32,
    maxima: Vec<f32>,
    /// The last `window` values of each statistic.
    recent: Vec<f32>,
}

impl Maxima {
    pub fn new(stage: Stage, s: usize, learned: &Residuals, block: u32) -> Self {
        let sources = learned.sources.len();
        let count = if stage == Stage::Tails { s * sources } else { 2 * sources + 1 };
        Maxima {
            stage,
            s,
            lag_rows: learned.linear.as_ref().map_or(1, |linear| usize::from(linear.lags).max(1)),
            tails: learned.sources.iter().map(|source| source.tail.clone()).collect(),
            rule: (usize::from(learned.breaches.max(1)), usize::from(learned.window.clamp(1, 32))),
            block,
            peaks: vec![Peaks::default(); count],
            cars: FxHashMap::default(),
            statistics: Vec::new(),
        }
    }

    pub fn add(&mut self, car: u32, scratch: &Scratch, state: &CarState) {
        let s = self.s;
        self.statistics.clear();
        for (n, own) in state.planes[self.lag_rows * s..].chunks_exact(3 * s).enumerate() {
            let smoothed = &own[..s];
            match self.stage {
                Stage::Tails => self.statistics.extend(smoothed.iter().map(|e| e.abs())),
                Stage::Thresholds => {
                    let tails = &self.tails[n];
                    let over = |i: usize| if tails[i] > 0.0 { smoothed[i].abs() / tails[i] } else { 0.0 };
                    self.statistics.extend([state.joint[n].sqrt(), (0..s).map(over).fold(0.0, f32::max)]);
                }
            }
        }
        if self.stage == Stage::Thresholds {
            self.statistics.push(scratch.together);
        }
        let count = self.statistics.len();
        let (breaches, window) = if self.stage == Stage::Tails { (1, 1) } else { self.rule };
        let block = self.cars.entry(car).or_insert_with(|| Block {
            readings: 0,
            maxima: vec![0.0; count],
            recent: vec![0.0; count * window],
        });
        let slot = block.readings as usize % window;
        for (c, &statistic) in self.statistics.iter().enumerate() {
            let recent = &mut block.recent[c * window..(c + 1) * window];
            recent[slot] = statistic;
            // What `breaches` of the last `window` readings reached: the level at which this reading opens an episode.
            let reached = if window == 1 {
                statistic
            } else {
                let mut sorted = [0.0f32; 32];
                sorted[..window].copy_from_slice(recent);
                sorted[..window].sort_unstable_by(|a, b| b.total_cmp(a));
                sorted[breaches.min(window) - 1]
            };
            block.maxima[c] = block.maxima[c].max(reached);
        }
        block.readings += 1;
        if block.readings.is_multiple_of(self.block) {
            self.peaks
                .iter_mut()
                .zip(&mut block.maxima)
                .for_each(|(peaks, maximum)| peaks.push(std::mem::take(maximum)));
        }
    }

    pub fn set(mut self, learned: &mut Residuals, wish: &Wish) {
        // Cars with less than a block of readings still count, if there is nothing else.
        if self.peaks.first().is_none_or(|peaks| peaks.blocks() == 0) {
            for block in self.cars.values() {
                self.peaks.iter_mut().zip(&block.maxima).for_each(|(peaks, &maximum)| peaks.push(maximum));
            }
        }
        let s = self.s;
        let own = wish.alone / (2 * learned.sources.len()) as f64;
        for (n, source) in learned.sources.iter_mut().enumerate() {
            match self.stage {
                Stage::Tails => {
                    for i in 0..s {
                        // Only to weigh the sensors against each other: as rare as was seen, not as is wished. Extrapolated
                        // one by one, they would be weighed by how their few highest peaks happened to fall.
                        let peaks = &mut self.peaks[n * s + i];
                        let level = peaks.level(own.max(SEEN / peaks.blocks().max(1) as f64)).unwrap_or(0.0);
                        source.tail[i] = if source.scale[i] > 0.0 { level.max(LEAST_TAIL) } else { 0.0 };
                    }
                }
                Stage::Thresholds => {
                    let mut level = |c: usize| self.peaks[2 * n + c].level(own).unwrap_or(0.0);
                    source.joint = MARGIN * level(0).max(LEAST_JOINT);
                    source.sensor = MARGIN * level(1).max(LEAST_SENSOR);
                }
            }
        }
        if self.stage == Stage::Thresholds
            && let Some(peaks) = self.peaks.last_mut()
        {
            learned.together = peaks.level(wish.together).unwrap_or(0.0).max(LEAST_JOINT);
        }
    }
}

/// So many peaks of a sensor are above its tail, at least.
const SEEN: f64 = 10.0;
/// A channel on its own is heard only this much above the level that held-out readings set it: what it stands for, one sensor or one
/// source, changes more between now and then than all of them together.
const MARGIN: f32 = 1.5;
/// No sensor is off before its smoothed residual is this many times its usual size, however quiet the held-out readings were;
const LEAST_TAIL: f32 = 0.5;
/// the largest of several is about as high as each is on its own;
const LEAST_SENSOR: f32 = 0.7;
/// and no reading as a whole before the root mean square of its residuals is.
const LEAST_JOINT: f32 = 1.2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_grow_with_the_readings_there_are_and_stay_within_bounds() {
        assert_eq!([0, 32_000, 64_000, 256_000, u64::MAX].map(block_length), [64, 64, 128, 512, 1024]);
    }

    #[test]
    fn a_wish_for_more_episodes_is_granted_to_all_sources_together_and_not_to_each_alone() {
        let (usual, more, fewer) = (Wish::new(1e-4, 1e-4), Wish::new(1e-2, 1e-4), Wish::new(1e-6, 1e-4));
        assert_eq!((usual.together, usual.alone), (5e-5, 5e-5));
        assert_eq!((more.together, more.alone), (5e-3, 5e-5));
        assert_eq!((fewer.together, fewer.alone), (5e-7, 5e-7));
    }
}
