//! What the log's three sides share: those who append, the one that commits, and the one that reads and trims.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::Options;
use super::disk::Disk;
use super::segment::Segment;

/// Shared by the sides; see the fields for who writes what.
pub struct Shared<T> {
    pub disk: Arc<dyn Disk>,
    pub options: Options,
    pub id: u64,
    /// Appended and not yet taken by the committer. Locked for as long as it takes to copy one record.
    pub front: Mutex<Front<T>>,
    /// Rung when something was appended.
    pub filled: Condvar,
    /// What is on the disk. Locked for moments, never during input and output.
    pub back: Mutex<Back>,
    /// Rung when something was committed.
    pub grown: Condvar,
    /// Bytes of the log: on the disk, and on their way there.
    pub bytes: AtomicU64,
    /// When the oldest record that is still needed was appended; `i64::MAX` if none is.
    pub oldest: AtomicI64,
    pub room: Room,
    pub trouble: Mutex<Option<String>>,
    pub syncs: Mutex<Syncs>,
}

/// Records that wait for the committer.
pub struct Front<T> {
    /// Their numbers begin here.
    pub first: u64,
    /// The number of the next one.
    pub next: u64,
    pub bytes: Vec<u8>,
    /// Of each whose committing somebody waits for, in order.
    pub tokens: Vec<T>,
    /// Nothing more is taken.
    pub closed: bool,
}

/// What is on the disk.
pub struct Back {
    pub segments: VecDeque<Segment>,
    /// The number after the last record that is synced.
    pub committed: u64,
    /// The newest batches, as they were written: (first number, number after the last, bytes).
    blocks: VecDeque<(u64, u64, Arc<Vec<u8>>)>,
    block_bytes: usize,
}

impl Back {
    pub fn new(segments: VecDeque<Segment>, committed: u64) -> Self {
        Back { segments, committed, blocks: VecDeque::new(), block_bytes: 0 }
    }

    /// Keeps a batch for the reader. Beyond `most` bytes the oldest are dropped: they are on the disk.
    pub fn keep_block(&mut self, first: u64, end: u64, bytes: Vec<u8>, most: usize) {
        self.block_bytes += bytes.len();
        self.blocks.push_back((first, end, Arc::new(bytes)));
        while self.block_bytes > most {
            let Some((_, _, bytes)) = self.blocks.pop_front() else { break };
            self.block_bytes -= bytes.len();
        }
    }

    /// The batch with record `next`, if it is in memory; those before it are dropped.
    pub fn take_block(&mut self, next: u64) -> Option<Arc<Vec<u8>>> {
        while let Some((_, end, bytes)) = self.blocks.front()
            && *end <= next
        {
            self.block_bytes -= bytes.len();
            self.blocks.pop_front();
        }
        let (first, _, bytes) = self.blocks.front()?;
        (*first <= next).then(|| bytes.clone())
    }

    /// The segment with record `next`, and where the records behind a gap begin, should there be none.
    pub fn segment_of(&self, next: u64) -> (Option<Segment>, u64) {
        let at = self.segments.partition_point(|segment| segment.end <= next);
        match self.segments.get(at) {
            Some(segment) if segment.first <= next => (Some(segment.clone()), segment.end),
            Some(segment) => (None, segment.first),
            None => (None, self.committed),
        }
    }
}

/// How long syncing takes, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Syncs {
    /// Of late, on average.
    pub mean: f32,
    /// The longest so far.
    pub longest: f32,
}

impl Syncs {
    /// Takes note of one.
    pub fn took(&mut self, time: Duration) {
        let ms = time.as_secs_f32() * 1e3;
        self.mean = if self.mean == 0.0 { ms } else { self.mean + 0.05 * (ms - self.mean) };
        self.longest = self.longest.max(ms);
    }
}

/// Where those wait that found no room.
#[derive(Debug, Default)]
pub struct Room {
    notify: Notify,
    starved: AtomicBool,
}

impl Room {
    /// Longest wait for being woken; then one tries again anyway.
    const RETRY: Duration = Duration::from_millis(50);

    /// Somebody found no room.
    pub fn starved(&self) {
        self.starved.store(true, Ordering::Release);
    }

    /// There may be room again.
    pub fn relieve(&self) {
        if self.starved.load(Ordering::Acquire) && self.starved.swap(false, Ordering::AcqRel) {
            self.notify.notify_waiters();
        }
    }

    /// Resolves when there may be room again.
    pub async fn wait(&self) {
        let mut woken = std::pin::pin!(self.notify.notified());
        woken.as_mut().enable();
        if self.starved.load(Ordering::Acquire) {
            // Woken or not: whoever waits tries again.
            let _ = tokio::time::timeout(Self::RETRY, woken).await;
        }
    }
}
