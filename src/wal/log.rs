//! The log as its users hold it.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use super::checkpoint::{Checkpoint, Kept};
use super::commit::Committer;
use super::disk::Disk;
use super::read::Reader;
use super::shared::{Back, Front, Room, Shared, Syncs};
use super::{NoRoom, Options, Status, WalError, record, segment};

/// A write-ahead log. `T` is a token that travels with a record until it is synced; one that never will be is dropped.
pub struct Wal<T> {
    shared: Arc<Shared<T>>,
}

/// A log just opened.
pub struct Opened<T> {
    /// The log.
    pub wal: Wal<T>,
    /// To be run on a thread of its own: [`Committer::run`].
    pub committer: Committer<T>,
    /// Reads from the first record that was not handed on.
    pub reader: Reader<T>,
    /// The note of the last checkpoint.
    pub note: Vec<u8>,
    /// Records from earlier runs that were not handed on.
    pub waiting: u64,
}

impl<T> Clone for Wal<T> {
    fn clone(&self) -> Self {
        Wal { shared: self.shared.clone() }
    }
}

impl<T> Wal<T> {
    /// Opens what is on the disk, or begins anew. `on_kept` is called by the committer for each token whose record is synced,
    /// in the order of the records.
    ///
    /// # Errors
    /// The disk does not let us read, or remove what is no longer needed.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        on_kept: impl FnMut(T) + Send + 'static,
    ) -> Result<Opened<T>, WalError> {
        let unreadable = |source| WalError::Unreadable { place: disk.place(""), source };
        let checkpoint = Checkpoint::read(&*disk).map_err(unreadable)?;
        let (segments, id) = segment::find(&*disk).map_err(unreadable)?;
        // What we go on from must not be taken back by a power failure: the run before may have ended without knowing.
        disk.sync().map_err(unreadable)?;
        let first = segments.first().map_or(0, |segment| segment.first);
        let (checkpoint, known) = match checkpoint {
            Kept::Whole(checkpoint) => (checkpoint, true),
            Kept::None => (Checkpoint { id: id.unwrap_or_else(new_id), low: first, note: Vec::new() }, false),
            Kept::Damaged => {
                tracing::error!(
                    "{} is damaged: everything that the log still holds is handed on again",
                    disk.place("checkpoint")
                );
                (Checkpoint { id: id.unwrap_or_else(new_id), low: first, note: Vec::new() }, false)
            }
        };
        let committed = segments.last().map_or(0, |segment| segment.end).max(checkpoint.low);
        let weight = segments.iter().map(|segment| segment.weight).sum();
        let Checkpoint { id, low, note } = checkpoint;
        let shared = Arc::new(Shared {
            front: Mutex::new(Front {
                first: committed,
                next: committed,
                bytes: Vec::new(),
                tokens: Vec::new(),
                closed: false,
            }),
            filled: Condvar::new(),
            back: Mutex::new(Back::new(VecDeque::from(segments), committed)),
            grown: Condvar::new(),
            bytes: AtomicU64::new(weight),
            oldest: AtomicI64::new(i64::MAX),
            room: Room::default(),
            trouble: Mutex::new(None),
            syncs: Mutex::default(),
            disk,
            options,
            id,
        });
        let wal = Wal { shared: shared.clone() };
        // A new log's id must be known before its first record is handed on; and this shows that the disk can be written.
        if !known {
            wal.checkpoint(low, None, &note)?;
        }
        wal.trim(low);
        Ok(Opened {
            committer: Committer::new(shared.clone(), Box::new(on_kept)),
            reader: Reader::new(shared, low),
            wal,
            note,
            waiting: committed - low,
        })
    }

    /// Appends a record whose body is `parts`; its number. Never blocks for longer than it takes to copy it. It is kept once
    /// its token comes back; `time` (milliseconds since the Unix epoch) is by what it is called old.
    pub fn append(&self, parts: &[&[u8]], time: i64, token: T) -> Result<u64, (T, NoRoom)> {
        let size = record::OVERHEAD + parts.iter().map(|part| part.len()).sum::<usize>();
        if let Err(why) = self.admit(size as u64, time) {
            self.shared.room.starved();
            // Once more: room may have been made before anybody knew that somebody waits.
            if self.admit(size as u64, time).is_err() {
                return Err((token, why));
            }
        }
        self.put(parts, time, false, token).map_err(|token| (token, NoRoom::Busy))
    }

    /// Appends a record for which there is always room, because it is small and there are only so many of its kind. `Err` only
    /// if the log is closed.
    pub fn append_always(&self, parts: &[&[u8]], time: i64, token: T) -> Result<u64, T> {
        self.put(parts, time, true, token)
    }

    fn put(&self, parts: &[&[u8]], time: i64, always: bool, token: T) -> Result<u64, T> {
        let size = record::OVERHEAD + parts.iter().map(|part| part.len()).sum::<usize>();
        let checksum = record::checksum(parts);
        let mut front = self.shared.front.lock();
        let begins = front.bytes.is_empty();
        if front.closed || !always && !begins && front.bytes.len() + size > self.shared.options.batch_bytes {
            drop(front);
            self.shared.room.starved();
            return Err(token);
        }
        let seq = front.next;
        record::write(&mut front.bytes, seq, time, begins, parts, checksum);
        front.next += 1;
        front.tokens.push(token);
        drop(front);
        self.shared.add(size as u64);
        self.shared.filled.notify_one();
        Ok(seq)
    }

    fn admit(&self, size: u64, time: i64) -> Result<(), NoRoom> {
        let Options { max_bytes, max_age, .. } = self.shared.options;
        if self.shared.bytes.load(Ordering::Relaxed) + size > max_bytes {
            return Err(NoRoom::Full);
        }
        let oldest = self.shared.oldest.load(Ordering::Relaxed);
        match max_age {
            Some(age) if time.saturating_sub(oldest) > age => Err(NoRoom::Old),
            _ => Ok(()),
        }
    }

    /// Resolves when there may be room again after an append was refused. Needs a tokio runtime with time.
    pub async fn room(&self) {
        self.shared.room.wait().await;
    }

    /// Everything below `low` is handed on: makes that last, with a note, and removes the segments that nobody needs.
    /// `oldest` is when the record `low` was appended, if there is one.
    ///
    /// # Errors
    /// The disk does not take it. Segments are removed all the same, since that may be what the disk wants.
    pub fn checkpoint(&self, low: u64, oldest: Option<i64>, note: &[u8]) -> Result<(), WalError> {
        let checkpoint = Checkpoint { id: self.shared.id, low, note: note.to_vec() };
        let mut written = checkpoint.write(&*self.shared.disk);
        self.shared.oldest.store(oldest.unwrap_or(i64::MAX), Ordering::Relaxed);
        let trimmed = self.trim(low);
        if written.is_err() && trimmed {
            written = checkpoint.write(&*self.shared.disk);
        }
        written.map_err(|source| WalError::Checkpoint { place: self.shared.disk.place("checkpoint"), source })
    }

    /// Removes the segments below `low`, but for the one that is written to; whether there were any.
    fn trim(&self, low: u64) -> bool {
        let mut gone = Vec::new();
        {
            let mut back = self.shared.back.lock();
            while back.segments.len() > 1
                && let Some(segment) = back.segments.pop_front_if(|segment| segment.end <= low)
            {
                gone.push(segment);
            }
        }
        for segment in &gone {
            match self.shared.disk.remove(&segment.name()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(
                        "{} cannot be removed ({error}): remove it by hand",
                        self.shared.disk.place(&segment.name())
                    );
                }
                _ => self.shared.subtract(segment.weight),
            }
        }
        if !gone.is_empty() {
            self.shared.room.relieve();
        }
        !gone.is_empty()
    }

    /// Takes nothing more; the committer ends once everything appended is committed.
    pub fn close(&self) {
        self.shared.front.lock().closed = true;
        self.shared.filled.notify_all();
        self.shared.grown.notify_all();
    }

    /// The log's id: with it, a record's number is unlike any other's.
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// The number after the last record that is synced.
    pub fn committed(&self) -> u64 {
        self.shared.back.lock().committed
    }

    /// How it is.
    pub fn status(&self) -> Status {
        let Syncs { mean, longest } = *self.shared.syncs.lock();
        let oldest = self.shared.oldest.load(Ordering::Relaxed);
        Status {
            place: self.shared.disk.place(""),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
            max_bytes: self.shared.options.max_bytes,
            oldest: (oldest != i64::MAX).then_some(oldest),
            sync_ms: mean,
            longest_sync_ms: longest,
            trouble: self.shared.trouble.lock().clone(),
        }
    }
}

impl<T> Shared<T> {
    pub(super) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Unlike any other log's.
fn new_id() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
