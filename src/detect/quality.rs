//! Whether a sensor's data can be believed: a verdict of its own, never mixed with anomaly.

use serde::{Deserialize, Serialize};

/// How a sensor's data are. Ordered: worse is greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SensorQuality {
    /// Believable.
    #[default]
    Good,
    /// The same value for longer than this sensor ever kept one.
    Stuck,
    /// A gap: absent, null or not a number.
    Missing,
    /// Outside the sensor's range, infinite included.
    OutOfRange,
}

impl SensorQuality {
    /// Its word on screen and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            SensorQuality::Good => "good",
            SensorQuality::Stuck => "stuck",
            SensorQuality::Missing => "missing",
            SensorQuality::OutOfRange => "out of range",
        }
    }
}

/// A reading's data quality in short.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quality {
    /// The worst of its sensors.
    pub worst: SensorQuality,
    /// How many sensors are not good.
    pub bad: u16,
}

impl Quality {
    /// Of these sensors.
    pub(super) fn of(sensors: impl Iterator<Item = SensorQuality>) -> Self {
        sensors.fold(Quality::default(), |sum, sensor| Quality {
            worst: sum.worst.max(sensor),
            bad: sum.bad + u16::from(sensor != SensorQuality::Good),
        })
    }
}

/// What is remembered of one sensor's data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    /// Equal values in a row, or gaps in a row.
    pub length: u16,
    /// How the latest value was.
    pub quality: SensorQuality,
}

impl Run {
    /// Takes the next judged value: what kind it is, whether it equals the one before, and how many equal ones are too many.
    pub fn step(&mut self, kind: SensorQuality, same: bool, stuck_after: u16) {
        match kind {
            SensorQuality::Good | SensorQuality::Stuck => {
                let was_gap = matches!(self.quality, SensorQuality::Missing | SensorQuality::OutOfRange);
                self.length = if same && !was_gap { self.length.saturating_add(1) } else { 1 };
                let stuck = stuck_after > 0 && self.length >= stuck_after;
                self.quality = if stuck { SensorQuality::Stuck } else { SensorQuality::Good };
            }
            gap => {
                self.length = if self.quality == gap { self.length.saturating_add(1) } else { 1 };
                self.quality = gap;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensor_is_stuck_after_as_many_equal_values_as_it_never_had_and_free_at_the_next_other_one() {
        let mut run = Run::default();
        run.step(SensorQuality::Good, false, 3);
        run.step(SensorQuality::Good, true, 3);
        assert_eq!(run.quality, SensorQuality::Good);
        run.step(SensorQuality::Good, true, 3);
        assert_eq!((run.quality, run.length), (SensorQuality::Stuck, 3));
        run.step(SensorQuality::Good, false, 3);
        assert_eq!((run.quality, run.length), (SensorQuality::Good, 1));
    }

    #[test]
    fn a_gap_starts_its_own_count_and_no_sensor_is_stuck_across_it() {
        let mut run = Run::default();
        for _ in 0..2 {
            run.step(SensorQuality::Good, true, 3);
        }
        run.step(SensorQuality::Missing, false, 3);
        run.step(SensorQuality::Missing, false, 3);
        assert_eq!((run.quality, run.length), (SensorQuality::Missing, 2));
        run.step(SensorQuality::Good, true, 3);
        assert_eq!((run.quality, run.length), (SensorQuality::Good, 1));
    }

    #[test]
    fn a_sensor_that_may_stand_still_is_never_stuck() {
        let mut run = Run::default();
        for _ in 0..100_000 {
            run.step(SensorQuality::Good, true, 0);
        }
        assert_eq!(run.quality, SensorQuality::Good);
    }
}
