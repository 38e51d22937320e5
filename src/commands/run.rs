//! `dashlight run`: the whole path, with the console on a terminal and JSON lines without.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

mod args;

pub use args::{Args, RunOptions, Settings, duration};

use crate::console;
use crate::engine::{Engine, EngineError, EventLines, summary_line};
use crate::failure::Failure;

/// What a run says when it ended because it could not go on.
const BROKEN: &str = "the path broke; the log says where. What was not acknowledged is with its devices still";

/// How often a headless run looks whether it should end.
const LOOK: Duration = Duration::from_millis(50);

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        if error.is_usage() { Failure::usage(error) } else { Failure::running(error) }
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    if args.print_config {
        return crate::commands::print_config(args.settings);
    }
    let (config, options) = args.into_config()?;
    // What is wrong with the screen is said before anything is started.
    let screen = if options.headless {
        None
    } else {
        Some(console::Options::from_config(&config.console).map_err(Failure::usage)?)
    };
    crate::commands::start_logging(&config, &options)?;
    let (engine, lines) = Engine::start(&config, options.headless)?;
    let shutdown = listen_for_signals(&engine)?;
    match (screen, lines) {
        (Some(screen), _) => on_screen(engine, screen, shutdown, options.for_),
        (None, Some(lines)) => headless(engine, &lines, &shutdown, options.for_),
        (None, None) => Err(Failure::running("a headless run needs events")),
    }
}

fn on_screen(
    engine: Engine,
    screen: console::Options,
    shutdown: watch::Receiver<bool>,
    time: Option<Duration>,
) -> Result<(), Failure> {
    let stop = either(&engine, shutdown, time);
    let handle = engine.attach();
    let ending = console::run(handle, screen, stop);
    let died = !engine.is_alive();
    let summary = engine.stop()?;
    ending.map_err(Failure::running)?;
    if died {
        return Err(Failure::running(BROKEN));
    }
    tracing::info!("{}", String::from_utf8_lossy(&summary_line(&summary)));
    Ok(())
}

/// Becomes true at the shutdown, or once the time is up, or if the engine dies: whatever comes first.
fn either(engine: &Engine, mut shutdown: watch::Receiver<bool>, time: Option<Duration>) -> watch::Receiver<bool> {
    let (end, ended) = watch::channel(false);
    let alive = engine.liveness();
    engine.runtime().spawn(async move {
        let started = Instant::now();
        while !*shutdown.borrow_and_update() && alive() && time.is_none_or(|time| started.elapsed() < time) {
            tokio::time::sleep(LOOK).await;
        }
        // Nobody listens any more: the console has ended by itself.
        let _ = end.send(true);
    });
    ended
}

/// Becomes true when the process is asked to end.
fn listen_for_signals(engine: &Engine) -> Result<watch::Receiver<bool>, Failure> {
    let _inside = engine.runtime().enter();
    let (ask, asked) = watch::channel(false);
    let wrong = |error: io::Error| Failure::running(format!("signals cannot be handled: {error}"));
    let mut kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].into_iter();
    let mut next = || kinds.next().map_or_else(|| Err(io::Error::other("no such signal")), signal).map_err(wrong);
    let (mut interrupt, mut terminate, mut hangup) = (next()?, next()?, next()?);
    engine.runtime().spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            if ask.send(true).is_err() {
                return;
            }
        }
    });
    Ok(asked)
}

fn headless(
    engine: Engine,
    lines: &EventLines,
    shutdown: &watch::Receiver<bool>,
    time: Option<Duration>,
) -> Result<(), Failure> {
    for line in engine.mqtt_lines() {
        tracing::info!("listening: {line}");
    }
    tracing::info!("kafka: {}", engine.kafka());
    let end = time.map(|time| Instant::now() + time);
    let mut out = Lines { out: io::stdout().lock(), gone: false };
    while !*shutdown.borrow() && !out.gone && engine.is_alive() && end.is_none_or(|end| Instant::now() < end) {
        if let Ok(line) = lines.recv_timeout(LOOK) {
            out.write(&line);
            lines.try_iter().for_each(|line| out.write(&line));
            out.flush();
        }
    }
    let died = !engine.is_alive();
    // What the last readings say comes out while the path drains.
    let stopping = std::thread::spawn(move || engine.stop());
    for line in lines {
        out.write(&line);
    }
    let summary = stopping.join().map_err(|_| Failure::running("the engine failed while it drained"))??;
    out.write(&summary_line(&summary));
    out.flush();
    if died { Err(Failure::running(BROKEN)) } else { Ok(()) }
}

/// stdout, which may be closed by its reader at any time: then there is nobody to write to, and the run ends.
struct Lines<'a> {
    out: io::StdoutLock<'a>,
    gone: bool,
}

impl Lines<'_> {
    fn write(&mut self, line: &[u8]) {
        self.gone |= self.out.write_all(line).and_then(|()| self.out.write_all(b"\n")).is_err();
    }

    fn flush(&mut self) {
        self.gone |= self.out.flush().is_err();
    }
}
