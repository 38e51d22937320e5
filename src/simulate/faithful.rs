//! The original demo's car: its recurrences and its eleven failures, which latch for ever.
//!
//! One step is one reading, whatever its rate. What differs from a healthy fleet of ours, so that nobody mistakes it for
//! one: charge falls below zero without end, coolant only ever rises, throttle and intake never change.

use super::car::{Span, Terms};
use super::chance::{Dice, Purpose};
use super::fault::{FIRMWARE_OUTDATED, KINDS};
use super::fleet::Faults;
use super::sensor::{self, Row};

const INERTIA: f32 = 0.8;
const TOP_SPEED: f32 = 38.889;
/// Probability of each failure at each reading, by position in [`super::fault::KINDS`].
const LATCHES: [(usize, f32); 11] = [
    (0, 0.005),
    (1, 0.005),
    (2, 0.005),
    (3, 0.005),
    (4, 0.01),
    (5, 0.01),
    (6, 0.01),
    (7, 0.01),
    (DRIVE_SHAFT, 0.01),
    (OVERHEATING, 0.002),
    (FIRMWARE_OUTDATED, 0.04),
];
const SHOCKS: usize = 4;
const DRIVE_SHAFT: usize = 8;
const OVERHEATING: usize = 9;

/// Whether the original demo knows this kind of fault.
pub(crate) fn knows(kind: usize) -> bool {
    LATCHES.iter().any(|&(known, _)| known == kind)
}

/// How a car of the original demo drives.
#[derive(Debug)]
struct Recurrences {
    dice: Dice,
    throttle: f32,
    speed: f32,
    intake_temp: f32,
    intake_flow: f32,
    coolant: f32,
    charge: f32,
    volts: f32,
    begun: bool,
}

impl Recurrences {
    fn new(mut dice: Dice) -> Self {
        let speed = dice.between(0.0, 50.0);
        let throttle = dice.unit();
        let intake_temp = dice.between(15.0, 40.0);
        let charge = dice.between(0.3, 1.0);
        Recurrences {
            throttle,
            speed,
            intake_temp,
            intake_flow: 4.0 * speed,
            coolant: dice.between(intake_temp, intake_temp + 20.0),
            charge,
            volts: 180.0 + 80.0 * charge,
            begun: false,
            dice,
        }
    }

    /// The next reading, with the failures in `failed` (one bit each, by position in the table of kinds).
    fn next(&mut self, failed: u32) -> Row {
        let has = |kind: usize| failed & (1 << kind) != 0;
        let current = self.throttle * ((260.0 - self.volts).abs() + 5.0);
        if self.begun {
            self.coolant += 0.008 * self.speed + if has(OVERHEATING) { 0.5 } else { 0.1 } * current;
            self.charge -= 0.008 * self.speed;
        }
        self.begun = true;
        self.speed = INERTIA * self.speed + (1.0 - INERTIA) * self.throttle * TOP_SPEED;
        let bump = self.dice.chance(0.05);
        let mut row = [0.0; sensor::COUNT];
        row[sensor::COOLANT] = self.coolant;
        row[sensor::INTAKE_TEMP] = self.intake_temp;
        row[sensor::INTAKE_FLOW] = self.intake_flow;
        row[sensor::BATTERY] = self.charge;
        row[sensor::VOLTAGE] = self.volts;
        row[sensor::CURRENT] = current;
        row[sensor::SPEED] = self.speed;
        row[sensor::VIBRATION] = self.speed * if has(DRIVE_SHAFT) { 150.0 } else { 100.0 };
        row[sensor::THROTTLE] = self.throttle;
        for wheel in 0..4 {
            let low = if has(wheel) { 20.0 } else { 30.0 };
            row[sensor::TYRES + wheel] = low + self.dice.below(5) as f32;
            let (low, high) = match (has(SHOCKS + wheel), bump) {
                (true, true) => (5.0, 7.0),
                (true, false) => (3.0, 4.0),
                (false, true) => (2.0, 3.0),
                (false, false) => (0.0, 1.0),
            };
            row[sensor::ACCELEROMETERS + wheel] = self.dice.between(low, high);
        }
        row[sensor::FIRMWARE] = if has(FIRMWARE_OUTDATED) { 1000.0 } else { 2000.0 };
        row
    }
}

/// A car of the original demo, and its failures.
#[derive(Debug)]
pub(crate) struct OriginalCar {
    recurrences: Recurrences,
    fate: Dice,
    readings: u64,
    /// The one failure it is to have, and at which reading.
    due: Option<(usize, u64)>,
    /// Failures that have latched, with the times of their first readings.
    failed: Vec<(usize, i64)>,
    /// Failures given by an operator, which show from the next reading on.
    wanted: Vec<usize>,
    last: i64,
}

impl OriginalCar {
    pub fn new(seed: u64, car: u64, terms: &Terms) -> Self {
        let mut fate = Dice::new(seed, car, Purpose::Fate);
        let due = terms.once.map(|duration| {
            let kind = terms.kinds[fate.below(terms.kinds.len())];
            (kind, (duration / terms.dt * f64::from(fate.between(0.25, 0.6))) as u64)
        });
        let recurrences = Recurrences::new(Dice::new(seed, car, Purpose::Road));
        OriginalCar { recurrences, fate, readings: 0, due, failed: Vec::new(), wanted: Vec::new(), last: 0 }
    }

    pub fn step(&mut self, terms: &Terms, time_ms: i64, row: &mut Row) -> Faults {
        for kind in std::mem::take(&mut self.wanted) {
            self.fail(kind, time_ms);
        }
        match self.due {
            Some((kind, at)) if self.readings >= at => self.fail(kind, time_ms),
            None if terms.hazard > 0.0 => {
                for (kind, probability) in LATCHES {
                    if self.fate.chance(probability) {
                        self.fail(kind, time_ms);
                    }
                }
            }
            _ => {}
        }
        self.readings += 1;
        self.last = time_ms;
        let faults = self.faults();
        *row = self.recurrences.next(faults.0);
        faults
    }

    fn fail(&mut self, kind: usize, time_ms: i64) {
        if !self.failed.iter().any(|&(failed, _)| failed == kind) {
            self.failed.push((kind, time_ms));
        }
    }

    pub fn break_down(&mut self, kind: usize) {
        self.wanted.push(kind);
    }

    /// Ends all its failures; those that come by chance will come again.
    pub fn repair(&mut self) -> (bool, Vec<Span>) {
        let any = !self.failed.is_empty() || !self.wanted.is_empty();
        self.wanted.clear();
        self.due = self.due.filter(|&(_, at)| self.readings < at);
        let end = self.last;
        let spans = std::mem::take(&mut self.failed).into_iter().map(|(kind, onset)| {
            let sensors = KINDS[kind].sensors.iter().fold(0, |set, n| set | 1 << n);
            Span { kind, onset, end, severity: 1.0, sensors }
        });
        (any, spans.collect())
    }

    pub fn faults(&self) -> Faults {
        Faults(self.failed.iter().fold(0, |set, &(kind, _)| set | 1 << kind))
    }
}
