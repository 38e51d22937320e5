//! How a [`Calibration`] is learned: the linear companion from training readings, scales and thresholds from held-out ones.
//!
//! Readings are streamed, several times over; memory is a few numbers per car and sensor, whatever the number of readings.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use thiserror::Error;

use super::calibration::{Calibration, Residuals, Source, SourceKind};
use super::detector::{DetectError, Detector, Scratch};
use super::levels::{Maxima, Sizes, Stage, Wish, block_length};
use super::state::CarState;
use super::usual::{Fit, Usual, lags_worth_fitting};
use crate::telemetry::Schema;

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

/// A single source or sensor is believed at this rate (false episodes per car-day) at the most, whatever rate is wished for: a wish
/// for more episodes is one for weaker evidence of all sources together, not for the noise of each.
const STRICT: f64 = 0.02;

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
    let mut usual = Usual::new(schema);
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
        unranged: usual.unranged(),
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
    if let Some(linear) = &learned.linear {
        learned.sources.push(unit(SourceKind::Lagged));
        if !linear.conditional.is_empty() {
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
    let block = block_length(sizes.held_out);
    let blocks_per_day = 86_400_000.0 / (f64::from(learned.interval_ms.max(1)) * f64::from(block));
    let wish = Wish::new(options.target / blocks_per_day, STRICT / blocks_per_day);
    for stage in [Stage::Tails, Stage::Thresholds] {
        let mut maxima = Maxima::new(stage, s, &learned, block);
        run(schema, names, &learned, &[Part::HeldOut], false, &mut pass, |reading, scratch, state| {
            maxima.add(reading.car, scratch, state);
        })?;
        maxima.set(&mut learned, &wish);
    }
    let calibration = Calibration::Residuals(Box::new(learned));
    Detector::new(&calibration, schema)?;
    Ok(calibration)
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
