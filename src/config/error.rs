//! What can be wrong with a configuration, each in one sentence: where it stands, what it is, what to write instead.

use std::fmt;
use std::path::PathBuf;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// In a file, at a line counted from 1.
    File(PathBuf, usize),
    /// In an environment variable.
    Variable(String),
    /// By a flag, as it is spelled: `--kafka`.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("the default"),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Variable(name) => f.write_str(name),
            Origin::Flag(flag) => f.write_str(flag),
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read ({reason}): name another file with --config, or leave the flag out", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Not TOML.
    #[error("{origin}: not TOML: {reason}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What the parser said, on one line.
        reason: String,
    },
    /// A key that is not known.
    #[error("{origin}: unknown key `{key}`{}", hint(nearest, known))]
    UnknownKey {
        /// Where.
        origin: Origin,
        /// The key with its sections.
        key: String,
        /// The known key it may be meant for.
        nearest: Option<String>,
        /// Every key that could stand there.
        known: Vec<String>,
    },
    /// A value of the wrong type.
    #[error("{origin}: `{key}` is {found}, and must be {wanted}")]
    WrongType {
        /// Where.
        origin: Origin,
        /// The key with its sections.
        key: String,
        /// What stands there.
        found: String,
        /// What must be written.
        wanted: String,
    },
    /// A value that cannot work.
    #[error("{origin}: `{key}` {why}")]
    BadValue {
        /// Where.
        origin: Origin,
        /// The key with its sections.
        key: String,
        /// What is wrong and the way out, to be read after the key.
        why: String,
    },
    /// A value `env:NAME` or `file:PATH` that leads nowhere, or a password file that cannot be read.
    #[error("`{key}`: {why}")]
    Secret {
        /// The key with its sections.
        key: String,
        /// What is wrong and the way out.
        why: String,
    },
    /// No place for state.
    #[error("no place for the state: set HOME or XDG_STATE_HOME, or name a directory with --state")]
    NoState,
}

impl From<ConfigError> for crate::failure::Failure {
    fn from(error: ConfigError) -> Self {
        crate::failure::Failure::usage(error)
    }
}

fn hint(nearest: &Option<String>, known: &[String]) -> String {
    match nearest {
        Some(name) => format!(": did you mean `{name}`?"),
        None => format!(": known here are {}", known.join(", ")),
    }
}
