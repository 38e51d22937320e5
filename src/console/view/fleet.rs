//! Fleet: which cars need me?
//!
//! ```text
//!      SEV STATE    CAR                    BLAMED SENSOR        VALUE EXPECTED      SCORE, 2 min  …    FOR SEEN
//! ▌●    87 critical electric-vehicle-00042 engine vibration ▲ 3,740.2  2,493.4 mV   ▁▁▁▂▁▁▅▆▇██  …  00:41  now
//! ```

use ratatui::layout::{Rect, Size};

use super::body_rows;
use super::canvas::{Canvas, Column, Span, columns, score_level, sensor_scale};
use super::trouble::{BLAMED, CAR, EXPECTED, Line, SEVERITY, STATE, VALUE, sensor};
use crate::console::app::App;
use crate::console::format;
use crate::engine::view::{CarState, FleetRow, Snapshot};

/// Cars on screen.
pub fn rows(size: Size) -> usize {
    body_rows(size).saturating_sub(1)
}

/// Points that the widest sparkline has room for.
pub fn points(size: Size) -> usize {
    let spans = lay_out(Rect { x: 0, y: 0, width: size.width, height: 1 });
    [SCORES, SERIES].iter().filter_map(|&n| spans[n]).map(|span| usize::from(span.cells)).max().unwrap_or(1).max(1)
}

// Those before them: see `trouble`.
const SCORES: usize = 10;
const SERIES: usize = 11;
const EPISODES: usize = 12;
const FOR: usize = 13;
const SEEN: usize = 14;

/// In the order in which they stand; the first is the selection's mark.
const COLUMNS: [Column; 15] = [
    Column::new(0, 1, 1, 0, 9),
    Column::new(0, 1, 1, 1, 9),
    Column::new(1, 3, 3, 3, 9),
    Column::new(1, 8, 12, 12, 2),
    Column::new(1, 22, 36, 2, 4),
    Column::new(1, 16, 24, 5, 4),
    Column::new(1, 1, 1, 6, 9),
    Column::new(1, 7, 9, 7, 3),
    Column::new(1, 7, 9, 11, 3),
    Column::new(1, 4, 6, 9, 3),
    Column::new(1, 6, 32, 10, 1),
    Column::new(1, 8, 22, 13, 1),
    Column::new(1, 2, 3, 14, 3),
    Column::new(1, 5, 6, 8, 3),
    Column::new(1, 4, 4, 4, 9),
];

fn lay_out(area: Rect) -> [Option<Span>; 15] {
    columns(area.x, area.width.saturating_sub(1), &COLUMNS)
}

/// Draws the view.
pub fn draw(app: &App, canvas: &mut Canvas, area: Rect) {
    let shown = app.shown();
    let spans = lay_out(area);
    heading(canvas, area.y, &spans, shown);
    if shown.fleet.is_empty() {
        return nobody(app, canvas, area);
    }
    let rows = usize::from(area.height.saturating_sub(1));
    let top = app.fleet.scroll.top;
    for n in 0..rows {
        let position = top + n;
        let Some(row) = position.checked_sub(shown.fleet_offset).and_then(|n| shown.fleet.get(n)) else { continue };
        let line = Rect { y: area.y + 1 + n as u16, height: 1, ..area };
        let selected = match &app.fleet.selected {
            Some(car) => row.car == *car,
            None => position == app.fleet.scroll.cursor,
        };
        draw_row(canvas, line, &spans, row, shown, selected);
    }
}

fn heading(canvas: &mut Canvas, y: u16, spans: &[Option<Span>; 15], shown: &Snapshot) {
    let style = canvas.styles.heading.style();
    let titled = |title: &str, span: Option<Span>| {
        let spanned = span.map_or(0.0, |s| f32::from(s.cells) * shown.seconds_per_point);
        let whole = format!("{title}, {}", format::lasting(0, (spanned * 1000.0) as i64));
        let fits = span.is_some_and(|s| format::width(&whole) <= usize::from(s.cells));
        if spanned >= 1.0 && fits { whole } else { title.to_string() }
    };
    let left = [
        (STATE, "STATE".to_string()),
        (CAR, "CAR".into()),
        (BLAMED, "BLAMED SENSOR".into()),
        (SCORES, titled("SCORE", spans[SCORES])),
        (SERIES, titled("SENSOR", spans[SERIES])),
    ];
    for (n, text) in left {
        if let Some(span) = spans[n] {
            canvas.text(span.x, y, span.cells, &text, style);
        }
    }
    let right = [(SEVERITY, "SEV"), (VALUE, "VALUE"), (EPISODES, "EP"), (FOR, "FOR"), (SEEN, "SEEN")];
    for (n, text) in right {
        if let Some(span) = spans[n] {
            canvas.right(span.x, y, span.cells, text, style);
        }
    }
    if let Some(span) = spans[EXPECTED] {
        let text = if span.cells >= 8 { "EXPECTED" } else { "EXPECT." };
        canvas.right(span.x, y, span.cells, text, style);
    }
}

fn nobody(app: &App, canvas: &mut Canvas, area: Rect) {
    let shown = app.shown();
    let text = if !app.fleet.filter.is_empty() {
        format!("No car matches “{}”. Esc clears the filter.", app.fleet.filter)
    } else if shown.cars == 0 {
        match shown.pipeline.mqtt.first() {
            Some(address) => format!("No car has reported yet. Devices publish to {address}."),
            None => "No car has reported yet.".into(),
        }
    } else {
        return;
    };
    canvas.text(area.x + 5, area.y + 2, area.width.saturating_sub(6), &text, canvas.styles.dim.style());
}

fn draw_row(
    canvas: &mut Canvas,
    area: Rect,
    spans: &[Option<Span>; 15],
    row: &FleetRow,
    shown: &Snapshot,
    selected: bool,
) {
    let styles = canvas.styles;
    let state = styles.state(row.state);
    let (dim, plain) = (styles.dim.style(), ratatui::style::Style::new());
    let calm = matches!(row.state, CarState::Quiet | CarState::Muted | CarState::Stale);
    let sensor = row.blame.as_ref().and_then(|blame| sensor(shown, row.schema, blame.sensor));
    let severity = if row.state == CarState::Stale { format::NONE.into() } else { row.severity.to_string() };
    let mut line = Line::begin(canvas, spans, area, row.state, selected);
    line.right(SEVERITY, &severity, state);
    line.left(STATE, row.state.word(), state);
    line.car(&row.car, if calm { dim } else { plain });
    match (&row.blame, sensor) {
        (Some(blame), Some(sensor)) => line.blamed(blame, sensor, state, plain),
        _ if row.state == CarState::Stale => line.left(BLAMED, "no data", state),
        // Where there is no room for a column of words, the word stands where a sensor would.
        _ if line.span(STATE).is_none() && row.state != CarState::Quiet => line.left(BLAMED, row.state.word(), state),
        _ => {}
    }
    if row.episodes > 0 {
        line.right(EPISODES, &row.episodes.to_string(), if calm { dim } else { plain });
    }
    if let Some(since) = row.since {
        line.right(FOR, &format::duration(since, shown.taken), plain);
    } else if row.state == CarState::Stale {
        line.right(FOR, &format::duration(row.last_seen, shown.taken), dim);
    }
    line.right(SEEN, &format::age(shown.taken, row.last_seen), dim);
    if let Some(Span { x, cells }) = spans[SCORES] {
        canvas.spark(x, area.y, cells, &row.scores, score_level);
    }
    if let Some(Span { x, cells }) = spans[SERIES] {
        canvas.spark(x, area.y, cells, &row.blamed_series, sensor_scale(&row.blamed_series, sensor));
    }
}
