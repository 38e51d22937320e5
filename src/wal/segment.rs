//! The log's files: how they are called, and what the last of them holds after a crash.

use std::io;

use super::disk::Disk;
use super::record::{self, Found};

/// How a segment's name ends.
const SUFFIX: &str = ".wal";
/// What a file without anything readable is called from then on.
const DAMAGED: &str = ".damaged";

/// A file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Number of its first record.
    pub first: u64,
    /// Number after its last record. What stands in the file beyond was written again in the next one.
    pub end: u64,
    /// Bytes that hold its records; of a segment from an earlier run, all it has.
    pub bytes: u64,
    /// Bytes it takes up on the disk, as far as known.
    pub weight: u64,
}

impl Segment {
    /// What its file is called.
    pub fn name(&self) -> String {
        name(self.first)
    }
}

/// What the segment that begins with this record is called.
pub fn name(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

/// The first record of the segment that is called so.
pub fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// The segments on the disk, in the order of their records. Each but the last ends where the next begins.
pub fn list(disk: &dyn Disk) -> io::Result<Vec<Segment>> {
    let mut segments: Vec<Segment> = disk
        .list()?
        .into_iter()
        .filter_map(|(name, bytes)| Some(Segment { first: first_of(&name)?, end: 0, bytes, weight: bytes }))
        .collect();
    segments.sort_unstable_by_key(|segment| segment.first);
    for n in 1..segments.len() {
        segments[n - 1].end = segments[n].first;
    }
    Ok(segments)
}

/// The same, and the log's id as the newest segment that names it says. The end of the last one is read from it; one without
/// any record is put aside.
pub fn find(disk: &dyn Disk) -> io::Result<(Vec<Segment>, Option<u64>)> {
    let mut segments = list(disk)?;
    let mut id = None;
    while let Some(last) = segments.last_mut() {
        let bytes = disk.read(&last.name(), 0, usize::MAX)?;
        id = id.or_else(|| record::id_of(&bytes, last.first));
        let scan = scan(&bytes, last.first);
        if let Some(end) = scan.end {
            last.end = end;
            if let Some(torn) = scan.torn {
                tracing::warn!(
                    "{} was not written to its end: {} bytes after byte {torn} cannot be read, as after a power failure or a \
                     kill; nobody was told that they are kept",
                    disk.place(&last.name()),
                    bytes.len() - torn
                );
            }
            break;
        }
        let name = last.name();
        if scan.empty {
            disk.remove(&name)?;
        } else {
            tracing::error!("{} holds no record that can be read; it is kept as {name}{DAMAGED}", disk.place(&name));
            disk.rename(&name, &format!("{name}{DAMAGED}"))?;
        }
        segments.pop();
    }
    Ok((segments, id))
}

/// What was found in a segment.
#[derive(Debug, PartialEq, Eq)]
pub struct Scan {
    /// Number after its last readable record.
    pub end: Option<u64>,
    /// Where its unreadable end begins, if it has one.
    pub torn: Option<usize>,
    /// Whether there is nothing in it, but perhaps the beginning of its first record.
    pub empty: bool,
}

/// Looks through the bytes of a segment that begins with the record `first`.
pub fn scan(bytes: &[u8], first: u64) -> Scan {
    let (mut at, mut end, mut torn) = (record::HEADER, None, None);
    let empty = bytes.iter().all(|&byte| byte == 0)
        || bytes.get(record::HEADER..).is_none_or(|rest| matches!(record::find(rest), Found::Short(_)));
    while at < bytes.len() {
        match record::find(&bytes[at..]) {
            Found::Record(record) if record.seq >= end.unwrap_or(first) => {
                (at, end, torn) = (at + record.size(), Some(record.seq + 1), None);
            }
            Found::Record(record) => at += record.size(),
            Found::Short(_) | Found::Bad => match record::next_readable(&bytes[at..], end.unwrap_or(first)) {
                Some(skip) => at += skip,
                None => {
                    torn = Some(at);
                    break;
                }
            },
        }
    }
    Scan { end, torn, empty }
}
