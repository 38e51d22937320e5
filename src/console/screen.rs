//! From state to terminal: the picture drawn, mapped to what the terminal has, and written where it differs.

use std::io::{self, Write};

use ratatui::Terminal;
use ratatui::buffer::Buffer;
use ratatui::layout::{Rect, Size};

use super::app::App;
use super::colour::{Depth, reduce, to_ascii};
use super::painter::Painter;
use super::view;

/// A terminal that shows the console.
#[derive(Debug)]
pub struct Screen<W: Write> {
    terminal: Terminal<Painter<W>>,
    depth: Depth,
    ascii: bool,
}

impl<W: Write> Screen<W> {
    /// A screen of that size which writes to `out`.
    ///
    /// # Errors
    /// As `out`.
    pub fn new(out: W, size: Size, depth: Depth, ascii: bool) -> io::Result<Self> {
        Ok(Screen { terminal: Terminal::new(Painter::new(out, size))?, depth, ascii })
    }

    /// Draws what has changed.
    ///
    /// # Errors
    /// As `out`.
    pub fn draw(&mut self, app: &App) -> io::Result<()> {
        self.terminal.backend_mut().set_size(app.size);
        let (depth, ascii) = (self.depth, self.ascii);
        self.terminal.draw(|frame| picture(app, frame.buffer_mut(), depth, ascii))?;
        Ok(())
    }

    /// Forgets what the terminal shows: the next draw is of every cell.
    ///
    /// # Errors
    /// As `out`.
    pub fn forget(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::new(0, 0, size.width, size.height))
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.terminal.backend().written()
    }
}

/// The finished picture, as the terminal can show it.
pub fn picture(app: &App, buffer: &mut Buffer, depth: Depth, ascii: bool) {
    view::draw(app, buffer);
    if ascii {
        to_ascii(buffer);
    }
    reduce(buffer, depth, app.theme().styles.screen.bg);
}
