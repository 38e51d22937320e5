//! `dashlight run`: Runs the whole path and shows the fleet.

use crate::failure::Failure;

/// Runs the whole path and shows the fleet
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<(), Failure> {
    Err(Failure::running("not built yet"))
}
