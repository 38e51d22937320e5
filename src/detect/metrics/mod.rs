//! How good a detector is, against labels.

pub mod curves;
