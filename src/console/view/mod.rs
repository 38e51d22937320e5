//! The screen, drawn from the console's state into a buffer.
//!
//! ```text
//!  dashlight  ▏Fleet  Car  Anomalies  Pipeline     LIVE  demo fleet · 100 cars     ● 1  ▲ 3  pipeline whole   frame
//! ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
//!  one view: fleet, car, anomalies, pipeline or help; over it perhaps a popup
//! ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
//!  ↑↓ select  ⏎ open  / filter  s sort: severity  …  ? help  q quit                      4 of 100 need you   frame
//! ```
//! A view draws within its area and nowhere else, changes nothing, and does not know which colours the terminal has.

pub mod anomalies;
pub mod canvas;
pub mod car;
pub mod fleet;
pub mod frame;
pub mod help;
pub mod hints;
pub mod pipeline;
pub mod popup;
pub mod trouble;

use ratatui::buffer::Buffer;
use ratatui::layout::{Rect, Size};

use self::canvas::Canvas;
use super::app::{App, View};
use crate::engine::view::CarState;

/// The smallest terminal that there is a layout for.
pub const SMALLEST: Size = Size { width: 60, height: 15 };

/// Draws everything.
pub fn draw(app: &App, buffer: &mut Buffer) {
    let area = buffer.area;
    let mut canvas = Canvas::new(buffer, &app.theme().styles);
    canvas.blank(area);
    if area.width < SMALLEST.width || area.height < SMALLEST.height {
        return too_small(&mut canvas, area);
    }
    frame::draw(app, &mut canvas, area);
    let body = body(area);
    match app.view {
        View::Fleet => fleet::draw(app, &mut canvas, body),
        View::Car => car::draw(app, &mut canvas, body),
        View::Anomalies => anomalies::draw(app, &mut canvas, body),
        View::Pipeline => pipeline::draw(app, &mut canvas, body),
        View::Help => help::draw(app, &mut canvas, body),
    }
    popup::draw(app, &mut canvas, body);
}

fn too_small(canvas: &mut Canvas, area: Rect) {
    let style = canvas.styles.screen.style();
    let middle = area.y + area.height / 2;
    let lines = [
        "dashlight needs at least".to_string(),
        format!("{}x{} cells; here are", SMALLEST.width, SMALLEST.height),
        format!("{}x{}", area.width, area.height),
    ];
    for (n, line) in lines.iter().enumerate() {
        let y = middle.saturating_sub(1) + n as u16;
        let indent = (usize::from(area.width).saturating_sub(line.len()) / 2) as u16;
        canvas.text(area.x + indent, y, area.width, line, style);
    }
}

/// Where a view draws: between the rules.
fn body(area: Rect) -> Rect {
    Rect { x: area.x, y: area.y + 2, width: area.width, height: area.height.saturating_sub(4) }
}

/// Rows between the rules.
pub fn body_rows(size: Size) -> usize {
    usize::from(size.height.saturating_sub(4))
}

/// How far the view on screen can be scrolled (those that scroll as a whole).
pub fn scroll_room(app: &App) -> usize {
    let lines = match app.view {
        View::Help => help::height(app),
        View::Pipeline => pipeline::height(app),
        _ => 0,
    };
    lines.saturating_sub(body_rows(app.size))
}

/// The shape that says how a car is, colour or not.
pub fn symbol(state: CarState) -> &'static str {
    match state {
        CarState::Critical => "●",
        CarState::Warning => "▲",
        CarState::Acknowledged => "✎",
        CarState::Stale => "◌",
        CarState::BadData => "◇",
        CarState::Muted => "⏸",
        CarState::Quiet => "○",
    }
}

/// Which way a sensor is off.
pub fn direction(sigma: f32) -> &'static str {
    if sigma > 0.0 {
        "▲"
    } else if sigma < 0.0 {
        "▼"
    } else {
        " "
    }
}
