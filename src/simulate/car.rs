//! One car of ours: how it drives, and what befalls it.

use super::chance::{Dice, Purpose};
use super::drive::{Clock, Drive};
use super::fault::Fault;
use super::fleet::Faults;
use super::sensor::{Row, quantise};

/// Above this speed (m/s) a fault that shows only in motion shows.
const IN_MOTION: f32 = 3.0;

/// What all cars of a fleet have in common.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub clock: Clock,
    /// Seconds between two readings of a car.
    pub dt: f64,
    /// Faults per second in health; 0 for none.
    pub hazard: f64,
    /// The kinds of fault that come by themselves; never empty.
    pub kinds: Vec<usize>,
    /// Each car has exactly one fault in a run of so many seconds.
    pub once: Option<f64>,
}

impl Terms {
    fn draw(&self, dice: &mut Dice) -> Fault {
        let fault = Fault::draw(self.kinds[dice.below(self.kinds.len())], dice);
        match self.once {
            Some(duration) => fault.at_most(0.3 * duration as f32),
            None => fault,
        }
    }
}

/// A fault that is over: the times of the first and last reading with it.
#[derive(Debug)]
pub(crate) struct Span {
    pub kind: usize,
    pub onset: i64,
    pub end: i64,
    pub severity: f32,
    pub sensors: u32,
}

/// What will befall a car, and when.
#[derive(Debug)]
enum Fate {
    /// Nothing more.
    Spared,
    /// A fault, after so many more seconds in health.
    Due(f64),
    /// A fault, as soon as the car is in motion if it takes that. If wanted by an operator, a standing car sets off.
    Waiting { fault: Box<Fault>, wanted: bool },
    /// A fault, since the reading of this time.
    Has { fault: Box<Fault>, onset: i64 },
}

/// A car of ours.
#[derive(Debug)]
pub(crate) struct Car {
    drive: Drive,
    fate: Fate,
    /// Draws faults and the times between them.
    dice: Dice,
    /// Draws what faults do to readings.
    show: Dice,
    last: i64,
}

impl Car {
    pub fn new(seed: u64, number: u64, terms: &Terms) -> Self {
        let mut dice = Dice::new(seed, number, Purpose::Fate);
        let fate = match terms.once {
            Some(duration) => Fate::Due(duration * f64::from(dice.between(0.25, 0.6))),
            None => next_fate(terms, &mut dice),
        };
        let show = Dice::new(seed, number, Purpose::Fault);
        Car { drive: Drive::new(seed, number), fate, dice, show, last: 0 }
    }

    /// The next reading, without its fault in `healthy` and with it in `row`; which faults it has, and the one that is over.
    pub fn step(&mut self, terms: &Terms, time_ms: i64, healthy: &mut Row, row: &mut Row) -> (Faults, Option<Span>) {
        let keep_going = match &self.fate {
            Fate::Has { fault, .. } => fault.what().in_motion,
            Fate::Waiting { fault, wanted: true } => fault.what().in_motion,
            _ => false,
        };
        self.drive.advance(&terms.clock, keep_going);
        let ended = self.befall(terms, time_ms);
        *healthy = self.drive.read();
        *row = *healthy;
        if let Fate::Has { fault, .. } = &mut self.fate {
            fault.apply(row, self.drive.speed(), &mut self.show);
            quantise(healthy);
        }
        quantise(row);
        if !matches!(self.fate, Fate::Has { .. }) {
            *healthy = *row;
        }
        self.last = time_ms;
        (self.faults(), ended)
    }

    /// Lets the time of one reading pass for what befalls the car.
    fn befall(&mut self, terms: &Terms, time_ms: i64) -> Option<Span> {
        let mut ended = None;
        match &mut self.fate {
            Fate::Spared | Fate::Waiting { .. } => {}
            Fate::Due(left) => {
                *left -= terms.dt;
                if *left <= 0.0 {
                    let fault = Box::new(terms.draw(&mut self.dice));
                    self.fate = Fate::Waiting { fault, wanted: false };
                }
            }
            Fate::Has { fault, onset } => {
                if !fault.pass(terms.dt) {
                    ended = Some(span(fault, *onset, self.last));
                    self.fate = match terms.once {
                        Some(_) => Fate::Spared,
                        None => next_fate(terms, &mut self.dice),
                    };
                }
            }
        }
        if let Fate::Waiting { fault, .. } = &self.fate
            && (!fault.what().in_motion || self.drive.speed() > IN_MOTION)
        {
            let mut fault = fault.clone();
            // A gradual fault shows from its first reading on, if only by the severity of one interval.
            fault.pass(terms.dt);
            self.fate = Fate::Has { fault, onset: time_ms };
        }
        ended
    }

    /// Gives it a fault in the place of any it has; answers the one that ends by that.
    pub fn break_down(&mut self, kind: usize) -> Option<Span> {
        let fault = Box::new(Fault::at_once(kind, &mut self.dice));
        if fault.what().in_motion {
            self.drive.set_going();
        }
        match std::mem::replace(&mut self.fate, Fate::Waiting { fault, wanted: true }) {
            Fate::Has { fault, onset } => Some(span(&fault, onset, self.last)),
            _ => None,
        }
    }

    /// Lets it recover; answers whether there was anything to recover from.
    pub fn repair(&mut self, terms: &Terms) -> bool {
        match &mut self.fate {
            Fate::Has { fault, .. } => {
                fault.mend();
                true
            }
            Fate::Waiting { wanted: true, .. } => {
                self.fate = next_fate(terms, &mut self.dice);
                true
            }
            _ => false,
        }
    }

    pub fn faults(&self) -> Faults {
        match &self.fate {
            Fate::Has { fault, .. } => Faults(1 << fault.kind),
            _ => Faults::default(),
        }
    }

    /// As [`Car::faults`], and the one an operator gave it that has yet to show.
    pub fn known_faults(&self) -> Faults {
        match &self.fate {
            Fate::Waiting { fault, wanted: true } => Faults(1 << fault.kind),
            _ => self.faults(),
        }
    }

    /// The end of the run: the fault it has ends with the latest reading.
    pub fn finish(&mut self) -> Option<Span> {
        match std::mem::replace(&mut self.fate, Fate::Spared) {
            Fate::Has { fault, onset } => Some(span(&fault, onset, self.last)),
            _ => None,
        }
    }
}

fn next_fate(terms: &Terms, dice: &mut Dice) -> Fate {
    if terms.hazard > 0.0 && terms.once.is_none() { Fate::Due(dice.wait() / terms.hazard) } else { Fate::Spared }
}

fn span(fault: &Fault, onset: i64, end: i64) -> Span {
    Span { kind: fault.kind, onset, end, severity: fault.peak, sensors: fault.sensors }
}
