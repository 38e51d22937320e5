//! The top and the bottom line: the same in every view.

use ratatui::layout::Rect;
use ratatui::style::Style;

use super::canvas::Canvas;
use super::{hints, symbol};
use crate::console::app::{App, Behind, Overlay, View};
use crate::console::format;
use crate::console::theme::Styles;
use crate::engine::view::CarState;

/// Draws both lines and their rules.
pub fn draw(app: &App, canvas: &mut Canvas, area: Rect) {
    top(app, canvas, area);
    canvas.rule(area, area.y + 1);
    canvas.rule(area, area.bottom().saturating_sub(2));
    bottom(app, canvas, Rect { y: area.bottom().saturating_sub(1), height: 1, ..area });
}

fn top(app: &App, canvas: &mut Canvas, area: Rect) {
    let y = area.y;
    let styles = canvas.styles;
    let dim = styles.dim.style();
    let mut x = area.x + 1;
    if area.width >= 96 {
        x = canvas.text(x, y, 9, "dashlight", styles.title.style()) + 1;
    }
    for view in View::TABS {
        let here = app.view == view;
        let (mark, style) = if here { ("▏", styles.tab.style()) } else { (" ", dim) };
        x = canvas.text(x, y, 1, mark, styles.title.style());
        x = canvas.text(x, y, 12, view.name(), style) + 1;
    }
    if app.view == View::Help {
        x = canvas.text(x, y, 1, "▏", styles.title.style());
        x = canvas.text(x, y, 12, "Help", styles.tab.style()) + 1;
    }
    let left_end = x + 1;
    let (words, style) = moment(app, styles);
    let least = words.last().map_or(0, |word| format::width(word)) as u16;
    let right_start = top_right(app, canvas, area, left_end + least + 2);
    // As much as there is room for: a part that is cut says less than none.
    let room = usize::from(right_start.saturating_sub(left_end + 2));
    let word = words.into_iter().find(|word| format::width(word) <= room).unwrap_or_default();
    let spare = room.saturating_sub(format::width(&word) + 2);
    let place = where_from(app).into_iter().find(|text| format::width(text) <= spare).unwrap_or_default();
    let whole = (format::width(&word) + 2 + format::width(&place)) as u16;
    // In the middle if it fits there, so that it stands still while the ends change.
    let middle = (area.width / 2).saturating_sub(whole / 2);
    let start = if middle >= left_end && middle + whole < right_start { middle } else { left_end };
    let after = canvas.text(start, y, right_start.saturating_sub(start), &word, style);
    canvas.text(after + 2, y, right_start.saturating_sub(after + 2), &place, dim);
}

/// `LIVE`, or how far from live the picture is; the longest wording first.
fn moment(app: &App, styles: &Styles) -> (Vec<String>, Style) {
    // What the picture holds, not what was asked for: for a moment after a key these differ.
    let past = app.car_view().filter(|car| app.view == View::Car && car.past);
    match (app.behind(), past) {
        (Some(behind), _) => (vec![format!(" FROZEN, {} ", lag(behind)), " FROZEN ".into()], styles.alert.style()),
        (None, Some(car)) => {
            (vec![format!(" PAST, {} UTC ", format::clock(car.time)), " PAST ".into()], styles.alert.style())
        }
        _ => (vec!["LIVE".into()], styles.good.style()),
    }
}

fn lag(behind: Behind) -> String {
    format!("{} s, {} behind", behind.seconds, format::plural(behind.readings, "reading", "readings"))
}

/// Where the readings come from, or whose they are: the longest wording first.
fn where_from(app: &App) -> Vec<String> {
    let shown = app.shown();
    if let (View::Car, Some(car)) = (app.view, &app.car) {
        return vec![car.to_string(), format::fit_name(car, 14).into_owned()];
    }
    let source = format::fit_name(&shown.source, 40);
    let cars = format::plural(shown.cars as u64, "car", "cars");
    let rate = format::rate(shown.pipeline.rates[0]);
    vec![format!("{source} · {cars} · {rate} rd/s"), format!("{source} · {cars}"), cars]
}

/// How many cars are how, and whether the path is whole. Answers with the first cell it took.
fn top_right(app: &App, canvas: &mut Canvas, area: Rect, left_end: u16) -> u16 {
    let shown = app.shown();
    let styles = canvas.styles;
    let mut pieces: Vec<(String, Style)> = Vec::new();
    for state in [
        CarState::Critical,
        CarState::Warning,
        CarState::Acknowledged,
        CarState::Stale,
        CarState::BadData,
        CarState::Muted,
    ] {
        let cars = shown.states.get(state);
        if cars == 0 && !matches!(state, CarState::Critical | CarState::Warning) {
            continue;
        }
        let style = if cars == 0 { styles.dim.style() } else { styles.state(state) };
        pieces.push((format!("{} {}", symbol(state), format::count(cars as u64)), style));
    }
    pieces.push(match &shown.pipeline.trouble {
        None => ("pipeline whole".into(), styles.good.style()),
        Some(trouble) => (format!(" {} ", format::fit(trouble, 40)), styles.alert.style()),
    });
    let width_of = |pieces: &[(String, Style)]| {
        pieces.iter().map(|(text, _)| format::width(text) + 2).sum::<usize>().saturating_sub(2)
    };
    // What matters least goes first; trouble, and who needs you, stay.
    let room = usize::from(area.right().saturating_sub(left_end));
    while width_of(&pieces) + 1 > room && pieces.len() > 3 {
        pieces.remove(pieces.len() - 2);
    }
    if width_of(&pieces) + 1 > room
        && let Some((text, _)) = pieces.last_mut()
    {
        *text = if text == "pipeline whole" { "whole".into() } else { format::fit(text, 18).into_owned() };
    }
    let width = width_of(&pieces) as u16;
    let start = area.right().saturating_sub(width + 1).max(left_end);
    let mut x = start;
    for (text, style) in &pieces {
        x = canvas.text(x, area.y, area.right().saturating_sub(x + 1), text, *style) + 2;
    }
    start
}

fn bottom(app: &App, canvas: &mut Canvas, line: Rect) {
    let styles = canvas.styles;
    let (x, y) = (line.x + 1, line.y);
    let room = line.width.saturating_sub(2);
    let note = note(app);
    let note_cells = format::width(&note) as u16;
    let left_room = room.saturating_sub(note_cells + 2);
    canvas.right(x + room.saturating_sub(note_cells), y, note_cells, &note, styles.dim.style());
    if app.overlay == Some(Overlay::Typing) {
        let after = canvas.text(x, y, left_room, "/ ", styles.key.style());
        let typed = format!(" {}▏", app.filter().unwrap_or_default());
        let field = left_room.saturating_sub(after - x).min(36);
        canvas.lay(Rect { x: after, y, width: field, height: 1 }, styles.input.style());
        canvas.text(after, y, field, &typed, styles.input.style());
        let hints_at = after + field + 2;
        draw_hints(app, canvas, hints_at, y, (x + left_room).saturating_sub(hints_at));
    } else if let Some(toast) = app.toast() {
        canvas.text(x, y, left_room, toast, styles.tab.style());
    } else {
        draw_hints(app, canvas, x, y, left_room);
    }
}

fn draw_hints(app: &App, canvas: &mut Canvas, mut x: u16, y: u16, room: u16) {
    let (key, word) = (canvas.styles.key.style(), canvas.styles.dim.style());
    let end = x + room;
    let hints = hints::hints(app);
    let cells = |hint: &hints::Hint| (format::width(&hint.keys) + 1 + format::width(&hint.word) + 2) as u16;
    // The last two, help and quit, must be there whatever else is not.
    let (most, last) = hints.split_at(hints.len().saturating_sub(2));
    let kept: u16 = last.iter().map(cells).sum();
    let mut shown: Vec<&hints::Hint> = Vec::new();
    let mut used = kept;
    for hint in most {
        if used + cells(hint) <= room + 2 {
            used += cells(hint);
            shown.push(hint);
        }
    }
    for hint in shown.into_iter().chain(last) {
        if x >= end {
            break;
        }
        x = canvas.text(x, y, end - x, &hint.keys, key) + 1;
        x = canvas.text(x, y, end.saturating_sub(x), &hint.word, word) + 2;
    }
}

/// The bottom line's right end: what the list holds.
fn note(app: &App) -> String {
    let shown = app.shown();
    let all = format::count(shown.cars as u64);
    if let Some(behind) = app.behind() {
        return lag(behind);
    }
    match app.view {
        View::Fleet if !app.fleet.filter.is_empty() => {
            format!("“{}”: {} of {all}", format::fit(&app.fleet.filter, 16), format::count(shown.matching as u64))
        }
        View::Anomalies if !app.episodes.filter.is_empty() => {
            let matching = format::plural(shown.episodes_matching as u64, "episode", "episodes");
            format!("“{}”: {matching}", format::fit(&app.episodes.filter, 16))
        }
        View::Anomalies => format::plural(shown.episodes_matching as u64, "episode", "episodes"),
        View::Fleet | View::Car | View::Pipeline | View::Help => match shown.states.needing_you() {
            0 => "nobody needs you".into(),
            1 if app.size.width < 100 => "1 needs you".into(),
            1 => format!("1 of {all} needs you"),
            n if app.size.width < 100 => format!("{} need you", format::count(n as u64)),
            n => format!("{} of {all} need you", format::count(n as u64)),
        },
    }
}
