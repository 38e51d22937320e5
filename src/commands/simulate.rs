//! `dashlight simulate`: Publishes a simulated fleet, or writes it to a file.

use crate::failure::Failure;

/// Publishes a simulated fleet, or writes it to a file
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<(), Failure> {
    Err(Failure::running("not built yet"))
}
