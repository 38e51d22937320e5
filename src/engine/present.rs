//! From what a lane knows to what a console can see: rows, series, a car in depth. Reads only.

use super::lane::Lane;
use super::view::{Blame, CarState, CarView, Episode, FleetRow, FleetSort, Millis, SensorRow, Series};
use crate::fleet::{Car, History};
use crate::text::harmless_bytes;

/// How much of a car's past the sparklines show, in slots (seconds, for a car that reports at least that often).
pub const SPAN: usize = 120;
/// Most episodes of one car that are shown.
const CAR_EPISODES: usize = 100;

/// The moment and the rule by which cars are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Now.
    pub now: Millis,
    /// A car unseen for longer is stale.
    pub stale_after: Millis,
}

/// How a car is.
pub fn state(lane: &Lane, n: u32, look: Look) -> CarState {
    let car = &lane.shard().cars()[n as usize];
    if car.muted_until.is_some_and(|until| until > look.now) {
        return CarState::Muted;
    }
    if let Some(open) = lane.open(n) {
        return match &open.episode {
            episode if episode.acknowledged => CarState::Acknowledged,
            episode if episode.severity >= CarState::CRITICAL_FROM => CarState::Critical,
            _ => CarState::Warning,
        };
    }
    if look.now.saturating_sub(car.last_received) > look.stale_after {
        CarState::Stale
    } else if lane.has_bad_data(n) {
        CarState::BadData
    } else {
        CarState::Quiet
    }
}

/// Where a car stands in an order: higher first, ties by name.
pub fn rank(lane: &Lane, n: u32, sort: FleetSort, look: Look) -> u64 {
    let car = &lane.shard().cars()[n as usize];
    // A non-negative finite float's bits order as the float does.
    let score = u64::from(if car.score > 0.0 { car.score.min(f32::MAX).to_bits() } else { 0 });
    match sort {
        FleetSort::Severity => {
            let class = match state(lane, n, look) {
                CarState::Critical => 6,
                CarState::Warning => 5,
                CarState::Acknowledged => 4,
                CarState::Stale => 3,
                CarState::BadData => 2,
                CarState::Quiet => 1,
                CarState::Muted => 0,
            };
            // Quiet cars stay in the order of their names: what only trembles must not move.
            let within = if class >= 4 { u64::from(severity(lane, n)) << 8 } else { 0 };
            class << 32 | within
        }
        FleetSort::Name => 0,
        FleetSort::Score => score,
        FleetSort::Episodes => u64::from(car.episodes),
        FleetSort::LastSeen => u64::MAX - car.last_received.max(0) as u64,
    }
}

/// Severity to show: the open episode's, else the latest reading's.
fn severity(lane: &Lane, n: u32) -> u8 {
    lane.open(n).map_or(lane.shard().cars()[n as usize].severity, |open| open.episode.severity)
}

/// Whether a car passes a filter of blank-separated lower-case words.
pub fn passes(lane: &Lane, n: u32, words: &[String], look: Look) -> bool {
    if words.is_empty() {
        return true;
    }
    let car = &lane.shard().cars()[n as usize];
    let name = car.name.to_lowercase();
    let state = state(lane, n, look).word();
    let blamed = blame_of(lane, n).map(|blame| lane.sensor_label(blame.sensor)).unwrap_or_default();
    words
        .iter()
        .all(|word| name.contains(word.as_str()) || state.contains(word.as_str()) || blamed.contains(word.as_str()))
}

/// The sensor responsible for the car's open episode, as it is now.
fn blame_of(lane: &Lane, n: u32) -> Option<Blame> {
    let mut blame = lane.open(n)?.episode.blames.first()?.clone();
    let (values, expected, sigmas) = lane.shard().latest(n);
    let sensor = usize::from(blame.sensor);
    // The row says how it is now; how it was at the peak stands in the episode.
    if let (Some(&value), Some(&expected), Some(&sigma)) =
        (values.get(sensor), expected.get(sensor), sigmas.get(sensor))
        && !value.is_nan()
    {
        (blame.value, blame.expected) = (value, expected);
        if sigma.is_finite() && sigma != 0.0 {
            blame.sigma = sigma;
        }
    }
    Some(blame)
}

/// A row of the fleet's list.
pub fn fleet_row(lane: &Lane, n: u32, points: usize, look: Look) -> FleetRow {
    let car = &lane.shard().cars()[n as usize];
    let blame = blame_of(lane, n);
    FleetRow {
        car: car.name.clone(),
        state: state(lane, n, look),
        severity: severity(lane, n),
        scores: series(&car.history, points, None, None),
        blamed_series: blame
            .as_ref()
            .map_or_else(Series::default, |blame| series(&car.history, points, None, Some(usize::from(blame.sensor)))),
        blame,
        score: car.score,
        episodes: car.episodes,
        since: lane.open(n).map(|open| open.since),
        last_seen: car.last_received,
        schema: lane.schema_index(),
    }
}

/// `points` points over the last [`SPAN`] slots (up to `until`) of the score or of one sensor. Stretches are aligned to slot
/// numbers, so that a series moves once per point and not with every slot.
fn series(history: &History, points: usize, until: Option<Millis>, sensor: Option<usize>) -> Series {
    let stretch = SPAN.div_ceil(points.max(1)) as u64;
    let mut series = Series::default();
    let mut current = None;
    for (number, slot, row) in history.last(points.saturating_mul(stretch as usize), until) {
        let value = match sensor {
            None => slot.score,
            Some(sensor) => row.get(sensor).map_or(f32::NAN, |value| value.to_f32()),
        };
        if current != Some(number / stretch) {
            current = Some(number / stretch);
            series.values.push(value);
            series.breaches.push(slot.breach);
        } else if let (Some(last), Some(breach)) = (series.values.last_mut(), series.breaches.last_mut()) {
            // The extreme: of scores the highest, of a sensor what a breach saw, else the newest.
            let take = match sensor {
                None => last.is_nan() || value > *last,
                Some(_) => last.is_nan() || slot.breach || !*breach,
            };
            if take && !value.is_nan() {
                *last = value;
            }
            *breach |= slot.breach;
        }
    }
    let surplus = series.values.len().saturating_sub(points);
    series.values.drain(..surplus);
    series.breaches.drain(..surplus);
    series
}

/// Seconds that one of `points` points spans, for a car that reports at least once a second.
pub fn seconds_per_point(points: usize) -> f32 {
    SPAN.div_ceil(points.max(1)) as f32
}

/// A car in depth, now or about `at`.
pub fn car_view(lane: &Lane, n: u32, points: usize, at: Option<Millis>, look: Look) -> CarView {
    let car: &Car = &lane.shard().cars()[n as usize];
    let stretch = seconds_per_point(points) * car.history.seconds_per_slot();
    // The time asked for stands two thirds into the picture: what led to it, and what came after.
    let until = at
        .filter(|&at| car.history.reaches(at))
        .map(|at| at.saturating_add((points as f32 * stretch * 1000.0 / 3.0) as Millis))
        .filter(|&until| until < car.last_time);
    let (values, expected, sigmas) = lane.shard().latest(n);
    let quality = lane.quality(n);
    let sensors = (0..lane.shard().schema().width())
        .map(|sensor| SensorRow {
            value: values[sensor],
            expected: expected[sensor],
            sigma: sigmas[sensor],
            breach: lane.in_breach(n, sensor),
            quality: quality.iter().find(|(of, _)| *of == sensor).map(|(_, what)| what.clone()),
            series: series(&car.history, points, until, Some(sensor)),
        })
        .collect();
    let past =
        at.and_then(|at| lane.episodes_of(n).find(|episode| episode.onset <= at && at <= episode.end.unwrap_or(at)));
    let blames =
        past.or(lane.open(n).map(|open| &open.episode)).map_or_else(Vec::new, |episode| episode.blames.clone());
    CarView {
        row: fleet_row(lane, n, points, look),
        schema: lane.schema_index(),
        sensors,
        blames,
        episodes: lane.episodes_of(n).take(CAR_EPISODES).cloned().collect::<Vec<Episode>>(),
        time: until.unwrap_or(car.last_time),
        seconds_per_point: stretch,
        raw: harmless_bytes(car.raw(), crate::fleet::shard::RAW_BYTES),
        readings: car.readings,
        muted_until: car.muted_until.filter(|&until| until > look.now),
        past: until.is_some(),
        fault: None,
    }
}
