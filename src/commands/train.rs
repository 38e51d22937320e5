//! `dashlight train`: Learns a model from unlabelled or normal readings.

use crate::failure::Failure;

/// Learns a model from unlabelled or normal readings
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<(), Failure> {
    Err(Failure::running("not built yet"))
}
