//! How good a detector is, against labels.
//!
//! Point-adjusted F1 is not among them: it takes a whole anomaly for found if one of its readings is, and so gives uniform random
//! scores up to 0.70 (Kim et al., AAAI 2022).

pub mod curves;
mod evaluation;

pub use evaluation::{Cause, Counts, Evaluation, EvaluationError, FailureReport, Judged, Report, Summary};
