//! The faults a simulated car can have: one table, and what each does to a reading.
//!
//! A fault changes what the sensors say, never how the car drives: the same car without it would have given the same
//! readings but for the sensors the fault names.

use super::chance::{Dice, left_after};
use super::sensor::{self, ACCELEROMETERS, COUNT, Row, TYRES};

/// What sort of thing a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultClass {
    /// A part of the car fails.
    Part,
    /// A sensor fails; the car is well.
    Sensor,
    /// Worth knowing, but no failure: only the original demo counts it as one.
    Context,
}

/// How a fault begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Onset {
    /// With its full severity at once.
    Abrupt,
    /// Its severity rises evenly over so many seconds.
    Gradual(f32),
}

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaultKind {
    /// Its name in labels, options and commands: `drive_shaft`.
    pub id: &'static str,
    /// Its name for people: `drive shaft worn`.
    pub label: &'static str,
    /// What sort of thing it is.
    pub class: FaultClass,
    /// The sensors it moves, as positions in [`Schema::car_sensors`](crate::telemetry::Schema::car_sensors); of a
    /// sensor fault, those it may befall, one at a time.
    pub sensors: &'static [usize],
    /// How it begins.
    pub onset: Onset,
    /// How long it lasts by default, in minutes: evenly from, to.
    pub minutes: (f32, f32),
    /// Whether it shows only while the car moves. It then begins in motion, and the trip goes on while it lasts.
    pub in_motion: bool,
    /// Whether it may come and go, like a loose contact.
    pub intermittent: bool,
}

const fn part(id: &'static str, label: &'static str, sensors: &'static [usize], onset: Onset) -> FaultKind {
    let minutes = match onset {
        Onset::Abrupt => (1.5, 4.0),
        Onset::Gradual(_) => (3.0, 6.0),
    };
    FaultKind { id, label, class: FaultClass::Part, sensors, onset, minutes, in_motion: false, intermittent: false }
}

const fn moving(mut kind: FaultKind) -> FaultKind {
    kind.in_motion = true;
    kind.intermittent = true;
    kind
}

const fn of_sensor(id: &'static str, label: &'static str, sensors: &'static [usize], onset: Onset) -> FaultKind {
    let mut kind = part(id, label, sensors, onset);
    kind.class = FaultClass::Sensor;
    kind.in_motion = true;
    kind
}

/// Sensors that are never still while a car moves.
const LIVELY: &[usize] = &[sensor::INTAKE_FLOW, sensor::CURRENT, sensor::SPEED, sensor::VIBRATION, sensor::THROTTLE];
const ANALOGUE: &[usize] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
const ANY: &[usize] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

/// Every kind of fault there is. The first eleven are those of the original demo, with a battery cell (which its source
/// names but never uses) in the place of outdated firmware, which comes last because it is context and not a failure.
pub const KINDS: [FaultKind; 17] = [
    part("tire_1_1", "tyre front left losing pressure", &[TYRES], Onset::Gradual(60.0)),
    part("tire_1_2", "tyre front right losing pressure", &[TYRES + 1], Onset::Gradual(60.0)),
    part("tire_2_1", "tyre rear left losing pressure", &[TYRES + 2], Onset::Gradual(60.0)),
    part("tire_2_2", "tyre rear right losing pressure", &[TYRES + 3], Onset::Gradual(60.0)),
    moving(part("shock_1_1", "shock absorber front left broken", &[ACCELEROMETERS], Onset::Abrupt)),
    moving(part("shock_1_2", "shock absorber front right broken", &[ACCELEROMETERS + 1], Onset::Abrupt)),
    moving(part("shock_2_1", "shock absorber rear left broken", &[ACCELEROMETERS + 2], Onset::Abrupt)),
    moving(part("shock_2_2", "shock absorber rear right broken", &[ACCELEROMETERS + 3], Onset::Abrupt)),
    moving(part("drive_shaft", "drive shaft worn", &[sensor::VIBRATION], Onset::Gradual(45.0))),
    part("overheating", "coolant overheating", &[sensor::COOLANT], Onset::Gradual(30.0)),
    part("battery_cell", "battery cell failing", &[sensor::VOLTAGE], Onset::Abrupt),
    of_sensor("sensor_stuck", "a sensor stuck", LIVELY, Onset::Abrupt),
    of_sensor("sensor_drift", "a sensor drifting", ANALOGUE, Onset::Gradual(90.0)),
    of_sensor("sensor_gain", "a sensor reading too high", &[2, 6, 7, 9, 10, 11, 12], Onset::Abrupt),
    of_sensor("sensor_spikes", "a sensor spiking", ANY, Onset::Abrupt),
    of_sensor("sensor_dropout", "a sensor dropping out", ANY, Onset::Abrupt),
    FaultKind {
        id: "firmware",
        label: "firmware outdated",
        class: FaultClass::Context,
        sensors: &[sensor::FIRMWARE],
        onset: Onset::Abrupt,
        minutes: (1.0, 1.0),
        in_motion: false,
        intermittent: false,
    },
];

/// Position of outdated firmware in [`KINDS`].
pub(crate) const FIRMWARE_OUTDATED: usize = KINDS.len() - 1;

/// The faults a car can be given: every kind but context.
pub fn faults() -> &'static [FaultKind] {
    &KINDS[..FIRMWARE_OUTDATED]
}

/// The positions in [`KINDS`] that `name` means: the kind with this id, or all whose ids begin with it (`tire`, `shock`,
/// `sensor`). Empty if there is none.
pub fn kinds_named(name: &str) -> Vec<usize> {
    let exact = KINDS.iter().position(|kind| kind.id == name);
    match exact {
        Some(n) => vec![n],
        None => (0..KINDS.len())
            .filter(|&n| KINDS[n].id.strip_prefix(name).is_some_and(|rest| rest.starts_with('_')))
            .collect(),
    }
}

/// A wrong reading of the sensor at full severity, clear of everything a healthy car does, in the sensor's unit.
const AMISS: [f32; COUNT] =
    [25.0, 14.0, 35.0, 0.15, 14.0, 60.0, 7.0, 700.0, 0.35, 6.0, 6.0, 6.0, 6.0, 4.0, 4.0, 4.0, 4.0, 0.0];

/// Degrees a failed coolant pump adds in the end, at full severity.
const OVERHEAT: f32 = 45.0;
/// Time constants of that: warming up, and cooling down after the repair.
const HEATS: f64 = 45.0;
const COOLS: f64 = 20.0;
/// Degrees too warm that nobody would notice.
const UNNOTICED: f32 = 1.0;
/// Seconds over which a gradual fault recovers once it is repaired.
const RECOVERY: f32 = 8.0;

/// A fault that a car has.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// Position in [`KINDS`].
    pub kind: usize,
    /// The sensors it moves: one bit each, by position.
    pub sensors: u32,
    /// Severity at its height, above 0 to 1.
    pub peak: f32,
    /// Seconds since its onset.
    age: f32,
    rise: f32,
    /// Age at which it is repaired.
    repair: f32,
    recovery: f32,
    /// On and off, seconds.
    comes_and_goes: Option<(f32, f32)>,
    /// Up (1) or down (-1); 0 until the first reading it changes says which has room.
    direction: f32,
    stuck_at: Option<f32>,
    heat: f32,
}

impl Fault {
    /// A fault of that kind, drawn from `dice`.
    pub fn draw(kind: usize, dice: &mut Dice) -> Self {
        let what = &KINDS[kind];
        let sensors = match what.class {
            FaultClass::Sensor => 1 << what.sensors[dice.below(what.sensors.len())],
            _ => what.sensors.iter().fold(0, |set, n| set | 1 << n),
        };
        let rise = match what.onset {
            Onset::Abrupt => 0.0,
            Onset::Gradual(seconds) => seconds * dice.between(0.7, 1.3),
        };
        let comes_and_goes =
            (what.intermittent && dice.chance(0.12)).then(|| (dice.between(20.0, 40.0), dice.between(8.0, 16.0)));
        Fault {
            kind,
            sensors,
            peak: dice.between(0.6, 1.0),
            age: 0.0,
            rise,
            repair: 60.0 * dice.between(what.minutes.0, what.minutes.1),
            recovery: if rise > 0.0 { RECOVERY } else { 0.0 },
            comes_and_goes,
            direction: 0.0,
            stuck_at: None,
            heat: 0.0,
        }
    }

    /// As [`Fault::draw`], as an operator would have it: quick to show, without pauses, and there until it is repaired.
    pub fn at_once(kind: usize, dice: &mut Dice) -> Self {
        let mut fault = Fault::draw(kind, dice);
        fault.rise = fault.rise.min(15.0);
        fault.repair = f32::INFINITY;
        fault.comes_and_goes = None;
        fault
    }

    /// Keeps it within a run of so many seconds.
    pub fn at_most(mut self, seconds: f32) -> Self {
        self.repair = self.repair.min(seconds);
        self.rise = self.rise.min(seconds / 3.0);
        self
    }

    /// What it is.
    pub fn what(&self) -> &'static FaultKind {
        &KINDS[self.kind]
    }

    /// Severity now, 0 to 1.
    pub fn severity(&self) -> f32 {
        if let Some((on, off)) = self.comes_and_goes
            && self.age % (on + off) >= on
        {
            return 0.0;
        }
        let risen = if self.age < self.rise { self.age / self.rise } else { 1.0 };
        let left = if self.age < self.repair { 1.0 } else { 1.0 - (self.age - self.repair) / self.recovery.max(1e-3) };
        self.peak * risen * left.max(0.0)
    }

    /// Begins its end: it recovers from now on.
    pub fn mend(&mut self) {
        if self.age < self.repair {
            self.peak = self.severity();
            self.rise = 0.0;
            self.comes_and_goes = None;
            self.repair = self.age;
        }
    }

    /// Lets `seconds` pass. Answers whether the fault is still there.
    pub fn pass(&mut self, seconds: f64) -> bool {
        self.age += seconds as f32;
        if KINDS[self.kind].id == "overheating" {
            let tends = OVERHEAT * self.severity();
            let keep = left_after(seconds, if tends > self.heat { HEATS } else { COOLS });
            self.heat = tends + (self.heat - tends) * keep;
        }
        self.age < self.repair + self.recovery || self.heat > UNNOTICED
    }

    /// Changes a reading of a car at `speed` m/s.
    pub fn apply(&mut self, row: &mut Row, speed: f32, dice: &mut Dice) {
        let severity = self.severity();
        let at = self.sensors.trailing_zeros() as usize;
        let Some(&was) = row.get(at) else { return };
        if self.direction == 0.0 {
            // Where there is room: a nearly full battery cannot read fuller, nor a standing car slower.
            let up = match at {
                sensor::BATTERY => was < 0.5,
                sensor::COOLANT | sensor::INTAKE_TEMP | sensor::VOLTAGE | sensor::CURRENT => dice.chance(0.5),
                n if (TYRES..ACCELEROMETERS).contains(&n) => dice.chance(0.5),
                _ => true,
            };
            self.direction = if up { 1.0 } else { -1.0 };
        }
        let amiss = AMISS[at] * self.direction;
        let value = match self.what().id {
            // Its heat outlasts its cause.
            "overheating" => was + self.heat,
            _ if severity <= 0.0 => was,
            "battery_cell" => was - severity * (9.0 + 0.05 * row[sensor::CURRENT].abs()),
            "drive_shaft" => was * (1.0 + 0.5 * severity),
            "sensor_stuck" => *self.stuck_at.get_or_insert(was),
            "sensor_drift" => was + amiss * severity,
            "sensor_gain" => was * (1.0 + 0.45 * severity),
            "sensor_spikes" if dice.chance(0.25 + 0.25 * severity) => was + amiss * dice.between(1.0, 2.5),
            "sensor_dropout" if dice.chance(0.5 + 0.5 * severity) => f32::NAN,
            "sensor_spikes" | "sensor_dropout" => was,
            _ if at >= ACCELEROMETERS => {
                // A wheel that nothing damps swings on its own.
                let swing = (speed * (1.0 / 5.0)).min(1.0) * dice.between(0.9, 1.5);
                was * (1.0 + 1.5 * severity) + severity * 1.6 * swing
            }
            _ => was - 9.0 * severity,
        };
        // What cannot be less than nothing still cannot.
        row[at] = if value < 0.0 && !signed(at) { 0.0 } else { value };
    }
}

fn signed(at: usize) -> bool {
    matches!(at, sensor::COOLANT | sensor::INTAKE_TEMP | sensor::CURRENT)
}
