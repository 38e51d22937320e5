//! One file per subcommand: parse, wire, run, say how it ended.

pub mod completions;
pub mod doctor;
pub mod evaluate;
pub mod man;
pub mod model;
pub mod passwd;
pub mod replay;
pub mod run;
pub mod score;
pub mod simulate;
pub mod train;

use std::io::{self, Write};

use crate::config::Config;
use crate::failure::Failure;
use crate::logging::{self, Target};

/// Writes `bytes` to stdout. A reader that has gone (`| head`) wants no more, which is no failure.
pub fn to_stdout(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::running(format!("stdout cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints the configuration that would apply as a commented TOML file.
fn print_config(settings: run::Settings) -> Result<(), Failure> {
    let loaded = settings.inputs().load()?;
    to_stdout(crate::config::print(&loaded.config).as_bytes())
}

/// Starts logging as configured, and says what the configuration's reading had to warn of. A console owns the terminal,
/// so beside one the log goes to a file, and to nowhere if there is no place for one.
fn start_logging(config: &Config, options: &run::RunOptions) -> Result<(), Failure> {
    let level = &config.log.level;
    if let Some(file) = &config.log.file {
        logging::init(level, &Target::File(file.clone())).map_err(|error| {
            Failure::usage(format!(
                "{}: the log cannot be written ({error}): name another file as log.file",
                file.display()
            ))
        })?;
    } else if options.headless {
        logging::init(level, &Target::Stderr).map_err(Failure::running)?;
    } else {
        let file = options.state.as_ref().map(|state| state.join("dashlight.log"));
        let started = file.map(|file| logging::init(level, &Target::File(file.clone())).map_err(|error| (file, error)));
        match started {
            Some(Ok(())) => {}
            Some(Err((file, error))) => {
                logging::init(level, &Target::Nowhere).map_err(Failure::running)?;
                tracing::warn!("{}: the log cannot be written ({error}): it is kept in memory only", file.display());
            }
            None => logging::init(level, &Target::Nowhere).map_err(Failure::running)?,
        }
    }
    match &options.file {
        Some(file) => tracing::info!("configuration: {}", file.display()),
        None => tracing::info!("configuration: the defaults, without a file"),
    }
    for warning in &options.warnings {
        tracing::warn!("{warning}");
    }
    Ok(())
}
