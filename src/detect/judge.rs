//! The arithmetic of one reading: from values and expectations to the score, for learned calibrations.
//!
//! With `q` the standardised reading, `A` and `c` the linear companion and `W` its conditional matrix, the residuals of the sources are
//! `r = q − expected` (model), `u = q − c − Σ A_l q_{t−l}` (lagged) and `W u` (conditional). Each is standardised by the fleet's
//! scale and the car's own bias and gain, `z = (r / scale − bias) · gain`, and smoothed: `E ← E + λ (z − E)` per sensor and
//! `J ← J + λ (mean z² − J)`. The channels are `√J` and `max |E| / tail` of each source, and all sources together: with a
//! bounded memory `M ← M + μ (min(mean z², 10) − M)`, the root of the lagged source's `J` (the model's, where the past is not known)
//! plus half of every `M`. Together, they order readings best; each on its own, a channel is heard when it is over its threshold
//! and fades fast below it: `min(x, x⁴)`.

mod blame;

use super::calibration::{Linear, Residuals, SourceKind};
use super::detector::{DetectError, Scratch, positive};
use super::episode::Decision;
use super::quality::SensorQuality;
use super::state::{CarState, MAX_SOURCES, RELEASE};

/// Standardised values and residuals are cut here, so that nothing a stranger sends outweighs everything for ever.
const MAX_STANDARDISED: f32 = 1000.0;
const MAX_SIGMA: f32 = 50.0;
/// A car's own bias is learned while its score is below this,
const CALM: f32 = 0.7;
/// with a memory that grows from the first of these to the second (judged readings),
const YOUNG: f32 = 1000.0;
const OLD: f32 = 10_000.0;
/// and within this bound, in multiples of the fleet's scale. Gains are never learned live: a parked car's residuals are small,
/// and would make it jumpy when it drives off.
const MAX_BIAS: f32 = 0.5;
/// Bounds of a gain, the reciprocal of a car's spread, that training found.
const GAIN: (f32, f32) = (0.25, 4.0);
/// Weight of the newest reading in the long memory, and what one reading may add to it.
const MEMORY: f32 = 0.02;
const MAX_MEMORY: f32 = 10.0;
/// Weight of that memory beside what is now.
const OF_LATE: f32 = 0.5;

/// A [`Residuals`] with its divisions done.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    learned: Residuals,
    sensors: usize,
    per_deviation: Vec<f32>,
    per_together: f32,
    lag_rows: usize,
    sources: Vec<Prepared>,
    frozen: bool,
}

#[derive(Debug, Clone)]
struct Prepared {
    kind: SourceKind,
    per_scale: Vec<f32>,
    per_tail: Vec<f32>,
    per_joint: f32,
    per_sensor: f32,
}

impl Judge {
    pub fn new(learned: &Residuals, sensors: usize) -> Result<Self, DetectError> {
        let one_each = |field, found| match found == sensors {
            true => Ok(()),
            false => Err(DetectError::Length { field, found, expected: sensors }),
        };
        let usable = |field, numbers: &[f32]| match numbers.iter().find(|n| !n.is_finite() || **n < 0.0) {
            Some(&found) => Err(DetectError::Number { field, found: found.into(), wanted: "it must not be below 0" }),
            None => Ok(()),
        };
        one_each("mean", learned.mean.len())?;
        one_each("deviation", learned.deviation.len())?;
        usable("deviation", &learned.deviation)?;
        one_each("stuck_after", learned.stuck_after.len())?;
        if !learned.immaterial.is_empty() {
            one_each("immaterial", learned.immaterial.len())?;
            usable("immaterial", &learned.immaterial)?;
        }
        positive("together", learned.together.into())?;
        positive("smoothing", learned.smoothing.into())?;
        if learned.smoothing > 1.0 {
            return Err(DetectError::Number {
                field: "smoothing",
                found: learned.smoothing.into(),
                wanted: "it must be at most 1",
            });
        }
        if let Some(linear) = &learned.linear {
            check_linear(linear, sensors)?;
        }
        if learned.sources.len() > MAX_SOURCES {
            return Err(DetectError::Length { field: "sources", found: learned.sources.len(), expected: MAX_SOURCES });
        }
        let mut sources = Vec::new();
        for source in &learned.sources {
            one_each("sources.scale", source.scale.len())?;
            usable("sources.scale", &source.scale)?;
            one_each("sources.tail", source.tail.len())?;
            usable("sources.tail", &source.tail)?;
            positive("sources.joint", source.joint.into())?;
            positive("sources.sensor", source.sensor.into())?;
            let needs = match source.kind {
                SourceKind::Model => true,
                SourceKind::Lagged => learned.linear.is_some(),
                SourceKind::Conditional => learned.linear.as_ref().is_some_and(|l| !l.conditional.is_empty()),
            };
            if !needs {
                return Err(DetectError::Length { field: "linear", found: 0, expected: sensors });
            }
            sources.push(Prepared {
                kind: source.kind,
                per_scale: source.scale.iter().map(|&scale| reciprocal(scale)).collect(),
                per_tail: source.tail.iter().map(|&tail| reciprocal(tail)).collect(),
                per_joint: 1.0 / source.joint,
                per_sensor: 1.0 / source.sensor,
            });
        }
        for scales in learned.cars.values().flatten() {
            one_each("cars.bias", scales.bias.len())?;
            one_each("cars.spread", scales.spread.len())?;
            usable("cars.spread", &scales.spread)?;
        }
        let per_deviation = learned.deviation.iter().map(|&deviation| reciprocal(deviation)).collect();
        // One row at least: the reading before tells whether a sensor is stuck.
        let lag_rows = learned.linear.as_ref().map_or(1, |linear| usize::from(linear.lags).max(1));
        let per_together = 1.0 / learned.together;
        Ok(Judge { learned: learned.clone(), sensors, per_deviation, per_together, lag_rows, sources, frozen: false })
    }

    pub fn scale_thresholds(&mut self, factor: f32) {
        self.per_together /= factor;
        for source in &mut self.sources {
            source.per_joint /= factor;
            source.per_sensor /= factor;
        }
    }

    /// Learns no car's own bias from now on.
    pub fn freeze(&mut self) {
        self.frozen = true;
    }

    pub fn interval_ms(&self) -> f32 {
        self.learned.interval_ms as f32
    }

    pub fn decision(&self) -> Decision {
        let Residuals { breaches, window, quiet, .. } = self.learned;
        Decision { breaches: breaches.max(1).into(), window: window.into(), quiet }
    }

    /// Rows of earlier readings and sources that a state must have.
    pub fn shape(&self) -> (usize, usize) {
        (self.lag_rows, self.sources.len())
    }

    pub fn car(&self, name: Option<&str>) -> CarState {
        let mut state = CarState::new(self.sensors, self.lag_rows, self.sources.len());
        let Some(known) = name.and_then(|name| self.learned.cars.get(name)) else { return state };
        let s = self.sensors;
        let planes = state.planes[self.lag_rows * s..].chunks_exact_mut(3 * s);
        for (own, scales) in planes.zip(known) {
            own[s..2 * s].copy_from_slice(&scales.bias);
            for (gain, &spread) in own[2 * s..].iter_mut().zip(&scales.spread) {
                *gain = (1.0 / spread).clamp(GAIN.0, GAIN.1);
            }
        }
        // What is known of it already is not to be outweighed by its first readings.
        state.judged = OLD as u32;
        state
    }

    /// Judges a reading in its turn: moves the state on and answers the score. Leaves the sensors' residuals and, of a
    /// breach, the sensors to blame in `scratch`.
    pub fn judge(&self, state: &mut CarState, values: &[f32], expected: &[f32], scratch: &mut Scratch) -> f32 {
        let s = self.sensors;
        self.standardise(values, scratch);
        let lambda = self.learned.smoothing;
        let calm = !self.frozen && state.open_episode().is_none() && (state.judged == 0 || state.score < CALM);
        let (lags, own) = state.planes.split_at_mut(self.lag_rows * s);
        let kinds_and_limits = scratch.kinds.iter().zip(&self.learned.stuck_after);
        for ((run, (&kind, &stuck_after)), (now, before)) in
            state.runs.iter_mut().zip(kinds_and_limits).zip(scratch.standard.iter().zip(lags.iter()))
        {
            run.step(kind, state.lags > 0 && now == before, stuck_after);
        }
        let lagged = self.innovations(state.lags, lags, scratch);
        scratch.residual.clear();
        scratch.residual.resize(s * self.sources.len(), 0.0);
        let pace = Pace::new(state.judged, state.relearn, calm);
        let mut alone = 0.0f32;
        for (n, source) in self.sources.iter().enumerate() {
            let residual = &mut scratch.residual[n * s..(n + 1) * s];
            let known = match source.kind {
                SourceKind::Model => self.model_residuals(values, expected, &scratch.standard, residual),
                SourceKind::Lagged => {
                    residual.copy_from_slice(&scratch.innovation);
                    lagged
                }
                SourceKind::Conditional => {
                    self.conditional_residuals(&scratch.innovation, residual);
                    lagged
                }
            };
            let own = &mut own[n * 3 * s..(n + 1) * 3 * s];
            if known {
                let squares = self.smooth(source, residual, &scratch.kinds, own, &pace);
                state.joint[n] += lambda * (squares - state.joint[n]);
                state.memory[n] += MEMORY * (squares.min(MAX_MEMORY) - state.memory[n]);
                if state.relearn > 0 {
                    state.memory[n] = 1.0;
                }
            } else {
                residual.fill(0.0);
            }
            let sensor = own[..s].iter().zip(&source.per_tail).fold(0.0f32, |most, (e, t)| most.max(e.abs() * t));
            let channel = (state.joint[n].sqrt() * source.per_joint).max(sensor * source.per_sensor);
            alone = alone.max(channel);
        }
        let together = self.together(&state.joint, &state.memory, lagged);
        scratch.together = together;
        let score = (together * self.per_together).max(alone.min(alone.powi(4)));
        state.judged = state.judged.saturating_add(1);
        state.relearn = state.relearn.saturating_sub(1);
        for residuals in scratch.residual.chunks_exact(s) {
            for (sigma, &z) in scratch.sigmas.iter_mut().zip(residuals) {
                if z.abs() > sigma.abs() {
                    *sigma = z;
                }
            }
        }
        if score >= RELEASE {
            self.attribute(own, values, scratch);
        }
        remember(state.lags, lags, scratch);
        state.lags = (state.lags + 1).min(self.lag_rows as u8);
        score
    }

    /// Looks at a reading out of its turn: only at what the model expects of it, and changes no state.
    pub fn glance(&self, state: &CarState, values: &[f32], expected: &[f32], scratch: &mut Scratch) {
        let s = self.sensors;
        let Some(n) = self.sources.iter().position(|source| source.kind == SourceKind::Model) else { return };
        self.standardise(values, scratch);
        scratch.residual.clear();
        scratch.residual.resize(s, 0.0);
        let Scratch { standard, residual, sigmas, .. } = scratch;
        if self.model_residuals(values, expected, standard, residual) {
            let own = &state.planes[(self.lag_rows + 3 * n) * s..];
            for i in 0..s {
                sigmas[i] = standardised(residual[i] * self.sources[n].per_scale[i], own[s + i], own[2 * s + i]);
            }
        }
    }

    fn standardise(&self, values: &[f32], scratch: &mut Scratch) {
        let Scratch { standard, kinds, .. } = scratch;
        standard.clear();
        let mean_and_deviation = self.learned.mean.iter().zip(&self.per_deviation);
        standard.extend(values.iter().zip(kinds.iter()).zip(mean_and_deviation).map(|((&x, &kind), (&mean, &per))| {
            match kind {
                SensorQuality::Good => ((x - mean) * per).clamp(-MAX_STANDARDISED, MAX_STANDARDISED),
                _ => 0.0,
            }
        }));
    }

    /// `u = q − c − Σ A q_lag` into `scratch.innovation`; whether the past is known for it. Where a sensor is in a gap its
    /// innovation is 0 and its standardised value becomes what was predicted (or its last one), for the readings to come.
    fn innovations(&self, known: u8, lags: &[f32], scratch: &mut Scratch) -> bool {
        let s = self.sensors;
        let Scratch { standard, kinds, innovation, .. } = scratch;
        innovation.clear();
        innovation.resize(s, 0.0);
        let linear = self.learned.linear.as_ref().filter(|linear| known >= linear.lags);
        let Some(linear) = linear else {
            for ((q, &last), &kind) in standard.iter_mut().zip(lags).zip(kinds.iter()) {
                if kind != SensorQuality::Good && known > 0 {
                    *q = last;
                }
            }
            return false;
        };
        let past = &lags[..usize::from(linear.lags) * s];
        let row_length = linear.coefficients.len() / s;
        for (i, row) in linear.coefficients.chunks_exact(row_length).enumerate() {
            let predicted = linear.intercept[i]
                + if row_length == past.len() {
                    dot(row, past)
                } else {
                    row.iter().zip(past[i..].iter().step_by(s)).map(|(a, q)| a * q).sum()
                };
            // A fit extrapolates without bound; what it says of a reading is no wilder than a reading may be.
            let predicted = predicted.clamp(-MAX_STANDARDISED, MAX_STANDARDISED);
            match kinds[i] {
                SensorQuality::Good => innovation[i] = standard[i] - predicted,
                _ => standard[i] = predicted,
            }
        }
        true
    }

    /// `q − expected`, in standardised units; whether the model expects anything at all.
    fn model_residuals(&self, values: &[f32], expected: &[f32], standard: &[f32], residual: &mut [f32]) -> bool {
        if expected.len() != self.sensors {
            return false;
        }
        for (i, out) in residual.iter_mut().enumerate() {
            let expects = ((expected[i] - self.learned.mean[i]) * self.per_deviation[i])
                .clamp(-MAX_STANDARDISED, MAX_STANDARDISED);
            // NaN, of value or expectation, is no residual.
            *out = if values[i].is_nan() || expects.is_nan() { 0.0 } else { standard[i] - expects };
        }
        true
    }

    fn conditional_residuals(&self, innovation: &[f32], residual: &mut [f32]) {
        if let Some(linear) = &self.learned.linear {
            for (out, row) in residual.iter_mut().zip(linear.conditional.chunks_exact(self.sensors)) {
                *out = dot(row, innovation);
            }
        }
    }

    /// How unlikely the readings of late are, by all sources together.
    pub fn together(&self, joint: &[f32], memory: &[f32], lagged: bool) -> f32 {
        let of = |kind| self.sources.iter().position(|source| source.kind == kind);
        let (model, past) = (of(SourceKind::Model), of(SourceKind::Lagged));
        let now = past.filter(|_| lagged).or(model).or(past).map_or(0.0, |n| joint[n]);
        let late: f32 = [model, past].into_iter().flatten().map(|n| memory[n]).sum();
        // The past alone is no breach: it may add up to half of the threshold (its square to a quarter of the square).
        let most = 0.25 / (self.per_together * self.per_together);
        (now + (OF_LATE * late).min(most)).sqrt()
    }

    /// Standardises residuals in place, smooths them and teaches the car's bias. Answers the mean of their squares.
    fn smooth(
        &self,
        source: &Prepared,
        residual: &mut [f32],
        kinds: &[SensorQuality],
        own: &mut [f32],
        pace: &Pace,
    ) -> f32 {
        let s = self.sensors;
        let lambda = self.learned.smoothing;
        let (smoothed, rest) = own.split_at_mut(s);
        let (bias, gain) = rest.split_at_mut(s);
        let (mut squares, mut count) = (0.0f32, 0.0f32);
        for i in 0..s {
            let immaterial = self.learned.immaterial.get(i).copied().unwrap_or(0.0) * self.per_deviation[i];
            let scaled = residual[i] * source.per_scale[i];
            if kinds[i] != SensorQuality::Good || source.per_scale[i] == 0.0 {
                // What was seen before a gap fades instead of standing for ever.
                smoothed[i] *= 1.0 - lambda / 8.0;
                residual[i] = 0.0;
                continue;
            }
            let z = if residual[i].abs() < immaterial { 0.0 } else { standardised(scaled, bias[i], gain[i]) };
            residual[i] = z;
            smoothed[i] += lambda * (z - smoothed[i]);
            squares += z * z;
            count += 1.0;
            if pace.bias > 0.0 {
                let limit = pace.limit.max(bias[i].abs());
                bias[i] = (bias[i] + pace.bias * z.clamp(-pace.lesson, pace.lesson) / gain[i]).clamp(-limit, limit);
            }
        }
        squares / count.max(1.0)
    }
}

/// How fast a car's own bias follows.
struct Pace {
    bias: f32,
    /// What one reading may teach.
    lesson: f32,
    limit: f32,
}

impl Pace {
    fn new(judged: u32, relearn: u16, calm: bool) -> Self {
        if relearn > 0 {
            return Pace { bias: 0.1, lesson: MAX_SIGMA, limit: MAX_SIGMA };
        }
        let slow = if calm { 1.0 / (YOUNG + judged as f32).min(OLD) } else { 0.0 };
        Pace { bias: slow, lesson: 3.0, limit: MAX_BIAS }
    }
}

/// Puts the standardised reading before the earlier ones; into all of them if none was known.
fn remember(known: u8, lags: &mut [f32], scratch: &Scratch) {
    let s = scratch.standard.len();
    if known == 0 {
        lags.chunks_exact_mut(s).for_each(|row| row.copy_from_slice(&scratch.standard));
    } else {
        let rows = lags.len();
        lags.copy_within(..rows - s, s);
        lags[..s].copy_from_slice(&scratch.standard);
    }
}

fn standardised(scaled: f32, bias: f32, gain: f32) -> f32 {
    ((scaled - bias) * gain).clamp(-MAX_SIGMA, MAX_SIGMA)
}

/// The scalar product, in four sums side by side: the processor adds them at once. Counted by hand, since a development build
/// calls an iterator's `next` for every number.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    let (mut s0, mut s1, mut s2, mut s3) = (0.0f32, 0.0f32, 0.0f32, 0.0f32);
    let mut i = 0;
    while i + 4 <= n {
        s0 += a[i] * b[i];
        s1 += a[i + 1] * b[i + 1];
        s2 += a[i + 2] * b[i + 2];
        s3 += a[i + 3] * b[i + 3];
        i += 4;
    }
    while i < n {
        s0 += a[i] * b[i];
        i += 1;
    }
    (s0 + s1) + (s2 + s3)
}

/// One over `x`; 0 for 0, which then counts for nothing.
fn reciprocal(x: f32) -> f32 {
    let per = 1.0 / x;
    if per.is_finite() { per } else { 0.0 }
}

fn check_linear(linear: &Linear, sensors: usize) -> Result<(), DetectError> {
    let length = |field, found, expected| match found == expected {
        true => Ok(()),
        false => Err(DetectError::Length { field, found, expected }),
    };
    let lags = usize::from(linear.lags);
    if !(1..=3).contains(&lags) {
        return Err(DetectError::Number { field: "linear.lags", found: lags as f64, wanted: "1, 2 or 3" });
    }
    length("linear.intercept", linear.intercept.len(), sensors)?;
    if linear.coefficients.len() != sensors * lags {
        length("linear.coefficients", linear.coefficients.len(), sensors * lags * sensors)?;
    }
    if !linear.conditional.is_empty() {
        length("linear.conditional", linear.conditional.len(), sensors * sensors)?;
    }
    let numbers = linear.intercept.iter().chain(&linear.coefficients).chain(&linear.conditional);
    match numbers.into_iter().find(|n| !n.is_finite()) {
        Some(&found) => Err(DetectError::Number { field: "linear", found: found.into(), wanted: "a number" }),
        None => Ok(()),
    }
}
