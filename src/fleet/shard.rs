//! A part of the fleet: its cars by key, each with its latest reading and its bounded past.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::History;
use crate::telemetry::Schema;
use crate::text::harmless_bytes;

/// Longest name a car is shown by, in characters.
const NAME_CHARS: usize = 64;
/// How much of the latest payload is kept for the operator to look at.
pub const RAW_BYTES: usize = 2_048;
/// Slots of history a car gets while the fleet is small, and once it is not.
const SLOTS_SMALL: usize = 600;
const SLOTS_LARGE: usize = 120;
const SMALL_FLEET: usize = 1_000;

/// What is known of one car, its sensors apart.
#[derive(Debug)]
pub struct Car {
    /// Shown to people: harmless, bounded, unique in its shard.
    pub name: Arc<str>,
    /// Its key in Kafka, byte for byte.
    pub key: Box<[u8]>,
    /// Its past.
    pub history: History,
    /// Latest score, in multiples of the threshold.
    pub score: f32,
    /// Severity of the latest reading, 0–100.
    pub severity: u8,
    /// Event time of the latest reading, milliseconds since the Unix epoch.
    pub last_time: i64,
    /// When the latest reading was received.
    pub last_received: i64,
    /// Readings so far.
    pub readings: u64,
    /// Episodes so far.
    pub episodes: u32,
    /// Position in the schema of the sensor held responsible; only meaningful while there is an open episode.
    pub blamed: Option<u16>,
    /// No episode is opened for it until then.
    pub muted_until: Option<i64>,
    raw: Vec<u8>,
}

impl Car {
    /// The latest payload's beginning, byte for byte.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }
}

/// A reading as judged, to be remembered.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// Event time, milliseconds since the Unix epoch.
    pub time: i64,
    /// When it was received.
    pub received: i64,
    /// Raw sensor values, a gap is NaN.
    pub values: &'a [f32],
    /// What the model expects of each.
    pub expected: &'a [f32],
    /// Signed standardised residuals.
    pub sigmas: &'a [f32],
    /// In multiples of the threshold.
    pub score: f32,
    /// 0–100.
    pub severity: u8,
    /// Whether it is over its threshold.
    pub breach: bool,
    /// The payload as received.
    pub raw: &'a [u8],
}

/// Why a car could not be taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the fleet is full: {0} cars are known already (limits.cars)")]
pub struct Full(pub usize);

/// Cars of one schema. One owner; nothing in it is shared.
pub struct Shard {
    schema: Arc<Schema>,
    limit: usize,
    by_key: HashMap<Box<[u8]>, u32>,
    by_name: HashMap<Arc<str>, u32>,
    cars: Vec<Car>,
    /// Each `[cars, sensors]`, row-major.
    values: Vec<f32>,
    expected: Vec<f32>,
    sigmas: Vec<f32>,
}

impl Shard {
    /// An empty part of a fleet with room for `limit` cars.
    pub fn new(schema: Arc<Schema>, limit: usize) -> Self {
        Shard {
            schema,
            limit,
            by_key: HashMap::new(),
            by_name: HashMap::new(),
            cars: Vec::new(),
            values: Vec::new(),
            expected: Vec::new(),
            sigmas: Vec::new(),
        }
    }

    /// The sensors of its cars.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The same sensors by other labels, units or ranges.
    pub fn set_schema(&mut self, schema: Arc<Schema>) {
        debug_assert_eq!(schema.width(), self.schema.width());
        self.schema = schema;
    }

    /// The car with this key, taken in if it is new; the flag says whether it is.
    pub fn car(&mut self, key: &[u8]) -> Result<(u32, bool), Full> {
        if let Some(&car) = self.by_key.get(key) {
            return Ok((car, false));
        }
        if self.cars.len() >= self.limit {
            return Err(Full(self.limit));
        }
        let car = self.cars.len() as u32;
        let width = self.schema.width();
        let name = self.free_name(key);
        let slots = if self.cars.len() < SMALL_FLEET { SLOTS_SMALL } else { SLOTS_LARGE };
        self.by_name.insert(name.clone(), car);
        self.by_key.insert(key.into(), car);
        self.cars.push(Car {
            name,
            key: key.into(),
            history: History::new(slots, width),
            score: 0.0,
            severity: 0,
            last_time: i64::MIN,
            last_received: i64::MIN,
            readings: 0,
            episodes: 0,
            blamed: None,
            muted_until: None,
            raw: Vec::new(),
        });
        for column in [&mut self.values, &mut self.expected, &mut self.sigmas] {
            column.resize(column.len() + width, f32::NAN);
        }
        Ok((car, true))
    }

    /// Two keys may look alike once made harmless; the later one gets a tail that tells them apart.
    fn free_name(&self, key: &[u8]) -> Arc<str> {
        let name: Arc<str> = harmless_bytes(key, NAME_CHARS).into();
        if !self.by_name.contains_key(&name) {
            return name;
        }
        let tail = RandomState::new().hash_one(key);
        format!("{name}~{:08x}", tail as u32).into()
    }

    /// Remembers a judged reading. One that is older than the newest counts, but leaves the car as it is.
    pub fn remember(&mut self, car: u32, judged: Judged<'_>) {
        let n = car as usize;
        let known = &mut self.cars[n];
        known.readings += 1;
        known.last_received = known.last_received.max(judged.received);
        if judged.time < known.last_time {
            return;
        }
        known.last_time = judged.time;
        known.score = judged.score;
        known.severity = judged.severity;
        known.history.push(judged.time, judged.values, judged.score, judged.breach);
        known.raw.clear();
        known.raw.extend_from_slice(&judged.raw[..judged.raw.len().min(RAW_BYTES)]);
        let row = n * self.schema.width()..(n + 1) * self.schema.width();
        self.values[row.clone()].copy_from_slice(judged.values);
        self.expected[row.clone()].copy_from_slice(judged.expected);
        self.sigmas[row].copy_from_slice(judged.sigmas);
    }

    /// The cars, by number.
    pub fn cars(&self) -> &[Car] {
        &self.cars
    }

    /// A car to change a mark of.
    pub fn car_mut(&mut self, car: u32) -> &mut Car {
        &mut self.cars[car as usize]
    }

    /// The number of the car that is shown by this name.
    pub fn named(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// Latest values, expected values and standardised residuals of a car.
    pub fn latest(&self, car: u32) -> (&[f32], &[f32], &[f32]) {
        let width = self.schema.width();
        let row = car as usize * width..(car as usize + 1) * width;
        (&self.values[row.clone()], &self.expected[row.clone()], &self.sigmas[row])
    }

    /// Keeps only the cars that `keep` says (the others went to another process, with their partitions). Answers, for each old
    /// number, the new one.
    pub fn retain(&mut self, mut keep: impl FnMut(&Car) -> bool) -> Vec<Option<u32>> {
        let width = self.schema.width();
        let mut moved = Vec::with_capacity(self.cars.len());
        let mut kept = Vec::new();
        let columns = [&mut self.values, &mut self.expected, &mut self.sigmas];
        let [values, expected, sigmas] = columns;
        for (n, car) in std::mem::take(&mut self.cars).into_iter().enumerate() {
            if keep(&car) {
                let to = kept.len();
                for column in [&mut *values, &mut *expected, &mut *sigmas] {
                    column.copy_within(n * width..(n + 1) * width, to * width);
                }
                moved.push(Some(to as u32));
                kept.push(car);
            } else {
                moved.push(None);
            }
        }
        for column in [values, expected, sigmas] {
            column.truncate(kept.len() * width);
            column.shrink_to_fit();
        }
        self.cars = kept;
        self.by_key = self.cars.iter().enumerate().map(|(n, car)| (car.key.clone(), n as u32)).collect();
        self.by_name.clear();
        for (n, car) in self.cars.iter().enumerate() {
            match self.by_name.entry(car.name.clone()) {
                Entry::Vacant(free) => drop(free.insert(n as u32)),
                Entry::Occupied(_) => debug_assert!(false, "names are unique in a shard"),
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard() -> Shard {
        Shard::new(Arc::new(Schema::numbered("s", 2).unwrap()), 3)
    }

    fn judged(time: i64, values: &'static [f32]) -> Judged<'static> {
        Judged {
            time,
            received: time,
            values,
            expected: &[0.0, 0.0],
            sigmas: &[1.0, 2.0],
            score: 0.5,
            severity: 3,
            breach: false,
            raw: b"raw",
        }
    }

    #[test]
    fn a_key_is_one_car_and_the_fleet_has_a_limit() {
        let mut shard = shard();
        assert_eq!(shard.car(b"a"), Ok((0, true)));
        assert_eq!(shard.car(b"b"), Ok((1, true)));
        assert_eq!(shard.car(b"a"), Ok((0, false)));
        assert_eq!(shard.car(b"c"), Ok((2, true)));
        assert_eq!(shard.car(b"d"), Err(Full(3)));
        assert_eq!(shard.car(b"b"), Ok((1, false)), "those known stay welcome");
    }

    #[test]
    fn names_are_harmless_and_unique() {
        let mut shard = shard();
        shard.car(b"a\x1b").unwrap();
        shard.car(b"a\\u{1b}").unwrap();
        let names: Vec<&str> = shard.cars().iter().map(|car| &*car.name).collect();
        assert_eq!(names[0], "a\\u{1b}");
        assert!(names[1].starts_with("a\\u{1b}~"));
        assert_eq!(shard.named(names[1]), Some(1));
    }

    #[test]
    fn an_older_reading_counts_but_changes_nothing() {
        let mut shard = shard();
        let (car, _) = shard.car(b"a").unwrap();
        shard.remember(car, judged(10, &[1.0, 2.0]));
        shard.remember(car, judged(5, &[8.0, 9.0]));
        assert_eq!(shard.latest(car).0, [1.0, 2.0]);
        assert_eq!((shard.cars()[0].readings, shard.cars()[0].last_time), (2, 10));
    }

    #[test]
    fn cars_that_go_leave_the_others_as_they_were() {
        let mut shard = shard();
        for (key, values) in [(b"a", &[1.0, 1.0]), (b"b", &[2.0, 2.0]), (b"c", &[3.0, 3.0])] {
            let (car, _) = shard.car(key).unwrap();
            shard.remember(car, judged(1, values));
        }
        assert_eq!(shard.retain(|car| &*car.key != b"a"), [None, Some(0), Some(1)]);
        assert_eq!(shard.latest(1).0, [3.0, 3.0]);
        assert_eq!(shard.named("b"), Some(0));
        assert_eq!(shard.car(b"a"), Ok((2, true)));
    }
}
