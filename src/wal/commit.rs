//! The committing side: one thread that writes what was appended, syncs it, and tells whoever waits. What a full or failing
//! disk does not take stays in memory, and nobody is told anything, until a new file takes it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::disk::Appending;
use super::record;
use super::segment::{self, Segment};
use super::shared::Shared;

/// Waits between two attempts at a disk that fails: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Memory for the next batch is set aside as large as the last one, up to this.
const SPARE: usize = 1 << 20;

/// Commits what is appended to a log.
pub struct Committer<T> {
    shared: Arc<Shared<T>>,
    on_kept: Box<dyn FnMut(T) + Send>,
    /// The segment that is written to; none after a failure, since nothing is known of the end of that file.
    open: Option<Box<dyn Appending>>,
    /// Taken and not yet committed.
    batch: Option<Pending<T>>,
}

struct Pending<T> {
    first: u64,
    end: u64,
    bytes: Vec<u8>,
    tokens: Vec<T>,
}

impl<T> Committer<T> {
    pub(super) fn new(shared: Arc<Shared<T>>, on_kept: Box<dyn FnMut(T) + Send>) -> Self {
        Committer { shared, on_kept, open: None, batch: None }
    }

    /// Commits until the log is closed and everything appended is committed. If the disk fails then, what is left is given up:
    /// its tokens are handed back.
    pub fn run(mut self) -> Vec<T> {
        let mut retry = RETRY.0;
        loop {
            self.wait();
            match self.step() {
                Ok(true) => retry = RETRY.0,
                Ok(false) => return Vec::new(),
                Err(_) if self.shared.front.lock().closed => return self.give_up(),
                Err(_) => {
                    let mut front = self.shared.front.lock();
                    if !front.closed {
                        // Rung by every append as well: hence no shorter than it takes to sleep out.
                        let until = Instant::now() + retry;
                        while !front.closed && !self.shared.filled.wait_until(&mut front, until).timed_out() {}
                    }
                    retry = (retry * 2).min(RETRY.1);
                }
            }
        }
    }

    fn give_up(self) -> Vec<T> {
        let mut tokens = self.batch.map(|batch| batch.tokens).unwrap_or_default();
        tokens.append(&mut self.shared.front.lock().tokens);
        tokens
    }

    /// Waits until there is something to commit, or never will be.
    fn wait(&self) {
        if self.batch.is_some() {
            return;
        }
        let mut front = self.shared.front.lock();
        while front.bytes.is_empty() && !front.closed {
            self.shared.filled.wait(&mut front);
        }
    }

    /// Commits what was appended so far; answers whether there was anything.
    ///
    /// # Errors
    /// The disk did not take it; it is kept, and the next step tries again.
    pub fn step(&mut self) -> io::Result<bool> {
        let batch = match self.batch.take() {
            Some(batch) => batch,
            None => match self.take() {
                Some(batch) => batch,
                None => return Ok(false),
            },
        };
        match self.store(&batch) {
            Ok(()) => self.committed(batch),
            Err(error) => {
                self.batch = Some(batch);
                self.open = None;
                self.say(&error);
                return Err(error);
            }
        }
        Ok(true)
    }

    fn take(&mut self) -> Option<Pending<T>> {
        let mut front = self.shared.front.lock();
        if front.bytes.is_empty() {
            return None;
        }
        let spare = Vec::with_capacity(front.bytes.len().min(SPARE));
        let bytes = std::mem::replace(&mut front.bytes, spare);
        let tokens = std::mem::take(&mut front.tokens);
        let (first, end) = (front.first, front.next);
        front.first = end;
        drop(front);
        // The next batch is collected while this one is written.
        self.shared.room.relieve();
        Some(Pending { first, end, bytes, tokens })
    }

    /// Writes and syncs the batch, in a new segment if need be.
    fn store(&mut self, batch: &Pending<T>) -> io::Result<()> {
        let shared = &*self.shared;
        let full = |segment: &Segment| segment.bytes >= shared.options.segment_bytes;
        let (mut file, new) = match self.open.take() {
            Some(file) if !shared.back.lock().segments.back().is_none_or(full) => (file, false),
            _ => (begin(shared, batch.first)?, true),
        };
        let outcome = file.append(&batch.bytes).and_then(|()| {
            let start = Instant::now();
            file.sync()?;
            if new {
                shared.disk.sync()?;
            }
            shared.syncs.lock().took(start.elapsed());
            Ok(())
        });
        let mut back = shared.back.lock();
        if let Some(segment) = back.segments.back_mut() {
            segment.weight += batch.bytes.len() as u64;
            match &outcome {
                Ok(()) => segment.bytes += batch.bytes.len() as u64,
                // It takes up room here and will take it up once more.
                Err(_) => shared.add(batch.bytes.len() as u64),
            }
        }
        drop(back);
        outcome.map(|()| self.open = Some(file))
    }

    fn committed(&mut self, batch: Pending<T>) {
        let shared = &*self.shared;
        let mut back = shared.back.lock();
        back.committed = batch.end;
        if let Some(segment) = back.segments.back_mut() {
            segment.end = batch.end;
        }
        back.keep_block(batch.first, batch.end, batch.bytes, shared.options.tail_bytes);
        drop(back);
        shared.grown.notify_one();
        if let Some(trouble) = shared.trouble.lock().take() {
            tracing::info!("the log in {} is written again ({trouble})", shared.disk.place(""));
        }
        batch.tokens.into_iter().for_each(&mut self.on_kept);
        shared.room.relieve();
    }

    fn say(&self, error: &io::Error) {
        let sentence = format!(
            "the log in {} cannot be written ({error}): nothing is acknowledged until it can; {}",
            self.shared.disk.place(""),
            way_out(error)
        );
        let mut trouble = self.shared.trouble.lock();
        if trouble.as_ref() != Some(&sentence) {
            tracing::error!("{sentence}");
            *trouble = Some(sentence);
        }
    }
}

/// A new segment that begins with the record `first`.
fn begin<T>(shared: &Shared<T>, first: u64) -> io::Result<Box<dyn Appending>> {
    let name = segment::name(first);
    // What an attempt that failed has left behind: it holds nothing that is synced.
    let last = shared.back.lock().segments.back().cloned();
    if let Some(leftover) = last.filter(|segment| segment.first == first) {
        match shared.disk.remove(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        shared.back.lock().segments.pop_back();
        shared.subtract(leftover.weight);
    }
    let mut file = match shared.disk.create(&name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            shared.disk.remove(&name)?;
            shared.disk.create(&name)?
        }
        file => file?,
    };
    let header = record::HEADER as u64;
    shared.add(header);
    shared.back.lock().segments.push_back(Segment { first, end: first, bytes: header, weight: header });
    file.append(&record::header(shared.id, first))?;
    Ok(file)
}

/// What can be done about it.
fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on the disk",
        io::ErrorKind::ReadOnlyFilesystem => "mount it for writing, or name another directory with wal.directory",
        io::ErrorKind::PermissionDenied => "let this user write there, or name another directory with wal.directory",
        _ => "check the disk, or name another directory with wal.directory",
    }
}
