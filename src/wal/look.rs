//! What stands in a log's directory, for somebody who only looks: nothing is changed, and a process that uses it is not disturbed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::checkpoint::{Checkpoint, Kept};
use super::disk::{Directory, Disk, LOCK};
use super::record::{self, Found};
use super::segment::{self, Segment};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Bytes of its segments.
    pub bytes: u64,
    /// Records that were not handed on, as of the last checkpoint.
    pub waiting: u64,
    /// When the oldest of them was appended, milliseconds since the Unix epoch.
    pub oldest: Option<i64>,
    /// Whether a process uses it now.
    pub in_use: bool,
}

/// Looks at the log in this directory; `None` if there is none yet.
///
/// # Errors
/// It cannot be read.
pub fn look(path: &Path) -> io::Result<Option<Look>> {
    if !path.exists() {
        return Ok(None);
    }
    let disk = Directory::unlocked(path);
    let mut segments = segment::list(&disk)?;
    let low = match Checkpoint::read(&disk)? {
        Kept::Whole(checkpoint) => checkpoint.low,
        Kept::Damaged | Kept::None => segments.first().map_or(0, |segment| segment.first),
    };
    if let Some(last) = segments.last_mut() {
        let scan = segment::scan(&disk.read(&last.name(), 0, usize::MAX)?, last.first);
        last.end = scan.end.unwrap_or(last.first);
    }
    Ok(Some(Look {
        bytes: segments.iter().map(|segment| segment.bytes).sum(),
        waiting: segments.last().map_or(0, |last| last.end.saturating_sub(low)),
        oldest: oldest(&disk, &segments, low)?,
        in_use: in_use(path)?,
    }))
}

/// When the first record from `low` on was appended.
fn oldest(disk: &dyn Disk, segments: &[Segment], low: u64) -> io::Result<Option<i64>> {
    let Some(segment) = segments.iter().find(|segment| segment.end > low) else { return Ok(None) };
    let bytes = disk.read(&segment.name(), 0, usize::MAX)?;
    let mut at = record::HEADER;
    while let Some(Found::Record(record)) = bytes.get(at..).map(record::find) {
        if record.seq >= low {
            return Ok(Some(record.time));
        }
        at += record.size();
    }
    Ok(None)
}

fn in_use(path: &Path) -> io::Result<bool> {
    let lock = match File::open(path.join(LOCK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        lock => lock?,
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// How long the disk of this directory (or of what there is of the path to it) takes to sync a small file: the median of some
/// attempts. The file is removed.
///
/// # Errors
/// The directory cannot be written.
pub fn sync_time(path: &Path) -> io::Result<Duration> {
    const ATTEMPTS: usize = 9;
    let there = path.ancestors().find(|path| path.exists()).filter(|path| !path.as_os_str().is_empty());
    let probe = there.unwrap_or(Path::new(".")).join(format!(".dashlight-sync-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&probe)?;
    let mut attempt = || {
        let start = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        Ok(start.elapsed())
    };
    let times: io::Result<Vec<Duration>> = (0..ATTEMPTS).map(|_| attempt()).collect();
    std::fs::remove_file(&probe)?;
    let mut times = times?;
    times.sort_unstable();
    Ok(times.get(ATTEMPTS / 2).copied().unwrap_or_default())
}
