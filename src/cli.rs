//! The command line: which subcommands there are. What each takes stands in its own file under `commands`.

use clap::{CommandFactory, Parser, Subcommand};

use crate::commands::{completions, doctor, evaluate, man, model, passwd, replay, run, score, simulate, train};
use crate::failure::Failure;

/// The check-engine light for a whole fleet, in a terminal
///
/// Cars publish sensor readings over MQTT. dashlight writes each to Kafka, reads them back, scores them with an ONNX
/// model, and shows which cars are going wrong, since when, and which sensor says so. Without a command it does what
/// `dashlight run` does.
#[derive(Debug, Parser)]
#[command(name = "dashlight", version, args_conflicts_with_subcommands = true, max_term_width = 110)]
#[command(
    after_help = "`dashlight` alone needs no server: it shows a simulated fleet. `dashlight doctor` checks a set-up.\n\
                        Exit code: 0 done, 1 failed while running, 2 bad arguments, configuration, model or input."
)]
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
    Passwd(passwd::Args),
    Completions(completions::Args),
    Man(man::Args),
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
            Command::Passwd(args) => passwd::run(args),
            Command::Completions(args) => completions::run(args, Cli::command()),
            Command::Man(args) => man::run(args, Cli::command()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
