//! The event loop: the only place where the console meets the terminal, the system's signals and the clock.

use std::io;
use std::time::{Duration, Instant};

use ratatui::layout::Size;
use signal_hook::consts::{SIGCONT, SIGTSTP};
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use super::app::{App, Effect};
use super::keys::{Decoder, Input};
use super::screen::Screen;
use super::{ConsoleError, Ending, Options, terminal};
use crate::engine::view::Handle;

/// Shortest time between two frames.
const FRAME: Duration = Duration::from_millis(50);
/// How long an escape waits for the rest of a sequence that a slow link has cut.
const ESCAPE: Duration = Duration::from_millis(40);

/// Shows the console and returns when it ends: because the operator, a signal or `stop` (once it holds true) asked for it,
/// or because the terminal or the engine has gone away. Blocks the calling thread, on which it runs a small runtime of its
/// own, so that a slow terminal slows nobody else; never call it from within another runtime.
///
/// # Errors
/// If the terminal cannot be taken over.
pub fn run(handle: Handle, options: Options, stop: watch::Receiver<bool>) -> Result<Ending, ConsoleError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let size = terminal::size()?;
    let mut taken = terminal::Taken::enter()?;
    let ending = runtime.block_on(async {
        let screen = Screen::new(io::stdout(), size, options.depth, options.ascii)?;
        let app = App::new(options.themes, size, handle.snapshots.borrow().clone());
        let input = terminal::input()?;
        Console { app, screen, handle, input, began: Instant::now() }.run(stop, &mut taken).await
    });
    taken.leave();
    match ending {
        // Nobody is left to tell.
        Err(error) if is_gone(&error) => Ok(Ending::TerminalGone),
        other => Ok(other?),
    }
}

fn is_gone(error: &io::Error) -> bool {
    // EIO is what a terminal answers once its other end is closed; the standard library has no name for it.
    error.raw_os_error() == Some(5) || matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof)
}

struct Console {
    app: App,
    screen: Screen<io::Stdout>,
    handle: Handle,
    input: mpsc::Receiver<Vec<u8>>,
    began: Instant,
}

/// The signals that concern a terminal.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    resize: Signal,
    suspend: Signal,
    resume: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            resize: signal(SignalKind::window_change())?,
            suspend: signal(SignalKind::from_raw(SIGTSTP))?,
            resume: signal(SignalKind::from_raw(SIGCONT))?,
        })
    }
}

impl Console {
    async fn run(mut self, mut stop: watch::Receiver<bool>, taken: &mut terminal::Taken) -> io::Result<Ending> {
        let mut signals = Signals::new()?;
        let mut decoder = Decoder::default();
        let mut inputs: Vec<Input> = Vec::new();
        let mut dirty = true;
        let mut drawn_at: Option<Instant> = None;
        let mut escape_at: Option<Instant> = None;
        loop {
            self.ask();
            let now = Instant::now();
            if dirty && drawn_at.is_none_or(|at| now >= at + FRAME) {
                self.screen.draw(&self.app)?;
                drawn_at = Some(now);
                dirty = false;
            }
            // The one timer: a frame that is due, an escape that stays alone, a sentence that has been shown long enough.
            let due = dirty.then(|| drawn_at.map_or(now, |at| at + FRAME));
            let app_due = self.app.deadline(now - self.began).map(|at| self.began + at);
            let wake = [due, escape_at, app_due].into_iter().flatten().min();
            let mut suspend = false;
            tokio::select! {
                biased;
                () = stopped(&mut stop) => return Ok(Ending::Stopped),
                _ = signals.interrupt.recv() => return Ok(Ending::Stopped),
                _ = signals.terminate.recv() => return Ok(Ending::Stopped),
                _ = signals.hang_up.recv() => return Ok(Ending::TerminalGone),
                _ = signals.suspend.recv() => suspend = true,
                _ = signals.resume.recv() => {
                    // Whoever had the terminal meanwhile may have changed its modes and its picture.
                    taken.re_enter()?;
                    self.resize();
                    self.screen.forget()?;
                    dirty = true;
                }
                _ = signals.resize.recv() => {
                    self.resize();
                    dirty = true;
                }
                bytes = self.input.recv() => match bytes {
                    Some(bytes) => {
                        decoder.feed(&bytes, |input| inputs.push(input));
                        escape_at = decoder.is_waiting().then(|| Instant::now() + ESCAPE);
                    }
                    None => return Ok(Ending::TerminalGone),
                },
                changed = self.handle.snapshots.changed() => match changed {
                    Ok(()) => {
                        let snapshot = self.handle.snapshots.borrow_and_update().clone();
                        dirty |= self.app.receive(snapshot, self.began.elapsed());
                    }
                    Err(_) => return Ok(Ending::EngineGone),
                },
                () = sleep_until(wake) => {
                    if escape_at.is_some_and(|at| Instant::now() >= at) {
                        escape_at = None;
                        decoder.settle(|input| inputs.push(input));
                    }
                    dirty |= self.app.tick(self.began.elapsed());
                }
            }
            for input in inputs.drain(..) {
                dirty = true;
                match self.app.input(&input, self.began.elapsed()) {
                    Some(Effect::Quit) => return Ok(Ending::Quit),
                    Some(Effect::Suspend) => suspend = true,
                    Some(Effect::Redraw) => self.screen.forget()?,
                    Some(Effect::Send(command)) => self.send(command),
                    None => {}
                }
            }
            if suspend {
                taken.leave();
                // Stops the process here; it goes on here when it is continued.
                signal_hook::low_level::emulate_default_handler(SIGTSTP)?;
                taken.re_enter()?;
                self.resize();
                self.screen.forget()?;
                dirty = true;
            }
        }
    }

    /// Tells the engine what to show, if that has changed.
    fn ask(&mut self) {
        let query = self.app.query(self.began.elapsed());
        self.handle.queries.send_if_modified(|present| {
            let changed = *present != query;
            if changed {
                *present = query;
            }
            changed
        });
    }

    fn send(&mut self, command: crate::engine::view::Command) {
        let now = self.began.elapsed();
        match self.handle.commands.try_send(command) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.app.say("The engine is busy and did not take that: try again.", now),
            Err(TrySendError::Closed(_)) => self.app.say("The engine has ended.", now),
        }
    }

    fn resize(&mut self) {
        // A size that cannot be had is not worth ending for.
        let size = terminal::size().unwrap_or(Size { width: self.app.size.width, height: self.app.size.height });
        self.app.resize(size);
    }
}

/// Resolves once `stop` holds true. A caller that has dropped its end asks for nothing any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
