//! What views draw with: text in cells that never leaves its column, sparklines, rules, and columns for a width.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::console::format;
use crate::console::theme::Styles;
use crate::engine::view::Series;
use crate::telemetry::Sensor;

/// A buffer that cannot be drawn outside of, and the theme's styles.
#[derive(Debug)]
pub struct Canvas<'a> {
    buffer: &'a mut Buffer,
    /// The theme's styles.
    pub styles: &'a Styles,
}

impl<'a> Canvas<'a> {
    /// Draws into `buffer` with `styles`.
    pub fn new(buffer: &'a mut Buffer, styles: &'a Styles) -> Self {
        Canvas { buffer, styles }
    }

    /// Empties an area.
    pub fn blank(&mut self, area: Rect) {
        let area = area.intersection(self.buffer.area);
        let style = self.styles.screen.style();
        for y in area.top()..area.bottom() {
            for x in area.left()..area.right() {
                let cell = &mut self.buffer[(x, y)];
                cell.reset();
                cell.set_style(style);
            }
        }
    }

    /// Lays a style over an area.
    pub fn lay(&mut self, area: Rect, style: Style) {
        self.buffer.set_style(area.intersection(self.buffer.area), style);
    }

    /// Writes `text` into at most `cells` cells, an ellipsis where it is too long. Answers with the x after it.
    pub fn text(&mut self, x: u16, y: u16, cells: u16, text: &str, style: Style) -> u16 {
        let area = self.buffer.area;
        if y < area.top() || y >= area.bottom() || x < area.left() || x >= area.right() {
            return x;
        }
        let cells = cells.min(area.right() - x);
        let text = format::fit(text, usize::from(cells));
        self.buffer.set_stringn(x, y, text, usize::from(cells), style).0
    }

    /// Writes `text` at the right end of `cells` cells.
    pub fn right(&mut self, x: u16, y: u16, cells: u16, text: &str, style: Style) {
        let text = format::fit(text, usize::from(cells));
        let indent = usize::from(cells).saturating_sub(format::width(&text)) as u16;
        self.text(x.saturating_add(indent), y, cells - indent, &text, style);
    }

    /// Writes `text` into a column, if it is there, at its left or right end.
    pub fn put(&mut self, span: Option<Span>, y: u16, right: bool, text: &str, style: Style) {
        match span {
            Some(Span { x, cells }) if right => self.right(x, y, cells, text, style),
            Some(Span { x, cells }) => {
                self.text(x, y, cells, text, style);
            }
            None => {}
        }
    }

    /// Writes pieces one after the other into `cells` cells. Answers with the x after them.
    pub fn pieces(&mut self, x: u16, y: u16, cells: u16, pieces: &[(&str, Style)]) -> u16 {
        let end = x.saturating_add(cells);
        pieces.iter().fold(x, |x, (text, style)| self.text(x, y, end.saturating_sub(x), text, *style))
    }

    /// A rule across an area's line `y`.
    pub fn rule(&mut self, area: Rect, y: u16) {
        let style = self.styles.rule.style();
        self.text(area.x, y, area.width, &"─".repeat(usize::from(area.width)), style);
    }

    /// A bar that fills `part` (0 to 1) of `cells`, in eighths of a cell.
    pub fn bar(&mut self, x: u16, y: u16, cells: u16, part: f32, style: Style) {
        let eighths = (part.clamp(0.0, 1.0) * f32::from(cells) * 8.0).round() as usize;
        let mut bar = "█".repeat(eighths / 8);
        bar.push_str(["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8]);
        self.text(x, y, cells, &bar, style);
    }

    /// A sparkline of the latest points, newest at the right end; `level` says how high a point is, 0 to 7. A gap is a gap,
    /// a breach is painted.
    pub fn spark(&mut self, x: u16, y: u16, cells: u16, series: &Series, level: impl Fn(f32) -> u8) {
        const BLOCKS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
        let (plain, breach) = (self.styles.spark.style(), self.styles.breach.style());
        let shown = series.values.len().min(usize::from(cells));
        let first = series.values.len() - shown;
        let left = x.saturating_add(cells - shown as u16);
        for (n, &value) in series.values[first..].iter().enumerate() {
            if value.is_nan() {
                continue;
            }
            let breached = series.breaches.get(first + n).copied().unwrap_or(false);
            let style = if breached { breach } else { plain };
            self.text(left + n as u16, y, 1, BLOCKS[usize::from(level(value).min(7))], style);
        }
    }
}

/// How high a score stands in a sparkline: one fixed scale for all cars, calm below the threshold (1.0 is level 3).
pub fn score_level(score: f32) -> u8 {
    const STEPS: [f32; 7] = [0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0];
    STEPS.iter().take_while(|&&step| score >= step).count() as u8
}

/// How high a sensor's values stand in its sparkline: between the least and the greatest of those shown, but never so fine
/// that the usual noise fills the column.
pub fn sensor_scale(series: &Series, sensor: Option<&Sensor>) -> impl Fn(f32) -> u8 + use<> {
    let known = series.values.iter().copied().filter(|v| v.is_finite());
    let (low, high) = known.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    let usual = sensor.map_or(f32::INFINITY, |s| s.range.1 - s.range.0);
    let finest = if usual.is_finite() { usual * 0.04 } else { (high.abs().max(low.abs()) * 0.02).max(1e-6) };
    let middle = low / 2.0 + high / 2.0;
    let span = (high - low).max(finest);
    let floor = middle - span / 2.0;
    move |v: f32| ((v - floor) / span * 8.0).clamp(0.0, 7.0) as u8
}

/// The cells in which one column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First cell.
    pub x: u16,
    /// Cells.
    pub cells: u16,
}

/// A column's wish.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Empty cells before it.
    pub gap: u16,
    /// Fewest cells with which it makes sense.
    pub least: u16,
    /// Most cells that it can use.
    pub most: u16,
    /// Columns with a lower number are let in earlier.
    pub rank: u8,
    /// Columns with a lower number grow earlier; those with the same number share.
    pub growth: u8,
}

impl Column {
    /// A column's wish, its fields in order.
    pub const fn new(gap: u16, least: u16, most: u16, rank: u8, growth: u8) -> Column {
        Column { gap, least, most, rank, growth }
    }
}

/// Lets in as many columns as fit `width`, by rank, then gives them what is left, by growth. A column that is not let in is
/// `None`; the highest-ranked is always in, however narrow.
pub fn columns<const N: usize>(left: u16, width: u16, wishes: &[Column; N]) -> [Option<Span>; N] {
    let mut order: [usize; N] = std::array::from_fn(|n| n);
    order.sort_by_key(|&n| wishes[n].rank);
    let mut cells = [None; N];
    let mut room = width;
    for &n in &order {
        let wish = &wishes[n];
        if wish.gap + wish.least <= room {
            room -= wish.gap + wish.least;
            cells[n] = Some(wish.least);
        }
    }
    order.sort_by_key(|&n| wishes[n].growth);
    for group in order.chunk_by(|&a, &b| wishes[a].growth == wishes[b].growth) {
        loop {
            let before = room;
            for &n in group {
                if let Some(has) = &mut cells[n]
                    && *has < wishes[n].most
                    && room > 0
                {
                    *has += 1;
                    room -= 1;
                }
            }
            if room == before {
                break;
            }
        }
    }
    let mut x = left;
    std::array::from_fn(|n| {
        let cells = cells[n]?;
        let span = Span { x: x + wishes[n].gap, cells };
        x = span.x + cells;
        Some(span)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_of_scores_has_the_threshold_in_its_middle() {
        assert_eq!(score_level(0.3), 0);
        assert_eq!(score_level(0.99), 2);
        assert_eq!(score_level(1.0), 3, "a breach is always higher than what is none");
        assert_eq!(score_level(100.0), 7);
        assert_eq!(score_level(f32::NAN), 0);
    }

    #[test]
    fn noise_is_flat_and_a_jump_is_not() {
        let sensor = Sensor { range: (0.0, 100.0), ..Sensor::named("s") };
        let series = |values: Vec<f32>| Series { breaches: vec![false; values.len()], values };
        let noise = series(vec![50.0, 50.2, 49.9, 50.1]);
        let scale = sensor_scale(&noise, Some(&sensor));
        let levels: Vec<u8> = noise.values.iter().map(|&v| scale(v)).collect();
        assert!(levels.iter().max().unwrap() - levels.iter().min().unwrap() <= 1, "{levels:?}");
        let jump = series(vec![50.0, 50.2, 90.0]);
        let scale = sensor_scale(&jump, Some(&sensor));
        assert_eq!((scale(50.0), scale(90.0)), (0, 7));
    }

    #[test]
    fn columns_fill_the_width_and_never_exceed_it() {
        let wishes = [
            Column { gap: 0, least: 4, most: 10, rank: 0, growth: 1 },
            Column { gap: 1, least: 8, most: 8, rank: 2, growth: 0 },
            Column { gap: 1, least: 3, most: 9, rank: 1, growth: 1 },
        ];
        for width in 0..60 {
            let spans = columns(0, width, &wishes);
            for span in spans.iter().flatten() {
                assert!(span.x + span.cells <= width, "{width}: {spans:?}");
            }
            assert_eq!(spans[1].is_some(), width >= 17, "{width}: the lowest rank comes in last");
        }
    }
}
