//! From residual to episode: standardise, smooth, threshold, debounce, attribute.
//!
//! A reading meets up to three *sources* of expectation: the model's (an autoencoder), and two of a linear companion that is fitted
//! in closed form beside it: the reading predicted from those before it, and each sensor predicted from the others as well.
//! Residuals are standardised per sensor, smoothed, and judged in two channels that are kept apart: *joint* (is the reading as
//! a whole unlikely?) and *sensor* (is one sensor off, in one direction, for a while?). The score is the worst channel as a
//! multiple of its threshold; breaches are joined into episodes with onset, end, severity and the sensors to blame.
//!
//! Owns: [`Calibration`] (what is learned; immutable), [`Detector`] (it, ready for use; shared), [`CarState`] (what is remembered of one car;
//! compact, no allocation per reading), [`calibrate`](calibrate()) (how it is learned), [`metrics`] (how good it is).
//! Never does: I/O, clocks, threads. Time is what readings say; whether a car has gone silent is the fleet's to know.

mod calibrate;
mod calibration;
mod detector;
mod episode;
mod judge;
mod kept;
mod levels;
mod linear;
pub mod metrics;
mod quality;
mod state;
mod tail;
#[cfg(test)]
mod tests;
mod usual;

pub use calibrate::{CalibrateError, Options, Part, Reading, calibrate};
pub use calibration::{Calibration, CarScales, Linear, Residuals, Source, SourceKind};
pub use detector::{DetectError, Detector, Scratch, Verdict};
pub use episode::{Change, Episode, MAX_BLAMES, SensorBlame, episode_id, severity};
pub use kept::{Kept, KeptEpisode};
pub use quality::{Quality, SensorQuality};
pub use state::CarState;
