//! `dashlight man`: prints the manual page, or writes one for each command.

use std::path::PathBuf;

use crate::failure::Failure;

/// Prints the manual page, or writes one for each command into a directory
#[derive(Debug, clap::Args)]
#[command(after_help = "For example:\n  dashlight man | man -l -\n  dashlight man ~/.local/share/man/man1")]
pub struct Args {
    /// Directory to write dashlight.1, dashlight-run.1, … into
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// Runs the command on the whole command line's definition.
pub fn run(args: Args, command: clap::Command) -> Result<(), Failure> {
    match args.directory {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command)
                .render(&mut page)
                .map_err(|error| Failure::running(format!("the manual page cannot be made: {error}")))?;
            super::to_stdout(&page)
        }
        Some(directory) => {
            let refused = |error| {
                Failure::usage(format!(
                    "{}: the manual pages cannot be written ({error}): name a directory that can",
                    directory.display()
                ))
            };
            std::fs::create_dir_all(&directory).map_err(refused)?;
            clap_mangen::generate_to(command, &directory).map_err(refused)
        }
    }
}
