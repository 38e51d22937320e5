//! No size, no snapshot, no name breaks a picture.

use super::*;
use crate::engine::view::{Blame, Millis, Series};
use crate::telemetry::Sensor;

/// Keys that lead to every view and popup.
const WAYS: [&str; 10] = ["", "\r", "\re", "\ree", "\rn", "3", "4", "?", "f", "b"];

fn hostile_names() -> Vec<std::sync::Arc<str>> {
    [
        "日本語の車両番号一二三四五六七八九十".to_string(),
        "e\u{301}\u{302}\u{303}\u{304}\u{305}combining".to_string(),
        "x".repeat(64),
        "👩‍👩‍👧‍👦👩‍👩‍👧‍👦👩‍👩‍👧‍👦 family".to_string(),
        "ｆｕｌｌｗｉｄｔｈ".to_string(),
        "مركبة كهربائية".to_string(),
        "\\u{1b}[31m".to_string(),
        " ".to_string(),
        "a".to_string(),
    ]
    .into_iter()
    .map(Into::into)
    .collect()
}

/// A snapshot in which nothing is as it should be.
fn twisted(snapshot: &mut Snapshot) {
    let strange = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0];
    for (n, row) in snapshot.fleet.iter_mut().enumerate() {
        let value = strange[n % strange.len()];
        row.severity = 255;
        row.score = value;
        row.scores = Series { values: strange.to_vec(), breaches: vec![true] };
        row.blamed_series = Series { values: strange.repeat(50), breaches: Vec::new() };
        row.blame = Some(Blame { sensor: [0, 7, 9999][n % 3], value, expected: value, sigma: value, share: value });
        row.schema = [0, 5][n % 2];
        row.since = Some([Millis::MIN, Millis::MAX][n % 2]);
        row.last_seen = [Millis::MAX, Millis::MIN][n % 2];
        row.episodes = u32::MAX;
    }
    if let Some(car) = &mut snapshot.car {
        for (n, sensor) in car.sensors.iter_mut().enumerate() {
            sensor.value = strange[n % strange.len()];
            sensor.sigma = strange[n % strange.len()];
            sensor.series.values = strange.repeat(n);
            sensor.quality = Some("日本".repeat(n));
        }
        car.blames = vec![Blame { sensor: 3, value: 1.0, expected: f32::NAN, sigma: f32::NAN, share: 9.0 }; 9];
        car.raw = "界\u{301}".repeat(2_000);
        car.seconds_per_point = f32::INFINITY;
        car.time = Millis::MAX;
        car.muted_until = Some(Millis::MAX);
    }
    for episode in &mut snapshot.episodes {
        episode.onset = Millis::MIN;
        episode.peak = Millis::MAX;
        episode.schema = 4;
    }
    let path = &mut snapshot.pipeline;
    path.counts.received = u64::MAX;
    path.counts.consumed = 3;
    path.counts.produced = 5;
    path.rates = [f32::NAN, f32::INFINITY, -1.0, f32::MAX, 0.0];
    path.received_series = strange.to_vec();
    path.latency_ms = Some((f32::NAN, f32::MAX));
    path.trouble = Some("Kafka away ".repeat(30));
    path.kafka = "broker.example.org:9092,".repeat(20);
    path.mqtt = vec!["mqtt 192.0.2.1:1883".into(); 30];
    path.memory = u64::MAX;
    path.started = Millis::MAX;
    snapshot.taken = Millis::MIN;
    snapshot.seconds_per_point = f32::NAN;
    snapshot.fleet_offset = 3;
    snapshot.matching = usize::MAX;
    snapshot.located = Some(usize::MAX);
    snapshot.source = "源".repeat(100);
}

fn samples() -> Vec<(Sample, Twist)> {
    let many: Vec<Sensor> = (0..210).map(|n| Sensor::named(format!("sensor_with_a_long_name_{n}"))).collect();
    vec![
        (Sample::new(100), |_| {}),
        (Sample::named(Vec::new()), |_| {}),
        (Sample::named(hostile_names()), |_| {}),
        (Sample::new(100), twisted),
        (Sample::named(hostile_names()).with_schema(many), twisted),
    ]
}

fn draw_everything(sample: &Sample, twist: Twist, width: u16, height: u16) {
    for way in WAYS {
        let mut seat = Seat::new(sample.clone(), width, height);
        seat.twist = twist;
        seat.press(way);
        for (depth, ascii) in [(Depth::Truecolor, false), (Depth::None, true)] {
            let picture = seat.picture(depth, ascii);
            if ascii {
                assert!(picture.content.iter().all(|c| c.symbol().is_ascii()), "{way:?} at {width}x{height}");
            }
            for line in lines(&picture) {
                let cells = unicode_width::UnicodeWidthStr::width(line.as_str());
                assert!(cells <= usize::from(width), "{way:?} at {width}x{height}: {line:?}");
            }
        }
        seat.press("GGjj\x1b[6~\x1b[5~gk").pass(1);
        seat.picture(Depth::Ansi16, false);
    }
}

#[test]
fn no_small_size_panics() {
    let sample = Sample::new(20);
    for width in 0..=30 {
        for height in 0..=30 {
            let mut seat = Seat::new(sample.clone(), width, height);
            for way in WAYS {
                seat.press("\x1b\x1b1").press(way);
                seat.picture(Depth::Truecolor, false);
            }
        }
    }
}

#[test]
fn below_the_smallest_size_it_says_so() {
    let seat = Seat::new(Sample::new(20), 59, 15);
    assert!(seat.text().contains("60x15"), "{}", seat.text());
    assert!(seat.text().contains("59x15"));
    assert!(!Seat::new(Sample::new(20), 60, 15).text().contains("needs at least"));
}

#[test]
fn no_snapshot_panics_or_leaves_its_cells_at_any_size() {
    for (sample, twist) in samples() {
        for (width, height) in [(60, 15), (61, 16), (79, 23), (80, 24), (100, 30), (120, 40), (160, 50), (300, 90)] {
            draw_everything(&sample, twist, width, height);
        }
    }
}

#[test]
fn every_width_has_a_layout_that_fits() {
    let sample = Sample::new(100);
    for width in 60..200 {
        for way in ["", "\r", "3", "4"] {
            let mut seat = Seat::new(sample.clone(), width, 24);
            seat.press(way);
            let text = seat.text();
            if way.is_empty() {
                assert!(text.contains("87") && text.contains("engine vibration"), "{width}:\n{text}");
            }
            assert!(text.contains("? help"), "{width}: help is always offered");
        }
    }
}

#[test]
fn columns_stand_straight_whatever_a_car_is_called() {
    let seat = Seat::new(Sample::named(hostile_names()), 120, 30);
    let picture = seat.picture(Depth::Truecolor, false);
    let rows = 3..3 + hostile_names().len() as u16;
    for y in rows {
        let end: String = (115..120).map(|x| picture[(x, y)].symbol().to_string()).collect();
        assert_eq!(end.trim(), "now", "row {y}: {:?}", lines(&picture)[usize::from(y)]);
    }
}

#[test]
fn a_terminal_may_change_its_size_at_any_time() {
    let mut seat = Seat::new(Sample::new(100), 160, 50);
    seat.press("jjjjjjjjjjjjjjjjjjjjjjjjjjjjjj");
    for (width, height) in [(60, 15), (0, 0), (1, 1), (80, 24), (200, 60)] {
        seat.app.resize(Size { width, height });
        seat.pass(1);
        let car = seat.app.target().unwrap().to_string();
        if height >= 15 {
            assert!(seat.text().contains(&car), "the selected car stays on screen at {width}x{height}");
        }
    }
}
