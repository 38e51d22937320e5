//! Judges readings: a [`Calibration`] made ready for use.

use thiserror::Error;

use super::calibration::Calibration;
use super::episode::{Change, Decision, SensorBlame, severity};
use super::judge::Judge;
use super::quality::{Quality, SensorQuality};
use super::state::CarState;
use crate::telemetry::Schema;

/// A reading that comes sooner than this part of the usual interval after the one judged last is not judged itself.
pub(super) const EARLY: f32 = 0.9;
/// One that comes later than this many intervals has no known past.
pub(super) const LOST: f32 = 2.5;

/// Why a calibration cannot be used.
#[derive(Debug, Error, PartialEq)]
pub enum DetectError {
    /// A list of the calibration has not one entry per sensor.
    #[error("calibration: `{field}` has {found} numbers, {expected} are needed: train the model again")]
    Length {
        /// The list.
        field: &'static str,
        /// Its length.
        found: usize,
        /// What the schema asks for.
        expected: usize,
    },
    /// A number that no calibration can have.
    #[error("calibration: `{field}` is {found}: {wanted}")]
    Number {
        /// The field.
        field: &'static str,
        /// What it is.
        found: f64,
        /// What it should be.
        wanted: &'static str,
    },
}

/// What was made of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Verdict {
    /// The worst channel as a multiple of its threshold: 1 is the threshold. Finite, never below zero.
    pub score: f32,
    /// Whether the score is over the threshold (or, while an episode is open, not clearly below it).
    pub breach: bool,
    /// Whether it is a breach of an open episode: what an operator is shown as wrong.
    pub flag: bool,
    /// Severity 0–100 of the score.
    pub severity: u8,
    /// What it did to the car's episode ([`CarState::episode`]).
    pub change: Change,
    /// How believable its data are.
    pub quality: Quality,
    /// Whether it was seen before, or is older than what was judged: it changed nothing.
    pub repeated: bool,
}

/// Memory for judging one reading; one per worker, for all cars.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    pub(super) sigmas: Vec<f32>,
    pub(super) blames: Vec<SensorBlame>,
    /// How each sensor's value is, before it is known whether it is stuck.
    pub(super) kinds: Vec<SensorQuality>,
    /// Standardised reading, 0 in gaps.
    pub(super) standard: Vec<f32>,
    /// Prediction from earlier readings, then what is left of the reading.
    pub(super) innovation: Vec<f32>,
    /// Residuals in standardised units, `[sources, S]`.
    pub(super) residual: Vec<f32>,
    /// The statistic of all sources together.
    pub(super) together: f32,
    /// Contribution of each sensor to a breach.
    pub(super) guilt: Vec<f32>,
}

impl Scratch {
    /// The signed residual of each sensor in the reading judged last, in multiples of its usual size (of the source that
    /// finds it strangest); 0 in a gap. Empty before the first reading.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// The sensors to blame for the reading judged last, if it was a breach, worst first.
    pub fn blames(&self) -> &[SensorBlame] {
        &self.blames
    }
}

/// A calibration made ready for use: immutable, shared by all cars of a model.
#[derive(Debug, Clone)]
pub struct Detector {
    sensors: usize,
    ranges: Vec<(f32, f32)>,
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    Mse { threshold: f64 },
    Residuals(Box<Judge>),
}

impl Detector {
    /// Makes `calibration` ready for readings of `schema`; the schema's ranges say what is bad data.
    pub fn new(calibration: &Calibration, schema: &Schema) -> Result<Self, DetectError> {
        let sensors = schema.width();
        let mut ranges: Vec<(f32, f32)> = schema.sensors().iter().map(|sensor| sensor.range).collect();
        if let Calibration::Residuals(learned) = calibration {
            for &sensor in &learned.unranged {
                if let Some(range) = ranges.get_mut(usize::from(sensor)) {
                    *range = (f32::NEG_INFINITY, f32::INFINITY);
                }
            }
        }
        let rule = match calibration {
            Calibration::Mse { threshold } => {
                positive("threshold", *threshold)?;
                Rule::Mse { threshold: *threshold }
            }
            Calibration::Residuals(learned) => Rule::Residuals(Box::new(Judge::new(learned, sensors)?)),
        };
        Ok(Detector { sensors, ranges, rule })
    }

    /// The same detector with another threshold: of the mean squared error, or as a multiple of the learned thresholds.
    pub fn with_threshold(mut self, threshold: f64) -> Result<Self, DetectError> {
        positive("threshold", threshold)?;
        match &mut self.rule {
            Rule::Mse { threshold: fixed } => *fixed = threshold,
            Rule::Residuals(judge) => judge.scale_thresholds(threshold as f32),
        }
        Ok(self)
    }

    /// The same detector, which takes every car for a usual one and learns nothing of it: to measure residuals by.
    pub(super) fn frozen(mut self) -> Self {
        if let Rule::Residuals(judge) = &mut self.rule {
            judge.freeze();
        }
        self
    }

    /// How many sensors a reading has.
    pub fn sensors(&self) -> usize {
        self.sensors
    }

    /// The state of a car of which no reading was seen yet. `name` finds what training knew of it.
    pub fn car(&self, name: Option<&str>) -> CarState {
        match &self.rule {
            Rule::Mse { .. } => CarState::new(self.sensors, 0, 0),
            Rule::Residuals(judge) => judge.car(name),
        }
    }

    /// Judges a reading of a car.
    ///
    /// `values` and `expected` are `[S]` in raw units, a gap is NaN; `expected` may be empty if the model expects nothing.
    /// Readings come in the order of their time; one that is older than the newest, or delivered twice, changes nothing.
    /// Does not allocate, but for the first reading that a `scratch` sees and for an episode's opening.
    pub fn observe(
        &self,
        state: &mut CarState,
        time_ms: i64,
        values: &[f32],
        expected: &[f32],
        scratch: &mut Scratch,
    ) -> Verdict {
        scratch.blames.clear();
        scratch.sigmas.clear();
        scratch.sigmas.resize(self.sensors, 0.0);
        if values.len() != self.sensors {
            let quality = Quality { worst: SensorQuality::Missing, bad: self.sensors as u16 };
            return Verdict { quality, ..again(state) };
        }
        if !self.fits(state) {
            state.refit(self.car(None));
        }
        if !state.is_new(time_ms, fingerprint(values)) {
            return Verdict { repeated: true, ..again(state) };
        }
        let quality = self.look(values, scratch);
        match &self.rule {
            Rule::Mse { threshold } => {
                let score = mean_squared_error(values, expected, scratch) / threshold;
                if score > 1.0 {
                    blame_errors(values, expected, scratch);
                }
                alone(state, time_ms, score, quality, &scratch.blames)
            }
            Rule::Residuals(judge) => {
                let since = time_ms.saturating_sub(state.judged_ms) as f32;
                let interval = judge.interval_ms();
                if state.judged > 0 && since < EARLY * interval {
                    judge.glance(state, values, expected, scratch);
                    return Verdict { quality, ..again(state) };
                }
                if state.judged > 0 && since > LOST * interval {
                    state.lags = 0;
                }
                state.judged_ms = time_ms;
                let score = judge.judge(state, values, expected, scratch);
                let breach = state.is_breach(score);
                let change = state.decide(score, breach, time_ms, judge.decision(), &scratch.blames);
                verdict(state, breach, change, state.worst_quality())
            }
        }
    }

    /// Judges a reading by the score that a model itself gave it, as a multiple of the threshold; the rest is as with
    /// [`Detector::observe`]. A score names no sensor to blame.
    pub fn observe_score(
        &self,
        state: &mut CarState,
        time_ms: i64,
        values: &[f32],
        score: f64,
        scratch: &mut Scratch,
    ) -> Verdict {
        scratch.blames.clear();
        scratch.sigmas.clear();
        scratch.sigmas.resize(self.sensors, 0.0);
        if !self.fits(state) {
            state.refit(self.car(None));
        }
        if !state.is_new(time_ms, fingerprint(values)) {
            return Verdict { repeated: true, ..again(state) };
        }
        let quality = self.look(values, scratch);
        // A model may answer a gap with what is no number: that is bad data, not an anomaly.
        let score = if score.is_nan() { 0.0 } else { score.clamp(0.0, f64::from(f32::MAX)) };
        alone(state, time_ms, score, quality, &scratch.blames)
    }

    /// How much each sensor adds to what was strange about the reading just judged, breach or not `[S]`; the unit is of no
    /// meaning. To measure attribution by.
    pub fn guilt<'a>(&self, state: &CarState, scratch: &'a mut Scratch) -> &'a [f32] {
        match &self.rule {
            Rule::Mse { .. } => {
                scratch.guilt.clear();
                scratch.guilt.extend(scratch.sigmas.iter().map(|error| error * error));
            }
            Rule::Residuals(judge) => judge.guilt(state, scratch),
        }
        &scratch.guilt
    }

    /// Whether `state` was made by a detector of this shape.
    fn fits(&self, state: &CarState) -> bool {
        let (rows, sources) = match &self.rule {
            Rule::Mse { .. } => (0, 0),
            Rule::Residuals(judge) => judge.shape(),
        };
        state.fits(self.sensors, rows, sources)
    }

    /// Sorts each value into good, missing and out of range.
    fn look(&self, values: &[f32], scratch: &mut Scratch) -> Quality {
        scratch.kinds.clear();
        scratch.kinds.extend(values.iter().zip(&self.ranges).map(|(&value, &(low, high))| {
            if value.is_nan() {
                SensorQuality::Missing
            } else if value.is_finite() && value >= low && value <= high {
                SensorQuality::Good
            } else {
                SensorQuality::OutOfRange
            }
        }));
        Quality::of(scratch.kinds.iter().copied())
    }
}

/// The demo's rule: each reading on its own, a breach is an episode.
fn alone(state: &mut CarState, time_ms: i64, score: f64, quality: Quality, blames: &[SensorBlame]) -> Verdict {
    let decision = Decision { breaches: 1, window: 1, quiet: 1 };
    state.judged_ms = time_ms;
    state.judged = state.judged.saturating_add(1);
    let change = state.decide(score as f32, score > 1.0, time_ms, decision, blames);
    verdict(state, score > 1.0, change, quality)
}

/// The verdict that stands while nothing new was judged.
fn again(state: &CarState) -> Verdict {
    verdict(state, state.breaches & 1 == 1, Change::None, state.worst_quality())
}

fn verdict(state: &CarState, breach: bool, change: Change, quality: Quality) -> Verdict {
    let flag = breach && state.open_episode().is_some();
    Verdict { score: state.score, breach, flag, severity: severity(state.score), change, quality, repeated: false }
}

/// FNV-1a over the values' bits, four bytes at a time: tells readings apart, guards against nothing.
fn fingerprint(values: &[f32]) -> u64 {
    values.iter().fold(0xcbf2_9ce4_8422_2325, |hash, value| {
        (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Mean squared error in raw units over the sensors that have both value and expectation, summed in `f64`; 0 if none has.
fn mean_squared_error(values: &[f32], expected: &[f32], scratch: &mut Scratch) -> f64 {
    let (mut sum, mut count) = (0.0, 0u32);
    for (sigma, (&value, &expected)) in scratch.sigmas.iter_mut().zip(values.iter().zip(expected)) {
        let error = f64::from(value) - f64::from(expected);
        if error.is_finite() {
            sum += error * error;
            count += 1;
            *sigma = error as f32;
        }
    }
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

/// The sensors with the largest errors.
fn blame_errors(values: &[f32], expected: &[f32], scratch: &mut Scratch) {
    let Scratch { sigmas, guilt, blames, .. } = scratch;
    guilt.clear();
    guilt.extend(sigmas.iter().map(|error| error * error));
    super::episode::worst(guilt, blames, |sensor| (values[sensor], expected[sensor], sigmas[sensor]));
}

pub(super) fn positive(field: &'static str, number: f64) -> Result<(), DetectError> {
    if number > 0.0 && number.is_finite() {
        Ok(())
    } else {
        Err(DetectError::Number { field, found: number, wanted: "it must be a number above 0" })
    }
}
