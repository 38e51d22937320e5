//! What is learned of a fleet's usual behaviour: the part of a model's manifest that detection needs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How readings of one model are judged. Serialises to TOML and JSON; fields are checked by [`super::Detector::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase")]
pub enum Calibration {
    /// Mean squared error in raw units over a fixed threshold, each reading on its own: for models that come without more,
    /// as the KSQL demo judges them.
    Mse {
        /// The mean squared error that is a breach when exceeded.
        threshold: f64,
    },
    /// Standardised residuals with learned thresholds.
    Residuals(Box<Residuals>),
}

impl Calibration {
    /// Mean squared error over `threshold`, as the KSQL demo computes it.
    pub fn mse(threshold: f64) -> Self {
        Calibration::Mse { threshold }
    }

    /// How the threshold was set, in a few words for people.
    pub fn summary(&self) -> String {
        match self {
            Calibration::Mse { threshold } => format!("mean squared error over {threshold}"),
            Calibration::Residuals(learned) => {
                format!("at most {} false episodes per car-day, from held-out readings", learned.target)
            }
        }
    }
}

/// The learned form of [`Calibration`]: `S` sensors in the model's order, standardised as `(value − mean) / deviation`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Residuals {
    /// Usual time between two readings of a car; readings that come faster are judged at this pace.
    pub interval_ms: u32,
    /// False episodes per car-day that the thresholds aim at.
    pub target: f64,
    /// Breaches among the last [`Residuals::window`] judged readings, the newest among them, that open an episode.
    pub breaches: u8,
    /// See `breaches`; at most 32.
    pub window: u8,
    /// Judged readings without a breach that close an episode.
    pub quiet: u16,
    /// Weight of the newest residual in the moving averages, above 0 and at most 1.
    pub smoothing: f32,
    /// Mean of each sensor `[S]`.
    #[serde(with = "numbers")]
    pub mean: Vec<f32>,
    /// Standard deviation of each sensor `[S]`; 0: it never varied.
    #[serde(with = "numbers")]
    pub deviation: Vec<f32>,
    /// Residuals smaller than this, in raw units, are none `[S]`; empty: all count.
    #[serde(with = "numbers", default, skip_serializing_if = "Vec::is_empty")]
    pub immaterial: Vec<f32>,
    /// Equal values in a row from which a sensor is stuck `[S]`; 0: never.
    pub stuck_after: Vec<u16>,
    /// Sensors (positions) that left the schema's range in training: for this fleet it is no range.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unranged: Vec<u16>,
    /// Threshold of all sources together: of the root of what [`Source`] calls joint, summed, with a long and bounded memory of it.
    #[serde(default = "never")]
    pub together: f32,
    /// The linear companion, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linear: Option<Linear>,
    /// The sources of expectation, each with its scales and thresholds.
    pub sources: Vec<Source>,
    /// How cars known from training differ from the fleet, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cars: BTreeMap<String, Vec<CarScales>>,
}

/// The threshold of a channel that is not used.
fn never() -> f32 {
    f32::MAX
}

/// A vector autoregression of the standardised sensors, and how its innovations hang together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// How many earlier readings predict the next, 1 to 3.
    pub lags: u8,
    /// Constant of each sensor's prediction `[S]`.
    #[serde(with = "numbers")]
    pub intercept: Vec<f32>,
    /// Coefficients: `[S, lags·S]` row by row, newest lag first; or `[S, lags]`, each sensor from its own past alone.
    #[serde(with = "numbers")]
    pub coefficients: Vec<f32>,
    /// `Ω_ij / Ω_ii` with Ω the inverse covariance of the innovations `[S, S]`; times an innovation it is what the
    /// other sensors leave unexplained of each. Empty: not used.
    #[serde(with = "numbers", default, skip_serializing_if = "Vec::is_empty")]
    pub conditional: Vec<f32>,
}

/// Whose expectation a residual is measured from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// The model's.
    Model,
    /// The linear companion's, from earlier readings.
    Lagged,
    /// The linear companion's, from earlier readings and the other sensors of this one.
    Conditional,
}

/// One source of expectation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Whose expectation.
    pub kind: SourceKind,
    /// Usual size (root mean square) of each sensor's residual, in standardised units `[S]`; 0: this sensor is not judged.
    #[serde(with = "numbers")]
    pub scale: Vec<f32>,
    /// High quantile of the size of each sensor's smoothed residual, in multiples of `scale` `[S]`.
    #[serde(with = "numbers")]
    pub tail: Vec<f32>,
    /// Threshold of the joint channel: root of the smoothed mean squared standardised residual.
    pub joint: f32,
    /// Threshold of the sensor channel: the largest smoothed residual, in multiples of its `tail`.
    pub sensor: f32,
}

/// How the residuals of one source are in one car, in multiples of the fleet's scale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CarScales {
    /// Mean of the standardised residual `[S]`.
    #[serde(with = "numbers")]
    pub bias: Vec<f32>,
    /// Its usual size around that mean `[S]`.
    #[serde(with = "numbers")]
    pub spread: Vec<f32>,
}

/// `f32` written with the digits it needs and no more (as `f64`, `0.1_f32` would read `0.10000000149011612`).
mod numbers {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(values: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|v| v.to_string().parse::<f64>().unwrap_or(f64::NAN)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
        Vec::<f64>::deserialize(deserializer).map(|values| values.into_iter().map(|v| v as f32).collect())
    }
}
