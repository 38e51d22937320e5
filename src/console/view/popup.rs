//! What lies over a view: the choice of a fault, a question.

use ratatui::layout::{Rect, Size};
use ratatui::style::Style;

use super::body_rows;
use super::canvas::Canvas;
use crate::console::app::{App, Overlay};
use crate::console::format;

/// Faults that a popup shows at once.
pub fn fault_rows(size: Size) -> usize {
    body_rows(size).saturating_sub(4).clamp(1, 16)
}

/// Draws the popup, if there is one.
pub fn draw(app: &App, canvas: &mut Canvas, area: Rect) {
    match &app.overlay {
        Some(Overlay::Faults { car, scroll }) => {
            let faults = &app.shown().faults;
            let rows = fault_rows(app.size).min(faults.len());
            let widest = faults.iter().map(|(_, label)| format::width(label)).max().unwrap_or(0);
            let inside = frame(canvas, area, &format!("Break {car}"), widest.max(28) as u16 + 5, rows as u16);
            for (n, (_, label)) in faults.iter().enumerate().skip(scroll.top).take(rows) {
                let line = Rect { y: inside.y + (n - scroll.top) as u16, height: 1, ..inside };
                if n == scroll.cursor {
                    canvas.lay(line, canvas.styles.selection.style());
                    canvas.text(line.x, line.y, 1, "▌", canvas.styles.title.style());
                }
                canvas.text(line.x + 2, line.y, line.width.saturating_sub(3), label, Style::new());
            }
        }
        Some(Overlay::Rebaseline { car }) => {
            let lines = [
                "Take the car's present behaviour as its normal one?".to_string(),
                "Whatever is wrong with it now will then be quiet.".to_string(),
            ];
            let inside = frame(canvas, area, &format!("Re-baseline {car}"), 56, lines.len() as u16);
            for (n, line) in lines.iter().enumerate() {
                canvas.text(inside.x + 2, inside.y + n as u16, inside.width.saturating_sub(3), line, Style::new());
            }
        }
        Some(Overlay::Typing) | None => {}
    }
}

/// An empty box in the middle, with a title. Answers with its inside.
fn frame(canvas: &mut Canvas, area: Rect, title: &str, cells: u16, lines: u16) -> Rect {
    let styles = canvas.styles;
    let width = (cells.max(format::width(title) as u16 + 6)).min(area.width.saturating_sub(4)).max(4);
    let height = (lines + 2).min(area.height);
    let outer = Rect {
        x: area.x + area.width.saturating_sub(width) / 2,
        y: area.y + area.height.saturating_sub(height) / 3,
        width,
        height,
    };
    canvas.blank(outer);
    let rule = styles.rule.style();
    let across = "─".repeat(usize::from(width.saturating_sub(2)));
    for (y, left, right) in [(outer.y, "┌", "┐"), (outer.bottom().saturating_sub(1), "└", "┘")] {
        canvas.pieces(outer.x, y, width, &[(left, rule), (&across, rule), (right, rule)]);
    }
    for y in outer.y + 1..outer.bottom().saturating_sub(1) {
        canvas.text(outer.x, y, 1, "│", rule);
        canvas.text(outer.right().saturating_sub(1), y, 1, "│", rule);
    }
    let title = format!(" {} ", format::fit_name(title, usize::from(width.saturating_sub(6))));
    canvas.text(outer.x + 2, outer.y, width.saturating_sub(4), &title, styles.title.style());
    Rect { x: outer.x + 1, y: outer.y + 1, width: width.saturating_sub(2), height: height.saturating_sub(2) }
}
