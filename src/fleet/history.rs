//! One car's bounded past: a ring of slots, each one stretch of time, in half-precision floats.
//!
//! A slot holds one reading: the one with the highest score among those that fell into its stretch, so that a spike of one
//! reading stays visible. Readings farther apart than a slot get a slot each; a silence leaves a gap slot.

use half::f16;

use crate::telemetry::batch::is_gap;

/// Shortest stretch of time one slot stands for, milliseconds.
pub const SLOT_MS: i64 = 1_000;

/// A silence is a gap once it is this many times longer than the car's usual interval.
const GAP_FACTOR: i64 = 3;

/// One stretch of a car's past.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slot {
    /// Event time of its first reading, milliseconds since the Unix epoch.
    pub start: i64,
    /// Highest score in it, in multiples of the threshold; NaN in a gap.
    pub score: f32,
    /// Whether a reading in it was a breach.
    pub breach: bool,
}

const EMPTY: Slot = Slot { start: 0, score: f32::NAN, breach: false };

/// The ring. Memory is `capacity * (2 * sensors + 16)` bytes, allocated at once.
#[derive(Debug)]
pub struct History {
    slots: Box<[Slot]>,
    /// `[capacity, sensors]`, row-major.
    values: Box<[f16]>,
    width: usize,
    /// Slots written so far; the newest is at `(written - 1) % capacity`.
    written: u64,
    last_time: i64,
    /// The car's usual interval between readings, milliseconds, smoothed; 0 until known.
    interval: i64,
}

impl History {
    /// A past of at most `capacity` slots for readings of `width` sensors.
    pub fn new(capacity: usize, width: usize) -> Self {
        let capacity = capacity.max(2);
        History {
            slots: vec![EMPTY; capacity].into(),
            values: vec![f16::NAN; capacity * width].into(),
            width,
            written: 0,
            last_time: i64::MIN,
            interval: 0,
        }
    }

    /// Adds a reading. One that is older than the newest is not history any more: it changes nothing.
    pub fn push(&mut self, time: i64, values: &[f32], score: f32, breach: bool) {
        debug_assert_eq!(values.len(), self.width);
        if self.written == 0 {
            self.open(time, values, score, breach);
            return;
        }
        let since_last = time.saturating_sub(self.last_time);
        if since_last < 0 {
            return;
        }
        let newest = self.at(self.written - 1);
        if time.saturating_sub(self.slots[newest].start) < SLOT_MS {
            let slot = &mut self.slots[newest];
            slot.breach |= breach;
            if slot.score.is_nan() || score > slot.score {
                slot.score = score;
                store(&mut self.values[newest * self.width..][..self.width], values);
            }
        } else {
            if self.interval > 0 && since_last > GAP_FACTOR * self.interval.max(SLOT_MS) {
                self.open(self.last_time.saturating_add(self.interval.max(SLOT_MS)), &[], f32::NAN, false);
            }
            self.open(time, values, score, breach);
        }
        if since_last > 0 {
            // A long silence says little about the usual interval: it counts as a few intervals at the most.
            let seen = if self.interval == 0 { since_last } else { since_last.min(self.interval.saturating_mul(8)) };
            self.interval = if self.interval == 0 { seen } else { (self.interval * 7 + seen) / 8 }.max(1);
        }
        self.last_time = time;
    }

    fn open(&mut self, time: i64, values: &[f32], score: f32, breach: bool) {
        let n = self.at(self.written);
        self.slots[n] = Slot { start: time, score, breach };
        let row = &mut self.values[n * self.width..][..self.width];
        if values.is_empty() {
            row.fill(f16::NAN)
        } else {
            store(row, values)
        }
        self.written += 1;
        self.last_time = time;
    }

    fn at(&self, written: u64) -> usize {
        (written % self.slots.len() as u64) as usize
    }

    /// Slots held now.
    pub fn len(&self) -> usize {
        self.written.min(self.slots.len() as u64) as usize
    }

    /// Whether nothing was read yet.
    pub fn is_empty(&self) -> bool {
        self.written == 0
    }

    /// Seconds that one slot spans, as this car reports.
    pub fn seconds_per_slot(&self) -> f32 {
        self.interval.max(SLOT_MS) as f32 / 1000.0
    }

    /// The last `count` slots that began no later than `until` (`None`: the newest), oldest first: each slot's
    /// number since the car was first seen, the slot, its row.
    pub fn last(&self, count: usize, until: Option<i64>) -> impl Iterator<Item = (u64, Slot, &[f16])> {
        let held = self.len() as u64;
        let oldest = self.written - held;
        let end = match until {
            None => self.written,
            Some(until) => {
                (oldest..self.written).rev().find(|&n| self.slots[self.at(n)].start <= until).map_or(oldest, |n| n + 1)
            }
        };
        let start = end.saturating_sub(count as u64).max(oldest);
        (start..end).map(|number| {
            let n = self.at(number);
            (number, self.slots[n], &self.values[n * self.width..][..self.width])
        })
    }

    /// Whether the past still reaches back to `time`.
    pub fn reaches(&self, time: i64) -> bool {
        self.last(usize::MAX, None).next().is_some_and(|(_, slot, _)| slot.start <= time)
    }

    /// Bytes it takes, its own allocations included.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.slots) + size_of_val(&*self.values) + size_of::<Self>()
    }
}

fn store(row: &mut [f16], values: &[f32]) {
    for (to, &from) in row.iter_mut().zip(values) {
        *to = if is_gap(from) { f16::NAN } else { f16::from_f32(from.clamp(-65_504.0, 65_504.0)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(history: &History) -> Vec<i64> {
        history.last(usize::MAX, None).map(|(_, slot, _)| slot.start).collect()
    }

    #[test]
    fn readings_within_a_second_share_a_slot_and_the_worst_stays() {
        let mut history = History::new(8, 1);
        history.push(0, &[1.0], 0.1, false);
        history.push(200, &[9.0], 2.0, true);
        history.push(400, &[2.0], 0.2, false);
        let (_, slot, row) = history.last(1, None).next().unwrap();
        assert_eq!((slot.score, slot.breach, row[0].to_f32()), (2.0, true, 9.0));
        assert_eq!(history.len(), 1);
    }

    #[test]
    fn a_slow_car_has_a_slot_a_reading_and_no_gaps() {
        let mut history = History::new(8, 1);
        for n in 0..5 {
            history.push(n * 10_000, &[n as f32], 0.0, false);
        }
        assert_eq!(starts(&history), [0, 10_000, 20_000, 30_000, 40_000]);
        assert_eq!(history.seconds_per_slot(), 10.0);
    }

    #[test]
    fn a_silence_leaves_a_gap() {
        let mut history = History::new(64, 1);
        for n in 0..20 {
            history.push(n * 1_000, &[1.0], 0.0, false);
        }
        history.push(60_000, &[1.0], 0.0, false);
        let gaps: Vec<bool> = history.last(3, None).map(|(_, slot, _)| slot.score.is_nan()).collect();
        assert_eq!(gaps, [false, true, false]);
    }

    #[test]
    fn the_ring_keeps_the_newest_and_an_older_reading_changes_nothing() {
        let mut history = History::new(3, 2);
        for n in 0..10 {
            history.push(n * 1_000, &[n as f32, f32::NAN], n as f32, false);
        }
        history.push(4_000, &[99.0, 99.0], 99.0, true);
        let rows: Vec<f32> = history.last(9, None).map(|(_, _, row)| row[0].to_f32()).collect();
        assert_eq!(rows, [7.0, 8.0, 9.0]);
        assert!(history.last(1, None).all(|(_, _, row)| row[1].is_nan()));
    }

    #[test]
    fn the_past_can_be_asked_up_to_a_time() {
        let mut history = History::new(10, 1);
        for n in 0..10 {
            history.push(n * 1_000, &[n as f32], 0.0, false);
        }
        let rows: Vec<f32> = history.last(2, Some(4_500)).map(|(_, _, row)| row[0].to_f32()).collect();
        assert_eq!(rows, [3.0, 4.0]);
        assert!(history.reaches(0) && history.reaches(5_000) && !history.reaches(-1));
    }

    #[test]
    fn times_from_anywhere_do_no_harm() {
        let mut history = History::new(4, 1);
        for time in [i64::MAX, i64::MIN, 0, -1, i64::MAX, i64::MIN + 1] {
            history.push(time, &[f32::INFINITY], f32::NAN, true);
        }
        assert!(history.len() <= 4);
    }
}
