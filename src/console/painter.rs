//! A ratatui backend that writes few bytes: what changed, in one synchronized write, and nothing at all if nothing did.
//!
//! crossterm's backend resets four attributes after every draw, hides the cursor every time, always sets both colours and
//! has a `NO_COLOR` of its own that cancels reversal; over a thin link that is most of the traffic. This one remembers the
//! terminal's state between draws and asks the terminal nothing: its size is told to it, so it may sit at the end of a socket.

use std::fmt::Write as _;
use std::io::{self, Write};

use ratatui::backend::{Backend, ClearType, WindowSize};
use ratatui::buffer::Cell;
use ratatui::layout::{Position, Size};
use ratatui::style::{Color, Modifier};

/// Writes pictures to a terminal.
#[derive(Debug)]
pub struct Painter<W: Write> {
    out: W,
    size: Size,
    frame: String,
    style: Pen,
    written: u64,
}

/// What the terminal draws with at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pen {
    fg: Color,
    bg: Color,
    modifier: Modifier,
}

const PLAIN: Pen = Pen { fg: Color::Reset, bg: Color::Reset, modifier: Modifier::empty() };

/// Begins and ends a synchronized update (DEC mode 2026): the terminal shows the whole frame or none of it.
const SYNC: (&str, &str) = ("\x1b[?2026h", "\x1b[?2026l");

impl<W: Write> Painter<W> {
    /// A painter for a terminal of that size.
    pub fn new(out: W, size: Size) -> Self {
        Painter { out, size, frame: String::with_capacity(16 * 1024), style: PLAIN, written: 0 }
    }

    /// The terminal has another size now.
    pub fn set_size(&mut self, size: Size) {
        self.size = size;
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Takes up the style that `cell` needs, saying only what differs.
    fn take_up(&mut self, cell: &Cell) {
        let wanted = Pen { fg: cell.fg, bg: cell.bg, modifier: cell.modifier };
        if wanted == self.style {
            return;
        }
        let mut codes: Vec<String> = Vec::new();
        if !wanted.modifier.contains(self.style.modifier) {
            // Attributes can be put on one by one, but bold and dim only come off together: start afresh.
            codes.push("0".into());
            self.style = PLAIN;
        }
        let added = wanted.modifier - self.style.modifier;
        for (modifier, code) in [
            (Modifier::BOLD, "1"),
            (Modifier::DIM, "2"),
            (Modifier::ITALIC, "3"),
            (Modifier::UNDERLINED, "4"),
            (Modifier::REVERSED, "7"),
        ] {
            if added.contains(modifier) {
                codes.push(code.into());
            }
        }
        if wanted.fg != self.style.fg {
            codes.push(colour_code(wanted.fg, 30));
        }
        if wanted.bg != self.style.bg {
            codes.push(colour_code(wanted.bg, 40));
        }
        self.style = wanted;
        let _ = write!(self.frame, "\x1b[{}m", codes.join(";"));
    }
}

/// `base` is 30 for text, 40 for background.
fn colour_code(colour: Color, base: u8) -> String {
    match colour {
        Color::Rgb(r, g, b) => format!("{};2;{r};{g};{b}", base + 8),
        Color::Indexed(n @ 0..8) => (base + n).to_string(),
        Color::Indexed(n @ 8..16) => (base + 60 + n - 8).to_string(),
        Color::Indexed(n) => format!("{};5;{n}", base + 8),
        // Themes know no other colours.
        _ => (base + 9).to_string(),
    }
}

impl<W: Write> Backend for Painter<W> {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        // Where the terminal's cursor is, as long as every character takes the cells we think it takes.
        let mut cursor: Option<(u16, u16)> = None;
        for (x, y, cell) in content {
            match cursor {
                Some(at) if at == (x, y) => {}
                Some((at, row)) if row == y && at < x => {
                    let _ = match x - at {
                        1 => write!(self.frame, "\x1b[C"),
                        n => write!(self.frame, "\x1b[{n}C"),
                    };
                }
                _ => {
                    let _ = write!(self.frame, "\x1b[{};{}H", y + 1, x + 1);
                }
            }
            self.take_up(cell);
            self.frame.push_str(cell.symbol());
            // After the last column terminals differ in where the cursor stands; after a character outside ASCII they may
            // differ in its width, but those we draw ourselves (symbols, blocks) are narrow everywhere.
            let narrow = unicode_width::UnicodeWidthStr::width(cell.symbol()) == 1;
            cursor = (narrow && x + 1 < self.size.width).then_some((x + 1, y));
        }
        Ok(())
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        // Hidden for as long as the console has the terminal: see `terminal`.
        Ok(())
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        Ok(Position::ORIGIN)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, _position: P) -> io::Result<()> {
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.clear_region(ClearType::All)
    }

    fn clear_region(&mut self, _kind: ClearType) -> io::Result<()> {
        self.style = PLAIN;
        self.frame.push_str("\x1b[0m\x1b[2J");
        Ok(())
    }

    fn size(&self) -> io::Result<Size> {
        Ok(self.size)
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize { columns_rows: self.size, pixels: Size::ZERO })
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        self.frame.insert_str(0, SYNC.0);
        self.frame.push_str(SYNC.1);
        let result = self.out.write_all(self.frame.as_bytes()).and_then(|()| self.out.flush());
        self.written += self.frame.len() as u64;
        self.frame.clear();
        result
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::style::{Style, Stylize};
    use ratatui::text::Line;

    use super::*;

    fn draw(terminal: &mut Terminal<Painter<Vec<u8>>>, line: Line<'static>) -> String {
        let before = terminal.backend().out.len();
        terminal.draw(|frame| frame.render_widget(line, frame.area())).unwrap();
        String::from_utf8(terminal.backend().out[before..].to_vec()).unwrap()
    }

    fn terminal() -> Terminal<Painter<Vec<u8>>> {
        Terminal::new(Painter::new(Vec::new(), Size::new(20, 2))).unwrap()
    }

    #[test]
    fn a_picture_that_has_not_changed_costs_nothing() {
        let mut terminal = terminal();
        assert!(!draw(&mut terminal, "quiet".into()).is_empty());
        assert_eq!(draw(&mut terminal, "quiet".into()), "");
        assert_eq!(terminal.backend().written(), terminal.backend().out.len() as u64);
    }

    #[test]
    fn only_the_cells_that_differ_are_written_and_the_style_is_remembered() {
        let mut terminal = terminal();
        draw(&mut terminal, Line::styled("speed 10", Style::new().fg(Color::Indexed(9))));
        assert_eq!(
            draw(&mut terminal, Line::styled("speed 12", Style::new().fg(Color::Indexed(9)))),
            "\x1b[?2026h\x1b[1;8H2\x1b[?2026l"
        );
    }

    #[test]
    fn what_the_terminal_then_shows_is_the_picture() {
        let mut terminal = terminal();
        let cells = |n| std::num::NonZeroU16::new(n).unwrap();
        let mut screen = vt100::Parser::new(cells(2), cells(20), 0);
        for line in [
            Line::from(vec!["a".bold().red(), "日本".reversed(), " b".dim()]),
            Line::from(vec!["a日".into(), "xx".underlined(), " b".dim()]),
            Line::from("12345678901234567890"),
            Line::from("1234567890123456789x"),
        ] {
            let text: String = line.spans.iter().map(|s| s.content.to_string()).collect();
            let bytes = draw(&mut terminal, line);
            screen.process(bytes.as_bytes());
            assert_eq!(screen.screen().contents().trim_end(), text);
        }
    }
}
