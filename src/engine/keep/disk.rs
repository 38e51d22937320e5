//! The thread that writes: nothing the worker does waits for a disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::file::{replace, sync_folder_of};
use super::marks::{self, Mark};

/// Things that may wait to be written: the cars of one partition, and as many marks as operators can make meanwhile.
const WAITING: usize = 1024;

/// Something to be written.
pub enum Job {
    /// The cars of a partition, up to `offset` of `log`; the marks they hold are not needed any more.
    Cars { path: PathBuf, marks: PathBuf, log: u64, offset: i64, bytes: Vec<u8> },
    /// A mark.
    Mark { path: PathBuf, mark: Mark },
}

/// The writing thread's owner.
pub struct Disk {
    jobs: Sender<Job>,
    waiting: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Disk {
    /// Starts the thread. `root` is the folder that processes which share it lock while they write.
    pub fn start(root: PathBuf) -> io::Result<Self> {
        let (jobs, given) = bounded(WAITING);
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = waiting.clone();
        let thread =
            std::thread::Builder::new().name("dashlight-state".into()).spawn(move || work(&root, &given, &left))?;
        Ok(Disk { jobs, waiting, thread })
    }

    /// Whether something still waits to be written.
    pub fn is_busy(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    /// Has something written. Waits only at the very end of a run, when everything is written at once.
    pub fn give(&self, job: Job) {
        self.waiting.fetch_add(1, SeqCst);
        if self.jobs.send(job).is_err() {
            self.waiting.fetch_sub(1, SeqCst);
        }
    }

    /// Waits until everything is written.
    pub fn close(self) {
        drop(self.jobs);
        if self.thread.join().is_err() {
            tracing::error!("the thread that keeps the cars' states died; the log says of what");
        }
    }
}

fn work(root: &Path, jobs: &Receiver<Job>, waiting: &AtomicUsize) {
    let mut trouble: Option<String> = None;
    for job in jobs {
        let path = match &job {
            Job::Cars { path, .. } | Job::Mark { path, .. } => path.clone(),
        };
        let said = write(root, job).err().map(|error| error.to_string());
        // Once, and not every two seconds while a disk is full.
        if said != trouble {
            match &said {
                Some(why) => tracing::error!(
                    "{}: cannot be written ({why}): marks and car states will not survive a restart until it can",
                    path.display()
                ),
                None => tracing::info!("{}: marks and car states are kept again", path.display()),
            }
            trouble = said;
        }
        waiting.fetch_sub(1, SeqCst);
    }
}

fn write(root: &Path, job: Job) -> io::Result<()> {
    let (Job::Cars { path, .. } | Job::Mark { path, .. }) = &job;
    if let Some(folder) = path.parent()
        && !folder.exists()
    {
        fs::create_dir_all(folder)?;
        sync_folder_of(folder)?;
    }
    // Two processes of one group hand partitions to each other: one writes at a time.
    let lock = File::options().create(true).append(true).open(root.join("lock"))?;
    lock.lock()?;
    match job {
        Job::Cars { path, marks, log, offset, bytes } => {
            replace(&path, &bytes)?;
            marks::trim(&marks, log, offset)
        }
        Job::Mark { path, mark } => marks::append(&path, &mark),
    }
}
