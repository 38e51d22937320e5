//! The console, tested as it is used: keys in, snapshots in, pictures and effects out.

mod keys;
mod pictures;
mod robust;
mod traffic;

use std::sync::Arc;
use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::{Rect, Size};

use super::app::{App, Effect};
use super::colour::Depth;
use super::keys::{Decoder, Input, Key};
use super::sample::Sample;
use super::screen;
use super::theme;
use crate::engine::view::{Query, Snapshot};

/// Changes a snapshot into one that the sample would not give.
pub type Twist = fn(&mut Snapshot);

/// An operator's seat: a console with a fleet behind it that answers at once, and a clock that moves when told.
pub struct Seat {
    pub app: App,
    pub sample: Sample,
    pub step: u64,
    pub now: Duration,
    pub effects: Vec<Effect>,
    /// Whether there is anything to draw.
    pub dirty: bool,
    /// Changes what the fleet answers, for states the sample does not have.
    pub twist: Twist,
}

impl Seat {
    pub fn new(sample: Sample, width: u16, height: u16) -> Seat {
        let first = Arc::new(sample.snapshot(&Query::default(), 0));
        let app = App::new(theme::choose("dark").unwrap(), Size { width, height }, first);
        let mut seat =
            Seat { app, sample, step: 0, now: Duration::ZERO, effects: Vec::new(), dirty: true, twist: |_| {} };
        seat.answer();
        seat
    }

    /// The engine answers the present query.
    pub fn answer(&mut self) {
        let mut snapshot = self.sample.snapshot(&self.app.query(self.now), self.step);
        (self.twist)(&mut snapshot);
        self.dirty |= self.app.receive(Arc::new(snapshot), self.now);
    }

    /// Time passes and the engine answers, `steps` fifths of a second long.
    pub fn pass(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step += 1;
            self.now += Duration::from_millis(200);
            self.dirty |= self.app.tick(self.now);
            self.answer();
        }
    }

    /// Presses keys as a terminal sends them: text, and `\x1b[B` and the like. The engine answers after each.
    pub fn press(&mut self, bytes: &str) -> &mut Seat {
        let mut decoder = Decoder::default();
        let mut inputs = Vec::new();
        decoder.feed(bytes.as_bytes(), |input| inputs.push(input));
        decoder.settle(|input| inputs.push(input));
        for input in inputs {
            self.effects.extend(self.app.input(&input, self.now));
            self.dirty = true;
            self.answer();
        }
        self
    }

    pub fn key(&mut self, key: Key) -> &mut Seat {
        self.effects.extend(self.app.input(&Input::Key(key), self.now));
        self.answer();
        self
    }

    pub fn picture(&self, depth: Depth, ascii: bool) -> Buffer {
        let mut buffer = Buffer::empty(Rect::new(0, 0, self.app.size.width, self.app.size.height));
        screen::picture(&self.app, &mut buffer, depth, ascii);
        buffer
    }

    /// What stands on screen, without trailing blanks.
    pub fn text(&self) -> String {
        lines(&self.picture(Depth::Truecolor, false)).join("\n")
    }

    pub fn line(&self, y: u16) -> String {
        lines(&self.picture(Depth::Truecolor, false)).get(usize::from(y)).cloned().unwrap_or_default()
    }
}

/// A picture's lines, as a terminal would show them.
pub fn lines(picture: &Buffer) -> Vec<String> {
    let width = usize::from(picture.area.width);
    picture
        .content
        .chunks(width.max(1))
        .map(|row| {
            let mut line = String::new();
            let mut covered = 0;
            for cell in row {
                if covered > 0 {
                    covered -= 1;
                    continue;
                }
                covered = unicode_width::UnicodeWidthStr::width(cell.symbol()).saturating_sub(1);
                line.push_str(cell.symbol());
            }
            line.trim_end().to_string()
        })
        .collect()
}
