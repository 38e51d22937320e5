//! `dashlight model`: Looks into a model file.

use crate::failure::Failure;

/// Looks into a model file
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<(), Failure> {
    Err(Failure::running("not built yet"))
}
