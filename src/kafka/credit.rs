//! The topics of a cluster as producer and consumers share them, and how much may still be produced into each.
//!
//! **Why credit.** The embedded cluster keeps [`PARTITION_BYTES`] of a partition and then drops its oldest batches,
//! read or not. Producer and consumer sit in one process, so the difference of the two is known exactly: a record
//! counts, from before it is sent until a consumer has stored its offset, with an upper bound of the bytes it takes.
//! The sum may reach [`CREDIT_BYTES`], and what is between the two bounds pays for what the sum does not see: a batch
//! that is stored in part but kept whole, and requests that a cut connection made the producer send twice.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use super::settings::{EMBEDDED_BATCH_BYTES, EMBEDDED_REQUESTS};

/// What the embedded cluster keeps of a partition (`rd_kafka_mock_partition_init`).
const PARTITION_BYTES: u64 = 5 * 1024 * 1024;
/// What may be produced into a partition and not yet stored by its consumer.
pub(super) const CREDIT_BYTES: u64 =
    PARTITION_BYTES - (EMBEDDED_BATCH_BYTES * (EMBEDDED_REQUESTS + 1)) as u64 - 256 * 1024;
/// What a record takes beside its key, value and headers at the most: a batch of its own (61 bytes), and the record's
/// attributes, its time and offset deltas and five lengths as variable-length integers.
const RECORD_OVERHEAD: usize = 61 + 1 + 10 + 5 * 6;
/// The same of a header: two lengths.
const HEADER_OVERHEAD: usize = 2 * 5;

/// The topics of one cluster, by name.
#[derive(Debug)]
pub(super) struct Topics {
    by_name: RwLock<FxHashMap<Box<str>, Arc<Topic>>>,
    /// Whether the cluster is embedded, so that credit counts.
    embedded: bool,
    /// Where senders wait that found no room.
    pub room: Room,
}

/// One topic.
#[derive(Debug)]
pub(super) struct Topic {
    /// How many partitions it has; 0 until the cluster has said so, and until then nothing is sent to it.
    partitions: AtomicI32,
    /// Its partitions' credit, if the cluster is embedded; empty until a consumer of this process reads the topic.
    credits: RwLock<Arc<[Credit]>>,
    /// Counts up, to spread records without a key.
    next: AtomicUsize,
}

/// What is on its way through one partition.
#[derive(Debug, Default)]
pub(super) struct Credit {
    /// Bytes sent and not yet stored.
    used: AtomicU64,
    /// Whether a sender found no room since the last time there was some.
    starved: AtomicBool,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Next offset the consumer will process: it has stored everything before.
    stored: i64,
    /// Offset and bytes of the records that were delivered and are not stored, in order.
    records: VecDeque<(i64, u32)>,
}

impl Topics {
    pub fn new(embedded: bool) -> Self {
        Topics { by_name: RwLock::default(), embedded, room: Room::default() }
    }

    /// The topic, if it was ever asked for.
    pub fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.by_name.read().get(name).cloned()
    }

    /// The topic, made known if it was not.
    pub fn known(&self, name: &str) -> Arc<Topic> {
        if let Some(topic) = self.get(name) {
            return topic;
        }
        let topic = || {
            Arc::new(Topic {
                partitions: AtomicI32::new(0),
                credits: RwLock::new(Arc::from([])),
                next: AtomicUsize::new(0),
            })
        };
        self.by_name.write().entry(name.into()).or_insert_with(topic).clone()
    }

    /// The topic exists with that many partitions.
    pub fn ready(&self, name: &str, partitions: i32) {
        self.known(name).partitions.store(partitions, Ordering::Release);
        self.room.wake();
    }

    /// A consumer of this process reads the topic: from now on the producer must not run ahead of it. For an embedded
    /// cluster, its partitions' credit, through which the consumer says how far it is.
    pub fn read_here(&self, name: &str) -> Option<Arc<[Credit]>> {
        if !self.embedded {
            return None;
        }
        let topic = self.known(name);
        let mut credits = topic.credits.write();
        if credits.is_empty() {
            *credits = (0..topic.partitions()).map(|_| Credit::default()).collect();
        }
        Some(credits.clone())
    }
}

impl Topic {
    /// How many partitions it has; 0 while that is not known.
    pub fn partitions(&self) -> i32 {
        self.partitions.load(Ordering::Acquire)
    }

    /// Its partitions' credit, if a consumer of this process reads it from an embedded cluster.
    pub fn credits(&self) -> Option<Arc<[Credit]>> {
        let credits = self.credits.read();
        (!credits.is_empty()).then(|| credits.clone())
    }

    /// Where a record goes. A record without a key goes anywhere.
    pub fn partition_of(&self, key: Option<&[u8]>) -> i32 {
        let partitions = self.partitions().max(1);
        match key {
            Some(key) => super::partition_of(key, partitions),
            None => (self.next.fetch_add(1, Ordering::Relaxed) % partitions as usize) as i32,
        }
    }
}

/// The most bytes a record can take in a partition's log.
pub(super) fn weight(payload: &[u8], key: Option<&[u8]>, headers: &[(&str, &[u8])]) -> usize {
    let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len() + HEADER_OVERHEAD).sum();
    payload.len() + key.map_or(0, <[u8]>::len) + headers + RECORD_OVERHEAD
}

impl Credit {
    /// Takes credit for a record; `false` if there is none.
    pub fn take(&self, weight: u32, room: &Room) -> bool {
        let weight = u64::from(weight);
        let fits = || {
            let before = self.used.fetch_add(weight, Ordering::SeqCst);
            let fits = before + weight <= CREDIT_BYTES;
            if !fits {
                self.used.fetch_sub(weight, Ordering::SeqCst);
            }
            fits
        };
        fits() || room.starved_unless(&self.starved, fits)
    }

    /// The record did not get there after all.
    pub fn give_back(&self, weight: u32, room: &Room) {
        self.release(u64::from(weight), room);
    }

    /// The record is in the partition, at `offset`, and now waits for its consumer.
    pub fn delivered(&self, offset: i64, weight: u32, room: &Room) {
        let mut held = self.held.lock();
        // The consumer may have been faster than the delivery report.
        if offset >= held.stored {
            held.records.push_back((offset, weight));
        } else {
            drop(held);
            self.release(u64::from(weight), room);
        }
    }

    /// The consumer has processed everything before offset `next`.
    pub fn stored(&self, next: i64, room: &Room) {
        let mut held = self.held.lock();
        held.stored = held.stored.max(next);
        let mut freed = 0;
        while let Some(&(offset, weight)) = held.records.front()
            && offset < next
        {
            freed += u64::from(weight);
            held.records.pop_front();
        }
        drop(held);
        if freed > 0 {
            self.release(freed, room);
        }
    }

    /// Where a consumer goes on.
    pub fn position(&self) -> i64 {
        self.held.lock().stored
    }

    fn release(&self, bytes: u64, room: &Room) {
        let used = self.used.fetch_sub(bytes, Ordering::SeqCst).saturating_sub(bytes);
        // Not for every record: whoever waits should find room for some more.
        if used <= CREDIT_BYTES / 4 * 3 {
            room.relieve(&self.starved);
        }
    }

    #[cfg(test)]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::SeqCst)
    }
}

/// Where senders wait that were answered Full, whatever it was that they found full.
#[derive(Debug, Default)]
pub(super) struct Room {
    notify: Notify,
    /// How many things are full and have somebody waiting.
    starved: AtomicUsize,
}

impl Room {
    /// Longest wait for being woken; then the sender tries again anyway.
    const RETRY: Duration = Duration::from_millis(50);

    /// Marks a full thing so that its next relief wakes the senders, and looks once more, because relief may have come
    /// in between; whether there is room now.
    pub fn starved_unless(&self, starved: &AtomicBool, fits: impl Fn() -> bool) -> bool {
        if !starved.swap(true, Ordering::SeqCst) {
            self.starved.fetch_add(1, Ordering::SeqCst);
        }
        let fits = fits();
        if fits {
            self.relieve(starved);
        }
        fits
    }

    /// What was full has room again.
    pub fn relieve(&self, starved: &AtomicBool) {
        if starved.load(Ordering::SeqCst) && starved.swap(false, Ordering::SeqCst) {
            self.starved.fetch_sub(1, Ordering::SeqCst);
            self.notify.notify_waiters();
        }
    }

    /// Wakes all that wait.
    pub fn wake(&self) {
        self.notify.notify_waiters();
    }

    /// Resolves when there may be room again; at once if nothing is full any more.
    pub async fn wait(&self) {
        let mut woken = pin!(self.notify.notified());
        woken.as_mut().enable();
        if self.starved.load(Ordering::SeqCst) > 0 {
            let _ = tokio::time::timeout(Self::RETRY, woken).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_used_up_until_the_consumer_has_stored() {
        let (credit, room) = (Credit::default(), Room::default());
        let weight = (CREDIT_BYTES / 4) as u32;
        for offset in 0..4 {
            assert!(credit.take(weight, &room));
            credit.delivered(offset, weight, &room);
        }
        assert!(!credit.take(weight, &room), "used up");
        credit.stored(2, &room);
        assert_eq!(credit.used(), 2 * u64::from(weight));
        assert!(credit.take(weight, &room));
        credit.stored(5, &room);
        credit.delivered(4, weight, &room);
        assert_eq!(credit.used(), 0, "a report that comes after the consumer was there holds nothing");
        assert_eq!(credit.position(), 5);
    }

    #[test]
    fn reading_again_from_an_earlier_offset_gives_nothing_back_twice() {
        let (credit, room) = (Credit::default(), Room::default());
        for offset in 0..3 {
            assert!(credit.take(100, &room));
            credit.delivered(offset, 100, &room);
        }
        credit.stored(2, &room);
        credit.stored(1, &room);
        credit.stored(2, &room);
        assert_eq!((credit.used(), credit.position()), (100, 2));
    }

    #[tokio::test]
    async fn who_found_no_room_is_woken_when_there_is_some() {
        let topics = Arc::new(Topics::new(true));
        topics.ready("t", 1);
        let credits = topics.read_here("t").unwrap();
        let all = CREDIT_BYTES as u32;
        assert!(credits[0].take(all, &topics.room));
        assert!(!credits[0].take(1, &topics.room));
        let waiting = tokio::spawn({
            let topics = topics.clone();
            async move { topics.room.wait().await }
        });
        credits[0].give_back(all, &topics.room);
        waiting.await.unwrap();
        topics.room.wait().await; // Nothing is full: at once.
    }
}
