//! `dashlight completions`: prints a shell's completion script.

use clap_complete::Shell;

use crate::failure::Failure;

/// Prints the completion script for a shell
#[derive(Debug, clap::Args)]
#[command(
    after_help = "For example:\n  dashlight completions bash > ~/.local/share/bash-completion/completions/dashlight\n  \
                        dashlight completions zsh > ~/.zfunc/_dashlight\n  \
                        dashlight completions fish > ~/.config/fish/completions/dashlight.fish"
)]
pub struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Runs the command on the whole command line's definition.
pub fn run(args: Args, mut command: clap::Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "dashlight", &mut script);
    super::to_stdout(&script)
}
