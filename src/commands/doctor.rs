//! `dashlight doctor`: tries everything that `dashlight run` would use, with the same file, environment and flags, and
//! changes nothing: one line for each thing, with the way out where something is wrong.

mod mqtt;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::{Ack, Config, Inputs, Loaded};
use crate::console::{self, colour::Depth, terminal};
use crate::engine::now_ms;
use crate::failure::Failure;
use crate::kafka::{Cluster, Health};
use crate::model::Model;
use crate::text::harmless;
use crate::wal::{self, Look};

use super::run::Settings;

/// How long a broker or Kafka may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the console needs at least, in characters.
const SMALLEST_SCREEN: (u16, u16) = (60, 15);

/// Checks configuration, ports, brokers, Kafka, model and terminal, with every path used
///
/// Takes the flags of `dashlight run` that set configuration, and tries what that run would use. It changes nothing:
/// no topic is created, no message taken.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One JSON object instead of lines for people
    #[arg(long)]
    pub json: bool,
    /// What would be run.
    #[command(flatten)]
    pub settings: Settings,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warn,
    Fail,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    check: &'static str,
    state: State,
    /// What was found; where something is wrong, with the way out.
    text: String,
}

impl Check {
    fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Check { check, state: State::Ok, text: text.into() }
    }

    fn warn(check: &'static str, text: impl Into<String>) -> Self {
        Check { check, state: State::Warn, text: text.into() }
    }

    fn fail(check: &'static str, text: impl Into<String>) -> Self {
        Check { check, state: State::Fail, text: text.into() }
    }

    fn line(&self) -> String {
        let state = match self.state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "fail",
        };
        // A path or a reason may hold anything; one check is one line.
        format!("{state:<5} {:<13} {}\n", self.check, harmless(&self.text, 2_000))
    }
}

/// What is said of all checks with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    failed: usize,
    checks: Vec<Check>,
}

/// Runs the command. Fails if any check does.
pub fn run(args: Args) -> Result<(), Failure> {
    let mut checks: Vec<Check> = Vec::new();
    let mut tell = |found: Vec<Check>| -> Result<(), Failure> {
        for check in found {
            if !args.json {
                super::to_stdout(check.line().as_bytes())?;
            }
            checks.push(check);
        }
        Ok(())
    };
    let inputs = args.settings.inputs();
    match inputs.load() {
        Err(error) => {
            tell(vec![Check::fail("configuration", format!("{error}; nothing else was tried"))])?;
        }
        Ok(loaded) => {
            tell(configuration(&inputs, &loaded))?;
            tell(places(&loaded))?;
            tell(log(&loaded))?;
            tell(mqtt::listeners(&loaded.config))?;
            tell(mqtt::brokers(&loaded.config))?;
            tell(kafka(&loaded.config))?;
            tell(models(&loaded.config))?;
            tell(screen(&loaded.config))?;
        }
    }
    let failed = checks.iter().filter(|check| check.state == State::Fail).count();
    let total = checks.len();
    if args.json {
        let report = serde_json::to_string_pretty(&Report { failed, checks }).map_err(Failure::running)?;
        super::to_stdout(format!("{report}\n").as_bytes())?;
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::running(format!("{failed} of {total} checks failed"))),
    }
}

fn configuration(inputs: &Inputs, loaded: &Loaded) -> Vec<Check> {
    let text = match &loaded.file {
        Some(file) => file.display().to_string(),
        None => {
            let places: Vec<String> = inputs.searched().iter().map(|path| path.display().to_string()).collect();
            format!("the defaults; there is no {}", places.join(" and no "))
        }
    };
    let warnings = loaded.warnings.iter().map(|warning| Check::warn("configuration", warning));
    std::iter::once(Check::ok("configuration", text)).chain(warnings).collect()
}

fn places(loaded: &Loaded) -> Vec<Check> {
    let state = match loaded.state_directory() {
        Err(error) => Check::fail("state", error.to_string()),
        Ok(directory) => match writable(&directory) {
            Ok(()) => Check::ok("state", directory.display().to_string()),
            Err(error) => Check::fail(
                "state",
                format!("{}: cannot be written ({error}); name another with --state", directory.display()),
            ),
        },
    };
    let log = match &loaded.config.log.file {
        None => Check::ok("log", "stderr when headless, else dashlight.log in the state directory"),
        Some(file) => match writable(file.parent().unwrap_or(Path::new(""))) {
            Ok(()) => Check::ok("log", file.display().to_string()),
            Err(error) => {
                Check::fail("log", format!("{}: cannot be written ({error}); name another log.file", file.display()))
            }
        },
    };
    vec![state, log]
}

/// The write-ahead log.
fn log(loaded: &Loaded) -> Vec<Check> {
    const NAME: &str = "acknowledged";
    match loaded.config.ack() {
        Ack::Disk => {}
        Ack::Kafka if loaded.config.kafka.bootstrap.is_empty() => {
            return vec![Check::ok(
                NAME,
                "once in the embedded Kafka, which is in memory; --kafka HOST:PORT for one that lasts",
            )];
        }
        Ack::Kafka => return vec![Check::ok(NAME, "once in Kafka: while it is away, devices wait")],
        Ack::Memory => {
            return vec![Check::warn(
                NAME,
                "at once: what Kafka does not have yet is lost if the process ends; --ack disk keeps it",
            )];
        }
    }
    let directory = match loaded.log_directory() {
        Ok(directory) => directory,
        Err(error) => return vec![Check::fail(NAME, error.to_string())],
    };
    let place = directory.display();
    let way_out = "make it writable, or name another with wal.directory";
    let (found, sync) = match wal::look(&directory).and_then(|found| Ok((found, wal::sync_time(&directory)?))) {
        Ok(found) => found,
        Err(error) => return vec![Check::fail(NAME, format!("the log's directory {place}: {error}; {way_out}"))],
    };
    let most = Bytes(loaded.config.wal.max_bytes as u64);
    let sync = format!("a sync takes {:.1} ms", sync.as_secs_f64() * 1e3);
    let Some(Look { bytes, waiting, oldest, in_use }) = found else {
        return vec![Check::ok(NAME, format!("once on the disk: no log yet in {place} (at most {most}); {sync}"))];
    };
    let age = oldest.filter(|_| waiting > 0).map(|oldest| {
        let age = Duration::from_millis(now_ms().saturating_sub(oldest).max(0) as u64);
        format!(", the oldest for {}", humantime::format_duration(Duration::from_secs(age.as_secs())))
    });
    let held = format!(
        "once on the disk: {place} holds {} of {most}, {waiting} readings wait for Kafka{}; {sync}",
        Bytes(bytes),
        age.unwrap_or_default()
    );
    let full = bytes + most.0 / 100 >= most.0;
    vec![match (in_use, full) {
        (true, _) => Check::warn(
            NAME,
            format!(
                "{held}; another process has it: stop that one, or give this one a directory of its own with --state"
            ),
        ),
        (false, true) => Check::warn(NAME, format!("{held}; it is full: nothing is taken until Kafka takes from it")),
        (false, false) => Check::ok(NAME, held),
    }]
}

/// Bytes, for people.
struct Bytes(u64);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            bytes if bytes < 1 << 20 => write!(f, "{} KiB", bytes.div_ceil(1 << 10)),
            bytes if bytes < 1 << 30 => write!(f, "{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
            bytes => write!(f, "{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
        }
    }
}

/// Whether files can be made in `directory`, or in what there is of the path to it. Leaves nothing behind.
fn writable(directory: &Path) -> io::Result<()> {
    let there = directory.ancestors().find(|path| path.exists()).filter(|path| !path.as_os_str().is_empty());
    let probe = there.unwrap_or(Path::new(".")).join(format!(".dashlight-doctor-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&probe)?;
    std::fs::remove_file(&probe)
}

fn kafka(config: &Config) -> Vec<Check> {
    let cluster = match Cluster::open(&config.kafka) {
        Ok(cluster) => cluster,
        Err(error) => return vec![Check::fail("kafka", error.to_string())],
    };
    if cluster.is_embedded() {
        return vec![Check::ok(
            "kafka",
            "embedded: in memory, for demo and development; --kafka HOST:PORT for a real one",
        )];
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        match cluster.health() {
            Health::Up => return vec![Check::ok("kafka", format!("{} answers", cluster.bootstrap()))],
            Health::Away { reason, .. } if Instant::now() >= deadline => {
                return vec![Check::fail(
                    "kafka",
                    format!(
                        "{} does not answer ({reason}); check the address, and kafka.properties for TLS and SASL",
                        cluster.bootstrap()
                    ),
                )];
            }
            Health::Away { .. } => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn models(config: &Config) -> Vec<Check> {
    let names: BTreeSet<&str> = config.source.iter().map(|source| source.model_or(&config.model)).collect();
    let load = |name: &str| match Model::load(name) {
        Err(error) => vec![Check::fail("model", error.to_string())],
        Ok(model) => {
            let sensors = format!("{name}: {} sensors", model.schema().width());
            let assumed = model.assumed().iter().map(|sentence| Check::warn("model", format!("{name}: {sentence}")));
            std::iter::once(Check::ok("model", sensors)).chain(assumed).collect()
        }
    };
    names.into_iter().flat_map(load).collect()
}

fn screen(config: &Config) -> Vec<Check> {
    const NAME: &str = "terminal";
    let options = match console::Options::from_config(&config.console) {
        Ok(options) => options,
        Err(error) => return vec![Check::fail(NAME, error.to_string())],
    };
    if !io::stdout().is_terminal() {
        return vec![Check::ok(NAME, "stdout is none: dashlight would run headless")];
    }
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let term = variable("TERM");
    let colours = match options.depth {
        Depth::Truecolor => "24-bit colour",
        Depth::Ansi256 => "256 colours",
        Depth::Ansi16 => "16 colours",
        Depth::None => "no colour",
    };
    let mut checks = Vec::new();
    match terminal::size() {
        Err(error) => checks.push(Check::fail(NAME, format!("its size is not known ({error}); use --headless"))),
        Ok(size) => {
            let found = format!("{}x{}, {colours}, TERM={term}", size.width, size.height);
            let (width, height) = SMALLEST_SCREEN;
            checks.push(if size.width < width || size.height < height {
                Check::warn(NAME, format!("{found}: too small; make it {width}x{height} or larger"))
            } else if term.is_empty() || term == "dumb" {
                Check::warn(NAME, format!("{found}: may not move the cursor; set TERM, or use --headless"))
            } else {
                Check::ok(NAME, found)
            });
        }
    }
    // The first that is set decides, as for every program.
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().map(variable).find(|value| !value.is_empty());
    let locale = locale.unwrap_or_default();
    let utf8 = locale.to_lowercase().replace('-', "").contains("utf8");
    checks.push(match utf8 || options.ascii {
        true => Check::ok("characters", if options.ascii { "ASCII only" } else { "UTF-8" }),
        false => Check::warn(
            "characters",
            format!("the locale \"{locale}\" is not UTF-8; use --ascii if the symbols look wrong"),
        ),
    });
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line_whatever_it_says() {
        let check = Check::fail("kafka", "k:1 says \u{1b}[31m\nno");
        assert_eq!(check.line(), "fail  kafka         k:1 says \\u{1b}[31m\\u{a}no\n");
    }

    #[test]
    fn looking_whether_a_directory_is_writable_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        assert!(writable(&directory.path().join("not/yet/there")).is_ok());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(writable(&file.join("below")).is_err());
    }
}
