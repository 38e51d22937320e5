//! `dashlight doctor`: Checks config, ports, broker, Kafka, model, terminal.

use crate::failure::Failure;

/// Checks config, ports, broker, Kafka, model, terminal
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<(), Failure> {
    Err(Failure::running("not built yet"))
}
