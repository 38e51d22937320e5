//! `dashlight passwd`: adds, changes and deletes the users of the embedded MQTT broker.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use crate::console::secret;
use crate::failure::Failure;
use crate::mqtt::access::{UsersError, users};

/// Adds, changes and deletes users of the embedded MQTT broker
///
/// The file holds a line for each user: the name and a hash of the password (argon2id). Name it as mqtt.users_file; a
/// running dashlight reads it again when it changes. The password is asked for, or read from stdin if that is no
/// terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "For example:\n  dashlight passwd users truck-7\n  \
                        openssl rand -base64 24 | tee truck-7.password | dashlight passwd users truck-7\n  \
                        dashlight passwd --delete users truck-7")]
pub struct Args {
    /// The users' file; made if there is none. `-` writes the user's line to stdout instead
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The user's name
    #[arg(value_name = "USER")]
    user: String,
    /// Deletes the user
    #[arg(short, long)]
    delete: bool,
}

impl From<UsersError> for Failure {
    fn from(error: UsersError) -> Self {
        Failure::usage(error)
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let Args { file, user, delete } = &args;
    let shown = crate::text::harmless(user, 60);
    let to_stdout = file == Path::new("-");
    if *delete {
        if to_stdout {
            return Err(Failure::usage(
                "--delete takes a file to delete the user from, and `-` is none: name the file",
            ));
        }
        return match users::delete(file, user)? {
            true => say(&format!("{}: the user {shown} is deleted", file.display())),
            false => Err(Failure::usage(format!("{}: there is no user {shown} to delete", file.display()))),
        };
    }
    let password = password(&shown)?;
    if to_stdout {
        return super::to_stdout(format!("{}\n", users::line(user, password.as_bytes())?).as_bytes());
    }
    match users::set(file, user, password.as_bytes())? {
        true => say(&format!("{}: the user {shown} is added", file.display())),
        false => say(&format!("{}: the user {shown} has a new password", file.display())),
    }
}

fn say(sentence: &str) -> Result<(), Failure> {
    // It is done, whoever hears of it: a closed stderr is no failure.
    let _ = writeln!(io::stderr(), "dashlight: {sentence}");
    Ok(())
}

/// Asks twice at a terminal; else stdin's one line.
fn password(user: &str) -> Result<String, Failure> {
    let unreadable = |error: io::Error| Failure::running(format!("the password cannot be read ({error})"));
    if io::stdin().is_terminal() {
        let ask = |prompt: &str| {
            let typed = secret::ask(prompt).map_err(unreadable)?;
            typed.ok_or_else(|| Failure::running("no password was given, and nothing is changed"))
        };
        let first = ask(&format!("Password for {user}: "))?;
        if first.is_empty() {
            return Err(Failure::usage("the password is empty: write one"));
        }
        if ask("The same again: ")? != first {
            return Err(Failure::usage("the two passwords differ, and nothing is changed: try again"));
        }
        return Ok(first);
    }
    let mut text = String::new();
    io::stdin().take(64 * 1024).read_to_string(&mut text).map_err(unreadable)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let line = text.strip_suffix('\r').unwrap_or(text);
    if line.contains(['\n', '\r']) {
        return Err(Failure::usage("stdin holds more than one line, and a password is one: write one line"));
    }
    Ok(line.to_owned())
}
