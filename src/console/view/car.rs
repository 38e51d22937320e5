//! Car: what is wrong with it, and how sure are we?
//!
//! ```text
//!  ● 87 critical  electric-vehicle-00042                      episode opened 10:41:07 UTC, 41 s ago · not acknowledged
//!      because  engine vibration ▲  3,740.2 mV, expected 2,493.4   ██████████████████████ 91 %
//!
//!     SENSOR             VALUE  EXPECTED       RANGE    LAST 2 MIN                                            RESIDUAL
//!  ▲  engine vibration 3,740.2   2,493.4 mV   0–12000   ▃▃▄▄▄▅▅▄▄▄▃▃▃▄▇▇█████▇▇▇▇██████████▇▇▇▇███████          +9.8σ
//! ```

use ratatui::layout::{Rect, Size};
use ratatui::style::Style;

use super::anomalies;
use super::canvas::{Canvas, Column, Span, columns, sensor_scale};
use super::trouble::sensor;
use super::{body_rows, direction, symbol};
use crate::console::app::{App, Panel, SensorSort};
use crate::console::format;
use crate::engine::view::{Blame, CarState, CarView, SensorRow, Snapshot};

const SYMBOL: usize = 1;
const SENSOR: usize = 2;
const VALUE: usize = 3;
const EXPECTED: usize = 4;
const UNIT: usize = 5;
const RANGE: usize = 6;
const SERIES: usize = 7;
const SIGMA: usize = 8;

const COLUMNS: [Column; 9] = [
    Column::new(0, 1, 1, 0, 9),
    Column::new(0, 1, 1, 1, 9),
    Column::new(1, 16, 20, 2, 2),
    Column::new(1, 9, 11, 3, 3),
    Column::new(1, 9, 11, 6, 3),
    Column::new(1, 4, 6, 5, 3),
    Column::new(1, 9, 13, 8, 3),
    Column::new(2, 16, 400, 7, 2),
    Column::new(1, 8, 8, 4, 9),
];

fn lay_out(area: Rect) -> [Option<Span>; 9] {
    columns(area.x, area.width.saturating_sub(1), &COLUMNS)
}

/// Points that a sensor's sparkline has room for.
pub fn points(size: Size) -> usize {
    let spans = lay_out(Rect { x: 0, y: 0, width: size.width, height: 1 });
    spans[SERIES].map_or(1, |span| usize::from(span.cells)).max(1)
}

/// How the view is divided, top to bottom, in lines.
#[derive(Debug, Clone, Copy)]
struct Parts {
    becauses: usize,
    /// Whether empty lines separate the parts.
    airy: bool,
    sensors: usize,
    /// Lines for episodes and the raw reading below the sensors, their headings included; 0 if there is no room.
    below: usize,
}

fn parts(height: usize, car: Option<&CarView>) -> Parts {
    let airy = height >= 28;
    let (blames, sensors) = car.map_or((0, 0), |car| (car.blames.len(), car.sensors.len()));
    let becauses = blames.min(if airy { 3 } else { 2 });
    let above = 1 + becauses + usize::from(airy) + 1;
    let room = height.saturating_sub(above);
    let below = room.saturating_sub(sensors);
    // Below needs an empty line, a heading and something under it.
    let below = if below >= 4 { below } else { 0 };
    Parts { becauses, airy, sensors: room - below, below }
}

/// Rows of the list that the selection moves in.
pub fn sensor_rows(app: &App) -> usize {
    let height = body_rows(app.size);
    match app.panel {
        Panel::Sensors => parts(height, app.car_view()).sensors,
        Panel::Episodes | Panel::Raw => {
            let parts = parts(height, app.car_view());
            parts.sensors + parts.below
        }
    }
}

/// Draws the view.
pub fn draw(app: &App, canvas: &mut Canvas, area: Rect) {
    let shown = app.shown();
    let Some(car) = app.car_view() else { return nothing(app, canvas, area) };
    let parts = parts(usize::from(area.height), Some(car));
    title(canvas, area, car, shown);
    for (n, blame) in car.blames.iter().take(parts.becauses).enumerate() {
        because(canvas, area, area.y + 1 + n as u16, blame, car, shown, n == 0);
    }
    let y = area.y + (1 + parts.becauses + usize::from(parts.airy)) as u16;
    let rest = Rect { y, height: area.bottom().saturating_sub(y), ..area };
    match app.panel {
        Panel::Sensors => {
            sensors(app, canvas, rest, car, parts.sensors);
            let y = rest.y + 1 + parts.sensors as u16;
            below(canvas, Rect { y, height: parts.below as u16, ..area }, car, shown);
        }
        Panel::Episodes => {
            heading(canvas, rest, &format!("EPISODES  {}", car.episodes.len()));
            let list = Rect { y: rest.y + 1, height: rest.height.saturating_sub(1), ..rest };
            anomalies::draw_of_car(canvas, list, &car.episodes, shown, Some(app.sensor), app.at);
        }
        Panel::Raw => {
            heading(canvas, rest, &raw_heading(car));
            raw(canvas, Rect { y: rest.y + 1, height: rest.height.saturating_sub(1), ..rest }, &car.raw);
        }
    }
}

fn nothing(app: &App, canvas: &mut Canvas, area: Rect) {
    let text = match &app.car {
        None => "No car is open. Choose one in the fleet (1) and press Enter.".into(),
        Some(car) if app.behind().is_some() => {
            format!("The frozen picture does not hold {car} in detail. Space lets it go on.")
        }
        Some(car) => format!("{car}: asking…"),
    };
    canvas.text(area.x + 5, area.y + 1, area.width.saturating_sub(6), &text, canvas.styles.dim.style());
}

fn heading(canvas: &mut Canvas, area: Rect, text: &str) {
    canvas.text(area.x + 4, area.y, area.width.saturating_sub(5), text, canvas.styles.heading.style());
}

fn title(canvas: &mut Canvas, area: Rect, car: &CarView, shown: &Snapshot) {
    let styles = canvas.styles;
    let row = &car.row;
    let state = styles.state(row.state);
    let severity = if row.state == CarState::Stale { String::new() } else { format!("{} ", row.severity) };
    let lead = format!("{} {severity}{}  ", symbol(row.state), row.state.word());
    let x = canvas.text(area.x + 1, area.y, area.width.saturating_sub(2), &lead, state);
    let room = area.right().saturating_sub(x + 1);
    let name = format::fit_name(&row.car, usize::from(room).min(40)).into_owned();
    let x = canvas.text(x, area.y, room, &name, styles.tab.style()) + 3;
    let room = area.right().saturating_sub(x + 1);
    let mut notes = notes(car, shown);
    while notes.len() > 1 && format::width(&notes.join(" · ")) > usize::from(room) {
        notes.pop();
    }
    canvas.right(x, area.y, room, &notes.join(" · "), styles.dim.style());
}

/// What else there is to say of the car, most important first.
fn notes(car: &CarView, shown: &Snapshot) -> Vec<String> {
    let mut notes = Vec::new();
    let now = shown.taken;
    if let Some(since) = car.row.since {
        let seen = if car.episodes.iter().any(|e| e.end.is_none() && e.acknowledged) { "" } else { "not " };
        notes.push(format!("open for {}", format::lasting(since, now)));
        notes.push(format!("{seen}acknowledged"));
        notes.push(format!("since {} UTC", format::clock(since)));
    }
    if car.row.state == CarState::Stale {
        notes.push(format!("last heard of {} ago", format::lasting(car.row.last_seen, now)));
    }
    if let Some(until) = car.muted_until {
        notes.push(format!("muted for {} more", format::lasting(now, until)));
    }
    if let Some(fault) = &car.fault {
        notes.push(format!("simulated fault: {fault}"));
    }
    notes.push(format::plural(u64::from(car.row.episodes), "episode", "episodes"));
    notes.push(format::plural(car.readings, "reading", "readings"));
    notes
}

fn because(canvas: &mut Canvas, area: Rect, y: u16, blame: &Blame, car: &CarView, shown: &Snapshot, first: bool) {
    let Some(sensor) = sensor(shown, car.schema, blame.sensor) else { return };
    let styles = canvas.styles;
    let (dim, state) = (styles.dim.style(), styles.state(car.row.state));
    let right = area.right().saturating_sub(1);
    if first {
        canvas.text(area.x + 3, y, 8, "because", dim);
    }
    let x = area.x + 12;
    canvas.text(x, y, 20, &sensor.label, Style::new());
    canvas.text(x + 21, y, 1, direction(blame.sigma), state);
    canvas.right(x + 22, y, 10, &format::number(blame.value, sensor.decimals, 10), Style::new());
    let x = canvas.text(x + 33, y, 6, &sensor.unit, dim).max(x + 37);
    let expected = format!("expected {:>8}", format::number(blame.expected, sensor.decimals, 8));
    let x = canvas.text(x + 1, y, right.saturating_sub(x + 1), &expected, dim) + 2;
    let share = format!("{:.0} %", blame.share.clamp(0.0, 1.0) * 100.0);
    let cells = right.saturating_sub(x + 6).min(32);
    if cells >= 4 {
        canvas.bar(x, y, cells, blame.share, styles.bar.style());
        canvas.right(x + cells + 1, y, 5, &share, Style::new());
    } else {
        canvas.right(x, y, right.saturating_sub(x).min(5), &share, Style::new());
    }
}

fn sensors(app: &App, canvas: &mut Canvas, area: Rect, car: &CarView, rows: usize) {
    let shown = app.shown();
    let spans = lay_out(area);
    let style = canvas.styles.heading.style();
    let span_of = |n: usize| spans[n].map_or(0, |s| s.cells);
    let seconds = f32::from(span_of(SERIES)) * car.seconds_per_point;
    let lasted = format::lasting(0, (seconds * 1000.0) as i64).to_uppercase();
    let series = if car.past { format!("{lasted} UP TO THEN") } else { format!("LAST {lasted}") };
    for (n, right, text) in [
        (SENSOR, false, "SENSOR"),
        (VALUE, true, "VALUE"),
        (EXPECTED, true, "EXPECTED"),
        (RANGE, true, "RANGE"),
        (SERIES, false, series.as_str()),
        (SIGMA, true, "RESIDUAL"),
    ] {
        canvas.put(spans[n], area.y, right, text, style);
    }
    let order = order(car, app.sensor_sort);
    for (n, position) in order.into_iter().enumerate().skip(app.sensor.top).take(rows) {
        let y = area.y + 1 + (n - app.sensor.top) as u16;
        sensor_row(canvas, Rect { y, height: 1, ..area }, &spans, car, position, shown, n == app.sensor.cursor);
    }
}

/// The sensors' positions in the order in which they stand.
fn order(car: &CarView, sort: SensorSort) -> Vec<usize> {
    let mut order: Vec<usize> = (0..car.sensors.len()).collect();
    if sort == SensorSort::Deviation {
        let off = |n: usize| car.sensors.get(n).map_or(0.0, |s| if s.sigma.is_nan() { 0.0 } else { s.sigma.abs() });
        order.sort_by(|&a, &b| off(b).total_cmp(&off(a)));
    }
    order
}

fn sensor_row(
    canvas: &mut Canvas,
    line: Rect,
    spans: &[Option<Span>; 9],
    car: &CarView,
    position: usize,
    shown: &Snapshot,
    selected: bool,
) {
    let styles = canvas.styles;
    let y = line.y;
    let (Some(row), Some(sensor)) = (car.sensors.get(position), sensor(shown, car.schema, position as u16)) else {
        return;
    };
    if selected {
        canvas.lay(line, styles.selection.style());
        canvas.text(line.x, y, 1, "▌", styles.title.style());
    }
    let plain = Style::new();
    let dim = styles.dim.style();
    let alarm = styles.breach.style();
    let (mark, mark_style) = match row {
        SensorRow { quality: Some(_), .. } => (symbol(CarState::BadData), styles.bad_data.style()),
        SensorRow { breach: true, .. } => (direction(row.sigma), alarm),
        _ => (" ", plain),
    };
    let emphasis = if row.breach { alarm } else { plain };
    let mut put = |n: usize, right: bool, text: &str, style| canvas.put(spans[n], y, right, text, style);
    let cells = |n: usize| spans[n].map_or(0, |span| usize::from(span.cells));
    put(SYMBOL, false, mark, mark_style);
    put(SENSOR, false, &sensor.label, emphasis);
    put(VALUE, true, &format::number(row.value, sensor.decimals, cells(VALUE)), emphasis);
    put(UNIT, false, &sensor.unit, dim);
    put(RANGE, true, &format::range(sensor.range), dim);
    put(SIGMA, true, &format!("{}σ", format::sigma(row.sigma)), if row.breach { alarm } else { dim });
    match &row.quality {
        None => put(EXPECTED, true, &format::number(row.expected, sensor.decimals, cells(EXPECTED)), dim),
        Some(quality) => {
            // What is wrong with the data matters more than what it should be: it takes the columns up to the sparkline.
            let start = spans[EXPECTED].or(spans[UNIT]).map(|s| s.x);
            let end = spans[SERIES].or(spans[SIGMA]).map_or(line.right(), |s| s.x);
            if let Some(start) = start {
                let room = end.saturating_sub(start + 1);
                canvas.text(start, y, room, &" ".repeat(usize::from(room)), plain);
                canvas.text(start + 1, y, room.saturating_sub(1), quality, styles.bad_data.style());
            }
        }
    }
    if let Some(Span { x, cells }) = spans[SERIES] {
        canvas.spark(x, y, cells, &row.series, sensor_scale(&row.series, Some(sensor)));
    }
}

/// What there is room for below the sensors: its episodes, its raw reading.
fn below(canvas: &mut Canvas, area: Rect, car: &CarView, shown: &Snapshot) {
    if area.height < 4 {
        return;
    }
    let raw_lines = format::width(&car.raw).div_ceil(usize::from(area.width.saturating_sub(5)).max(1)) as u16;
    // The first line stays empty; half of the rest for the raw reading at most.
    let raw_lines = raw_lines.min(area.height.saturating_sub(3) / 2).clamp(1, 6);
    let for_episodes = area.height.saturating_sub(raw_lines + 3).min(car.episodes.len().max(1) as u16 + 1);
    let mut y = area.y + 1;
    if for_episodes >= 2 {
        heading(canvas, Rect { y, ..area }, &format!("EPISODES  {}", car.episodes.len()));
        let list = Rect { y: y + 1, height: for_episodes - 1, ..area };
        anomalies::draw_of_car(canvas, list, &car.episodes, shown, None, None);
        y += for_episodes + 1;
    }
    let room = area.bottom().saturating_sub(y + 1);
    heading(canvas, Rect { y, ..area }, &raw_heading(car));
    raw(canvas, Rect { y: y + 1, height: room.min(raw_lines.max(1)), ..area }, &car.raw);
}

fn raw_heading(car: &CarView) -> String {
    format!("LAST READING, as received, of {} UTC", format::date_time(car.time))
}

/// Text cut into lines of the area's width.
fn raw(canvas: &mut Canvas, area: Rect, text: &str) {
    let cells = usize::from(area.width.saturating_sub(5)).max(1);
    let style = canvas.styles.dim.style();
    let mut rest = text;
    for y in area.y..area.bottom() {
        if rest.is_empty() {
            return;
        }
        let mut used = 0;
        let end = rest.char_indices().find(|(_, c)| {
            used += unicode_width::UnicodeWidthChar::width(*c).unwrap_or(0);
            used > cells
        });
        // A character wider than the line would never fit: it goes anyway, and is cut.
        let end = end.map_or(rest.len(), |(n, c)| if n == 0 { c.len_utf8() } else { n });
        let (line, more) = rest.split_at(end);
        canvas.text(area.x + 4, y, cells as u16, line, style);
        rest = more;
    }
}
