//! Help: what can I do? Made from the table of commands, so that it cannot lie.

use ratatui::layout::Rect;
use ratatui::style::Style;

use super::canvas::Canvas;
use super::symbol;
use crate::console::app::App;
use crate::console::command::{Command, Place, TABLE};
use crate::console::format;
use crate::engine::view::CarState;

const PLACES: [(Place, &str); 4] =
    [(Place::Fleet, "Fleet"), (Place::Car, "Car"), (Place::Anomalies, "Anomalies"), (Place::Pipeline, "Pipeline")];

/// Lines it needs.
pub fn height(app: &App) -> usize {
    lines(app).len()
}

enum Line {
    Empty,
    Title(&'static str),
    Key { keys: String, name: &'static str, doc: &'static str, places: String },
    Shape { symbol: &'static str, state: CarState, doc: &'static str },
    Text(String),
}

/// Draws the view.
pub fn draw(app: &App, canvas: &mut Canvas, area: Rect) {
    let styles = canvas.styles;
    let (dim, key) = (styles.dim.style(), styles.key.style());
    let right = area.right().saturating_sub(1);
    for (n, line) in lines(app).into_iter().skip(app.scrolled).take(usize::from(area.height)).enumerate() {
        let (x, y) = (area.x + 3, area.y + n as u16);
        let wide = area.width >= 114;
        let text_at = if wide { x + 31 } else { x + 16 };
        match line {
            Line::Empty => {}
            Line::Title(text) => {
                canvas.text(x, y, area.width, text, styles.title.style());
            }
            Line::Key { keys, name, doc, places } => {
                canvas.text(x, y, 15, &keys, key);
                if wide {
                    canvas.text(x + 16, y, 14, name, Style::new());
                    canvas.right(right.saturating_sub(22), y, 22, &places, dim);
                }
                canvas.text(text_at, y, right.saturating_sub(text_at), doc, dim);
            }
            Line::Shape { symbol, state, doc } => {
                canvas.text(x, y, 2, symbol, styles.state(state));
                canvas.text(x + 2, y, 13, state.word(), styles.state(state));
                canvas.text(text_at, y, right.saturating_sub(text_at), doc, dim);
            }
            Line::Text(text) => {
                canvas.text(x, y, right.saturating_sub(x), &text, dim);
            }
        }
    }
}

fn lines(app: &App) -> Vec<Line> {
    let mut lines = vec![Line::Title("Keys")];
    let shown: Vec<&Command> = TABLE.iter().collect();
    for command in shown {
        let keys: Vec<String> = command.keys.iter().map(ToString::to_string).collect();
        lines.push(Line::Key { keys: keys.join(" "), name: command.name, doc: command.doc, places: places(command) });
    }
    lines.extend([Line::Empty, Line::Title("Shapes")]);
    for (state, doc) in [
        (CarState::Critical, "An open episode of severity 70 or more."),
        (CarState::Warning, "An open episode below that."),
        (CarState::Acknowledged, "An open episode that somebody has acknowledged."),
        (CarState::Stale, "No reading for a while."),
        (CarState::BadData, "Stuck, missing or impossible values: the data is wrong, not the car."),
        (CarState::Muted, "Opens no episode until its mute ends."),
        (CarState::Quiet, "Nothing to see."),
    ] {
        lines.push(Line::Shape { symbol: symbol(state), state, doc });
    }
    lines.extend([
        Line::Empty,
        Line::Title("Reading the lists"),
        Line::Text("▲ ▼ beside a sensor: it is above, below what the model expects.".into()),
        Line::Text("Score: one fixed scale, ▁▂▃ below the threshold, ▄▅▆▇█ above it; a breach is also painted.".into()),
        Line::Text("Sensor: between its least and greatest value shown. A gap is a gap.".into()),
        Line::Text("Severity: 0 to 100, comparable between cars. σ: standard deviations of the usual residual.".into()),
        Line::Empty,
        Line::Text(format!("Theme: {}. Times of day are UTC.", app.theme().name)),
    ]);
    lines
}

fn places(command: &Command) -> String {
    let here: Vec<&str> =
        PLACES.iter().filter(|(place, _)| command.places.contains(place)).map(|(_, name)| *name).collect();
    if here.len() == PLACES.len() {
        "everywhere".into()
    } else if here.is_empty() {
        let over: Vec<&str> = [(Place::Typing, "filter"), (Place::Choosing, "choice"), (Place::Asking, "question")]
            .iter()
            .filter(|(place, _)| command.places.contains(place))
            .map(|(_, name)| *name)
            .collect();
        over.join(", ")
    } else {
        format::fit(&here.join(", "), 22).into_owned()
    }
}
