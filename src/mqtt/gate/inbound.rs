//! QoS 2, the receiving side: each message once, however often it is sent.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::mqtt::intake::{Acknowledge, Fate};
use crate::mqtt::ledger::Ledger;

/// The client's QoS 2 messages between PUBLISH and PUBREL, by packet id. A message sent again, on the same connection or a
/// later one, is not taken again: it waits for the fate of the first.
#[derive(Debug, Default)]
pub struct Inbound(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    /// Whose fate is open, and the connection that waits for it. As many as a connection may have outstanding.
    waiting: FxHashMap<u16, (Arc<Ledger>, u64)>,
    /// Which are kept, one bit an id: a client that never releases costs 8 KiB. None while there are none.
    kept: Option<Box<[u64; 1024]>>,
    kept_count: usize,
}

impl Taken {
    fn is_kept(&self, id: u16) -> bool {
        self.kept.as_ref().is_some_and(|bits| bits[usize::from(id >> 6)] & (1 << (id & 63)) != 0)
    }

    fn keep(&mut self, id: u16) {
        let bits = self.kept.get_or_insert_with(|| Box::new([0; 1024]));
        bits[usize::from(id >> 6)] |= 1 << (id & 63);
        self.kept_count += 1;
    }

    fn release(&mut self, id: u16) {
        if let Some(bits) = &mut self.kept {
            bits[usize::from(id >> 6)] &= !(1 << (id & 63));
        }
        self.kept_count -= 1;
    }
}

impl Inbound {
    /// Whether the message is new and so to be taken. `ledger` hears of its fate, be it new or not.
    pub fn take(&self, id: u16, ledger: &Arc<Ledger>, ticket: u64) -> bool {
        let mut taken = self.0.lock();
        if taken.is_kept(id) {
            ledger.settle(ticket, Fate::Kept);
            return false;
        }
        taken.waiting.insert(id, (ledger.clone(), ticket)).is_none()
    }

    /// PUBREL: the id may be used again. `false` if it was not out.
    pub fn release(&self, id: u16) -> bool {
        let mut taken = self.0.lock();
        let known = taken.is_kept(id);
        if known {
            taken.release(id);
        }
        known
    }

    /// Gives back the memory of a client at rest.
    pub fn rest(&self) {
        let mut taken = self.0.lock();
        if taken.kept_count == 0 {
            taken.kept = None;
        }
        taken.waiting.shrink_to_fit();
    }
}

impl Acknowledge for Inbound {
    /// The ticket is the packet id.
    fn settle(&self, ticket: u64, fate: Fate) {
        let id = ticket as u16;
        let mut taken = self.0.lock();
        if let Some((ledger, ticket)) = taken.waiting.remove(&id) {
            if fate == Fate::Kept {
                taken.keep(id);
            }
            ledger.settle(ticket, fate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::Receipt;
    use crate::mqtt::ledger::{Outstanding, Wake};

    #[test]
    fn a_message_of_qos_2_sent_again_on_a_new_connection_waits_for_the_first_ones_fate() {
        let (inbound, wake) = (Arc::new(Inbound::default()), Arc::new(Wake::default()));
        let mut first = Outstanding::new(4, wake.clone());
        let (ledger, ticket) = first.open(5u16);
        assert!(inbound.take(5, &ledger, ticket));
        let receipt = Receipt::new(inbound.clone(), 5);

        let mut second = Outstanding::new(4, wake.clone());
        let (ledger, ticket) = second.open(5u16);
        assert!(!inbound.take(5, &ledger, ticket), "it is taken once");
        let mut acks = Vec::new();
        second.settled(|id| acks.push(id)).unwrap();
        assert!(acks.is_empty());
        receipt.kept();
        second.settled(|id| acks.push(id)).unwrap();
        assert_eq!(acks, [5]);
        first.settled(|_| panic!("the old connection's ledger is no longer told")).unwrap();

        assert!(inbound.release(5) && !inbound.release(5));
        assert!(inbound.take(5, &ledger, 1), "a released id is free for a new message");
    }
}
