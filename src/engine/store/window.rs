//! Which records of the log Kafka has: everything below a number, and above it some, for reports do not come in order.

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::once::OnceNote;
use crate::kafka::{DeliveryError, Written};

/// Where to look, after a crash, for records that Kafka has and nobody noted: by topic, for each partition the offset before
/// which there are none.
pub type Bounds = BTreeMap<String, Vec<i64>>;

/// What a checkpoint notes beside the number below which Kafka has everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Note {
    /// See [`Bounds`].
    pub bounds: Bounds,
    /// Messages of QoS 2.
    pub once: OnceNote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Read from the log, and not with Kafka.
    Waiting,
    /// With Kafka, which has not said what became of it.
    Sent { topic: u16 },
    /// In Kafka.
    Done { topic: u16, written: Written },
    /// There is nothing to send: it is damaged, or not for Kafka.
    Gone,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    time: i64,
    state: State,
}

/// What to do with a record that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Send it.
    Send,
    /// Kafka has it.
    Skip,
}

/// The records read from the log that are not yet in Kafka, and those between them that are.
#[derive(Debug, Default)]
pub struct Window {
    low: u64,
    slots: VecDeque<Slot>,
    /// When the first record behind the slots was received, if somebody looked.
    unread: Option<i64>,
    topics: Vec<String>,
    bounds: Bounds,
    /// Above `low` and in Kafka since before the restart.
    found: FxHashMap<u64, (u16, Written)>,
    in_flight: usize,
    failed: Vec<(u64, DeliveryError)>,
}

impl Window {
    /// Kafka has everything below `low`.
    pub fn new(low: u64, bounds: Bounds) -> Self {
        Window { low, bounds, ..Window::default() }
    }

    /// Where to look for records that Kafka may have.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Nothing of ours stands in the topic beyond these offsets, as far as is not known otherwise.
    pub fn begin(&mut self, topic: &str, ends: Vec<i64>) {
        self.bounds.entry(topic.to_owned()).or_insert(ends);
    }

    /// Kafka has had this record since before the restart; answers whether that was news.
    pub fn found(&mut self, seq: u64, topic: &str, written: Written) -> bool {
        let topic = self.topic(topic);
        seq >= self.low && self.found.insert(seq, (topic, written)).is_none()
    }

    /// The record comes out of the log, to go to `topic`: what to do with it, and how many before it are damaged.
    pub fn turn(&mut self, seq: u64, time: i64, topic: &str) -> (Turn, u64) {
        let missing = self.pass(seq, time);
        if seq < self.low {
            return (Turn::Skip, missing);
        }
        let topic = self.topic(topic);
        if seq == self.end() {
            let state = match self.found.remove(&seq) {
                Some((topic, written)) => State::Done { topic, written },
                None => State::Waiting,
            };
            self.slots.push_back(Slot { time, state });
        }
        let turn = match self.slot(seq) {
            Some(slot) if slot.state == State::Waiting => {
                slot.state = State::Sent { topic };
                self.in_flight += 1;
                Turn::Send
            }
            _ => Turn::Skip,
        };
        self.advance();
        (turn, missing)
    }

    /// The log has no more records below `end`; how many of them are damaged.
    pub fn pass(&mut self, end: u64, time: i64) -> u64 {
        self.unread = None;
        let missing = end.saturating_sub(self.end());
        self.slots.extend((0..missing).map(|_| Slot { time, state: State::Gone }));
        self.advance();
        missing
    }

    /// The record is not for Kafka; answers whether that is news, and how many before it are damaged.
    pub fn not_for_kafka(&mut self, seq: u64, time: i64) -> (bool, u64) {
        let missing = self.pass(seq, time);
        (self.pass(seq + 1, time) > 0, missing)
    }

    /// It was not sent after all.
    pub fn unsent(&mut self, seq: u64) {
        if let Some(slot) = self.slot(seq)
            && matches!(slot.state, State::Sent { .. })
        {
            slot.state = State::Waiting;
            self.in_flight -= 1;
        }
    }

    /// It goes to another topic than it was taken for.
    pub fn redirect(&mut self, seq: u64, topic: &str) {
        let topic = self.topic(topic);
        if let Some(slot) = self.slot(seq)
            && matches!(slot.state, State::Sent { .. })
        {
            slot.state = State::Sent { topic };
        }
    }

    /// It will never be sent.
    pub fn give_up(&mut self, seq: u64) {
        self.unsent(seq);
        if let Some(slot) = self.slot(seq) {
            slot.state = State::Gone;
        }
        self.advance();
    }

    /// Kafka has it.
    pub fn delivered(&mut self, seq: u64, written: Written) {
        if let Some(slot) = self.slot(seq)
            && let State::Sent { topic } = slot.state
        {
            slot.state = State::Done { topic, written };
            self.in_flight -= 1;
            self.advance();
        }
    }

    /// Kafka did not take it.
    pub fn refused(&mut self, seq: u64, error: DeliveryError) {
        self.unsent(seq);
        self.failed.push((seq, error));
    }

    /// Whether Kafka did not take something.
    pub fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// What Kafka did not take since the last time; to be sent again.
    pub fn take_failed(&mut self) -> Vec<(u64, DeliveryError)> {
        std::mem::take(&mut self.failed)
    }

    /// Records whose fate is open.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Kafka has everything below.
    pub fn low(&self) -> u64 {
        self.low
    }

    /// When the oldest record that is not in Kafka was received, if somebody looked.
    pub fn oldest(&self) -> Option<i64> {
        self.slots.front().map(|slot| slot.time).or(self.unread)
    }

    /// The first record that was not read yet was received then.
    pub fn unread_since(&mut self, time: i64) {
        self.unread = Some(time);
    }

    /// Records below `committed` that are not in Kafka.
    pub fn waiting(&self, committed: u64) -> u64 {
        let open = |slot: &&Slot| matches!(slot.state, State::Waiting | State::Sent { .. });
        committed.saturating_sub(self.end()) + self.slots.iter().filter(open).count() as u64
    }

    /// Where whoever looks from these offsets on sees every record above `low` that Kafka has.
    pub fn note(&self) -> Bounds {
        let mut bounds = self.bounds.clone();
        let done = self.slots.iter().filter_map(|slot| match slot.state {
            State::Done { topic, written } => Some((topic, written)),
            _ => None,
        });
        for (topic, Written { partition, offset }) in done.chain(self.found.values().copied()) {
            let partitions = self.topics.get(usize::from(topic)).and_then(|name| bounds.get_mut(name));
            // Kafka does not tell the offset of what a lost answer made us send twice; it is behind the bound all the same.
            if let Some(bound) = partitions.and_then(|partitions| partitions.get_mut(partition as usize))
                && offset >= 0
            {
                // One that was sent a second time may stand behind some that come after it in the log.
                *bound = (*bound).min(offset);
            }
        }
        bounds
    }

    fn end(&self) -> u64 {
        self.low + self.slots.len() as u64
    }

    fn slot(&mut self, seq: u64) -> Option<&mut Slot> {
        self.slots.get_mut(seq.checked_sub(self.low)? as usize)
    }

    fn topic(&mut self, name: &str) -> u16 {
        let at = self.topics.iter().position(|known| known == name).unwrap_or_else(|| {
            self.topics.push(name.to_owned());
            self.topics.len() - 1
        });
        at as u16
    }

    fn advance(&mut self) {
        while let Some(slot) = self.slots.front() {
            match slot.state {
                State::Waiting | State::Sent { .. } => return,
                State::Gone => {}
                State::Done { topic, written } => {
                    if let Some(name) = self.topics.get(usize::from(topic)) {
                        let partitions = self.bounds.entry(name.clone()).or_default();
                        let partition = written.partition.max(0) as usize;
                        if partitions.len() <= partition {
                            // Newer than our look at the topic: whatever stands in it was written since.
                            partitions.resize(partition + 1, 0);
                        }
                        partitions[partition] = partitions[partition].max(written.offset + 1);
                    }
                }
            }
            self.slots.pop_front();
            self.low += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32, offset: i64) -> Written {
        Written { partition, offset }
    }

    fn window(low: u64) -> Window {
        let mut window = Window::new(low, Bounds::default());
        window.begin("t", vec![100, 200]);
        window
    }

    #[test]
    fn everything_below_the_first_that_is_not_delivered_is_done() {
        let mut window = window(5);
        for seq in 5..9 {
            assert_eq!(window.turn(seq, 1_000 + seq as i64, "t"), (Turn::Send, 0));
        }
        window.delivered(6, at(0, 101));
        window.delivered(8, at(1, 200));
        assert_eq!((window.low(), window.oldest(), window.in_flight(), window.waiting(10)), (5, Some(1_005), 2, 3));
        window.delivered(5, at(0, 100));
        assert_eq!((window.low(), window.waiting(9)), (7, 1));
        assert_eq!(window.note()["t"], [102, 200], "8 is above, and found from here on");
        window.delivered(7, at(0, 102));
        assert_eq!((window.low(), window.in_flight(), window.oldest()), (9, 0, None));
        assert_eq!(window.note()["t"], [103, 201]);
    }

    #[test]
    fn what_was_refused_is_sent_again_and_what_came_after_it_is_not() {
        let mut window = window(0);
        for seq in 0..3 {
            window.turn(seq, 0, "t");
        }
        window.delivered(1, at(0, 100));
        window.refused(0, DeliveryError::NoTopic);
        window.delivered(2, at(0, 101));
        assert_eq!((window.in_flight(), window.take_failed()), (0, vec![(0, DeliveryError::NoTopic)]));
        assert_eq!([0, 1, 2].map(|seq| window.turn(seq, 0, "t").0), [Turn::Send, Turn::Skip, Turn::Skip]);
        assert_eq!(window.note()["t"][0], 100, "1 stands there, above low");
        window.delivered(0, at(0, 102));
        assert_eq!((window.low(), window.note()["t"][0]), (3, 103));
    }

    #[test]
    fn what_kafka_had_before_the_restart_is_not_sent_again() {
        let mut window = window(10);
        assert!(
            window.found(11, "t", at(1, 205)) && !window.found(11, "t", at(1, 205)) && !window.found(9, "t", at(1, 3))
        );
        assert_eq!(window.note()["t"], [100, 200]);
        assert_eq!([10, 11, 12].map(|seq| window.turn(seq, 0, "t").0), [Turn::Send, Turn::Skip, Turn::Send]);
        window.delivered(10, at(0, 100));
        assert_eq!((window.low(), window.note()["t"].clone()), (12, vec![101, 206]));
    }

    #[test]
    fn damaged_records_hold_nothing_up() {
        let mut window = window(0);
        assert_eq!(window.turn(3, 0, "t"), (Turn::Send, 3));
        assert_eq!(window.low(), 3);
        assert_eq!(window.pass(6, 0), 2);
        window.delivered(3, at(0, 100));
        assert_eq!((window.low(), window.waiting(6)), (6, 0));
    }

    #[test]
    fn a_partition_that_came_later_is_looked_through_from_its_beginning() {
        let mut window = window(0);
        window.turn(0, 0, "t");
        window.delivered(0, at(4, 0));
        assert_eq!(window.note()["t"], [100, 200, 0, 0, 1]);
    }
}
