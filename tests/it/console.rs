//! The console in a real terminal: the real binary behind a pseudo-terminal, its output read as a terminal reads it.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use tempfile::TempDir;

use crate::support::{PATIENCE, wait_until};

fn cells(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap()
}

/// The binary on a terminal of its own. Killed when dropped.
pub struct Console {
    child: Box<dyn Child + Send + Sync>,
    master: Option<Box<dyn MasterPty + Send>>,
    keyboard: Option<Box<dyn Write + Send>>,
    output: Receiver<Vec<u8>>,
    screen: vt100::Parser,
    bytes: Vec<u8>,
    modes_before: String,
    /// Makes the reading thread let go of the terminal after the next piece.
    let_go: Arc<AtomicBool>,
    _home: Arc<TempDir>,
}

impl Console {
    /// `dashlight run` without cars of its own, on a terminal of that size.
    fn start(columns: u16, rows: u16, arguments: &[&str], environment: &[(&str, &str)]) -> Console {
        Console::start_in(&Arc::new(tempfile::tempdir().unwrap()), columns, rows, arguments, environment)
    }

    /// The same in a folder that outlives it.
    pub fn start_in(
        home: &Arc<TempDir>,
        columns: u16,
        rows: u16,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Console {
        let size = PtySize { cols: columns, rows, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_dashlight"));
        command.env_clear();
        command.cwd(home.path());
        command.env("HOME", home.path());
        command.env("XDG_STATE_HOME", home.path());
        command.env("TERM", "xterm-256color");
        for (name, value) in environment {
            command.env(name, value);
        }
        command.args(["run", "--mqtt-listen", "127.0.0.1:0", "--simulate", "off"]);
        command.args(arguments);
        let modes_before = format!("{:?}", pair.master.get_termios());
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let mut reader = pair.master.try_clone_reader().unwrap();
        let keyboard = pair.master.take_writer().unwrap();
        let (sender, output) = channel();
        let let_go = Arc::new(AtomicBool::new(false));
        let letting_go = let_go.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() || letting_go.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        Console {
            child,
            master: Some(pair.master),
            keyboard: Some(keyboard),
            output,
            screen: vt100::Parser::new(cells(rows), cells(columns), 0),
            bytes: Vec::new(),
            modes_before,
            let_go,
            _home: home.clone(),
        }
    }

    fn fleet(columns: u16, rows: u16) -> Console {
        let mut console = Console::start(columns, rows, &[], &[]);
        console.wait("No car has reported yet");
        console
    }

    fn take(&mut self, bytes: &[u8]) {
        self.screen.process(bytes);
        self.bytes.extend_from_slice(bytes);
    }

    /// Waits until the screen is as wanted.
    fn wait_for(&mut self, what: &str, wanted: impl Fn(&vt100::Screen) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !wanted(self.screen.screen()) {
            match self.output.recv_timeout(Duration::from_millis(50)) {
                Ok(bytes) => self.take(&bytes),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    assert!(
                        wanted(self.screen.screen()),
                        "it ended before {what}:\n{}",
                        self.screen.screen().contents()
                    );
                }
            }
            assert!(Instant::now() < end, "waited in vain for {what}:\n{}", self.screen.screen().contents());
        }
    }

    /// Waits until the screen has this text.
    pub fn wait(&mut self, text: &str) {
        self.wait_for(text, |screen| screen.contents().contains(text));
    }

    /// Where devices connect, from the Pipeline view; the fleet is shown again afterwards.
    pub fn address(&mut self) -> SocketAddr {
        self.press("4");
        self.wait("in flight to Kafka");
        let text = self.screen.screen().contents();
        let from = text.find("127.0.0.1:").expect("an address");
        let address = text[from..].split(|c: char| c.is_whitespace() || c == ',').next().unwrap_or_default();
        let address = address.parse().expect("an address");
        self.press("1");
        self.wait("BLAMED SENSOR");
        address
    }

    /// Types these keys.
    pub fn press(&mut self, keys: &str) {
        let keyboard = self.keyboard.as_mut().unwrap();
        keyboard.write_all(keys.as_bytes()).unwrap();
        keyboard.flush().unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let id = self.child.process_id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Waits for the end, and answers with the exit code.
    pub fn ended(&mut self) -> u32 {
        let end = Instant::now() + PATIENCE;
        loop {
            // A terminal whose output nobody reads would hold its program up.
            while let Ok(bytes) = self.output.try_recv() {
                self.take(&bytes);
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                while let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(200)) {
                    self.take(&bytes);
                }
                return status.exit_code();
            }
            assert!(Instant::now() < end, "it does not end:\n{}", self.screen.screen().contents());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The terminal is as it was before.
    fn is_restored(&self) {
        let screen = self.screen.screen();
        assert!(!screen.alternate_screen(), "it is still on the alternate screen");
        assert!(!screen.hide_cursor(), "the cursor is still hidden");
        assert!(!screen.bracketed_paste(), "bracketed paste is still on");
        let modes = format!("{:?}", self.master.as_ref().and_then(|master| master.get_termios()));
        assert_eq!(modes, self.modes_before, "the terminal's modes have changed");
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_view_comes_up_and_q_gives_the_terminal_back() {
    let mut console = Console::fleet(100, 30);
    assert!(console.screen.screen().alternate_screen() && console.screen.screen().hide_cursor());
    for (key, text) in [
        ("2", "No car is open"),
        ("3", "No episode yet"),
        ("4", "in flight to Kafka"),
        ("?", "Moves the selection one row up."),
        ("\x1b", "in flight to Kafka"),
        ("\t", "BLAMED SENSOR"),
    ] {
        console.press(key);
        console.wait(text);
    }
    console.press("q");
    assert_eq!(console.ended(), 0);
    console.is_restored();
}

#[test]
fn whatever_ends_it_the_terminal_is_as_it_was() {
    for way in ["Ctrl-C", "-INT", "-TERM", "-HUP"] {
        let mut console = Console::fleet(80, 24);
        if way == "Ctrl-C" {
            console.press("\x03")
        } else {
            console.signal(way)
        }
        assert_eq!(console.ended(), 0, "{way}");
        console.is_restored();
    }
}

#[test]
fn it_can_be_suspended_and_continued() {
    let mut console = Console::fleet(80, 24);
    console.press("\x1a");
    console.wait_for("the screen given back", |screen| !screen.alternate_screen());
    console.is_restored();
    console.signal("-CONT");
    console.wait_for("the picture drawn anew", |screen| {
        screen.alternate_screen() && screen.contents().contains("No car has reported yet")
    });
    console.press("4");
    console.wait("in flight to Kafka");
    console.press("q");
    assert_eq!(console.ended(), 0);
    console.is_restored();
}

#[test]
fn a_terminal_that_dies_ends_it_instead_of_making_it_spin() {
    let mut console = Console::fleet(80, 24);
    // Nobody holds the other end any more: the reader goes with the next thing drawn, then the rest.
    console.let_go.store(true, Ordering::SeqCst);
    console.press("t");
    wait_until("the reader is gone", || console.output.try_recv() == Err(TryRecvError::Disconnected));
    drop(console.keyboard.take());
    drop(console.master.take());
    assert_eq!(console.ended(), 0);
}

#[test]
fn another_size_is_another_picture() {
    let mut console = Console::fleet(80, 24);
    let resize = |console: &mut Console, cols, rows| {
        console.screen.screen_mut().set_size(cells(rows), cells(cols));
        let master = console.master.as_ref().unwrap();
        master.resize(PtySize { cols, rows, pixel_width: 0, pixel_height: 0 }).unwrap();
    };
    resize(&mut console, 40, 10);
    console.wait("needs at least");
    resize(&mut console, 120, 40);
    console.wait("No car has reported yet");
    console.press("q");
    assert_eq!(console.ended(), 0);
}

#[test]
fn without_colour_nothing_is_coloured_and_the_field_one_types_into_still_stands_out() {
    let mut console = Console::start(80, 24, &[], &[("NO_COLOR", "1"), ("COLORTERM", "truecolor")]);
    console.wait("No car has reported yet");
    console.press("/abc");
    console.wait_for("what was typed", |screen| screen.contents().contains("/  abc"));
    let screen = console.screen.screen();
    for y in 0..24 {
        for x in 0..80 {
            let cell = screen.cell(y, x).unwrap();
            assert_eq!((cell.fgcolor(), cell.bgcolor()), (vt100::Color::Default, vt100::Color::Default), "at {x},{y}");
        }
    }
    assert!(screen.cell(23, 4).unwrap().inverse(), "the field one types into");
}

#[test]
fn with_ascii_no_other_byte_is_written() {
    let mut console = Console::start(80, 24, &["--ascii"], &[]);
    console.wait("No car has reported yet");
    console.press("4");
    console.wait("in flight to Kafka");
    console.press("q");
    assert_eq!(console.ended(), 0);
    assert!(console.bytes.is_ascii());
}

#[test]
fn an_idle_console_writes_next_to_nothing() {
    let mut console = Console::fleet(120, 40);
    console.press(" ");
    console.wait("FROZEN");
    wait_until("a quiet moment", || {
        let before = console.bytes.len();
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            if let Ok(bytes) = console.output.recv_timeout(Duration::from_millis(100)) {
                console.take(&bytes);
            }
        }
        console.bytes.len() - before < 400
    });
}

#[test]
fn a_theme_that_is_none_is_refused_before_anything_starts() {
    let mut console = Console::start(80, 24, &["--theme", "drak"], &[]);
    assert_eq!(console.ended(), 2);
    let said = String::from_utf8_lossy(&console.bytes).into_owned();
    assert!(said.contains("there is no theme \"drak\": choose dark"), "{said}");
    assert!(!said.contains("\x1b[?1049h"), "the screen was taken over");
}
