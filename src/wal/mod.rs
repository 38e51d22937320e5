//! The write-ahead log: what is appended is on the disk before anybody is told that it is kept, and is handed on in order,
//! however often the process dies in between. Records are opaque; whom they come from and where they go is not known here.
//!
//! ```text
//!  append ─▶ front (memory) ─▶ committer: write, fdatasync ─▶ segments ─▶ reader ─▶ …
//!               group commit         └─▶ tokens: kept            ▲ whole ones removed below the checkpoint
//! ```
//!
//! * Records have consecutive numbers. A batch is whatever was appended while the one before it was being synced.
//! * An error of the disk acknowledges nothing. The file is left alone from there on, because nobody knows what of it is on
//!   the disk, and the batch is written again into a new one, as often as it takes.
//! * A torn end is cut; damage in the middle is said with file and byte, and everything that can be read is handed on.
//! * It is bounded: beyond [`Options::max_bytes`] or [`Options::max_age`] nothing more is taken, until something was handed on.
//!
//! | file | what it owns |
//! |---|---|
//! | [`disk`] | files and directories; the lock that keeps a second process out |
//! | `record`, `segment`, `checkpoint` | the formats |
//! | `log` | opening, appending, trimming |
//! | `commit` | the thread that writes and syncs |
//! | `read` | reading, damage included |
//! | `look` | what a log holds, for whoever only looks |
//! | `shared` | what these share |

mod checkpoint;
mod commit;
pub mod disk;
mod log;
mod look;
mod read;
mod record;
mod segment;
mod shared;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use commit::Committer;
pub use disk::{Directory, Disk};
pub use log::{Opened, Wal};
pub use look::{Look, look, sync_time};
pub use read::{Batch, Entry, Reader};

/// Bounds of a log.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Bytes of all its files; beyond, nothing is taken.
    pub max_bytes: u64,
    /// Milliseconds that a record may wait to be handed on; while one has waited longer, nothing is taken.
    pub max_age: Option<i64>,
    /// Bytes from which on a new segment is begun.
    pub segment_bytes: u64,
    /// Bytes that may be appended while the disk is busy.
    pub batch_bytes: usize,
    /// Bytes of the newest records that are kept in memory for the reader.
    pub tail_bytes: usize,
}

impl Options {
    /// The smallest log that works well.
    pub const LEAST_BYTES: u64 = 16 * 1024 * 1024;

    /// A log of that size.
    pub fn bounded(max_bytes: u64, max_age: Option<i64>) -> Self {
        Options {
            max_bytes,
            max_age,
            segment_bytes: (max_bytes / 16).clamp(1024 * 1024, 64 * 1024 * 1024),
            batch_bytes: 16 * 1024 * 1024,
            tail_bytes: 32 * 1024 * 1024,
        }
    }
}

/// Why a record is not taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// The log has all the bytes it may have.
    Full,
    /// Its oldest record has waited too long.
    Old,
    /// The disk is behind.
    Busy,
}

/// How a log is.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Its directory.
    pub place: String,
    /// Bytes it takes up.
    pub bytes: u64,
    /// Bytes it may take up.
    pub max_bytes: u64,
    /// When the oldest record that was not handed on was appended, as of the last checkpoint.
    pub oldest: Option<i64>,
    /// How long a sync takes of late, milliseconds.
    pub sync_ms: f32,
    /// The longest so far.
    pub longest_sync_ms: f32,
    /// Why nothing is committed, if that is so.
    pub trouble: Option<String>,
}

/// Why a log cannot be used.
#[derive(Debug, Error)]
pub enum WalError {
    /// The directory cannot be made, opened or locked.
    #[error(
        "the log's directory {} cannot be written ({source}): make it writable, name another with wal.directory, or do without with ingest.ack = \"kafka\"",
        path.display()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process has it.
    #[error("another process has the log in {}: stop it, or give this one a directory of its own with --state", path.display())]
    Taken {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be read at the start.
    #[error(
        "the log in {place} cannot be read ({source}): make it readable, or move it away to begin with an empty one"
    )]
    Unreadable {
        /// The directory.
        place: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A checkpoint cannot be written.
    #[error(
        "{place} cannot be written ({source}): what was handed on since the last one is handed on again after a crash"
    )]
    Checkpoint {
        /// The file.
        place: String,
        /// The system's reason.
        source: io::Error,
    },
}

#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;
