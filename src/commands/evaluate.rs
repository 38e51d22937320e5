//! `dashlight evaluate`: Scores a labelled file and prints the metrics.

use crate::failure::Failure;

/// Scores a labelled file and prints the metrics
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<(), Failure> {
    Err(Failure::running("not built yet"))
}
