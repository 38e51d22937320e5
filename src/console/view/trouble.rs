//! What the lists of cars and of episodes share: a row that says how bad it is and which sensor is to blame.

use ratatui::layout::Rect;
use ratatui::style::Style;

use super::canvas::{Canvas, Span};
use super::{direction, symbol};
use crate::console::format;
use crate::engine::view::{Blame, CarState, Snapshot};
use crate::telemetry::Sensor;

/// The shape for the state. Column 0 is the selection's mark; these columns come first in both lists.
pub const SYMBOL: usize = 1;
/// Severity.
pub const SEVERITY: usize = 2;
/// The state in a word.
pub const STATE: usize = 3;
/// The car's name.
pub const CAR: usize = 4;
/// The sensor to blame.
pub const BLAMED: usize = 5;
/// Which way it is off.
pub const DIRECTION: usize = 6;
/// Its value.
pub const VALUE: usize = 7;
/// What was expected.
pub const EXPECTED: usize = 8;
/// The unit of both.
pub const UNIT: usize = 9;

/// One line of a list, being written.
pub struct Line<'a, 'b> {
    /// What is drawn on.
    pub canvas: &'a mut Canvas<'b>,
    spans: &'a [Option<Span>],
    y: u16,
}

impl<'a, 'b> Line<'a, 'b> {
    /// Begins the line at `area`, with its symbol; a selected one is marked.
    pub fn begin(
        canvas: &'a mut Canvas<'b>,
        spans: &'a [Option<Span>],
        area: Rect,
        state: CarState,
        selected: bool,
    ) -> Self {
        if selected {
            canvas.lay(area, canvas.styles.selection.style());
            canvas.text(area.x, area.y, 1, "▌", canvas.styles.title.style());
        }
        let style = canvas.styles.state(state);
        let mut line = Line { canvas, spans, y: area.y };
        line.left(SYMBOL, symbol(state), style);
        line
    }

    /// Where a column stands, if it has room.
    pub fn span(&self, column: usize) -> Option<Span> {
        self.spans.get(column).copied().flatten()
    }

    /// Cells of a column.
    pub fn cells(&self, column: usize) -> usize {
        self.span(column).map_or(0, |span| usize::from(span.cells))
    }

    /// Writes text at a column's left end.
    pub fn left(&mut self, column: usize, text: &str, style: Style) {
        self.canvas.put(self.span(column), self.y, false, text, style);
    }

    /// Writes text at a column's right end.
    pub fn right(&mut self, column: usize, text: &str, style: Style) {
        self.canvas.put(self.span(column), self.y, true, text, style);
    }

    /// Writes a car's name, shortened in its middle where it is too long.
    pub fn car(&mut self, name: &str, style: Style) {
        let name = format::fit_name(name, self.cells(CAR));
        self.left(CAR, &name, style);
    }

    /// Writes which sensor is to blame, its value and what was expected.
    pub fn blamed(&mut self, blame: &Blame, sensor: &Sensor, state: Style, value: Style) {
        let dim = self.canvas.styles.dim.style();
        self.left(BLAMED, &sensor.label, state);
        self.left(DIRECTION, direction(blame.sigma), state);
        self.right(VALUE, &format::number(blame.value, sensor.decimals, self.cells(VALUE)), value);
        self.right(EXPECTED, &format::number(blame.expected, sensor.decimals, self.cells(EXPECTED)), dim);
        self.left(UNIT, &sensor.unit, dim);
    }
}

/// The sensor at that position of that schema.
pub fn sensor(shown: &Snapshot, schema: usize, position: u16) -> Option<&Sensor> {
    shown.schema.get(schema)?.get(usize::from(position))
}
