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

/// What is remembered of one sensor's data. A verdict is only given when it lasts: one gap is a gap, not a broken sensor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    /// The verdict,
    pub quality: SensorQuality,
    /// and for how many readings it has stood.
    pub standing: u16,
    /// Equal values in a row.
    equal: u16,
    /// Rises with each gap and falls more slowly.
    gaps: u8,
}

impl Run {
    const PER_GAP: u8 = 4;
    /// Three gaps in a row, or about half of the readings missing for a while.
    const BROKEN: u8 = 12;
    const MENDED: u8 = 4;
    const MOST: u8 = 40;

    /// Takes the next judged value: what kind it is, whether it equals the one before, and how many equal ones are too many.
    pub fn step(&mut self, kind: SensorQuality, same: bool, stuck_after: u16) {
        let gap = matches!(kind, SensorQuality::Missing | SensorQuality::OutOfRange);
        let broken = matches!(self.quality, SensorQuality::Missing | SensorQuality::OutOfRange);
        if gap {
            self.gaps = (self.gaps + Self::PER_GAP).min(Self::MOST);
            self.equal = 0;
        } else {
            self.gaps = self.gaps.saturating_sub(1);
            self.equal = if same { self.equal.saturating_add(1) } else { 1 };
        }
        let verdict = if gap && (broken || self.gaps >= Self::BROKEN) {
            kind
        } else if broken && self.gaps > Self::MENDED {
            self.quality
        } else if stuck_after > 0 && self.equal >= stuck_after {
            SensorQuality::Stuck
        } else {
            SensorQuality::Good
        };
        self.standing = if verdict == self.quality { self.standing.saturating_add(1) } else { 1 };
        self.quality = verdict;
    }
}

#[cfg(test)]
mod tests {
    use super::SensorQuality::{Good, Missing, OutOfRange, Stuck};
    use super::*;

    fn after(kinds: &[SensorQuality], same: bool) -> Run {
        let mut run = Run::default();
        kinds.iter().for_each(|&kind| run.step(kind, same, 3));
        run
    }

    #[test]
    fn a_sensor_is_stuck_after_as_many_equal_values_as_it_never_had_and_free_at_the_next_other_one() {
        assert_eq!(after(&[Good; 2], true).quality, Good);
        let mut run = after(&[Good; 3], true);
        assert_eq!(run.quality, Stuck);
        run.step(Good, false, 3);
        assert_eq!((run.quality, run.standing), (Good, 1));
    }

    #[test]
    fn one_gap_is_no_verdict_but_three_in_a_row_are_and_it_stands_until_values_come_for_a_while() {
        assert_eq!(after(&[Good, Missing, Good, Good], false).quality, Good);
        let mut run = after(&[Missing; 3], false);
        assert_eq!(run.quality, Missing);
        run.step(OutOfRange, false, 3);
        assert_eq!(run.quality, OutOfRange);
        run.step(Good, false, 3);
        assert_eq!(run.quality, OutOfRange, "one value does not mend it");
        (0..12).for_each(|_| run.step(Good, false, 3));
        assert_eq!(run.quality, Good);
    }

    #[test]
    fn a_sensor_that_comes_and_goes_is_found_missing() {
        let pattern = [Missing, Good].repeat(10);
        assert_eq!(after(&pattern, false).quality, Missing);
    }

    #[test]
    fn no_sensor_is_stuck_across_a_gap() {
        assert_eq!(after(&[Good, Good, Missing, Good, Good], true).quality, Good);
    }

    #[test]
    fn a_sensor_that_may_stand_still_is_never_stuck() {
        let mut run = Run::default();
        for _ in 0..100_000 {
            run.step(Good, true, 0);
        }
        assert_eq!(run.quality, Good);
    }
}
