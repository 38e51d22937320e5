//! Out of the log, in the order of numbers: the newest from memory, the rest from segments. What is damaged is said with file
//! and place, and passed over; everything that can be read is.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::disk::Disk;
use super::record::{self, Found};
use super::segment::Segment;
use super::shared::Shared;

/// Bytes read from a segment at once, if its records are no larger.
const CHUNK: usize = 1 << 20;

/// Where a record's body stands in its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    seq: u64,
    time: i64,
    body: Range<usize>,
}

/// Records that follow each other. Where a number is left out, its record is damaged.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    bytes: Arc<Vec<u8>>,
    slots: Vec<Slot>,
    /// The number up to which this batch tells everything there is, not included.
    pub next: u64,
}

/// A record of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its number.
    pub seq: u64,
    /// When it was appended, milliseconds since the Unix epoch.
    pub time: i64,
    /// What was appended.
    pub body: &'a [u8],
}

impl Batch {
    /// The records, in the order of their numbers.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let entry =
            |slot: &Slot| Some(Entry { seq: slot.seq, time: slot.time, body: self.bytes.get(slot.body.clone())? });
        self.slots.iter().filter_map(entry)
    }

    /// Records of `bytes`, from number `next` on and below `end`; answers how many bytes they take up, and what ended them.
    fn parse(&mut self, bytes: &[u8], end: u64) -> (usize, Stop) {
        let mut at = 0;
        loop {
            let stop = match record::find(&bytes[at..]) {
                // Written again in the segment after this one, because this one failed.
                Found::Record(record) if record.seq >= end => Stop::End,
                Found::Record(record) => {
                    let body = at + record::OVERHEAD..at + record.size();
                    if record.seq >= self.next {
                        self.next = record.seq + 1;
                        self.slots.push(Slot { seq: record.seq, time: record.time, body });
                    }
                    at += record.size();
                    continue;
                }
                Found::Short(wanted) => Stop::Short(wanted),
                Found::Bad => Stop::Bad,
            };
            return (at, stop);
        }
    }
}

/// Why no further record was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    End,
    Short(usize),
    Bad,
}

/// Reads the log from some number on. There is one.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    /// The number of the next record wanted.
    next: u64,
    /// Where it stands, if the one before it was read from that segment.
    place: Option<(u64, u64)>,
}

impl<T> Reader<T> {
    pub(super) fn new(shared: Arc<Shared<T>>, next: u64) -> Self {
        Reader { shared, next, place: None }
    }

    /// Goes on with that record.
    pub fn seek(&mut self, next: u64) {
        (self.next, self.place) = (next, None);
    }

    /// The number of the record that comes next.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The next records, waiting for them up to `wait`; `None` if none came. Only what is synced is handed out.
    ///
    /// # Errors
    /// The disk does not let us read; nothing is passed over, try again.
    pub fn read(&mut self, wait: Duration) -> io::Result<Option<Batch>> {
        let (segment, following) = {
            let mut back = self.shared.back.lock();
            if self.next >= back.committed {
                self.shared.grown.wait_for(&mut back, wait);
            }
            if self.next >= back.committed {
                return Ok(None);
            }
            if let Some(bytes) = back.take_block(self.next) {
                drop(back);
                return Ok(Some(self.read_memory(bytes)));
            }
            back.segment_of(self.next)
        };
        let Some(segment) = segment else {
            return Ok(Some(self.missing(following, "its file is not there")));
        };
        self.read_disk(&segment).map(Some)
    }

    fn read_memory(&mut self, bytes: Arc<Vec<u8>>) -> Batch {
        let mut batch = Batch { next: self.next, ..Batch::default() };
        batch.parse(&bytes, u64::MAX);
        batch.bytes = bytes;
        (self.next, self.place) = (batch.next, None);
        batch
    }

    fn read_disk(&mut self, segment: &Segment) -> io::Result<Batch> {
        let disk = &*self.shared.disk;
        let name = segment.name();
        let mut offset = match self.place {
            Some((first, offset)) if first == segment.first => offset,
            _ => record::HEADER as u64,
        };
        let mut batch = Batch { next: self.next, ..Batch::default() };
        let left = |offset: u64| usize::try_from(segment.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut wanted = CHUNK;
        while batch.slots.is_empty() {
            let asked = wanted.min(left(offset));
            let bytes = match disk.read(&name, offset, asked) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(error),
            };
            let (taken, stop) = batch.parse(&bytes, segment.end);
            let there = bytes.len();
            // A file that is gone or shorter than it was has no more, however often it is asked.
            let is_whole = there == asked;
            batch.bytes = Arc::new(bytes);
            offset += taken as u64;
            match stop {
                _ if batch.next >= segment.end => break,
                Stop::Short(more) if is_whole && taken == 0 && more > there && more <= left(offset) => {
                    wanted = more.max(CHUNK);
                }
                Stop::Short(_) if is_whole && taken > 0 && there - taken < left(offset) => wanted = CHUNK,
                _ if !batch.slots.is_empty() => {}
                _ => match skip(disk, &name, offset, left(offset), batch.next)? {
                    Some(bytes) => {
                        tracing::error!(
                            "{} is damaged at byte {offset}: {bytes} bytes are passed over, what follows is kept",
                            disk.place(&name)
                        );
                        (offset, wanted) = (offset + bytes, CHUNK);
                    }
                    None => {
                        return Ok(
                            self.missing(segment.end, &format!("{} is damaged at byte {offset}", disk.place(&name)))
                        );
                    }
                },
            }
        }
        (self.next, self.place) = (batch.next, Some((segment.first, offset)));
        Ok(batch)
    }

    /// No record, and on with `next`.
    fn missing(&mut self, next: u64, why: &str) -> Batch {
        tracing::error!("{} records of the log cannot be read, from number {} on: {why}", next - self.next, self.next);
        (self.next, self.place) = (next, None);
        Batch { next, ..Batch::default() }
    }
}

/// Bytes from `offset` to the next record that can be read.
fn skip(disk: &dyn Disk, name: &str, offset: u64, left: usize, expected: u64) -> io::Result<Option<u64>> {
    let bytes = match disk.read(name, offset, left) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        bytes => bytes?,
    };
    Ok(record::next_readable(&bytes, expected).map(|at| at as u64))
}
