//! `dashlight score`: Scores a file, one line per reading.

use crate::failure::Failure;

/// Scores a file, one line per reading
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<(), Failure> {
    Err(Failure::running("not built yet"))
}
