//! Engines by their heartbeat: each reading is one working cycle, 210 values of a trace as a sensor at the cylinder head gives it.
//!
//! The stand-in for the KSQL demo's heart-rate-like messages (`EVENTID,v1# v2# …`): four cylinders compress and fire in turn, above a
//! level that goes with the load; each engine has its own small ways; faults begin slowly and are labelled. Deterministic from
//! a seed: engine k is the same however many there are.

use std::fmt::Write as _;

use super::chance::{Dice, Purpose, wave};
use super::fleet::FleetError;

/// Values of one cycle.
pub const VALUES: usize = 210;
/// The MQTT topic that all engines share; the payload begins with the engine's number.
pub const TOPIC: &str = "car/engine/temperature";
/// Faults per engine and hour by default.
pub const DEFAULT_FAULTS: f64 = 0.5;
/// Readings until a fault has come to its height.
const ONSET: f32 = 20.0;
/// Seconds a fault lasts.
const LASTS: (f32, f32) = (120.0, 360.0);
const CYLINDERS: usize = 4;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CycleFault {
    /// Its name in labels and on the command line.
    pub id: &'static str,
    /// Its name for people.
    pub label: &'static str,
}

/// Every kind of fault.
pub const FAULTS: [CycleFault; 4] = [
    CycleFault { id: "misfire", label: "a cylinder does not fire in most cycles" },
    CycleFault { id: "knock", label: "a cylinder rings after firing" },
    CycleFault { id: "valve_leak", label: "a cylinder loses pressure" },
    CycleFault { id: "sensor_drift", label: "the whole trace rises" },
];

/// What engines to simulate.
#[derive(Debug, Clone)]
pub struct CycleOptions {
    /// How many.
    pub engines: usize,
    /// Readings per second of each.
    pub rate: f64,
    /// Faults per engine and hour.
    pub faults: f64,
    /// Same seed, same engines.
    pub seed: u64,
    /// Each engine has exactly one fault, of this kind; it begins a quarter to three fifths into `seconds`, and stays.
    pub only_fault: Option<String>,
    /// How long the run will be; only `only_fault` needs to know.
    pub seconds: Option<f64>,
}

/// What was wrong with an engine, from when to when.
#[derive(Debug, Clone, PartialEq)]
pub struct CycleLabel {
    /// Number of the engine, from 0.
    pub engine: usize,
    /// Position in [`FAULTS`].
    pub kind: usize,
    /// Time of the first reading with it.
    pub onset: i64,
    /// Time of the last.
    pub end: i64,
    /// At its height, above 0 to 1.
    pub severity: f32,
    /// The values that it moved: first, and one behind the last.
    pub values: (usize, usize),
}

impl CycleLabel {
    /// A line of the labels file, as [`super::labels`] has them.
    pub fn line(&self) -> String {
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let mut line = format!(
            "{},{},{},{},{:.2},",
            engine_name(self.engine),
            FAULTS.get(self.kind).map_or("", |fault| fault.id),
            seconds(self.onset),
            seconds(self.end),
            self.severity
        );
        for n in self.values.0..self.values.1 {
            // Writing to a string cannot fail.
            let _ = write!(line, "{}v{:03}", if n > self.values.0 { " " } else { "" }, n + 1);
        }
        line
    }
}

/// The number by which engine `n` (from 0) names itself.
pub fn engine_name(n: usize) -> String {
    (10_001 + n).to_string()
}

/// Simulated engines, numbered from 0.
#[derive(Debug)]
pub struct Engines {
    engines: Vec<Engine>,
    seconds: f64,
    mean_wait: Option<f64>,
    kinds: Vec<usize>,
    labels: Vec<CycleLabel>,
}

#[derive(Debug)]
struct Engine {
    /// Height of each cylinder's firing, and its place in the cycle.
    cylinders: [(f32, f32); CYLINDERS],
    level: f32,
    load: f32,
    wanted_load: f32,
    road: Dice,
    noise: Dice,
    fate: Dice,
    age: f64,
    /// Seconds of age at which the next fault begins.
    next_fault: f64,
    fault: Option<Fault>,
}

#[derive(Debug, Clone)]
struct Fault {
    kind: usize,
    cylinder: usize,
    severity: f32,
    readings: f32,
    /// Seconds of age at which it is over.
    until: f64,
    onset: i64,
    last: i64,
}

impl Engines {
    /// The engines of `options`.
    pub fn new(options: &CycleOptions) -> Result<Engines, FleetError> {
        let CycleOptions { engines, rate, faults, seed, only_fault, seconds } = options;
        if *engines == 0 || *engines > super::Fleet::MAX_CARS {
            return Err(FleetError::Cars(*engines));
        }
        if !(0.0001..=1000.0).contains(rate) {
            return Err(FleetError::Rate(*rate));
        }
        if !(0.0..=3600.0).contains(faults) {
            return Err(FleetError::Faults(*faults));
        }
        let kinds: Vec<usize> = match only_fault {
            None => (0..FAULTS.len()).collect(),
            Some(id) => FAULTS.iter().position(|fault| fault.id == id).into_iter().collect(),
        };
        if kinds.is_empty() {
            let id = only_fault.as_deref().unwrap_or_default();
            return Err(FleetError::NoCycleFault(crate::text::harmless(id, 60).into_owned()));
        }
        let once = match (only_fault, seconds) {
            (Some(_), None) => return Err(FleetError::NoDuration),
            (Some(_), Some(seconds)) => Some(*seconds),
            (None, _) => None,
        };
        let mean_wait = (*faults > 0.0 && once.is_none()).then_some(3600.0 / faults);
        let engines = (0..*engines as u64).map(|number| Engine::new(*seed, number, mean_wait, once)).collect();
        Ok(Engines { engines, seconds: 1.0 / rate, mean_wait, kinds, labels: Vec::new() })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.engines.len()
    }

    /// Whether there are none (there is always one).
    pub fn is_empty(&self) -> bool {
        self.engines.is_empty()
    }

    /// The next cycle of an engine, read at `time_ms`, with two decimals. Answers which fault it has, as a position in [`FAULTS`].
    pub fn step(&mut self, number: usize, time_ms: i64, row: &mut [f32; VALUES]) -> Option<usize> {
        let engine = self.engines.get_mut(number)?;
        engine.age += self.seconds;
        if let Some(over) = engine.fault.take_if(|fault| engine.age > fault.until) {
            engine.next_fault = self.mean_wait.map_or(f64::MAX, |mean| engine.age + mean * engine.fate.wait());
            self.labels.push(over.label(number));
        }
        if engine.fault.is_none() && engine.age >= engine.next_fault {
            let kind = self.kinds.get(engine.fate.below(self.kinds.len())).copied().unwrap_or_default();
            let lasts = f64::from(engine.fate.between(LASTS.0, LASTS.1));
            engine.fault = Some(Fault {
                kind,
                cylinder: engine.fate.below(CYLINDERS),
                severity: engine.fate.between(0.5, 1.0),
                readings: 0.0,
                until: if self.mean_wait.is_some() { engine.age + lasts } else { f64::MAX },
                onset: time_ms,
                last: time_ms,
            });
        }
        engine.cycle(self.seconds, time_ms, row);
        engine.fault.as_ref().map(|fault| fault.kind)
    }

    /// The faults that are over since the last call.
    pub fn take_labels(&mut self) -> Vec<CycleLabel> {
        std::mem::take(&mut self.labels)
    }

    /// The end of the run: faults that are still there end now.
    pub fn finish(&mut self) -> Vec<CycleLabel> {
        for (number, engine) in self.engines.iter_mut().enumerate() {
            self.labels.extend(engine.fault.take().map(|fault| fault.label(number)));
        }
        self.take_labels()
    }
}

impl Engine {
    fn new(seed: u64, number: u64, mean_wait: Option<f64>, once: Option<f64>) -> Self {
        let mut build = Dice::new(seed, number, Purpose::Build);
        let mut fate = Dice::new(seed, number, Purpose::Fate);
        let cylinder = |n: usize, build: &mut Dice| {
            let place = (n as f32 + 0.5) / CYLINDERS as f32;
            (1.0 + 0.04 * build.bell(), place + 0.001 * build.bell())
        };
        let cylinders = std::array::from_fn(|n| cylinder(n, &mut build));
        let next_fault = match (once, mean_wait) {
            (Some(seconds), _) => seconds * f64::from(fate.between(0.25, 0.6)),
            (None, Some(mean)) => mean * fate.wait(),
            (None, None) => f64::MAX,
        };
        let mut road = Dice::new(seed, number, Purpose::Road);
        let load = road.between(0.2, 0.9);
        Engine {
            cylinders,
            level: 1.6 + 0.05 * build.bell(),
            load,
            wanted_load: load,
            road,
            noise: Dice::new(seed, number, Purpose::Noise),
            fate,
            age: 0.0,
            next_fault,
            fault: None,
        }
    }

    fn cycle(&mut self, seconds: f64, time_ms: i64, row: &mut [f32; VALUES]) {
        // How hard it is driven changes about once a minute, and the engine follows within seconds.
        if self.road.chance((seconds / 60.0).min(1.0) as f32) {
            self.wanted_load = self.road.between(0.1, 1.0);
        }
        let follow = (seconds / 5.0).min(1.0) as f32;
        self.load = (self.load + follow * (self.wanted_load - self.load) + 0.01 * self.road.bell()).clamp(0.05, 1.05);
        let jitter = 0.001 * self.road.bell();
        let mut shapes: [Shape; CYLINDERS] = std::array::from_fn(|n| {
            let (height, place) = self.cylinders[n];
            let fire = height * (1.2 + 2.4 * self.load) * (1.0 + 0.015 * self.road.bell());
            Shape { place: place + jitter, compress: 1.1 * height, fire, tail: 0.085, ring: 0.0 }
        });
        let mut drift = 0.0;
        if let Some(fault) = &mut self.fault {
            fault.readings += 1.0;
            fault.last = time_ms;
            let now = fault.severity * (fault.readings / ONSET).min(1.0);
            if let Some(shape) = shapes.get_mut(fault.cylinder) {
                match fault.kind {
                    0 if self.fate.chance(0.7) => shape.fire *= 1.0 - 0.95 * now,
                    1 => shape.ring = 2.0 * now,
                    2 => {
                        shape.compress *= 1.0 - 0.6 * now;
                        shape.fire *= 1.0 - 0.4 * now;
                        shape.tail *= 1.0 + 0.6 * now;
                    }
                    3 => drift = 1.2 * now,
                    _ => {}
                }
            }
        }
        let level = self.level + 0.5 * self.load + drift;
        for (n, value) in row.iter_mut().enumerate() {
            let at = (n as f32 + 0.5) / VALUES as f32;
            let breath = 0.12 * wave(f64::from(CYLINDERS as f32 * at));
            let pulses: f32 = shapes.iter().map(|shape| shape.at(at)).sum();
            let exact = level + breath + pulses + 0.02 * self.noise.bell();
            *value = (exact * 100.0).round() / 100.0;
        }
    }
}

/// What one cylinder adds to the trace.
struct Shape {
    place: f32,
    compress: f32,
    fire: f32,
    tail: f32,
    ring: f32,
}

impl Shape {
    fn at(&self, at: f32) -> f32 {
        let x = at - self.place;
        let fired = self.fire * bump(x / if x < 0.0 { 0.035 } else { self.tail });
        let rings = self.ring * bump((x - 0.055) / 0.055) * wave(f64::from(60.0 * x));
        self.compress * bump((x + 0.03) / 0.055) + fired + rings
    }
}

/// A smooth hump of height 1 between −1 and 1.
fn bump(x: f32) -> f32 {
    let rest = (1.0 - x * x).max(0.0);
    rest * rest
}

impl Fault {
    fn label(&self, engine: usize) -> CycleLabel {
        let around = |from: f32, to: f32| {
            let place = (self.cylinder as f32 + 0.5) / CYLINDERS as f32;
            let value = |at: f32| ((place + at) * VALUES as f32).clamp(0.0, VALUES as f32) as usize;
            (value(from), value(to))
        };
        let values = match self.kind {
            0 => around(-0.035, 0.085),
            1 => around(0.0, 0.11),
            2 => around(-0.085, 0.136),
            _ => (0, VALUES),
        };
        let Fault { kind, severity, onset, last, .. } = *self;
        CycleLabel { engine, kind, onset, end: last, severity, values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> CycleOptions {
        CycleOptions { engines: 3, rate: 1.0, faults: 0.0, seed: 1, only_fault: None, seconds: None }
    }

    fn cycles(options: &CycleOptions, engine: usize, count: usize) -> (Vec<[f32; VALUES]>, Engines) {
        let mut engines = Engines::new(options).unwrap();
        let mut row = [0.0; VALUES];
        let all = (0..count).map(|n| {
            engines.step(engine, n as i64 * 1000, &mut row);
            row
        });
        (all.collect(), engines)
    }

    #[test]
    fn a_cycle_is_four_beats_above_a_level_and_the_same_for_a_seed() {
        let (first, _) = cycles(&options(), 0, 50);
        let more = CycleOptions { engines: 9, ..options() };
        assert_eq!(first, cycles(&more, 0, 50).0, "however many engines there are");
        assert_ne!(first, cycles(&options(), 1, 50).0);
        for row in &first {
            assert!(row.iter().all(|value| (0.5..9.0).contains(value)), "{row:?}");
            let beats = row.windows(2).filter(|pair| {
                let middle = (row.iter().copied().fold(0.0f32, f32::max) + 2.0) / 2.0;
                pair[0] < middle && pair[1] >= middle
            });
            assert_eq!(beats.count(), CYLINDERS);
        }
    }

    #[test]
    fn each_fault_shows_where_its_label_says() {
        for fault in FAULTS {
            let faulty = CycleOptions { only_fault: Some(fault.id.into()), seconds: Some(200.0), ..options() };
            let (ill, mut engines) = cycles(&faulty, 0, 200);
            let labels = engines.finish();
            let [label] = &labels[..] else { panic!("{labels:?}") };
            assert_eq!(FAULTS[label.kind].id, fault.id);
            assert!((50_000..=121_000).contains(&label.onset) && label.end == 199_000, "{label:?}");
            assert!(label.line().starts_with(&format!("10001,{},", fault.id)), "{}", label.line());
            // The strangest value of the sick cycles, against the same engine without the fault, is one that the label names.
            let (well, _) = cycles(&options(), 0, 200);
            assert_eq!(well[..50], ill[..50]);
            let pairs = well.iter().zip(&ill).skip(170);
            let away = pairs.flat_map(|(well, ill)| (0..VALUES).map(move |n| ((well[n] - ill[n]).abs(), n)));
            let (much, at) = away.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
            assert!(much > 0.2 && (label.values.0..label.values.1).contains(&at), "{}: {much} at {at}", fault.id);
        }
    }

    #[test]
    fn faults_come_as_often_as_asked_and_what_is_no_fault_is_refused() {
        let often = CycleOptions { faults: 12.0, ..options() };
        let (_, mut engines) = cycles(&often, 0, 7200);
        assert!((6..40).contains(&engines.finish().len()));
        let unknown = CycleOptions { only_fault: Some("tire".into()), seconds: Some(9.0), ..options() };
        assert!(Engines::new(&unknown).unwrap_err().to_string().contains("misfire"));
    }
}
