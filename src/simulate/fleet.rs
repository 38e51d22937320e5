//! The fleet: cars by number, each with its own streams of chance, read one reading at a time.

use std::time::Duration;

use thiserror::Error;

use super::car::{Car, Span, Terms};
use super::drive::Clock;
use super::faithful::{self, OriginalCar};
use super::fault::{FaultClass, KINDS, faults, kinds_named};
use super::sensor::{COUNT, Row};

/// Faults per car and hour by default: with faults of three or four minutes, more than 99 readings in 100 are normal.
pub const DEFAULT_FAULTS: f64 = 0.12;

/// What fleet to simulate.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetOptions {
    /// How many cars.
    pub cars: usize,
    /// Readings per second of each.
    pub rate: f64,
    /// Faults per car and hour. In a faithful fleet: 0 for none, anything else for the original's own probabilities.
    pub faults: f64,
    /// Same seed, same fleet; car k is the same however many cars there are.
    pub seed: u64,
    /// The original demo's recurrences and latching failures instead of ours.
    pub faithful: bool,
    /// Each car has exactly one fault, of this kind or one of those whose ids begin so (`tire`), and `faults` is set
    /// aside. It begins a quarter to three fifths into [`FleetOptions::duration`].
    pub only_fault: Option<String>,
    /// How long the run will be; only `only_fault` needs to know.
    pub duration: Option<Duration>,
    /// Whether to keep a record of each fault for [`Fleet::take_labels`].
    pub labels: bool,
}

impl Default for FleetOptions {
    fn default() -> Self {
        FleetOptions {
            cars: 100,
            rate: 1.0,
            faults: DEFAULT_FAULTS,
            seed: 1,
            faithful: false,
            only_fault: None,
            duration: None,
            labels: false,
        }
    }
}

/// Why there is no such fleet.
#[derive(Debug, Error, PartialEq)]
pub enum FleetError {
    /// No cars, or more than a fleet may have.
    #[error("{0} cars: a fleet has 1 to {max}", max = Fleet::MAX_CARS)]
    Cars(usize),
    /// A rate that is no rate.
    #[error("a rate of {0} Hz: from 0.0001 to 1000 readings per second")]
    Rate(f64),
    /// A number of faults that is none.
    #[error("{0} faults per car and hour: from 0 to 3600")]
    Faults(f64),
    /// No fault of that name.
    #[error("no fault is called {0:?}; there are {list}", list = fault_list())]
    Fault(String),
    /// No fault of engines of that name.
    #[error("no fault of engines is called {0:?}; there are {list}", list = super::cycle::FAULTS.map(|fault| fault.id).join(", "))]
    NoCycleFault(String),
    /// The original demo does not have it.
    #[error("the original demo has no fault {0:?}; it has tire_…, shock_…, drive_shaft, overheating and firmware")]
    NotFaithful(String),
    /// `only_fault` without a duration.
    #[error("a fleet in which every car has one fault needs to know how long it runs")]
    NoDuration,
    /// No car of that name.
    #[error("the simulated fleet has no car {0:?}")]
    Car(String),
}

fn fault_list() -> String {
    faults().iter().map(|kind| kind.id).collect::<Vec<_>>().join(", ")
}

/// What was wrong with a car, from when to when.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// Number of the car, from 0.
    pub car: usize,
    /// Position of the fault in [`KINDS`].
    pub kind: usize,
    /// Time of the first reading with it, as given to [`Fleet::step`].
    pub onset: i64,
    /// Time of the last reading with it.
    pub end: i64,
    /// Severity at its height, above 0 to 1.
    pub severity: f32,
    /// The sensors it moved: one bit each, by position.
    pub sensors: u32,
}

/// The kinds of fault a car has: one bit each, by position in [`KINDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults(pub u32);

impl Faults {
    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their ids, in the table's order.
    pub fn ids(self) -> impl Iterator<Item = &'static str> {
        KINDS.iter().enumerate().filter(move |(n, _)| self.0 & (1 << n) != 0).map(|(_, kind)| kind.id)
    }
}

/// Either kind of car.
#[derive(Debug)]
enum Machine {
    Ours(Box<Car>),
    Original(Box<OriginalCar>),
}

/// Simulated cars, numbered from 0.
#[derive(Debug)]
pub struct Fleet {
    cars: Vec<Machine>,
    /// Its place among the parts of a fleet that was split, and how many there are.
    part: (usize, usize),
    terms: Terms,
    keep_labels: bool,
    labels: Vec<Label>,
}

impl Fleet {
    /// The most cars.
    pub const MAX_CARS: usize = 1_000_000;

    /// The fleet of `options`.
    pub fn new(options: &FleetOptions) -> Result<Fleet, FleetError> {
        if options.cars == 0 || options.cars > Self::MAX_CARS {
            return Err(FleetError::Cars(options.cars));
        }
        if !(0.0001..=1000.0).contains(&options.rate) {
            return Err(FleetError::Rate(options.rate));
        }
        if !(0.0..=3600.0).contains(&options.faults) {
            return Err(FleetError::Faults(options.faults));
        }
        let dt = 1.0 / options.rate;
        let terms = Terms {
            clock: Clock::new(dt),
            dt,
            hazard: options.faults / 3600.0,
            kinds: befalling(options)?,
            once: match (&options.only_fault, options.duration) {
                (None, _) => None,
                (Some(_), Some(duration)) => Some(duration.as_secs_f64()),
                (Some(_), None) => return Err(FleetError::NoDuration),
            },
        };
        let cars = (0..options.cars as u64).map(|number| match options.faithful {
            true => Machine::Original(Box::new(OriginalCar::new(options.seed, number, &terms))),
            false => Machine::Ours(Box::new(Car::new(options.seed, number, &terms))),
        });
        Ok(Fleet { cars: cars.collect(), part: (0, 1), terms, keep_labels: options.labels, labels: Vec::new() })
    }

    /// Deals the cars out to `parts` fleets in turn, for as many owners. In part p, car n is car `n * parts + p` of the whole.
    pub fn split(self, parts: usize) -> Vec<Fleet> {
        let parts = parts.clamp(1, self.cars.len());
        let mut dealt: Vec<Fleet> = (0..parts)
            .map(|part| Fleet {
                cars: Vec::with_capacity(self.cars.len().div_ceil(parts)),
                part: (part, parts),
                terms: self.terms.clone(),
                keep_labels: self.keep_labels,
                labels: Vec::new(),
            })
            .collect();
        for (number, car) in self.cars.into_iter().enumerate() {
            dealt[number % parts].cars.push(car);
        }
        dealt
    }

    /// The number in the whole fleet of car `car` of this part of it.
    pub fn number(&self, car: usize) -> usize {
        let (part, parts) = self.part;
        car * parts + part
    }

    /// How many cars there are.
    pub fn len(&self) -> usize {
        self.cars.len()
    }

    /// Whether there are none (there is always one).
    pub fn is_empty(&self) -> bool {
        self.cars.is_empty()
    }

    /// Seconds between two readings of a car.
    pub fn interval(&self) -> f64 {
        self.terms.dt
    }

    /// The next reading of a car, taken at `time_ms`: the 18 sensors in the schema's order, a gap is NaN. Answers which
    /// faults the car has at that reading. A car that there is not leaves `row` as it is.
    pub fn step(&mut self, car: usize, time_ms: i64, row: &mut Row) -> Faults {
        let mut healthy = [0.0; COUNT];
        self.step_beside(car, time_ms, &mut healthy, row)
    }

    /// As [`Fleet::step`], and in `healthy` what the same reading would have been without a fault (of our own fleet; the
    /// original's failures are part of its recurrences).
    pub fn step_beside(&mut self, car: usize, time_ms: i64, healthy: &mut Row, row: &mut Row) -> Faults {
        let (faults, ended) = match self.cars.get_mut(car) {
            Some(Machine::Ours(this)) => this.step(&self.terms, time_ms, healthy, row),
            Some(Machine::Original(this)) => {
                let faults = this.step(&self.terms, time_ms, row);
                *healthy = *row;
                (faults, None)
            }
            None => (Faults::default(), None),
        };
        if let Some(span) = ended {
            self.record(car, span);
        }
        faults
    }

    /// Gives a car a fault of the kind with this id, in the place of any it has: quick to show (a standing car sets off if
    /// the fault shows only in motion), and there until it is repaired.
    pub fn break_car(&mut self, car: usize, fault: &str) -> Result<(), FleetError> {
        let kind = faults()
            .iter()
            .position(|kind| kind.id == fault)
            .ok_or_else(|| FleetError::Fault(crate::text::harmless(fault, 60).into_owned()))?;
        let ended = match self.cars.get_mut(car) {
            Some(Machine::Ours(this)) => this.break_down(kind),
            Some(Machine::Original(this)) => {
                if !faithful::knows(kind) {
                    return Err(FleetError::NotFaithful(fault.into()));
                }
                this.break_down(kind);
                None
            }
            None => return Err(FleetError::Car(car_name(self.number(car)))),
        };
        if let Some(span) = ended {
            self.record(car, span);
        }
        Ok(())
    }

    /// Repairs a car: it recovers within seconds. Answers whether there was anything to repair.
    pub fn repair(&mut self, car: usize) -> Result<bool, FleetError> {
        match self.cars.get_mut(car) {
            Some(Machine::Ours(this)) => Ok(this.repair(&self.terms)),
            Some(Machine::Original(this)) => {
                let (repaired, spans) = this.repair();
                for span in spans {
                    self.record(car, span);
                }
                Ok(repaired)
            }
            None => Err(FleetError::Car(car_name(self.number(car)))),
        }
    }

    /// The faults a car has as of its latest reading, or was given since.
    pub fn faults_of(&self, car: usize) -> Faults {
        match self.cars.get(car) {
            Some(Machine::Ours(this)) => this.known_faults(),
            Some(Machine::Original(this)) => this.faults(),
            None => Faults::default(),
        }
    }

    /// The faults that are over since the last call, by the order of their ends. Only if [`FleetOptions::labels`].
    pub fn take_labels(&mut self) -> Vec<Label> {
        std::mem::take(&mut self.labels)
    }

    /// The end of the run: faults that are still there end with their cars' latest readings. Answers as
    /// [`Fleet::take_labels`].
    pub fn finish(&mut self) -> Vec<Label> {
        for car in 0..self.cars.len() {
            let spans = match &mut self.cars[car] {
                Machine::Ours(this) => this.finish().into_iter().collect(),
                Machine::Original(this) => this.repair().1,
            };
            for span in spans {
                self.record(car, span);
            }
        }
        self.take_labels()
    }

    fn record(&mut self, car: usize, span: Span) {
        if self.keep_labels {
            let Span { kind, onset, end, severity, sensors } = span;
            let car = self.number(car);
            self.labels.push(Label { car, kind, onset, end, severity, sensors });
        }
    }
}

/// The kinds of fault that befall a fleet of `options` by themselves.
fn befalling(options: &FleetOptions) -> Result<Vec<usize>, FleetError> {
    let Some(name) = &options.only_fault else { return Ok((0..faults().len()).collect()) };
    let mut kinds = kinds_named(name);
    kinds.retain(|&kind| options.faithful || KINDS[kind].class != FaultClass::Context);
    if kinds.is_empty() {
        return Err(FleetError::Fault(crate::text::harmless(name, 60).into_owned()));
    }
    if options.faithful && !kinds.iter().all(|&kind| faithful::knows(kind)) {
        return Err(FleetError::NotFaithful(name.clone()));
    }
    Ok(kinds)
}

/// The name of car number `car`, from 0: `electric-vehicle-00001`.
pub fn car_name(car: usize) -> String {
    format!("electric-vehicle-{:05}", car + 1)
}

/// The number of the car of that name, the inverse of [`car_name`].
pub fn car_number(name: &str) -> Option<usize> {
    let digits = name.strip_prefix("electric-vehicle-")?;
    let number: usize = digits.parse().ok()?;
    (number > 0 && car_name(number - 1) == name).then(|| number - 1)
}
