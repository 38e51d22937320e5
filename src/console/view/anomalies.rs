//! Anomalies: what happened, and when?
//!
//! ```text
//!      SEV CAR                    BLAMED SENSOR        VALUE EXPECTED       OPENED              LASTED BREACHES
//! ▌●    87 electric-vehicle-00042 engine vibration ▲ 3,740.2  2,493.4 mV    41s ago   10:41:07    open      205
//! ```

use ratatui::layout::{Rect, Size};
use ratatui::style::Style;

use super::body_rows;
use super::canvas::{Canvas, Column, Span, columns};
use super::trouble::{BLAMED, CAR, EXPECTED, Line, SEVERITY, STATE, VALUE, sensor};
use crate::console::app::App;
use crate::console::format;
use crate::console::list::Scroll;
use crate::engine::view::{CarState, Episode, Millis, Snapshot};

/// Episodes on screen.
pub fn rows(size: Size) -> usize {
    body_rows(size).saturating_sub(1)
}

// Those before them: see `trouble`.
const AGO: usize = 10;
const OPENED: usize = 11;
const LASTED: usize = 12;
const BREACHES: usize = 13;

const COLUMNS: [Column; 14] = [
    Column::new(0, 1, 1, 0, 9),
    Column::new(0, 1, 1, 1, 9),
    Column::new(1, 3, 3, 2, 9),
    Column::new(1, 6, 12, 10, 1),
    Column::new(1, 22, 36, 3, 2),
    Column::new(1, 16, 28, 5, 2),
    Column::new(1, 1, 1, 6, 9),
    Column::new(1, 7, 10, 8, 1),
    Column::new(1, 8, 10, 11, 1),
    Column::new(1, 4, 6, 9, 3),
    Column::new(1, 5, 8, 4, 3),
    Column::new(2, 8, 19, 12, 4),
    Column::new(1, 6, 8, 7, 3),
    Column::new(1, 8, 10, 13, 3),
];

fn lay_out(area: Rect) -> [Option<Span>; 14] {
    columns(area.x, area.width.saturating_sub(1), &COLUMNS)
}

/// Draws the view.
pub fn draw(app: &App, canvas: &mut Canvas, area: Rect) {
    let shown = app.shown();
    let spans = lay_out(area);
    heading(canvas, area.y, &spans, true);
    if shown.episodes.is_empty() {
        let text = if shown.query.episodes.is_none() {
            if app.behind().is_some() {
                "The frozen picture does not hold the episodes. Space lets it go on."
            } else {
                ""
            }
        } else if app.episodes.filter.is_empty() {
            "No episode yet: nothing has gone wrong since dashlight began to watch."
        } else {
            "No episode matches the filter. Esc clears it."
        };
        canvas.text(area.x + 5, area.y + 2, area.width.saturating_sub(6), text, canvas.styles.dim.style());
        return;
    }
    let selected = app.episodes.selected_episode(shown).map(|e| e.id.as_str());
    for n in 0..area.height.saturating_sub(1) {
        let position = (app.episodes.scroll.top + usize::from(n)).checked_sub(shown.episodes_offset);
        let Some(episode) = position.and_then(|n| shown.episodes.get(n)) else { continue };
        let line = Rect { y: area.y + 1 + n, height: 1, ..area };
        row(canvas, line, &spans, episode, shown, selected == Some(episode.id.as_str()), true);
    }
}

/// The episodes of one car, without its name and headings. The one at `at` is marked as what is being looked at.
pub fn draw_of_car(
    canvas: &mut Canvas,
    area: Rect,
    episodes: &[Episode],
    shown: &Snapshot,
    scroll: Option<Scroll>,
    at: Option<Millis>,
) {
    if episodes.is_empty() {
        canvas.text(area.x + 4, area.y, area.width.saturating_sub(5), "none", canvas.styles.dim.style());
        return;
    }
    let spans = lay_out(area);
    let scroll = scroll.unwrap_or_default();
    let top = scroll.top.min(episodes.len().saturating_sub(1));
    for (n, episode) in episodes.iter().enumerate().skip(top).take(usize::from(area.height)) {
        let line = Rect { y: area.y + (n - top) as u16, height: 1, ..area };
        row(canvas, line, &spans, episode, shown, at == Some(episode.peak), false);
    }
}

fn heading(canvas: &mut Canvas, y: u16, spans: &[Option<Span>; 14], names: bool) {
    let style = canvas.styles.heading.style();
    for (n, right, text) in [
        (SEVERITY, true, "SEV"),
        (STATE, false, "STATE"),
        (CAR, false, if names { "CAR" } else { "" }),
        (BLAMED, false, "BLAMED SENSOR"),
        (VALUE, true, "VALUE"),
        (EXPECTED, true, "EXPECTED"),
        (AGO, true, "AGE"),
        (OPENED, false, "OPENED, UTC"),
        (LASTED, true, "LASTED"),
        (BREACHES, true, "BREACHES"),
    ] {
        let fits = spans[n].is_some_and(|span| format::width(text) <= usize::from(span.cells));
        canvas.put(spans[n], y, right, if fits { text } else { "OPENED" }, style);
    }
}

/// How an episode is: like a car in it while it is open, quiet once it is over.
fn state(episode: &Episode) -> CarState {
    if episode.end.is_some() {
        CarState::Quiet
    } else if episode.acknowledged {
        CarState::Acknowledged
    } else if episode.severity >= CarState::CRITICAL_FROM {
        CarState::Critical
    } else {
        CarState::Warning
    }
}

fn row(
    canvas: &mut Canvas,
    area: Rect,
    spans: &[Option<Span>; 14],
    episode: &Episode,
    shown: &Snapshot,
    selected: bool,
    names: bool,
) {
    let styles = canvas.styles;
    let state = state(episode);
    let style = styles.state(state);
    let dim = styles.dim.style();
    let plain = if state == CarState::Quiet { dim } else { Style::new() };
    let mut line = Line::begin(canvas, spans, area, state, selected);
    line.right(SEVERITY, &episode.severity.to_string(), style);
    let word = match (episode.end, episode.acknowledged) {
        (Some(_), _) => "closed",
        (None, true) => CarState::Acknowledged.word(),
        (None, false) => "open",
    };
    line.left(STATE, word, style);
    if names {
        line.car(&episode.car, plain);
    } else {
        line.left(CAR, &format!("peak at {}", format::clock(episode.peak)), dim);
    }
    if let Some(blame) = episode.blames.first()
        && let Some(sensor) = sensor(shown, episode.schema, blame.sensor)
    {
        line.blamed(blame, sensor, style, plain);
    }
    line.right(AGO, &format::age(shown.taken, episode.onset), plain);
    let dated = line.cells(OPENED) >= 19;
    line.left(OPENED, &if dated { format::date_time(episode.onset) } else { format::clock(episode.onset) }, dim);
    line.right(LASTED, &format::duration(episode.onset, episode.end.unwrap_or(shown.taken)), plain);
    line.right(BREACHES, &format::count(u64::from(episode.breaches)), dim);
}
