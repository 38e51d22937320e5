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
//! | `once` | messages of QoS 2 that are kept and not yet released by their senders |
//! | `window` | which records Kafka has |
//! | `drain` | the thread that hands them on and notes how far it is |
//! | `recover` | after a restart: which of them Kafka has already |

mod drain;
mod entry;
mod once;
mod recover;
mod window;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::counts::{Counters, add};
use super::door::Token;
use super::view::LogView;
use super::worker::Orders;
use super::{EngineError, now_ms};
use crate::config::{self, Ack, Config};
use crate::kafka::{Cluster, DeliveryError, Health, Producer, Written};
use crate::mqtt::{Message, Once, Receipt};
use crate::wal::{Directory, Options, Reader, Wal, WalError};
use drain::Drain;
pub use entry::{Entry, Kind};
use once::{OnceNote, Unreleased};
use window::{Note, Window};

/// How long the end waits for the drain while Kafka is away.
const AWAY: Duration = Duration::from_secs(1);
/// No message of QoS 2 has been seen.
const PLAIN: u64 = u64::MAX;

/// Messages between the door and Kafka.
pub struct Store {
    wal: Wal<Slip>,
    window: Mutex<Window>,
    /// Messages of QoS 2. Locked for moments, and by nobody else's messages.
    unreleased: Mutex<Unreleased>,
    /// Below this number there is nothing of QoS 2 in the log, nor was there when it was last looked at.
    plain_below: AtomicU64,
    /// Releases in the log that the drain has not passed.
    releases: AtomicU64,
    counters: Arc<Counters>,
    /// What keeps the drain from handing on, but for Kafka's absence.
    trouble: Mutex<Option<String>>,
    finishing: AtomicBool,
}

/// What waits for a record to be synced.
struct Slip {
    receipt: Receipt,
    /// Whether the record was counted as received.
    counted: bool,
}

/// A store that does not hand on yet.
pub struct Hands {
    reader: Reader<Slip>,
    /// Records below are of earlier runs.
    recovered: u64,
    /// Ends with the number of messages that were never synced: no device was told that they are kept.
    committing: JoinHandle<u64>,
}

/// A store at work.
pub struct AtWork {
    store: Arc<Store>,
    committing: JoinHandle<u64>,
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
    /// The store as configured; `None` if messages are acknowledged without one.
    ///
    /// # Errors
    /// The log cannot be used, or nobody said where it is.
    pub fn configured(config: &Config, counters: &Arc<Counters>) -> Result<Option<(Arc<Store>, Hands)>, EngineError> {
        if config.ack() != Ack::Disk {
            return Ok(None);
        }
        let Some(directory) = &config.wal.directory else {
            return Err(EngineError::Config(
                "there is no directory for the write-ahead log: name one with --state or wal.directory".into(),
            ));
        };
        Ok(Some(Store::open(directory, &config.wal, counters.clone())?))
    }

    /// Opens the log in `directory` and begins to commit what is kept in it. [`Store::start`] hands it on.
    ///
    /// # Errors
    /// The log cannot be used.
    fn open(directory: &Path, bounds: &config::Wal, counters: Arc<Counters>) -> Result<(Arc<Store>, Hands), WalError> {
        let max_age = bounds.max_age.map(|seconds| (seconds * 1e3) as i64);
        let options = Options::bounded(bounds.max_bytes as u64, max_age);
        let opened = Wal::open(Arc::new(Directory::open(directory)?), options, |slip: Slip| slip.receipt.kept())?;
        let note: Note = if opened.note.is_empty() {
            Note::default()
        } else {
            serde_json::from_slice(&opened.note).unwrap_or_else(|error| {
                // Of a version to come, perhaps. Without it, what Kafka has already is sent once more.
                tracing::error!("the note in the log's checkpoint cannot be read ({error}): readings may come twice");
                Note::default()
            })
        };
        let mut reader = opened.reader;
        let low = reader.position();
        let recovered = low + opened.waiting;
        let Replayed { unreleased, releases, seen } = replay(&mut reader, &note.once, recovered)
            .map_err(|source| WalError::Unreadable { place: directory.display().to_string(), source })?;
        let waiting = opened.waiting.saturating_sub(releases);
        if waiting > 0 {
            tracing::info!("{waiting} readings of an earlier run wait in the log in {}", directory.display());
        }
        add(&counters.recovered, waiting);
        // What earlier runs have left open is noted by every checkpoint to come; what is in the log is replayed by the next.
        let plain_below = if seen { note.once.plain_below.max(low) } else { PLAIN };
        let window = Window::new(low, note.bounds);
        let committer = opened.committer;
        let committing = std::thread::Builder::new()
            .name("dashlight-log".into())
            .spawn(move || committer.run().iter().filter(|slip| slip.counted).count() as u64)
            .map_err(|source| WalError::Directory { path: directory.to_owned(), source })?;
        let store = Store {
            wal: opened.wal,
            window: Mutex::new(window),
            unreleased: Mutex::new(unreleased),
            plain_below: AtomicU64::new(plain_below),
            releases: AtomicU64::new(releases),
            counters,
            trouble: Mutex::new(None),
            finishing: AtomicBool::new(false),
        };
        Ok((Arc::new(store), Hands { reader, recovered, committing }))
    }

    /// Starts handing on to Kafka.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(self: Arc<Self>, hands: Hands, outlet: Outlet) -> Result<AtWork, EngineError> {
        let Hands { reader, recovered, committing } = hands;
        let drain = Drain::new(self.clone(), reader, recovered, outlet);
        let draining = std::thread::Builder::new().name("dashlight-drain".into()).spawn(move || drain.run());
        Ok(AtWork { store: self, committing, draining: draining.map_err(EngineError::Threads)? })
    }

    /// Takes a message; its receipt is kept once the message is synced. Hands the receipt back if there is no room now.
    pub fn keep(&self, entry: &Entry<'_>, message: &Message, receipt: Receipt) -> Result<(), Receipt> {
        if let Some(Once { client, id, again }) = &message.once {
            return self.keep_once(entry, message.received_ms, (client, *id, *again), receipt);
        }
        let slip = Slip { receipt, counted: true };
        entry.parts(|parts| self.wal.append(parts, message.received_ms, slip)).map_err(|(slip, _)| slip.receipt)?;
        add(&self.counters.received, 1);
        Ok(())
    }

    /// A message of QoS 2: one that an earlier run has kept is not taken again.
    fn keep_once(
        &self,
        entry: &Entry<'_>,
        received_ms: i64,
        (client, id, again): (&str, u16, bool),
        receipt: Receipt,
    ) -> Result<(), Receipt> {
        let mut unreleased = self.unreleased.lock();
        if again && unreleased.has(client, id) {
            drop(unreleased);
            receipt.kept();
            return Ok(());
        }
        self.qos_2_from_here();
        let slip = Slip { receipt, counted: true };
        let appended = entry.parts(|parts| self.wal.append(parts, received_ms, slip));
        let seq = appended.map_err(|(slip, _)| slip.receipt)?;
        unreleased.kept(client, id, seq);
        add(&self.counters.received, 1);
        Ok(())
    }

    /// The sender has released a message of QoS 2; the receipt is kept once that is synced.
    pub fn release(&self, client: &str, id: u16, receipt: Receipt) {
        let mut unreleased = self.unreleased.lock();
        self.qos_2_from_here();
        self.releases.fetch_add(1, Ordering::Relaxed);
        let slip = Slip { receipt, counted: false };
        match Entry::release(client, id).parts(|parts| self.wal.append_always(parts, now_ms(), slip)) {
            Ok(_) => unreleased.released(client, id),
            // The log is closed: the sender hears nothing, and releases once more.
            Err(_) => drop(self.releases.fetch_sub(1, Ordering::Relaxed)),
        }
    }

    fn qos_2_from_here(&self) {
        if self.plain_below.load(Ordering::Relaxed) == PLAIN {
            self.plain_below.store(self.wal.committed(), Ordering::Relaxed);
        }
    }

    /// What a checkpoint notes of messages of QoS 2.
    fn note_once(&self) -> OnceNote {
        let unreleased = self.unreleased.lock();
        let committed = self.wal.committed();
        OnceNote {
            plain_below: self.plain_below.load(Ordering::Relaxed).min(committed),
            unreleased: unreleased.note(committed),
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
            Kind::Release => {}
        }
    }

    /// Readings in the log that Kafka does not have.
    pub fn waiting(&self) -> u64 {
        let window = self.window.lock();
        window.waiting(self.wal.committed()).saturating_sub(self.releases.load(Ordering::Relaxed))
    }

    /// How it is, for people.
    pub fn view(&self) -> LogView {
        let status = self.wal.status();
        LogView {
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
}

impl AtWork {
    /// Takes nothing more; waits up to `patience` until Kafka has what is in the log, unless Kafka is away; what it does not
    /// have stays there for the next run. Answers how many readings those are.
    pub fn finish(self, cluster: &Cluster, patience: Duration) -> u64 {
        let AtWork { store, committing, draining } = self;
        store.wal.close();
        // It ends by itself, and panicked only if that thread has already told.
        add(&store.counters.lost, committing.join().unwrap_or(0));
        store.finishing.store(true, Ordering::Release);
        let started = Instant::now();
        while !draining.is_finished() {
            // It may be in the middle of asking a Kafka that is away; what it has noted by now will do.
            let patience = if cluster.health() == Health::Up { patience } else { patience.min(AWAY) };
            if started.elapsed() >= patience {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let waiting = store.waiting();
        if waiting > 0 {
            tracing::warn!("{waiting} readings stay in the log and go to Kafka with the next run");
        }
        waiting
    }
}

/// What the log says of QoS 2.
struct Replayed {
    /// What is open at its end.
    unreleased: Unreleased,
    /// Releases in it.
    releases: u64,
    /// Whether there is anything of QoS 2 in it.
    seen: bool,
}

/// Reads what the log says of QoS 2, up to the record `end`; the reader is where it was then.
fn replay(reader: &mut Reader<Slip>, note: &OnceNote, end: u64) -> io::Result<Replayed> {
    let low = reader.position();
    let (mut unreleased, mut releases, mut seen) = (Unreleased::new(&note.unreleased), 0, false);
    reader.seek(low.max(note.plain_below));
    while reader.position() < end {
        let Some(batch) = reader.read(Duration::ZERO)? else { break };
        for record in batch.entries() {
            let entry = Entry::read(record.body);
            seen |= entry.is_some_and(|entry| entry.sender.is_some());
            match entry {
                Some(Entry { kind: Kind::Release, sender: Some((client, id)), .. }) => {
                    unreleased.released(client, id);
                    releases += 1;
                }
                Some(Entry { sender: Some((client, id)), .. }) => unreleased.kept(client, id, record.seq),
                _ => {}
            }
        }
    }
    reader.seek(low);
    unreleased.restored(end);
    Ok(Replayed { unreleased, releases, seen })
}
