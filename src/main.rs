//! Parses the command line, runs the command, sets the exit code.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match dashlight::cli::Cli::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("dashlight: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
