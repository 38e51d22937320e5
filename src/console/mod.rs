//! What the operator sees. Knows the engine only by its queries, snapshots and commands ([`crate::engine::view`]).
//!
//! One thread owns all of it: [`run`] takes bytes from the terminal, snapshots from the engine and signals from the system,
//! changes [`app::App`], and draws when something has changed. Nothing here opens a socket or knows a broker.
//!
//! | file | what it is for |
//! |---|---|
//! | [`app`], [`list`] | the state, and how keys and snapshots change it; no I/O |
//! | [`command`] | the one table of commands: keymap, bottom line and help |
//! | [`view`] | one file per view, drawn into a buffer |
//! | [`theme`], [`colour`] | roles to colours; the finished picture mapped to what the terminal has |
//! | [`keys`], [`terminal`], [`painter`] | bytes in, the terminal taken and given back, bytes out |
//! | [`secret`] | a password asked for without showing it |
//! | [`sample`] | believable snapshots for tests and benches |

pub mod app;
pub mod colour;
pub mod command;
pub mod format;
pub mod keys;
pub mod list;
pub mod painter;
mod run;
#[doc(hidden)]
pub mod sample;
pub mod screen;
pub mod secret;
pub mod terminal;
pub mod theme;
pub mod view;

#[cfg(test)]
mod tests;

use thiserror::Error;

use self::colour::Depth;
pub use self::run::run;
use self::theme::{Theme, ThemeError};
use crate::config;

/// How the console looks.
#[derive(Debug, Clone)]
pub struct Options {
    /// The themes that `t` goes through; the first is shown at the start.
    pub themes: Vec<Theme>,
    /// How many colours the terminal has.
    pub depth: Depth,
    /// Only ASCII characters.
    pub ascii: bool,
}

impl Options {
    /// From the configuration, and from the environment where that says `auto`. Call it before anything is started: what it
    /// refuses is a mistake in the arguments.
    ///
    /// # Errors
    /// If there is no such theme or colour depth.
    pub fn from_config(config: &config::Console) -> Result<Options, ConsoleError> {
        let depth = Depth::detect(&config.color, |name| std::env::var(name).ok())
            .ok_or_else(|| ConsoleError::Colour(config.color.clone()))?;
        Ok(Options { themes: theme::choose(&config.theme)?, depth, ascii: config.ascii })
    }
}

/// Why the console ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The operator asked for it.
    Quit,
    /// A signal or the caller asked for it.
    Stopped,
    /// The terminal is gone.
    TerminalGone,
    /// The engine is gone: there will be no more snapshots.
    EngineGone,
}

/// Why there is no console.
#[derive(Debug, Error)]
pub enum ConsoleError {
    /// See [`ThemeError`].
    #[error(transparent)]
    Theme(#[from] ThemeError),
    /// Not a colour depth.
    #[error("there is no colour depth {0:?}: choose auto, truecolor, 256, 16 or none")]
    Colour(String),
    /// The terminal cannot be taken over.
    #[error("the terminal cannot be used: {0}; --headless runs without one")]
    Terminal(#[from] std::io::Error),
}

impl ConsoleError {
    /// Whether it is a mistake in the arguments or the configuration.
    pub fn is_usage(&self) -> bool {
        !matches!(self, ConsoleError::Terminal(_))
    }
}
