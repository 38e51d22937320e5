//! Believable snapshots from nothing but numbers, for tests and benches: no engine, no clock, no chance.
//!
//! A [`Sample`] answers queries as the engine does: ordered, filtered, a window at a time.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::view::{
    Blame, CarName, CarState, CarView, Counts, Episode, EpisodeSort, FleetRow, FleetSort, Millis, PipelineView, Query,
    SchemaView, SensorRow, Series, Snapshot, StateCounts, Warning,
};
use crate::telemetry::Schema;

/// When step 0 was: 2026-11-22 10:41:48 UTC.
const BEGIN: Millis = 1_795_344_108_000;
/// Readings per second of each car.
const RATE: u64 = 5;

/// A fleet that does the same every time.
#[derive(Debug, Clone)]
pub struct Sample {
    names: Vec<CarName>,
    schema: Arc<SchemaView>,
    faults: Arc<[(String, String)]>,
    /// Whether some cars are in trouble.
    pub trouble: bool,
}

/// A number in 0..1 that looks like chance and is none (SplitMix64's mixing).
fn noise(a: u64, b: u64) -> f32 {
    let mut x = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_add(0x632b_e59b_d9b4_e019);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 40) as f32 / (1u64 << 24) as f32
}

impl Sample {
    /// A fleet of `cars` with the built-in car's sensors.
    pub fn new(cars: usize) -> Sample {
        Sample::named((1..=cars).map(|n| format!("electric-vehicle-{n:05}").into()).collect())
    }

    /// A fleet of cars with these names.
    pub fn named(names: Vec<CarName>) -> Sample {
        let faults = [
            ("tyre-leak", "tyre loses pressure"),
            ("drive-shaft", "drive shaft vibrates"),
            ("overheating", "engine overheats"),
        ];
        Sample {
            names,
            schema: Arc::new(Schema::car_sensors().sensors().to_vec()),
            faults: faults.iter().map(|(id, label)| ((*id).to_string(), (*label).to_string())).collect(),
            trouble: true,
        }
    }

    /// The same with other sensors.
    pub fn with_schema(self, schema: SchemaView) -> Sample {
        Sample { schema: Arc::new(schema), ..self }
    }

    /// The same with nothing wrong.
    pub fn healthy(self) -> Sample {
        Sample { trouble: false, ..self }
    }

    /// The same without simulated faults to choose from, as with real cars.
    pub fn real(self) -> Sample {
        Sample { faults: Arc::new([]), ..self }
    }

    fn state(&self, car: usize) -> CarState {
        match car {
            41 if self.trouble => CarState::Critical,
            6 | 90 | 21 if self.trouble => CarState::Warning,
            12 if self.trouble => CarState::Acknowledged,
            65 if self.trouble => CarState::Stale,
            30 if self.trouble => CarState::BadData,
            50 if self.trouble => CarState::Muted,
            _ => CarState::Quiet,
        }
    }

    fn blame(&self, car: usize, step: u64) -> Option<Blame> {
        let (sensor, value, expected, sigma) = match car {
            41 => (7, 3740.2, 2493.4, 9.8),
            6 => (11, 22.0, 32.1, -6.1),
            90 => (0, 96.4, 71.0, 4.4),
            21 => (4, 214.2, 231.7, -3.6),
            12 => (13, 3.61, 0.52, 4.1),
            _ => return None,
        };
        let sensor = if usize::from(sensor) < self.schema.len() { sensor } else { 0 };
        let wobble = 1.0 + 0.002 * (noise(car as u64, step) - 0.5);
        matches!(self.state(car), CarState::Critical | CarState::Warning | CarState::Acknowledged).then_some(Blame {
            sensor,
            value: value * wobble,
            expected,
            sigma,
            share: 0.91,
        })
    }

    /// A point of the sparklines spans this many steps.
    const STEPS_PER_POINT: u64 = 10;

    fn scores(&self, car: usize, points: usize, step: u64) -> Series {
        let now = step / Self::STEPS_PER_POINT;
        let values: Vec<f32> = (0..points as u64)
            .map(|n| {
                let at = now + n;
                let usual = 0.15 + 0.3 * noise(car as u64, at).powi(3);
                let age = points as u64 - n;
                match self.state(car) {
                    CarState::Critical if age < points as u64 / 2 => 2.0 + 4.0 * (1.0 - age as f32 / points as f32),
                    CarState::Warning if age < points as u64 / 3 => 1.2 + noise(car as u64, at),
                    CarState::Acknowledged if at.is_multiple_of(5) => 1.4,
                    CarState::Stale if age < points as u64 / 4 => f32::NAN,
                    _ => usual,
                }
            })
            .collect();
        Series { breaches: values.iter().map(|&score| score >= 1.0).collect(), values }
    }

    fn row(&self, car: usize, points: usize, step: u64, now: Millis) -> FleetRow {
        let state = self.state(car);
        let scores = self.scores(car, points, step);
        let score = scores.values.last().copied().filter(|v| !v.is_nan()).unwrap_or(0.2);
        let blame = self.blame(car, step);
        let blamed_series = match &blame {
            Some(blame) => self.series(car, usize::from(blame.sensor), points, step),
            None => Series::default(),
        };
        let (severity, since) = match state {
            CarState::Critical => (87, Some(now - 41_000)),
            CarState::Warning => (30 + (car % 40) as u8, Some(now - 130_000 - car as i64 * 1_700)),
            CarState::Acknowledged => (41, Some(now - 665_000)),
            _ => (2 + (noise(car as u64, step) * 3.0) as u8, None),
        };
        let episodes = if state == CarState::Quiet { (car % 17 == 3).into() } else { 1 + (car % 3) as u32 };
        FleetRow {
            car: self.names[car].clone(),
            state,
            schema: 0,
            severity,
            blame,
            score,
            scores,
            blamed_series,
            episodes,
            since,
            last_seen: if state == CarState::Stale { now - 58_000 } else { now - 200 },
        }
    }

    fn series(&self, car: usize, sensor: usize, points: usize, step: u64) -> Series {
        let now = step / Self::STEPS_PER_POINT;
        let (low, high) = self.schema.get(sensor).map_or((0.0, 1.0), |s| s.range);
        let (low, high) = if low.is_finite() && high.is_finite() { (low, high) } else { (0.0, 100.0) };
        let broken = self.blame(car, step).is_some_and(|b| usize::from(b.sensor) == sensor);
        let values: Vec<f32> = (0..points as u64)
            .map(|n| {
                let at = now + n;
                let phase = at as f32 / 7.0 + sensor as f32 + car as f32;
                let part = 0.35 + 0.03 * phase.sin() + 0.01 * noise(sensor as u64, at);
                let part = if broken && n > points as u64 / 2 { part + 0.3 } else { part };
                low + (high - low) * part
            })
            .collect();
        let breaches = (0..points).map(|n| broken && n > points / 2).collect();
        Series { values, breaches }
    }

    fn car(&self, car: usize, points: usize, at: Option<Millis>, step: u64, now: Millis) -> CarView {
        let row = self.row(car, points, step, now);
        let sensors: Vec<SensorRow> = (0..self.schema.len())
            .map(|sensor| {
                let blame = row.blame.as_ref().filter(|b| usize::from(b.sensor) == sensor);
                let series = self.series(car, sensor, points, step);
                let latest = series.values.last().copied().unwrap_or(f32::NAN);
                let missing = row.state == CarState::BadData && sensor == 9;
                SensorRow {
                    value: if missing { f32::NAN } else { blame.map_or(latest, |b| b.value) },
                    expected: blame.map_or(latest * 1.01, |b| b.expected),
                    sigma: blame.map_or(noise(sensor as u64, step / 25) - 0.5, |b| b.sigma),
                    breach: blame.is_some(),
                    quality: missing.then(|| "missing for 12 s".to_string()),
                    series,
                }
            })
            .collect();
        let mut blames: Vec<Blame> = row.blame.iter().cloned().collect();
        if !blames.is_empty() && self.schema.len() > 6 {
            blames.push(Blame { sensor: 6, value: 24.9, expected: 26.0, sigma: -1.4, share: 0.06 });
        }
        let name = &self.names[car];
        CarView {
            schema: 0,
            blames,
            episodes: self.episodes(now).into_iter().filter(|e| e.car == *name).collect(),
            time: at.unwrap_or(now - 200),
            seconds_per_point: 2.0,
            raw: raw(&self.schema, &sensors, now),
            readings: 3_000 + step,
            muted_until: (row.state == CarState::Muted).then_some(now + 1_800_000),
            past: at.is_some(),
            fault: (car == 41 && self.trouble && !self.faults.is_empty()).then(|| "drive shaft vibrates".to_string()),
            sensors,
            row,
        }
    }

    fn episodes(&self, now: Millis) -> Vec<Episode> {
        if !self.trouble {
            return Vec::new();
        }
        let mut episodes = Vec::new();
        for (n, &(car, open)) in
            [(41, true), (6, true), (90, true), (12, true), (41, false), (21, true), (3, false)].iter().enumerate()
        {
            let Some(name) = self.names.get(car) else { continue };
            let row = self.row(car, 1, 0, now);
            let onset = if open { row.since.unwrap_or(now) } else { now - 5_400_000 - n as i64 * 60_000 };
            let blame =
                self.blame(car, 0).unwrap_or(Blame { sensor: 0, value: 99.0, expected: 71.0, sigma: 4.0, share: 1.0 });
            episodes.push(Episode {
                id: format!("{name}-{onset}"),
                car: name.clone(),
                onset,
                end: (!open).then_some(onset + 240_000),
                peak: onset + 20_000,
                severity: if open { row.severity } else { 64 },
                blames: vec![blame],
                acknowledged: row.state == CarState::Acknowledged,
                breaches: 205 - n as u32 * 13,
                schema: 0,
            });
        }
        episodes
    }

    /// What the engine would answer to `query`, `step` fifths of a second after the beginning.
    pub fn snapshot(&self, query: &Query, step: u64) -> Snapshot {
        let now = BEGIN + step as i64 * 200;
        let cars = self.names.len();
        let mut states = StateCounts { of: [0; 7] };
        for car in 0..cars {
            states.of[self.state(car) as usize] += 1;
        }
        let order = self.order(query, now);
        let offset = query.fleet.offset.min(order.len());
        let window = &order[offset..(offset + query.fleet.limit).min(order.len())];
        let located = query.fleet.locate.as_ref().and_then(|car| order.iter().position(|&n| self.names[n] == *car));
        let car = query.car.as_ref().and_then(|wanted| {
            let car = self.names.iter().position(|name| *name == wanted.car)?;
            Some(Box::new(self.car(car, wanted.points, wanted.at, step, now)))
        });
        let mut episodes = self.episodes(now);
        let (mut episodes_offset, mut episodes_matching) = (0, 0);
        if let Some(wanted) = &query.episodes {
            episodes
                .retain(|e| matches_words(&wanted.filter, &[&e.car, if e.end.is_some() { "closed" } else { "open" }]));
            match wanted.sort {
                EpisodeSort::Newest => episodes.sort_by_key(|e| std::cmp::Reverse(e.onset)),
                EpisodeSort::Worst => episodes.sort_by_key(|e| std::cmp::Reverse(e.severity)),
            }
            episodes_matching = episodes.len();
            episodes_offset = wanted.offset.min(episodes.len());
            episodes = episodes.into_iter().skip(wanted.offset).take(wanted.limit).collect();
        } else {
            episodes.clear();
        }
        Snapshot {
            taken: now,
            source: "demo fleet".into(),
            cars,
            matching: order.len(),
            states,
            fleet: window.iter().map(|&n| self.row(n, query.fleet.points, step, now)).collect(),
            fleet_offset: offset,
            located,
            car,
            episodes,
            episodes_offset,
            episodes_matching,
            seconds_per_point: 2.0,
            pipeline: self.pipeline(step, now),
            schema: vec![self.schema.clone()],
            faults: self.faults.clone(),
            replies: Vec::new(),
            query: query.clone(),
        }
    }

    fn order(&self, query: &Query, now: Millis) -> Vec<usize> {
        let words = |n: usize| {
            let label =
                self.blame(n, 0).and_then(|b| self.schema.get(usize::from(b.sensor))).map_or("", |s| s.label.as_str());
            matches_words(&query.fleet.filter, &[&self.names[n], self.state(n).word(), label])
        };
        let mut order: Vec<usize> = (0..self.names.len()).filter(|&n| words(n)).collect();
        match query.fleet.sort {
            FleetSort::Name => order.sort_by(|&a, &b| self.names[a].cmp(&self.names[b])),
            FleetSort::Episodes => order.sort_by_key(|&n| std::cmp::Reverse(n % 17 == 3)),
            FleetSort::Severity | FleetSort::Score | FleetSort::LastSeen => {
                order.sort_by_key(|&n| {
                    let severity = match self.state(n) {
                        CarState::Quiet => 0,
                        _ => self.row(n, 1, 0, now).severity,
                    };
                    (self.state(n), std::cmp::Reverse(severity))
                });
            }
        }
        order
    }

    fn pipeline(&self, step: u64, now: Millis) -> PipelineView {
        let rate = self.names.len() as u64 * RATE;
        let received = rate * (60 + step) / RATE;
        let in_flight = received.min(2);
        let open = self.episodes(now).iter().filter(|e| e.end.is_none()).count() as u64;
        PipelineView {
            counts: Counts {
                received,
                produced: received,
                consumed: received - in_flight,
                scored: received - in_flight,
                anomalies: received / 100,
                episodes: open,
                published: received / 90,
                ..Counts::default()
            },
            rates: [rate as f32, rate as f32, rate as f32, rate as f32, rate as f32 / 90.0],
            ack: "kafka".into(),
            log: None,
            received_series: (0..60).map(|n| rate as f32 * (0.96 + 0.04 * noise(n, step / 5))).collect(),
            lag: Some(in_flight),
            latency_ms: Some((38.0, 91.0)),
            mqtt: vec!["mqtt 127.0.0.1:1883".into()],
            clients: self.names.len().min(100) as u64,
            kafka: "embedded (in memory) 127.0.0.1:40123".into(),
            kafka_embedded: true,
            topic: "car-sensor".into(),
            partitions: (8, 8),
            model: "car-sensors".into(),
            backend: "tract".into(),
            mean_batch: 48.0,
            threshold: "1.00, from 120,000 held-out readings".into(),
            shadow: None,
            memory: 84_000_000,
            started: BEGIN - 60_000,
            warnings: if self.trouble {
                vec![Warning { time: now - 9_000, text: "3 payloads were not JSON: dead-lettered".into(), times: 3 }]
            } else {
                Vec::new()
            },
            trouble: None,
        }
    }
}

fn matches_words(filter: &str, texts: &[&str]) -> bool {
    filter.split_whitespace().all(|word| {
        let word = word.to_lowercase();
        texts.iter().any(|text| text.to_lowercase().contains(&word))
    })
}

fn raw(schema: &SchemaView, sensors: &[SensorRow], now: Millis) -> String {
    let fields: Vec<String> = schema
        .iter()
        .zip(sensors)
        .filter(|(_, row)| !row.value.is_nan())
        .map(|(sensor, row)| format!("\"{}\":{:.2}", sensor.name, row.value))
        .collect();
    format!("{{{},\"time\":{now}}}", fields.join(","))
}

/// A snapshot before anything has happened.
pub fn empty() -> Snapshot {
    let mut snapshot = Sample::named(Vec::new()).healthy().snapshot(&Query::default(), 0);
    snapshot.query.every = Duration::from_millis(200);
    snapshot
}
