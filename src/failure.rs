//! How a command fails, as its caller sees it: one sentence and an exit code.

use std::fmt;

/// Why a command did not do its work. The sentence names the file, field or address and the way out.
#[derive(Debug)]
pub enum Failure {
    /// Bad arguments, configuration, model or input: exit code 2.
    Usage(String),
    /// Failed while running: exit code 1.
    Running(String),
}

impl Failure {
    /// A mistake in what was given: arguments, configuration, model, input.
    pub fn usage(sentence: impl fmt::Display) -> Self {
        Failure::Usage(sentence.to_string())
    }

    /// Something that went wrong although what was given was right.
    pub fn running(sentence: impl fmt::Display) -> Self {
        Failure::Running(sentence.to_string())
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Running(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(sentence) | Failure::Running(sentence) => f.write_str(sentence),
        }
    }
}

impl std::error::Error for Failure {}
