//! `dashlight replay`: Publishes a recorded file as live traffic.

use crate::failure::Failure;

/// Publishes a recorded file as live traffic
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<(), Failure> {
    Err(Failure::running("not built yet"))
}
