//! What sensors usually do, and the linear companion that follows from it: the passes over the training readings.

use rustc_hash::FxHashMap;

use super::calibrate::Reading;
use super::calibration::{Linear, Residuals};
use super::detector::{EARLY, LOST};
use super::linear::Square;
use crate::telemetry::Schema;

/// Multiply-adds that a fit may cost; beyond, it looks at every second reading, third, …
const WORK: u64 = 20_000_000_000;
/// Wider readings than this are predicted from each sensor's own past alone.
const WIDEST: usize = 64;

/// How many earlier readings the data can say something about: a fit wants many readings per coefficient.
pub(super) fn lags_worth_fitting(wanted: u8, sensors: usize, readings: u64) -> u8 {
    let per_lag = if sensors <= WIDEST { sensors as u64 } else { 1 };
    (0..=wanted.min(3)).rev().find(|&lags| readings >= 10 * (u64::from(lags) * per_lag + 1)).unwrap_or(0)
}

/// What sensors usually do: first pass over the training readings.
pub(super) struct Usual {
    pub readings: u64,
    ranges: Vec<(f32, f32)>,
    outside: Vec<u64>,
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

    pub fn new(schema: &Schema) -> Self {
        let s = schema.width();
        Usual {
            ranges: schema.sensors().iter().map(|sensor| sensor.range).collect(),
            outside: vec![0; s],
            readings: 0,
            count: vec![0; s],
            mean: vec![0.0; s],
            squares: vec![0.0; s],
            longest: vec![0; s],
            intervals: Vec::new(),
            cars: FxHashMap::default(),
        }
    }

    pub fn add(&mut self, reading: &Reading<'_>) {
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
            let (low, high) = self.ranges[i];
            self.outside[i] += u64::from(value < low || value > high);
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

    pub fn interval_ms(&mut self) -> u32 {
        self.intervals.sort_unstable();
        let median = self.intervals.get(self.intervals.len() / 2).copied().unwrap_or(0);
        u32::try_from(median).unwrap_or(u32::MAX)
    }

    pub fn mean_and_deviation(&self) -> (Vec<f32>, Vec<f32>) {
        let mean = self.mean.iter().map(|&mean| mean as f32).collect();
        let deviation = self.squares.iter().zip(&self.count).zip(&self.mean).map(|((&squares, &count), &mean)| {
            let deviation = (squares / count.max(1) as f64).sqrt();
            // Below the values' own precision nothing has moved.
            if deviation > 1e-6 * mean.abs() { deviation as f32 } else { 0.0 }
        });
        (mean, deviation.collect())
    }

    /// Sensors of which more than one value in a thousand is outside the schema's range.
    pub fn unranged(&self) -> Vec<u16> {
        let is_none = |&i: &usize| self.outside[i] * 1000 > self.count[i];
        (0..self.outside.len()).filter(is_none).map(|i| i as u16).collect()
    }

    /// Three times the longest run there was, twenty at least; never for a sensor that stands still for long anyway.
    pub fn stuck_after(&self) -> Vec<u16> {
        let usual_length = self.readings / self.cars.len().max(1) as u64;
        let limit = |&longest: &u32| {
            if u64::from(longest) * 10 > usual_length { 0 } else { u16::try_from((3 * longest).max(20)).unwrap_or(0) }
        };
        self.longest.iter().map(limit).collect()
    }
}

/// Least squares of the standardised reading on those before it.
pub(super) struct Fit<'a> {
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
    pub fn new(learned: &'a Residuals, lags: u8, readings: u64) -> Self {
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

    pub fn add(&mut self, reading: &Reading<'_>) {
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
        if past.known > 0 && since < f64::from(EARLY) * interval {
            return;
        }
        if past.known > 0 && since > f64::from(LOST) * interval {
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
    pub fn solve(mut self) -> Option<Linear> {
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
