//! The command line: which subcommands there are. What each takes stands in its own file under `commands`.

use clap::{Parser, Subcommand};

use crate::commands::{doctor, evaluate, model, replay, run, score, simulate, train};
use crate::failure::Failure;

/// The check-engine light for a whole fleet, in a terminal
#[derive(Debug, Parser)]
#[command(name = "dashlight", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Simulate(simulate::Args),
    Replay(replay::Args),
    Train(train::Args),
    Score(score::Args),
    Evaluate(evaluate::Args),
    Model(model::Args),
    Doctor(doctor::Args),
}

impl Cli {
    /// Runs what was asked for; without a subcommand, `run`.
    pub fn execute(self) -> Result<(), Failure> {
        match self.command.unwrap_or(Command::Run(self.run)) {
            Command::Run(args) => run::run(args),
            Command::Simulate(args) => simulate::run(args),
            Command::Replay(args) => replay::run(args),
            Command::Train(args) => train::run(args),
            Command::Score(args) => score::run(args),
            Command::Evaluate(args) => evaluate::run(args),
            Command::Model(args) => model::run(args),
            Command::Doctor(args) => doctor::run(args),
        }
    }
}
