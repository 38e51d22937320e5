//! The terminal taken and given back: raw mode, alternate screen, hidden cursor, bracketed paste; whatever happens in between.
//!
//! Given back by [`Taken::leave`], by its drop, and by the panic hook if the console's own thread panics. What another
//! thread's panic means is the engine's to judge: it must not write across the picture, so it goes to the log.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::sync::Once;
use std::thread::{self, ThreadId};

use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use parking_lot::Mutex;
use ratatui::layout::Size;
use tokio::sync::mpsc;

/// Alternate screen. Once only: it also saves the cursor that [`LEAVE`] puts back.
const ENTER: &[u8] = b"\x1b[?1049h";
/// Cleared, cursor hidden, bracketed paste.
const PREPARE: &[u8] = b"\x1b[0m\x1b[2J\x1b[?25l\x1b[?2004h";
/// In the reverse order; first the end of a synchronized update that may have been cut short, and plain style.
const LEAVE: &[u8] = b"\x1b[?2026l\x1b[0m\x1b[?2004l\x1b[?25h\x1b[?1049l";

/// The thread whose terminal is taken. A lock, because the panic hook may run on any thread.
static TAKEN_BY: Mutex<Option<ThreadId>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// The terminal, ours until this is dropped.
#[derive(Debug)]
pub struct Taken {
    ours: bool,
}

impl Taken {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// If there is none.
    pub fn enter() -> io::Result<Taken> {
        HOOK.call_once(install_hook);
        let mut taken = Taken { ours: false };
        taken.re_enter()?;
        Ok(taken)
    }

    /// Takes it over again: after [`Taken::leave`], or when somebody else may have changed it meanwhile.
    ///
    /// # Errors
    /// If it has gone away.
    pub fn re_enter(&mut self) -> io::Result<()> {
        // crossterm keeps the modes it found first; found anew after a shell had the terminal, they may be others.
        if self.ours {
            disable_raw_mode()?;
        }
        enable_raw_mode()?;
        *TAKEN_BY.lock() = Some(thread::current().id());
        if !std::mem::replace(&mut self.ours, true) {
            write(ENTER)?;
        }
        write(PREPARE)
    }

    /// Gives it back. A terminal that is gone needs no giving back.
    pub fn leave(&mut self) {
        if std::mem::take(&mut self.ours) {
            *TAKEN_BY.lock() = None;
            give_back();
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.leave();
    }
}

fn give_back() {
    // Nothing can be done about a failure, and nothing needs to be: there is no terminal to leave in disorder.
    let _ = write(LEAVE);
    let _ = disable_raw_mode();
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

fn install_hook() {
    let earlier = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let mut taken = TAKEN_BY.lock();
        match *taken {
            Some(console) if console == thread::current().id() => {
                *taken = None;
                drop(taken);
                give_back();
                earlier(panic);
            }
            Some(_) => {
                drop(taken);
                tracing::error!("thread {:?}: {panic}", thread::current().name().unwrap_or("without a name"));
            }
            None => {
                drop(taken);
                earlier(panic);
            }
        }
    }));
}

/// The terminal's size now.
pub fn size() -> io::Result<Size> {
    crossterm::terminal::size().map(|(width, height)| Size { width, height })
}

/// What is typed, piece by piece; closed once the terminal has gone away.
///
/// A thread of its own that blocks in `read`: no polling, and no spinning on a dead terminal. It ends with the terminal or
/// with the process; after the console has ended it takes at most one more piece.
pub fn input() -> io::Result<mpsc::Receiver<Vec<u8>>> {
    let stdin = io::stdin();
    let mut tty =
        if stdin.is_terminal() { File::from(stdin.as_fd().try_clone_to_owned()?) } else { File::open("/dev/tty")? };
    // A handful of pieces: whoever types faster than we draw waits in the terminal's own buffer.
    let (sender, receiver) = mpsc::channel(8);
    thread::Builder::new().name("console-input".into()).spawn(move || {
        let mut buffer = [0; 1024];
        loop {
            match tty.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => {
                    if sender.blocking_send(buffer[..n].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    })?;
    Ok(receiver)
}
