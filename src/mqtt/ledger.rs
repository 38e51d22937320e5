//! Acknowledgements that wait: messages are taken in one order, settle in any, and are acknowledged in the order they were
//! taken ([MQTT-4.6.0-2]). One side belongs to the connection's task ([`Outstanding`]), the other is shared with whoever
//! keeps the messages ([`Ledger`]). They meet in one byte a message: no lock, no allocation, and however many settle at
//! once, the task is woken once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::sync::Notify;

use super::intake::{Acknowledge, Fate};

const WAITING: u8 = 0;
const KEPT: u8 = 1;
const LOST: u8 = 2;

/// Wakes a task, many times at the price of one.
#[derive(Debug, Default)]
pub struct Wake {
    rung: AtomicBool,
    bell: Notify,
}

impl Wake {
    /// Wakes the task, now or when it next sleeps. Cheap if it was woken already.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.bell.notify_one();
        }
    }

    /// Sleeps until rung. What was done before the ringing is seen after it.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// To be called before looking at what there is to do: whatever comes later rings anew.
    pub fn listen(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }
}

/// Where the fates of one connection's messages are written.
#[derive(Debug)]
pub struct Ledger {
    /// One byte a message, at its ticket modulo the length, a power of two.
    fates: Box<[AtomicU8]>,
    wake: Arc<Wake>,
}

impl Acknowledge for Ledger {
    fn settle(&self, ticket: u64, fate: Fate) {
        let fate = match fate {
            Fate::Kept => KEPT,
            Fate::Lost => LOST,
        };
        self.slot(ticket).store(fate, Ordering::Release);
        self.wake.ring();
    }
}

impl Ledger {
    fn slot(&self, ticket: u64) -> &AtomicU8 {
        &self.fates[ticket as usize & (self.fates.len() - 1)]
    }
}

/// A message that was taken will never be kept: nothing after it may be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

/// The messages of one connection that wait for their fate, each with what is due when it is kept.
#[derive(Debug)]
pub struct Outstanding<T> {
    /// Made with the first message, so that a connection that never sends one above QoS 0 has none.
    ledger: Option<Arc<Ledger>>,
    wake: Arc<Wake>,
    /// Ticket of the first of `due`.
    first: u64,
    due: VecDeque<T>,
    room: usize,
}

impl<T> Outstanding<T> {
    /// At most `room` (at least one) messages at once; settling rings `wake`.
    pub fn new(room: usize, wake: Arc<Wake>) -> Self {
        Outstanding { ledger: None, wake, first: 0, due: VecDeque::new(), room: room.max(1) }
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Whether another would be one too many.
    pub fn is_full(&self) -> bool {
        self.due.len() >= self.room
    }

    /// Puts a message at the end of the line; not to be called when full. Its fate is to be settled with the ledger and
    /// the ticket.
    pub fn open(&mut self, due: T) -> (Arc<Ledger>, u64) {
        let ledger = self.ledger.get_or_insert_with(|| {
            let fates = (0..self.room.next_power_of_two()).map(|_| AtomicU8::new(WAITING)).collect();
            Arc::new(Ledger { fates, wake: self.wake.clone() })
        });
        let ticket = self.first + self.due.len() as u64;
        self.due.push_back(due);
        (ledger.clone(), ticket)
    }

    /// Takes back the message put in line last, which was not handed over after all.
    pub fn withdraw(&mut self) -> Option<T> {
        let due = self.due.pop_back()?;
        if let Some(ledger) = &self.ledger {
            ledger.slot(self.first + self.due.len() as u64).store(WAITING, Ordering::Release);
        }
        Some(due)
    }

    /// Hands over what is due for every message that is kept and has none waiting before it.
    ///
    /// # Errors
    /// [`Lost`] if the next in line is lost.
    pub fn settled(&mut self, mut each: impl FnMut(T)) -> Result<(), Lost> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        while !self.due.is_empty() {
            let slot = ledger.slot(self.first);
            match slot.load(Ordering::Acquire) {
                WAITING => break,
                KEPT => slot.store(WAITING, Ordering::Relaxed),
                _ => return Err(Lost),
            }
            self.first += 1;
            if let Some(due) = self.due.pop_front() {
                each(due);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mqtt::Receipt;

    fn outstanding(room: usize) -> Outstanding<u16> {
        Outstanding::new(room, Arc::default())
    }

    fn acks(outstanding: &mut Outstanding<u16>) -> Vec<u16> {
        let mut acks = Vec::new();
        outstanding.settled(|id| acks.push(id)).unwrap();
        acks
    }

    #[test]
    fn acks_come_in_the_order_of_arrival_however_receipts_settle() {
        let mut line = outstanding(4);
        let mut receipts: Vec<Receipt> = (1..=3)
            .map(|id| {
                let (ledger, ticket) = line.open(id);
                Receipt::new(ledger, ticket)
            })
            .collect();
        receipts.pop().unwrap().kept();
        receipts.pop().unwrap().kept();
        assert!(acks(&mut line).is_empty());
        receipts.pop().unwrap().kept();
        assert_eq!(acks(&mut line), [1, 2, 3]);
        assert!(line.is_empty());
    }

    #[test]
    fn nothing_behind_a_lost_message_is_acknowledged() {
        let mut line = outstanding(4);
        let (ledger, ticket) = line.open(1);
        drop(Receipt::new(ledger, ticket));
        let (ledger, ticket) = line.open(2);
        Receipt::new(ledger, ticket).kept();
        let mut acks = Vec::new();
        assert_eq!(line.settled(|id| acks.push(id)), Err(Lost));
        assert!(acks.is_empty());
    }

    #[test]
    fn a_thousand_settlements_ring_once() {
        let wake = Arc::new(Wake::default());
        let mut line = Outstanding::new(1_000, wake.clone());
        for id in 0..1_000u16 {
            let (ledger, ticket) = line.open(id);
            Receipt::new(ledger, ticket).kept();
        }
        assert!(wake.rung.load(Ordering::Relaxed));
        wake.listen();
        let mut count = 0;
        line.settled(|_| count += 1).unwrap();
        assert_eq!(count, 1_000);
    }

    proptest! {
        #[test]
        fn every_kept_message_is_acknowledged_once_and_in_order(
            order in Just((0..64usize).collect::<Vec<_>>()).prop_shuffle(),
            room in 1usize..64,
        ) {
            // Settled in waves of `room`, in an order of their own; looked at after every settlement.
            let mut line = outstanding(room);
            let mut seen = Vec::new();
            for wave in order.chunks(room) {
                let receipts: Vec<_> = wave.iter().map(|&n| {
                    let (ledger, ticket) = line.open(n as u16);
                    (n, Receipt::new(ledger, ticket))
                }).collect();
                let mut receipts = receipts;
                receipts.sort_by_key(|(n, _)| *n);
                for (_, receipt) in receipts {
                    receipt.kept();
                    seen.extend(acks(&mut line));
                }
            }
            prop_assert_eq!(seen, order.into_iter().map(|n| n as u16).collect::<Vec<_>>());
        }
    }
}
