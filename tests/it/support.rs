//! What the end-to-end tests share: the real binary as a child, real MQTT clients.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Nothing here takes this long; a test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `is_so`, and fails with `what` if it never is.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The dashlight binary, away from the configuration and state of whoever runs the tests.
pub fn dashlight(home: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dashlight"));
    command.current_dir(home.path()).env_clear().env("HOME", home.path()).env("XDG_STATE_HOME", home.path());
    for kept in ["PATH", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Whether a peer program is installed. Without it a test says so and passes, unless the peers are required.
pub fn has_peer(program: &str) -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .chain([std::path::PathBuf::from("/usr/sbin")])
        .any(|folder| folder.join(program).is_file());
    assert!(found || std::env::var_os("DASHLIGHT_REQUIRE_PEERS").is_none(), "{program} is required and not installed");
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// A headless run of the real binary. Killed when dropped.
pub struct Headless {
    child: Child,
    lines: Receiver<String>,
    said: Vec<Value>,
    log: Receiver<String>,
    logged: Vec<String>,
    /// Where devices connect.
    pub mqtt: SocketAddr,
    /// Kafka's bootstrap address.
    pub kafka: String,
    _home: Arc<TempDir>,
}

impl Headless {
    /// Starts `dashlight run --headless` on a free port with these further arguments and waits until it listens.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// The same in a folder that may hold a `dashlight.toml`.
    pub fn start_in(home: TempDir, arguments: &[&str]) -> Self {
        Self::start_shared(&Arc::new(home), arguments)
    }

    /// The same in a folder that outlives it.
    pub fn start_shared(home: &Arc<TempDir>, arguments: &[&str]) -> Self {
        Self::begin(home, &[&["--mqtt-listen", "127.0.0.1:0"], arguments].concat())
    }

    /// As [`Headless::start_in`], listening where the `dashlight.toml` says; one of the addresses must be plain.
    pub fn start_configured(home: TempDir, arguments: &[&str]) -> Self {
        Self::begin(&Arc::new(home), arguments)
    }

    fn begin(home: &Arc<TempDir>, arguments: &[&str]) -> Self {
        let mut child = dashlight(home)
            .args(["run", "--headless"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let log = lines_of(child.stderr.take().unwrap());
        let mut run = Headless {
            child,
            lines,
            said: Vec::new(),
            log,
            logged: Vec::new(),
            mqtt: ([127, 0, 0, 1], 0).into(),
            kafka: String::new(),
            _home: home.clone(),
        };
        let listening = run.wait_for_log("listening: mqtt ");
        run.mqtt = listening.split("listening: mqtt ").nth(1).unwrap().trim().parse().unwrap();
        let kafka = run.wait_for_log("kafka: ");
        run.kafka = kafka.split("kafka: ").nth(1).unwrap().trim().to_owned();
        run
    }

    /// Waits for a line of the log that holds `text`.
    pub fn wait_for_log(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.logged.iter().position(|line| line.contains(text)) {
                return self.logged[at].clone();
            }
            match self.log.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.logged.push(line),
                Err(_) => panic!("the log never said {text:?}; it said:\n{}", self.logged.join("\n")),
            }
        }
    }

    /// Waits for an event of that kind.
    pub fn wait_for_event(&mut self, event: &str) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(said) = self.said.iter().find(|said| said["event"] == event) {
                return said.clone();
            }
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said.push(serde_json::from_str(&line).expect("every line of stdout is JSON")),
                Err(_) => panic!("no {event} ever came, only {:?}", self.said),
            }
        }
    }

    /// Kills it, as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, waits, and answers with all events and the summary.
    pub fn stop(self) -> (Vec<Value>, Value) {
        self.stop_by("TERM")
    }

    /// The same by another signal.
    pub fn stop_by(mut self, signal: &str) -> (Vec<Value>, Value) {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
        self.ended()
    }

    /// Waits until it ends by itself and answers with all events and the summary.
    pub fn ended(&mut self) -> (Vec<Value>, Value) {
        let mut events: Vec<Value> = std::mem::take(&mut self.said);
        events.extend(
            self.lines.iter().map(|line| serde_json::from_str::<Value>(&line).expect("every line of stdout is JSON")),
        );
        let status = self.wait();
        let log: Vec<String> = self.logged.drain(..).chain(self.log.iter()).collect();
        assert!(status.success(), "ended with {status}; its log:\n{}", log.join("\n"));
        let summary = events.pop().expect("a summary");
        assert_eq!(summary["event"], "summary", "the summary comes last");
        (events, summary)
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Headless {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (lines, received) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    received
}

/// The counts of a summary that must add up, whatever happened.
pub fn assert_adds_up(summary: &Value) {
    let count = |name: &str| summary[name].as_u64().unwrap_or_else(|| panic!("no count {name} in {summary}"));
    assert_eq!(
        count("received") + count("recovered"),
        count("produced") + count("refused") + count("lost") + count("in_log"),
        "{summary}"
    );
    assert_eq!(count("consumed"), count("scored") + count("undecodable") + count("duplicates"), "{summary}");
}
