//! Pipeline: can I trust what I see? A picture of the path whose numbers add up.
//!
//! ```text
//!   MQTT ─────────────────▶ Kafka ──────────────────────────────────────▶ model ────────────────▶ verdicts
//!   127.0.0.1:1883          embedded (in memory) 127.0.0.1:40123          car-sensors              4 episodes
//!
//!   received                produced               consumed               scored                   published
//!   12,480                  12,480                 12,478                 12,478                   1,204
//!   498/s                   498/s                  498/s                  498/s                    46/s
//! ```

use ratatui::layout::Rect;
use ratatui::style::Style;

use super::canvas::Canvas;
use crate::console::app::App;
use crate::console::format::{self, count, rate};
use crate::console::theme::Styles;
use crate::engine::view::{LogView, PipelineView, Series, ShadowView, Snapshot};

/// Width from which the path is drawn as a picture.
const PICTURE_FROM: u16 = 108;

/// Lines it needs.
pub fn height(app: &App) -> usize {
    lines(app.shown(), &app.theme().styles, app.size.width).len()
}

/// Text at a distance from the left edge.
type Piece = (u16, String, Style);

enum Line {
    Text(Vec<Piece>),
    /// Readings received per second of late.
    Rate,
}

/// Draws the view.
pub fn draw(app: &App, canvas: &mut Canvas, area: Rect) {
    let shown = app.shown();
    let right = area.right().saturating_sub(1);
    let lines = lines(shown, canvas.styles, area.width);
    for (n, line) in lines.into_iter().skip(app.scrolled).take(usize::from(area.height)).enumerate() {
        let y = area.y + n as u16;
        match line {
            Line::Text(pieces) => {
                for (x, text, style) in pieces {
                    let x = area.x + 3 + x;
                    canvas.text(x, y, right.saturating_sub(x), &text, style);
                }
            }
            Line::Rate => received(canvas, Rect { y, height: 1, ..area }, &shown.pipeline),
        }
    }
}

fn received(canvas: &mut Canvas, area: Rect, path: &PipelineView) {
    let dim = canvas.styles.dim.style();
    let values = path.received_series.clone();
    let most = values.iter().copied().filter(|v| v.is_finite()).fold(0.0f32, f32::max);
    let series = Series { breaches: Vec::new(), values };
    canvas.text(area.x + 3, area.y, 20, "received per second", dim);
    let peak = format!("peak {}/s", rate(most));
    let cells = area.width.saturating_sub(25 + 16).min(120);
    canvas.spark(area.x + 24, area.y, cells, &series, |v| (v / most.max(1.0) * 7.0).round().clamp(0.0, 7.0) as u8);
    canvas.text(area.x + 26 + cells, area.y, 14, &peak, dim);
}

fn lines(shown: &Snapshot, styles: &Styles, width: u16) -> Vec<Line> {
    let path = &shown.pipeline;
    let mut lines = Vec::new();
    if let Some(trouble) = &path.trouble {
        lines.push(Line::Text(vec![(0, format!(" {trouble} "), styles.alert.style())]));
        lines.push(Line::Text(Vec::new()));
    }
    if width >= PICTURE_FROM {
        picture(&mut lines, path, shown, styles, width);
    } else {
        table(&mut lines, path, styles);
    }
    lines.push(Line::Text(Vec::new()));
    balance(&mut lines, path, styles);
    lines.push(Line::Text(Vec::new()));
    facts(&mut lines, path, shown, styles, width);
    if path.received_series.iter().any(|v| *v > 0.0) {
        lines.push(Line::Rate);
    }
    lines.push(Line::Text(Vec::new()));
    warnings(&mut lines, path, shown, styles);
    lines
}

/// The five counts: label, total, rate.
fn counts(path: &PipelineView) -> [(&'static str, u64, f32); 5] {
    let c = &path.counts;
    let [received, produced, consumed, scored, published] = path.rates;
    [
        ("received", c.received, received),
        ("produced", c.produced, produced),
        ("consumed", c.consumed, consumed),
        ("scored", c.scored, scored),
        ("published", c.published, published),
    ]
}

fn batches(path: &PipelineView) -> String {
    // Nothing scored yet has no mean.
    if path.mean_batch >= 0.5 {
        format!("{}, batches of {}", path.backend, format::number(path.mean_batch, 0, 8))
    } else {
        path.backend.clone()
    }
}

fn kafka(path: &PipelineView) -> String {
    if path.kafka_embedded && !path.kafka.contains("memory") {
        format!("{}, embedded, in memory", path.kafka)
    } else {
        path.kafka.clone()
    }
}

fn partitions(path: &PipelineView) -> String {
    format!("{}, {} of {} partitions", path.topic, path.partitions.0, path.partitions.1)
}

fn addresses(path: &PipelineView) -> String {
    match path.mqtt.as_slice() {
        [] => "not listening".into(),
        addresses => addresses.iter().map(|a| a.strip_prefix("mqtt ").unwrap_or(a)).collect::<Vec<_>>().join(", "),
    }
}

fn picture(lines: &mut Vec<Line>, path: &PipelineView, shown: &Snapshot, styles: &Styles, width: u16) {
    let step = width.saturating_sub(4) / 5;
    let (title, dim, rule) = (styles.title.style(), styles.dim.style(), styles.dim.style());
    // Kafka stands over two columns: what goes in, and what comes out.
    let stages =
        [(0, 1, "MQTT".to_string()), (1, 2, "Kafka".into()), (3, 1, "model".into()), (4, 1, "verdicts".into())];
    let mut head: Vec<Piece> = Vec::new();
    for (at, over, name) in stages {
        let x = at * step;
        if at < 4 {
            let name_cells = format::width(&name) as u16 + 1;
            let cells = (over * step).saturating_sub(name_cells + 2);
            head.push((x + name_cells, format!("{}▶", "─".repeat(usize::from(cells))), rule));
        }
        head.push((x, name, title));
    }
    lines.push(Line::Text(head));
    let cell = usize::from(step).saturating_sub(2);
    let fit = |text: String, cells: usize| format::fit(&text, cells).into_owned();
    let open = shown.states.of[..3].iter().sum::<usize>();
    for (mqtt, kafka, model, verdicts) in [
        (addresses(path), kafka(path), path.model.clone(), format!("{open} open now")),
        (
            format::plural(path.clients, "client", "clients"),
            partitions(path),
            batches(path),
            format::plural(path.counts.episodes, "episode", "episodes"),
        ),
    ] {
        lines.push(Line::Text(vec![
            (0, fit(mqtt, cell), Style::new()),
            (step, fit(kafka, cell + usize::from(step)), Style::new()),
            (3 * step, fit(model, cell), Style::new()),
            (4 * step, fit(verdicts, cell), Style::new()),
        ]));
    }
    lines.push(Line::Text(Vec::new()));
    let row = |texts: [String; 5], style: Style| {
        Line::Text(texts.into_iter().enumerate().map(|(n, text)| (n as u16 * step, text, style)).collect())
    };
    let counts = counts(path);
    lines.push(row(counts.map(|(label, ..)| label.to_string()), dim));
    lines.push(row(counts.map(|(_, total, _)| count(total)), styles.tab.style()));
    lines.push(row(counts.map(|(.., per_second)| format!("{}/s", rate(per_second))), Style::new()));
}

fn table(lines: &mut Vec<Line>, path: &PipelineView, styles: &Styles) {
    let heading = styles.heading.style();
    let right = |text: &str, cells: usize| format!("{}{text}", " ".repeat(cells.saturating_sub(format::width(text))));
    lines.push(Line::Text(vec![
        (10, right("TOTAL", 12), heading),
        (22, right("PER S", 8), heading),
        (32, "WHERE".into(), heading),
    ]));
    let places = [
        format!("MQTT {}, {}", addresses(path), format::plural(path.clients, "client", "clients")),
        format!("Kafka {}", kafka(path)),
        partitions(path),
        format!("model {}, {}", path.model, batches(path)),
        "breaches and episodes, to Kafka".into(),
    ];
    for ((label, total, per_second), place) in counts(path).into_iter().zip(places) {
        lines.push(Line::Text(vec![
            (0, label.into(), Style::new()),
            (10, right(&count(total), 12), styles.tab.style()),
            (22, right(&rate(per_second), 8), Style::new()),
            (32, place, styles.dim.style()),
        ]));
    }
}

/// The sums that must hold, with what is on its way between two counts.
fn balance(lines: &mut Vec<Line>, path: &PipelineView, styles: &Styles) {
    let c = &path.counts;
    let mut sum = |whole: (&str, u64), parts: &[(&str, u64)], rest: &str| {
        let known: u64 = parts.iter().map(|(_, n)| n).sum();
        let mut text = format!("{} {} =", whole.0, count(whole.1));
        for (n, (label, part)) in parts.iter().enumerate() {
            text.push_str(&format!("{} {label} {}", if n == 0 { "" } else { " +" }, count(*part)));
        }
        let (mark, style) = match whole.1.checked_sub(known) {
            Some(left) => {
                text.push_str(&format!(" + {rest} {}", count(left)));
                ("✓", styles.good.style())
            }
            None => {
                text.push_str(&format!(": {} too many", count(known - whole.1)));
                ("✗", styles.alert.style())
            }
        };
        lines.push(Line::Text(vec![(0, mark.into(), style), (2, text, Style::new())]));
    };
    let rest = if path.log.is_some() { "in the log, not yet in Kafka" } else { "in flight to Kafka" };
    let lost = [("produced", c.produced), ("refused", c.refused), ("lost", c.lost)];
    let parts = if c.lost > 0 { &lost[..] } else { &lost[..2] };
    match c.recovered {
        0 => sum(("received", c.received), parts, rest),
        recovered => sum(("received and recovered", c.received + recovered), parts, rest),
    }
    // On a topic that others write to as well, more may be consumed than was produced here.
    if path.kafka_embedded {
        sum(("produced", c.produced), &[("consumed", c.consumed)], "in flight from Kafka");
    }
    sum(("consumed", c.consumed), &[("scored", c.scored), ("undecodable", c.undecodable)], "at the model");
}

fn facts(lines: &mut Vec<Line>, path: &PipelineView, shown: &Snapshot, styles: &Styles, width: u16) {
    let c = &path.counts;
    let latency = path.latency_ms.map_or(format::NONE.into(), |(p50, p99)| {
        format!("p50 {} ms, p99 {} ms", format::number(p50, 0, 8), format::number(p99, 0, 8))
    });
    let lag = path.lag.map_or("not known".into(), |lag| format::plural(lag, "record", "records"));
    let mut facts = vec![
        ("publish to screen", latency),
        ("consumer lag", lag),
        ("dead letters", count(c.refused + c.undecodable)),
        ("duplicates", count(c.duplicates)),
        ("breaches", count(c.anomalies)),
        ("other topics", format::plural(c.unmapped, "message", "messages")),
        ("memory", format::bytes(path.memory)),
        ("running for", format::lasting(path.started, shown.taken)),
        ("acknowledged", acknowledged(&path.ack).into()),
    ];
    if let Some(log) = &path.log {
        facts.push(("log", format!("{} of {}", format::bytes(log.bytes), format::bytes(log.max_bytes))));
        facts.push(("waiting in it", waiting(log, shown)));
        facts.push(("sync to disk", format!("{} ms", format::number(log.sync_ms, 1, 8))));
    }
    let columns = if width >= PICTURE_FROM { 2 } else { 1 };
    let step = width.saturating_sub(4) / columns;
    for pair in facts.chunks(usize::from(columns)) {
        let mut pieces = Vec::new();
        for (n, (label, value)) in pair.iter().enumerate() {
            let x = n as u16 * step;
            pieces.push((x, (*label).to_string(), styles.dim.style()));
            let room = usize::from(step).saturating_sub(23);
            pieces.push((x + 21, format::fit(value, room).into_owned(), Style::new()));
        }
        lines.push(Line::Text(pieces));
    }
    // A sentence: it has the whole line.
    let (label, text) = ("threshold".to_string(), path.threshold.clone());
    lines.push(Line::Text(vec![(0, label, styles.dim.style()), (21, text, Style::new())]));
    if let Some(shadow) = &path.shadow {
        challenger(lines, shadow, styles);
    }
}

/// The live model and its challenger, side by side.
fn challenger(lines: &mut Vec<Line>, shadow: &ShadowView, styles: &Styles) {
    let (dim, heading) = (styles.dim.style(), styles.heading.style());
    lines.push(Line::Text(Vec::new()));
    let columns = [21, 34, 46, 56];
    let mut head: Vec<Piece> = vec![(0, "CHALLENGER".into(), heading)];
    head.extend(
        columns.iter().zip(["BREACHES", "EPISODES", "OPEN", "PER READING"]).map(|(x, t)| (*x, t.into(), heading)),
    );
    lines.push(Line::Text(head));
    for (who, side) in [("live", &shadow.live), (shadow.model.as_str(), &shadow.shadow)] {
        let cost = format!("{} µs", format::number(side.cost_us, 1, 8));
        let values = [count(side.breaches), count(side.episodes), count(side.open as u64), cost];
        let mut row: Vec<Piece> = vec![(0, format::fit(who, 20).into_owned(), dim)];
        row.extend(columns.iter().zip(values).map(|(x, text)| (*x, text, Style::new())));
        lines.push(Line::Text(row));
    }
    let same = format::number(shadow.agreement() * 100.0, 2, 8);
    let text = format!("the same of {same} % of {}", format::plural(shadow.readings, "reading", "readings"));
    lines.push(Line::Text(vec![(0, "they say".into(), dim), (21, text, Style::new())]));
}

/// What a message has reached when its device is told that it is kept.
fn acknowledged(ack: &str) -> &'static str {
    match ack {
        "disk" => "once on the disk",
        "memory" => "at once, from memory",
        _ => "once in Kafka",
    }
}

fn waiting(log: &LogView, shown: &Snapshot) -> String {
    let readings = format::plural(log.waiting, "reading", "readings");
    match log.oldest {
        Some(oldest) if log.waiting > 0 => format!("{readings}, oldest {}", format::age(shown.taken, oldest)),
        _ => readings,
    }
}

fn warnings(lines: &mut Vec<Line>, path: &PipelineView, shown: &Snapshot, styles: &Styles) {
    if path.warnings.is_empty() {
        lines.push(Line::Text(vec![(0, "no warnings of late".into(), styles.dim.style())]));
        return;
    }
    lines.push(Line::Text(vec![(0, "WARNINGS".into(), styles.heading.style())]));
    for warning in &path.warnings {
        let age = format::age(shown.taken, warning.time);
        let times = if warning.times > 1 { format!("  ×{}", warning.times) } else { String::new() };
        lines.push(Line::Text(vec![
            (0, format!("{age:>4}"), styles.dim.style()),
            (6, format!("{}{times}", warning.text), styles.warning.style()),
        ]));
    }
}
