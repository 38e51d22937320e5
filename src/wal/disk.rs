//! What the log asks of a disk, and the real one: a directory that one process has to itself. Tests have another, which
//! forgets what was not synced.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::WalError;

/// The file that a process locks while it uses the directory.
pub(super) const LOCK: &str = "lock";

/// A directory of files. What was done to a file lasts once the file is synced; that there is such a file, or no longer, or
/// under another name, once the directory is.
pub trait Disk: Send + Sync + 'static {
    /// Every file with its size in bytes.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// A new, empty file; one of that name must not be there.
    fn create(&self, name: &str) -> io::Result<Box<dyn Appending>>;
    /// Bytes of a file from `offset` on: `most` of them, or as many as there are.
    fn read(&self, name: &str, offset: u64, most: usize) -> io::Result<Vec<u8>>;
    /// Gives a file another name, in place of the file that had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes what was created, renamed and removed so far last.
    fn sync(&self) -> io::Result<()>;
    /// Where a file is, for people; for the empty name, where all are.
    fn place(&self, name: &str) -> String;
}

/// A file that grows.
pub trait Appending: Send {
    /// Writes at its end. After an error some of it may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was written last. After an error nothing is known of what was written since the last success, and trying
    /// again would tell nothing: the system may have dropped it.
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory of the file system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Holds the lock until it is closed, however the process ends.
    _lock: Option<File>,
}

impl Directory {
    /// Takes the directory, made if it is not there, for this process alone.
    ///
    /// # Errors
    /// It cannot be made or written, or another process has it.
    pub fn open(path: &Path) -> Result<Directory, WalError> {
        let denied = |source| WalError::Directory { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(denied)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK)).map_err(denied)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WalError::Taken { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(denied(source)),
        }
        // The directory's own entry must last too; where its parent may not be opened, we cannot see to it.
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty())
            && let Ok(parent) = File::open(parent)
        {
            parent.sync_all().map_err(denied)?;
        }
        Ok(Directory { path: path.to_owned(), _lock: Some(lock) })
    }

    /// The directory as it is, for looking only.
    pub(super) fn unlocked(path: &Path) -> Directory {
        Directory { path: path.to_owned(), _lock: None }
    }
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            // A name that is no text is none of ours.
            if let Ok(name) = entry.file_name().into_string()
                && name != LOCK
            {
                files.push((name, entry.metadata()?.len()));
            }
        }
        Ok(files)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Appending>> {
        Ok(Box::new(OpenOptions::new().create_new(true).append(true).open(self.path.join(name))?))
    }

    fn read(&self, name: &str, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path.join(name))?;
        let left = file.metadata()?.len().saturating_sub(offset);
        file.seek(SeekFrom::Start(offset))?;
        let most = (most as u64).min(left);
        let mut bytes = Vec::with_capacity(most as usize);
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn place(&self, name: &str) -> String {
        if name.is_empty() { self.path.display().to_string() } else { self.path.join(name).display().to_string() }
    }
}

impl Appending for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
