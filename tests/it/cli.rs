//! The command line as a script sees it: exit codes, sentences, what goes to stdout and what to stderr.

use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::{Headless, assert_adds_up, dashlight};

/// The real binary in an empty directory.
struct Cli {
    directory: TempDir,
}

impl Cli {
    fn new() -> Self {
        Cli { directory: tempfile::tempdir().unwrap() }
    }

    fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.directory.path().join(name), text).unwrap();
        self
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = dashlight(&self.directory);
        command.args(arguments.split_whitespace());
        command
    }

    fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn help_and_version_go_to_stdout_with_exit_0() {
    let cli = Cli::new();
    let help = cli.run("--help");
    assert_eq!(help.status.code(), Some(0));
    for command in
        ["run", "simulate", "replay", "train", "score", "evaluate", "model", "doctor", "passwd", "completions", "man"]
    {
        assert!(text(&help.stdout).contains(&format!("\n  {command} ")), "{command}");
        let own = cli.run(&format!("{command} --help"));
        assert_eq!(own.status.code(), Some(0), "{command}");
        assert!(text(&own.stdout).contains("Usage: dashlight"), "{command}");
    }
    let version = cli.run("--version");
    assert_eq!(text(&version.stdout).trim(), format!("dashlight {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_fits_eighty_columns_when_asked_to() {
    let cli = Cli::new();
    for arguments in ["--help", "run --help", "doctor --help", "completions --help", "man --help"] {
        let help = cli.command(arguments).env("COLUMNS", "80").output().unwrap();
        for line in text(&help.stdout).lines() {
            assert!(line.chars().count() <= 100, "{arguments}: {line}");
        }
    }
}

#[test]
fn a_mistyped_command_or_flag_is_exit_2_with_the_nearest_one() {
    let cli = Cli::new();
    for (arguments, near) in
        [("rum", "run"), ("docter", "doctor"), ("run --kafak x", "--kafka"), ("--simulat 5", "--simulate")]
    {
        let output = cli.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(output.stdout.is_empty(), "{arguments}");
        assert!(text(&output.stderr).contains(near), "{arguments}: {}", text(&output.stderr));
    }
}

#[test]
fn bad_arguments_and_configuration_are_one_sentence_and_exit_2() {
    let cli = Cli::new().file("bad.toml", "[kafka]\n\nbootstrp = 'x:1'\n").file("notes.txt", "hello");
    for (arguments, sentence) in [
        ("run --config bad.toml", "bad.toml:3: unknown key `kafka.bootstrp`: did you mean `kafka.bootstrap`?"),
        ("run --config absent.toml", "absent.toml: cannot be read"),
        ("run --config notes.txt", "notes.txt:1: not TOML: "),
        ("run --kafka nonsense", "--kafka: `kafka.bootstrap` names the server \"nonsense\", but the port is missing"),
        ("run --mqtt-listen here", "--mqtt-listen: `mqtt.listen` is \"here\", which is no address"),
        ("run --mqtt-listen 0.0.0.0:0", "--mqtt-listen: `mqtt.listen` has 0.0.0.0:0, which other machines reach"),
        ("run --mqtt-connect http://x", "--mqtt-connect: `mqtt.connect[0]` does not begin with mqtt://"),
        ("run --rate -1", "--rate: `simulate.rate` is -1, and must be above 0"),
        ("--faults -1", "--faults: `simulate.faults` is -1, and must be 0 or more"),
    ] {
        let output = cli.run(&format!("{arguments} --for 1s"));
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(output.stdout.is_empty(), "{arguments}");
        let said = text(&output.stderr);
        assert!(said.starts_with("dashlight: ") && said.contains(sentence), "{arguments}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments}: {said}");
    }
}

#[test]
fn the_printed_configuration_reads_back_as_itself() {
    let cli = Cli::new().file("dashlight.toml", "[[source]]\nmqtt = ['mine/#']\n[simulate]\nseed = 7\n");
    let mut command = cli.command("run --print-config --kafka k1:9092 --ascii");
    let printed = command.env("DASHLIGHT_MODEL_THRESHOLD", "2.5").output().unwrap();
    assert_eq!(printed.status.code(), Some(0), "{}", text(&printed.stderr));
    let lines: Vec<&str> = text(&printed.stdout).lines().collect();
    for set in ["bootstrap = \"k1:9092\"", "ascii = true", "threshold = 2.5", "seed = 7", "mqtt = [\"mine/#\"]"] {
        assert!(lines.contains(&set), "{set}\n{}", lines.join("\n"));
    }
    let cli = cli.file("again.toml", text(&printed.stdout));
    let again = cli.run("run --print-config --config again.toml");
    assert_eq!(text(&again.stdout), text(&printed.stdout));
}

#[test]
fn every_shell_gets_completions_that_know_the_commands() {
    let cli = Cli::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = cli.run(&format!("completions {shell}"));
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(text(&output.stdout).contains("mqtt-listen") && text(&output.stdout).contains("evaluate"), "{shell}");
    }
    assert_eq!(cli.run("completions tcsh").status.code(), Some(2));
}

#[test]
fn the_manual_is_printed_or_written_page_by_page() {
    let cli = Cli::new();
    assert!(text(&cli.run("man").stdout).starts_with(".ie"));
    let output = cli.run("man pages");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for page in ["dashlight.1", "dashlight-run.1", "dashlight-doctor.1"] {
        let page = std::fs::read_to_string(cli.directory.path().join("pages").join(page)).unwrap();
        assert!(page.contains(".SH SYNOPSIS"));
    }
    let cli = cli.file("taken", "");
    let refused = cli.run("man taken");
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("taken"));
}

#[test]
fn a_reader_that_goes_away_ends_it_without_a_panic() {
    let cli = Cli::new();
    for arguments in ["run --print-config", "completions zsh", "man", "--help"] {
        let mut child = cli.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(text(&output.stderr), "", "{arguments}");
        assert_eq!(output.status.code(), Some(0), "{arguments}");
    }
}

#[test]
fn doctor_says_one_line_for_each_check_and_fails_if_one_does() {
    let cli = Cli::new();
    let output = cli.run("doctor --kafka 127.0.0.1:1 --mqtt-listen 127.0.0.1:0 --state state");
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    let starts = |start: &str| lines.iter().any(|line| line.starts_with(start));
    assert!(starts("fail  kafka         127.0.0.1:1 does not answer"), "{lines:#?}");
    assert!(starts("ok    configuration the defaults; there is no dashlight.toml"), "{lines:#?}");
    assert!(starts("ok    state         state") && starts("ok    terminal"), "{lines:#?}");
    assert!(text(&output.stderr).contains("checks failed"));
    assert_eq!(std::fs::read_dir(cli.directory.path()).unwrap().count(), 0, "doctor left something behind");
}

#[test]
fn doctor_reports_a_bad_configuration_as_a_failed_check() {
    let cli = Cli::new().file("dashlight.toml", "[kafka]\ngruop = 'x'\n");
    let output = cli.run("doctor --json");
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["failed"], 1);
    assert_eq!(report["checks"][0]["state"], "fail");
    assert!(report["checks"][0]["text"].as_str().unwrap().contains("dashlight.toml:2: unknown key `kafka.gruop`"));
}

#[test]
fn a_stdout_that_is_no_terminal_is_headless_one_json_object_a_line() {
    let cli = Cli::new();
    // No command at all: what `dashlight run` does.
    let output = cli.run("--mqtt-listen 127.0.0.1:0 --simulate 20 --rate 5 --seed 3 --for 3s");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let (summary, events) = lines.split_last().unwrap();
    assert_eq!(summary["event"], "summary");
    assert!(events.iter().all(|event| event["event"].as_str().is_some_and(|name| name.starts_with("episode_"))));
    assert_adds_up(summary);
    assert!(summary["received"].as_u64().unwrap() > 0, "{summary}");
    assert!(!text(&output.stdout).contains('\u{1b}') && !text(&output.stderr).contains('\u{1b}'), "colours in a pipe");
}

#[test]
fn sigterm_and_ctrl_c_end_a_run_with_its_summary_and_exit_0() {
    for signal in ["TERM", "INT"] {
        let run = Headless::start(&["--simulate", "10", "--rate", "5", "--seed", "3"]);
        let (_, summary) = run.stop_by(signal);
        assert_adds_up(&summary);
    }
}
