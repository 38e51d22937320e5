//! How a [`Calibration`] is learned: the linear companion from training readings, scales and thresholds from held-out ones.
//!
//! Readings are streamed, several times over; memory is a few numbers per car and sensor, whatever the number of readings.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use thiserror::Error;

use super::calibration::{Calibration, CarScales, Linear, Residuals, Source, SourceKind};
use super::detector::{DetectError, Detector, Scratch};
use super::linear::Square;
use super::state::CarState;
use super::tail::Peaks;
use crate::telemetry::Schema;

/// A block of readings whose maximum counts as one draw from the tail.
const BLOCK: u32 = 64;
/// Multiply-adds that a fit may cost; beyond, it looks at every second reading, third, …
const WORK: u64 = 20_000_000_000;
/// Wider readings than this are predicted from each sensor's own past alone.
const WIDEST: usize = 64;

/// What is to be learned, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// False episodes per car-day that the thresholds aim at.
    pub target: f64,
    /// Earlier readings that predict the next, 0 (no linear companion) to 3.
    pub lags: u8,
    /// Weight of the newest residual in the moving averages.
    pub smoothing: f32,
    /// Breaches among the last `window` readings that open an episode.
    pub breaches: u8,
    /// See `breaches`.
    pub window: u8,
    /// Readings without a breach that close one.
    pub quiet: u16,
    /// Residuals smaller than this are none, per sensor in raw units; empty: all count.
    pub immaterial: Vec<f32>,
    /// Learn scales of each car by its name; if there are more cars than this, of none.
    pub known_cars: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            target: 0.02,
            lags: 3,
            smoothing: 0.3,
            breaches: 2,
            window: 3,
            quiet: 30,
            immaterial: Vec::new(),
            known_cars: 0,
        }
    }
}

/// Which readings a pass is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Those the model learned from. Their `expected` may be empty.
    Training,
    /// Those it has not seen. Their `expected` is what it expects, if it is a model that does.
    HeldOut,
}

/// One reading of a pass. The readings of a car come in the order of their time; cars may alternate.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// The car, numbered from 0 in the order of [`calibrate`]'s `names`.
    pub car: u32,
    /// Event time.
    pub time_ms: i64,
    /// `[S]` in raw units, a gap is NaN.
    pub values: &'a [f32],
    /// `[S]` in raw units, or empty.
    pub expected: &'a [f32],
}

/// Why nothing could be learned.
#[derive(Debug, Error)]
pub enum CalibrateError<E> {
    /// The readings could not be read.
    #[error(transparent)]
    Readings(E),
    /// Not enough of them.
    #[error("{part} readings: {found}; at least {needed} are needed to set thresholds")]
    TooFew {
        /// `training` or `held-out`.
        part: &'static str,
        /// How many there are.
        found: u64,
        /// How many are needed.
        needed: u64,
    },
    /// Nothing varies.
    #[error("no sensor varies in the training readings: there is nothing to learn")]
    Constant,
    /// What was learned cannot be used.
    #[error(transparent)]
    Detect(#[from] DetectError),
}

/// Learns how readings of `schema` are judged.
///
/// `pass` streams the readings of a part into its argument, and is called several times. `names` are the cars' names by
/// number; it may be empty if [`Options::known_cars`] is 0.
pub fn calibrate<E>(
    schema: &Schema,
    names: &[String],
    options: &Options,
    mut pass: impl FnMut(Part, &mut dyn FnMut(Reading<'_>)) -> Result<(), E>,
) -> Result<Calibration, CalibrateError<E>> {
    let s = schema.width();
    let mut usual = Usual::new(s);
    pass(Part::Training, &mut |reading| usual.add(&reading)).map_err(CalibrateError::Readings)?;
    if usual.readings < 30 {
        return Err(CalibrateError::TooFew { part: "training", found: usual.readings, needed: 30 });
    }
    let (mean, deviation) = usual.mean_and_deviation();
    if deviation.iter().all(|&deviation| deviation == 0.0) {
        return Err(CalibrateError::Constant);
    }
    let mut learned = Residuals {
        interval_ms: usual.interval_ms(),
        target: options.target,
        breaches: options.breaches,
        window: options.window,
        quiet: options.quiet,
        smoothing: options.smoothing,
        mean,
        deviation,
        immaterial: options.immaterial.clone(),
        stuck_after: usual.stuck_after(),
        together: f32::MAX,
        linear: None,
        sources: Vec::new(),
        cars: BTreeMap::new(),
    };
    let lags = lags_worth_fitting(options.lags, s, usual.readings);
    if lags > 0 {
        let mut fit = Fit::new(&learned, lags, usual.readings);
        pass(Part::Training, &mut |reading| fit.add(&reading)).map_err(CalibrateError::Readings)?;
        learned.linear = fit.solve();
    }

    // Scales: what the residuals of each source usually are, measured by a detector of unit scales.
    let mut expects = false;
    pass(Part::HeldOut, &mut |reading| expects |= reading.expected.len() == s).map_err(CalibrateError::Readings)?;
    let unit = |kind| Source { kind, scale: vec![1.0; s], tail: vec![1.0; s], joint: f32::MAX, sensor: f32::MAX };
    learned.sources.extend(expects.then(|| unit(SourceKind::Model)));
    if let Some(linear) = &mut learned.linear {
        learned.sources.push(unit(SourceKind::Lagged));
        if expects {
            // A model already expects of each sensor what the others say, and knows more than straight lines.
            linear.conditional.clear();
        } else if !linear.conditional.is_empty() {
            learned.sources.push(unit(SourceKind::Conditional));
        }
    }
    let mut sizes = Sizes::new(&learned);
    // A companion of some hundred coefficients fits readings it has seen hardly better than others: it is measured on all.
    let both = [Part::Training, Part::HeldOut];
    run(schema, names, &learned, &both, true, &mut pass, |reading, scratch, _| sizes.add(reading, scratch))?;
    if sizes.held_out < 30 {
        return Err(CalibrateError::TooFew { part: "held-out", found: sizes.held_out, needed: 30 });
    }
    sizes.set(&mut learned, names, options.known_cars);

    // Tails of each sensor, then thresholds of the channels built on them.
    let blocks_per_day = 86_400_000.0 / (f64::from(learned.interval_ms.max(1)) * f64::from(BLOCK));
    let probability = options.target / blocks_per_day;
    for stage in [Stage::Tails, Stage::Thresholds] {
        let mut maxima = Maxima::new(stage, s, &learned);
        run(schema, names, &learned, &[Part::HeldOut], false, &mut pass, |reading, scratch, state| {
            maxima.add(reading.car, scratch, state);
        })?;
        maxima.set(&mut learned, probability);
    }
    let calibration = Calibration::Residuals(Box::new(learned));
    Detector::new(&calibration, schema)?;
    Ok(calibration)
}

/// How many earlier readings the data can say something about: a fit wants many readings per coefficient.
fn lags_worth_fitting(wanted: u8, sensors: usize, readings: u64) -> u8 {
    let per_lag = if sensors <= WIDEST { sensors as u64 } else { 1 };
    (0..=wanted.min(3)).rev().find(|&lags| readings >= 10 * (u64::from(lags) * per_lag + 1)).unwrap_or(0)
}

/// Runs a detector over the readings of these parts; `each` hears of every judged one.
fn run<E>(
    schema: &Schema,
    names: &[String],
    learned: &Residuals,
    parts: &[Part],
    frozen: bool,
    pass: &mut impl FnMut(Part, &mut dyn FnMut(Reading<'_>)) -> Result<(), E>,
    mut each: impl FnMut(&Reading<'_>, &Scratch, &CarState),
) -> Result<(), CalibrateError<E>> {
    let detector = Detector::new(&Calibration::Residuals(Box::new(learned.clone())), schema)?;
    let detector = if frozen { detector.frozen() } else { detector };
    let mut states: FxHashMap<u32, CarState> = FxHashMap::default();
    let mut scratch = Scratch::default();
    for &part in parts {
        pass(part, &mut |reading| {
            let state = states
                .entry(reading.car)
                .or_insert_with(|| detector.car(names.get(reading.car as usize).map(String::as_str)));
            let judged = state.judged;
            detector.observe(state, reading.time_ms, reading.values, reading.expected, &mut scratch);
            if state.judged != judged {
                each(&reading, &scratch, state);
            }
        })
        .map_err(CalibrateError::Readings)?;
    }
    Ok(())
}

/// What sensors usually do: first pass over the training readings.
struct Usual {
    readings: u64,
    count: Vec<u64>,
    mean: Vec<f64>,
    squares: Vec<f64>,
    longest: Vec<u32>,
    intervals: Vec<i64>,
    cars: FxHashMap<u32, Previous>,
}

/// The reading before, of one car.
struct Previous {
    time_ms: i64,
    values: Box<[f32]>,
    runs: Box<[u32]>,
}

impl Usual {
    /// So many intervals are enough to know the usual one.
    const INTERVALS: usize = 100_000;

    fn new(s: usize) -> Self {
        Usual {
            readings: 0,
            count: vec![0; s],
            mean: vec![0.0; s],
            squares: vec![0.0; s],
            longest: vec![0; s],
            intervals: Vec::new(),
            cars: FxHashMap::default(),
        }
    }

    fn add(&mut self, reading: &Reading<'_>) {
        let s = self.mean.len();
        if reading.values.len() != s {
            return;
        }
        self.readings += 1;
        let previous = self.cars.entry(reading.car).or_insert_with(|| Previous {
            time_ms: i64::MAX,
            values: vec![f32::NAN; s].into(),
            runs: vec![0; s].into(),
        });
        if previous.time_ms < reading.time_ms && self.intervals.len() < Self::INTERVALS {
            self.intervals.push(reading.time_ms - previous.time_ms);
        }
        previous.time_ms = reading.time_ms;
        for (i, &value) in reading.values.iter().enumerate() {
            if !value.is_finite() {
                previous.runs[i] = 0;
                continue;
            }
            // Welford's running mean and sum of squares.
            self.count[i] += 1;
            let off = f64::from(value) - self.mean[i];
            self.mean[i] += off / self.count[i] as f64;
            self.squares[i] += off * (f64::from(value) - self.mean[i]);
            previous.runs[i] = if value == previous.values[i] { previous.runs[i] + 1 } else { 1 };
            self.longest[i] = self.longest[i].max(previous.runs[i]);
            previous.values[i] = value;
        }
    }

    fn interval_ms(&mut self) -> u32 {
        self.intervals.sort_unstable();
        let median = self.intervals.get(self.intervals.len() / 2).copied().unwrap_or(0);
        u32::try_from(median).unwrap_or(u32::MAX)
    }

    fn mean_and_deviation(&self) -> (Vec<f32>, Vec<f32>) {
        let mean = self.mean.iter().map(|&mean| mean as f32).collect();
        let deviation = self.squares.iter().zip(&self.count).zip(&self.mean).map(|((&squares, &count), &mean)| {
            let deviation = (squares / count.max(1) as f64).sqrt();
            // Below the values' own precision nothing has moved.
            if deviation > 1e-6 * mean.abs() { deviation as f32 } else { 0.0 }
        });
        (mean, deviation.collect())
    }

    /// Three times the longest run there was, twenty at least; never for a sensor that stands still for long anyway.
    fn stuck_after(&self) -> Vec<u16> {
        let usual_length = self.readings / self.cars.len().max(1) as u64;
        let limit = |&longest: &u32| {
            if u64::from(longest) * 10 > usual_length { 0 } else { u16::try_from((3 * longest).max(20)).unwrap_or(0) }
        };
        self.longest.iter().map(limit).collect()
    }
}

/// Least squares of the standardised reading on those before it.
struct Fit<'a> {
    learned: &'a Residuals,
    lags: usize,
    /// Normal equations: of all sensors together, or of each on its own past.
    grams: Vec<Square>,
    /// Regressors times reading, `[regressors, S]`.
    cross: Vec<f64>,
    /// Reading times reading.
    own: Square,
    count: u64,
    seen: u64,
    every: u64,
    cars: FxHashMap<u32, Past>,
    row: Vec<f64>,
}

/// The standardised readings before, of one car.
struct Past {
    time_ms: i64,
    known: usize,
    rows: Vec<f64>,
}

impl<'a> Fit<'a> {
    fn new(learned: &'a Residuals, lags: u8, readings: u64) -> Self {
        let s = learned.mean.len();
        let lags = usize::from(lags);
        let full = s <= WIDEST;
        let regressors = if full { lags * s + 1 } else { lags + 1 };
        let work = (regressors * regressors) as u64 * if full { 1 } else { s as u64 };
        Fit {
            learned,
            lags,
            grams: vec![Square::zeros(regressors); if full { 1 } else { s }],
            cross: vec![0.0; regressors * s],
            own: Square::zeros(if full { s } else { 0 }),
            count: 0,
            seen: 0,
            every: (readings.saturating_mul(work) / WORK).max(1),
            cars: FxHashMap::default(),
            row: Vec::new(),
        }
    }

    fn full(&self) -> bool {
        self.own.n > 0
    }

    fn add(&mut self, reading: &Reading<'_>) {
        let s = self.learned.mean.len();
        if reading.values.len() != s {
            return;
        }
        let past = self.cars.entry(reading.car).or_insert_with(|| Past {
            time_ms: 0,
            known: 0,
            rows: vec![0.0; s * self.lags],
        });
        let interval = f64::from(self.learned.interval_ms);
        let since = reading.time_ms.saturating_sub(past.time_ms) as f64;
        if past.known > 0 && since < f64::from(super::detector::EARLY) * interval {
            return;
        }
        if past.known > 0 && since > f64::from(super::detector::LOST) * interval {
            past.known = 0;
        }
        past.time_ms = reading.time_ms;
        let (mean, deviation) = (&self.learned.mean, &self.learned.deviation);
        let now: Vec<f64> = (0..s)
            .map(|i| {
                let q = f64::from(reading.values[i] - mean[i]) / f64::from(deviation[i]);
                // A gap is as before; a sensor that never varies is always 0.
                let last = if past.known > 0 { past.rows[i] } else { 0.0 };
                if q.is_finite() {
                    q.clamp(-50.0, 50.0)
                } else if deviation[i] > 0.0 {
                    last
                } else {
                    0.0
                }
            })
            .collect();
        self.seen += 1;
        if past.known >= self.lags && self.seen.is_multiple_of(self.every) {
            self.count += 1;
            if self.own.n > 0 {
                self.row.clear();
                self.row.extend_from_slice(&past.rows);
                self.row.push(1.0);
                self.grams[0].add_outer(&self.row, 1.0);
                self.own.add_outer(&now, 1.0);
                for (cross, &x) in self.cross.chunks_exact_mut(s).zip(&self.row) {
                    cross.iter_mut().zip(&now).for_each(|(sum, q)| *sum += x * q);
                }
            } else {
                for (i, (gram, &q)) in self.grams.iter_mut().zip(&now).enumerate() {
                    self.row.clear();
                    self.row.extend((0..self.lags).map(|lag| past.rows[lag * s + i]));
                    self.row.push(1.0);
                    gram.add_outer(&self.row, 1.0);
                    for (r, &x) in self.row.iter().enumerate() {
                        self.cross[r * s + i] += x * q;
                    }
                }
            }
        }
        let keep = past.rows.len() - s;
        past.rows.copy_within(..keep, s);
        past.rows[..s].copy_from_slice(&now);
        past.known += 1;
    }

    /// The companion; `None` if the readings never stood in a row long enough.
    fn solve(mut self) -> Option<Linear> {
        let s = self.learned.mean.len();
        if self.count < 30 {
            return None;
        }
        let n = self.count as f64;
        // Ridge (Hoerl & Kennard 1970), in units of one standard deviation: nearly equal sensors share their weight.
        let factors: Vec<_> = self
            .grams
            .iter_mut()
            .map(|gram| {
                let regressors = gram.n;
                (0..regressors - 1).for_each(|i| gram.at[i * regressors + i] += RIDGE * n);
                gram.cholesky()
            })
            .collect::<Option<_>>()?;
        let regressors = self.cross.len() / s;
        let mut beta = vec![0.0; s * regressors];
        for (i, beta) in beta.chunks_exact_mut(regressors).enumerate() {
            beta.iter_mut().enumerate().for_each(|(r, b)| *b = self.cross[r * s + i]);
            let factor = if self.full() { &factors[0] } else { &factors[i] };
            factor.solve(beta);
        }
        let intercept = beta.chunks_exact(regressors).map(|row| row[regressors - 1] as f32).collect();
        let coefficients =
            beta.chunks_exact(regressors).flat_map(|row| &row[..regressors - 1]).map(|&b| b as f32).collect();
        let conditional = if self.full() { self.conditional(&beta) } else { Vec::new() };
        Some(Linear { lags: self.lags as u8, intercept, coefficients, conditional })
    }

    /// `Ω_ij / Ω_ii` of the innovations, whose covariance follows from the sums: `(Q − BᵀH − HᵀB + BᵀGB) / n`.
    fn conditional(&self, beta: &[f64]) -> Vec<f32> {
        let s = self.own.n;
        let n = self.count as f64;
        let gram = &self.grams[0];
        let regressors = gram.n;
        let at = |i: usize, j: usize| if i >= j { gram.at[i * regressors + j] } else { gram.at[j * regressors + i] };
        let mut covariance = Square::zeros(s);
        let mut weighted = vec![0.0; regressors];
        for i in 0..s {
            let row = &beta[i * regressors..(i + 1) * regressors];
            for (r, sum) in weighted.iter_mut().enumerate() {
                *sum = (0..regressors).map(|k| at(r, k) * row[k]).sum();
            }
            for j in 0..=i {
                let other = &beta[j * regressors..(j + 1) * regressors];
                let mut sum = self.own.at[i * s + j];
                for r in 0..regressors {
                    sum += other[r] * weighted[r] - row[r] * self.cross[r * s + j] - other[r] * self.cross[r * s + i];
                }
                covariance.at[i * s + j] = sum / n;
            }
        }
        for i in 0..s {
            // A sensor that is fully predicted would otherwise rule all others.
            let floor = &mut covariance.at[i * s + i];
            *floor = floor.max(0.0) * (1.0 + SHRINK) + 1e-6;
        }
        let Some(factor) = covariance.cholesky() else { return Vec::new() };
        let precision = factor.inverse();
        (0..s * s).map(|at| (precision.at[at] / precision.at[at / s * s + at / s]) as f32).collect()
    }
}

/// Ridge of the regression, and relative shrinking of the innovations' correlations (Ledoit & Wolf 2004 give the reason).
const RIDGE: f64 = 1e-3;
const SHRINK: f64 = 0.02;

/// How large residuals usually are: of the fleet, and of each car.
struct Sizes {
    s: usize,
    kinds: Vec<SourceKind>,
    /// Readings that count for every source.
    held_out: u64,
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
    fn new(learned: &Residuals) -> Self {
        let s = learned.mean.len();
        let kinds: Vec<SourceKind> = learned.sources.iter().map(|source| source.kind).collect();
        Sizes { s, held_out: 0, fleet: vec![Moments::new(s); kinds.len()], kinds, cars: FxHashMap::default() }
    }

    fn add(&mut self, reading: &Reading<'_>, scratch: &Scratch) {
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

    fn set(&self, learned: &mut Residuals, names: &[String], known_cars: usize) {
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
enum Stage {
    Tails,
    Thresholds,
}

/// Block maxima of statistics over held-out readings.
struct Maxima {
    stage: Stage,
    s: usize,
    lag_rows: usize,
    tails: Vec<Vec<f32>>,
    rule: (usize, usize),
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
    fn new(stage: Stage, s: usize, learned: &Residuals) -> Self {
        let sources = learned.sources.len();
        let count = if stage == Stage::Tails { s * sources } else { 2 * sources + 1 };
        Maxima {
            stage,
            s,
            lag_rows: learned.linear.as_ref().map_or(1, |linear| usize::from(linear.lags).max(1)),
            tails: learned.sources.iter().map(|source| source.tail.clone()).collect(),
            rule: (usize::from(learned.breaches.max(1)), usize::from(learned.window.clamp(1, 32))),
            peaks: vec![Peaks::default(); count],
            cars: FxHashMap::default(),
            statistics: Vec::new(),
        }
    }

    fn add(&mut self, car: u32, scratch: &Scratch, state: &CarState) {
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
        if block.readings.is_multiple_of(BLOCK) {
            self.peaks
                .iter_mut()
                .zip(&mut block.maxima)
                .for_each(|(peaks, maximum)| peaks.push(std::mem::take(maximum)));
        }
    }

    fn set(mut self, learned: &mut Residuals, probability: f64) {
        // Cars with less than a block of readings still count, if there is nothing else.
        if self.peaks.first().is_none_or(|peaks| peaks.blocks() == 0) {
            for block in self.cars.values() {
                self.peaks.iter_mut().zip(&block.maxima).for_each(|(peaks, &maximum)| peaks.push(maximum));
            }
        }
        let s = self.s;
        // Half of the false episodes to all sources together, the other half to the channels of each on its own.
        let own = probability / (4 * learned.sources.len()) as f64;
        for (n, source) in learned.sources.iter_mut().enumerate() {
            match self.stage {
                Stage::Tails => {
                    for i in 0..s {
                        let level = self.peaks[n * s + i].level(own).unwrap_or(0.0);
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
            learned.together = peaks.level(probability / 2.0).unwrap_or(0.0).max(LEAST_JOINT);
        }
    }
}

/// A channel on its own is heard only this much above the level that held-out readings set it: what it stands for, one sensor or one
/// source, changes more between now and then than all of them together.
const MARGIN: f32 = 1.5;
/// No sensor is off before its smoothed residual is this many times its usual size, however quiet the held-out readings were;
const LEAST_TAIL: f32 = 0.5;
/// the largest of several is about as high as each is on its own;
const LEAST_SENSOR: f32 = 0.7;
/// and no reading as a whole before the root mean square of its residuals is.
const LEAST_JOINT: f32 = 1.2;
