//! `dashlight run`: Runs the whole path and shows the fleet.

use crate::failure::Failure;

mod args;

pub use args::{Args, RunOptions, Settings, duration};

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    if args.print_config {
        return crate::commands::print_config(args.settings);
    }
    let (config, options) = args.into_config()?;
    crate::commands::start_logging(&config, &options)?;
    Err(Failure::running("not built yet"))
}
