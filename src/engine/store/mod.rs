//! Store and forward: a message is on the disk before its device is told so, and goes on to Kafka in the order of arrival,
//! once, however long Kafka is away and however often this process dies.
//!
//! ```text
//!  door ─▶ Store::keep ─▶ wal ─┬─ synced: the device gets its acknowledgement
//!                              └─▶ drain (a thread) ─▶ producer ─▶ Kafka
//!                                     ▲ window: what Kafka has ◀── delivery reports
//! ```
//!
//! | file | what it owns |
//! |---|---|
//! | here | the store: keeping, what Kafka reports, how it is, the end |
//! | [`entry`] | what a record of the log holds |
//! | `window` | which records Kafka has |
//! | `drain` | the thread that hands them on and notes how far it is |
//! | `recover` | after a restart: which of them Kafka has already |

mod drain;
mod entry;
mod recover;
mod window;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::counts::{Counters, add};
use super::door::Token;
use super::view::LogView;
use super::worker::Orders;
use crate::config;
use crate::kafka::{Cluster, DeliveryError, Producer, Written};
use crate::mqtt::Receipt;
use crate::wal::{Directory, Options, Reader, Wal, WalError};
use drain::Drain;
pub use entry::{Entry, Kind};
use window::{Note, Window};

/// Messages between the door and Kafka.
pub struct Store {
    wal: Wal<Receipt>,
    window: Mutex<Window>,
    counters: Arc<Counters>,
    /// What keeps the drain from handing on, but for Kafka's absence.
    trouble: Mutex<Option<String>>,
    finishing: AtomicBool,
}

/// A store's threads, before and after they are started.
pub struct Hands {
    reader: Reader<Receipt>,
    /// Records below are of earlier runs.
    recovered: u64,
    committing: JoinHandle<()>,
}

/// A store's threads at work.
pub struct AtWork {
    committing: JoinHandle<()>,
    draining: JoinHandle<()>,
}

/// What the drain needs beside the store.
pub struct Outlet {
    /// Where Kafka is.
    pub cluster: Arc<Cluster>,
    /// Writes to it.
    pub producer: Arc<Producer<Token>>,
    /// Topics that records of the log may go to, the dead letters' last.
    pub topics: Vec<String>,
    /// Told if the producer will never take anything again.
    pub orders: Arc<Orders>,
    /// For waiting.
    pub runtime: tokio::runtime::Handle,
}

impl Store {
    /// Opens the log in `directory` and begins to commit what is kept in it. [`Store::start`] hands it on.
    ///
    /// # Errors
    /// The log cannot be used.
    pub fn open(
        directory: &Path,
        bounds: &config::Wal,
        counters: Arc<Counters>,
    ) -> Result<(Arc<Store>, Hands), WalError> {
        let max_age = bounds.max_age.map(|seconds| (seconds * 1e3) as i64);
        let options = Options::bounded(bounds.max_bytes as u64, max_age);
        let opened = Wal::open(Arc::new(Directory::open(directory)?), options, Receipt::kept)?;
        let note: Note = if opened.note.is_empty() {
            Note::default()
        } else {
            serde_json::from_slice(&opened.note).unwrap_or_else(|error| {
                // Of a version to come, perhaps. Without it, what Kafka has already is sent once more.
                tracing::error!("the note in the log's checkpoint cannot be read ({error}): readings may come twice");
                Note::default()
            })
        };
        if opened.waiting > 0 {
            tracing::info!("{} readings of an earlier run wait in the log in {}", opened.waiting, directory.display());
        }
        add(&counters.recovered, opened.waiting);
        let low = opened.reader.position();
        let window = Window::new(low, note);
        let committer = opened.committer;
        let committing = std::thread::Builder::new()
            .name("dashlight-log".into())
            .spawn(move || committer.run())
            .map_err(|source| WalError::Directory { path: directory.to_owned(), source })?;
        let store = Store {
            wal: opened.wal,
            window: Mutex::new(window),
            counters,
            trouble: Mutex::new(None),
            finishing: AtomicBool::new(false),
        };
        Ok((Arc::new(store), Hands { reader: opened.reader, recovered: low + opened.waiting, committing }))
    }

    /// Starts handing on to Kafka.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(self: &Arc<Self>, hands: Hands, outlet: Outlet) -> io::Result<AtWork> {
        let drain = Drain::new(self.clone(), hands.reader, hands.recovered, outlet);
        let draining = std::thread::Builder::new().name("dashlight-drain".into()).spawn(move || drain.run())?;
        Ok(AtWork { committing: hands.committing, draining })
    }

    /// Takes a message; its receipt is kept once the message is synced. Hands the receipt back if there is no room now.
    pub fn keep(&self, entry: &Entry<'_>, received_ms: i64, receipt: Receipt) -> Result<(), Receipt> {
        match entry.parts(|parts| self.wal.append(parts, received_ms, receipt)) {
            Ok(_) => {
                add(&self.counters.received, 1);
                Ok(())
            }
            Err((receipt, _)) => Err(receipt),
        }
    }

    /// Resolves when there may be room again.
    pub async fn room(&self) {
        self.wal.room().await;
    }

    /// What became of a record at Kafka.
    pub fn settled(&self, seq: u64, kind: Kind, fate: Result<Written, DeliveryError>) {
        match fate {
            Ok(written) => {
                self.count(kind);
                self.window.lock().delivered(seq, written);
            }
            Err(error) => self.window.lock().refused(seq, error),
        }
    }

    fn count(&self, kind: Kind) {
        match kind {
            Kind::Reading => add(&self.counters.produced, 1),
            Kind::DeadLetter => add(&self.counters.refused, 1),
        }
    }

    /// Readings in the log that Kafka does not have.
    pub fn waiting(&self) -> u64 {
        self.window.lock().waiting(self.wal.committed())
    }

    /// How it is, for people.
    pub fn view(&self) -> LogView {
        let status = self.wal.status();
        LogView {
            path: status.place,
            bytes: status.bytes,
            max_bytes: status.max_bytes,
            waiting: self.waiting(),
            oldest: self.window.lock().oldest(),
            sync_ms: status.sync_ms,
        }
    }

    /// Why it does not do its work, if that is so.
    pub fn trouble(&self) -> Option<String> {
        let status = self.wal.status();
        let full = || {
            (status.bytes + status.max_bytes / 100 >= status.max_bytes).then(|| {
                format!(
                    "the log in {} is full: devices wait until Kafka takes from it; wal.max_bytes is its bound",
                    status.place
                )
            })
        };
        status.trouble.clone().or_else(|| self.trouble.lock().clone()).or_else(full)
    }

    /// Takes nothing more; waits up to `patience` until Kafka has what is in the log, unless Kafka is away; what it does not
    /// have stays there for the next run. Answers how many readings those are.
    pub fn finish(&self, work: AtWork, patience: Duration) -> u64 {
        self.wal.close();
        // They end by themselves, and panicked only if that thread has already told.
        let _ = work.committing.join();
        self.finishing.store(true, Ordering::Release);
        let end = std::time::Instant::now() + patience;
        while !work.draining.is_finished() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        // What was appended and never synced: no device was told that it is kept.
        let unkept = self.wal.uncommitted();
        add(&self.counters.lost, unkept);
        let waiting = self.waiting();
        if waiting > 0 {
            tracing::warn!("{waiting} readings stay in the log and go to Kafka with the next run");
        }
        waiting
    }
}
