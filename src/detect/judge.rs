//! The arithmetic of one reading: from values and expectations to the score, for learned calibrations.
//!
//! With `q` the standardised reading, `A` and `c` the linear companion and `W` its conditional matrix, the residuals of the sources are
//! `r = q − expected` (model), `u = q − c − Σ A_l q_{t−l}` (lagged) and `W u` (conditional). Each is standardised by the fleet's
//! scale and the car's own bias and gain, `z = (r / scale − bias) · gain`, and smoothed: `E ← E + λ (z − E)` per sensor and
//! `J ← J + λ (mean z² − J)`. The channels are `√J` and `max |E| / tail`.

use super::calibration::{Linear, Residuals, SourceKind};
use super::detector::{DetectError, Scratch, positive};
use super::episode::{Decision, worst};
use super::quality::SensorQuality;
use super::state::{CarState, MAX_SOURCES};

/// Standardised values and residuals are cut here, so that nothing a stranger sends outweighs everything for ever.
const MAX_STANDARDISED: f32 = 1000.0;
const MAX_SIGMA: f32 = 50.0;
/// A car's own bias and gain are learned while its score is below this,
const CALM: f32 = 0.7;
/// with a memory that grows from the first of these to the second (judged readings),
const YOUNG: f32 = 1000.0;
const OLD: f32 = 10_000.0;
/// and within these bounds: bias in multiples of the fleet's scale, gain as the reciprocal of the spread.
const MAX_BIAS: f32 = 1.5;
const GAIN: (f32, f32) = (0.25, 4.0);
/// What one residual may teach about a spread, as its square.
const MAX_LESSON: f32 = 9.0;

/// A [`Residuals`] with its divisions done.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    learned: Residuals,
    sensors: usize,
    per_deviation: Vec<f32>,
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
        Ok(Judge { learned: learned.clone(), sensors, per_deviation, lag_rows, sources, frozen: false })
    }

    pub fn scale_thresholds(&mut self, factor: f32) {
        for source in &mut self.sources {
            source.per_joint /= factor;
            source.per_sensor /= factor;
        }
    }

    /// Learns no car's own bias and gain from now on.
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
        let calm = !self.frozen && state.open_episode().is_none() && (state.judged == 0 || state.score < CALM);
        let (lags, own) = state.planes.split_at_mut(self.lag_rows * s);
        for sensor in 0..s {
            let same = state.lags > 0 && scratch.standard[sensor] == lags[sensor];
            state.runs[sensor].step(scratch.kinds[sensor], same, self.learned.stuck_after[sensor]);
        }
        let lagged = self.innovations(state.lags, lags, scratch);
        scratch.residual.clear();
        scratch.residual.resize(s * self.sources.len(), 0.0);
        let pace = Pace::new(state.judged, state.relearn, calm);
        let mut score = 0.0f32;
        let mut worst_source = 0;
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
                self.smooth(source, residual, &scratch.kinds, own, &mut state.joint[n], &pace);
            } else {
                residual.fill(0.0);
            }
            let sensor = own[..s].iter().zip(&source.per_tail).fold(0.0f32, |most, (e, t)| most.max(e.abs() * t));
            let channel = (state.joint[n].sqrt() * source.per_joint).max(sensor * source.per_sensor);
            if channel > score {
                score = channel;
                worst_source = n;
            }
        }
        state.judged = state.judged.saturating_add(1);
        state.relearn = state.relearn.saturating_sub(1);
        for residuals in scratch.residual.chunks_exact(s) {
            for (sigma, &z) in scratch.sigmas.iter_mut().zip(residuals) {
                if z.abs() > sigma.abs() {
                    *sigma = z;
                }
            }
        }
        if score >= 1.0 {
            let own = &own[worst_source * 3 * s..(worst_source + 1) * 3 * s];
            self.attribute(worst_source, own, values, scratch);
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

    /// Standardises residuals in place, smooths them and teaches the car's bias and gain.
    fn smooth(
        &self,
        source: &Prepared,
        residual: &mut [f32],
        kinds: &[SensorQuality],
        own: &mut [f32],
        joint: &mut f32,
        pace: &Pace,
    ) {
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
                bias[i] = (bias[i] + pace.bias * z.clamp(-3.0, 3.0) / gain[i]).clamp(-limit, limit);
                gain[i] = (gain[i] * (1.0 + 0.5 * pace.gain * (1.0 - (z * z).min(MAX_LESSON)))).clamp(GAIN.0, GAIN.1);
            }
        }
        if count > 0.0 {
            *joint += lambda * (squares / count - *joint);
        }
    }

    /// Names the sensors to blame, by what their residuals and smoothed residuals add to the worst source.
    fn attribute(&self, n: usize, own: &[f32], values: &[f32], scratch: &mut Scratch) {
        let s = self.sensors;
        let lambda = self.learned.smoothing;
        // The variance of a moving average of independent residuals is λ/(2−λ) of theirs (Roberts 1959).
        let widen = (2.0 - lambda) / lambda;
        let Scratch { guilt, blames, residual, .. } = scratch;
        let z = &residual[n * s..(n + 1) * s];
        guilt.clear();
        guilt.extend(z.iter().zip(own).map(|(z, e)| z * z + widen * e * e));
        let source = &self.sources[n];
        worst(guilt, blames, |i| {
            let sigma = if z[i].abs() > own[i].abs() * widen.sqrt() { z[i] } else { own[i] * widen.sqrt() };
            let back = (sigma / own[2 * s + i] + own[s + i]) / source.per_scale[i] * self.learned.deviation[i];
            (values[i], values[i] - back, sigma)
        });
    }
}

impl Judge {
    /// How much each sensor adds to the residuals of all sources, now and smoothed; into `scratch.guilt`.
    pub fn guilt(&self, state: &CarState, scratch: &mut Scratch) {
        let s = self.sensors;
        let lambda = self.learned.smoothing;
        let widen = (2.0 - lambda) / lambda;
        let Scratch { guilt, residual, .. } = scratch;
        guilt.clear();
        guilt.resize(s, 0.0);
        let own = state.planes[self.lag_rows * s..].chunks_exact(3 * s);
        for (z, own) in residual.chunks_exact(s).zip(own) {
            for ((sum, z), e) in guilt.iter_mut().zip(z).zip(own) {
                *sum += z * z + widen * e * e;
            }
        }
    }
}

/// How fast a car's own bias and gain follow.
struct Pace {
    bias: f32,
    gain: f32,
    limit: f32,
}

impl Pace {
    fn new(judged: u32, relearn: u16, calm: bool) -> Self {
        if relearn > 0 {
            return Pace { bias: 0.1, gain: 0.02, limit: MAX_SIGMA };
        }
        let slow = if calm { 1.0 / (YOUNG + judged as f32).min(OLD) } else { 0.0 };
        Pace { bias: slow, gain: slow, limit: MAX_BIAS }
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

/// The scalar product, in eight sums side by side: the processor adds them at once.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (a_blocks, b_blocks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a_blocks.remainder().iter().zip(b_blocks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_blocks.zip(b_blocks) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
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
