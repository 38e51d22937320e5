//! A disk that fails: it forgets what was not synced, tears what was being written, fills up, and refuses.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::{Rng, RngExt};

use super::disk::{Appending, Disk};

/// What goes wrong until it is healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Half of what is appended fits (ENOSPC).
    Full,
    /// Syncing a file fails, and what it was to sync is never written (EIO).
    Sync,
    /// Syncing the directory fails (EIO).
    SyncDirectory,
    /// Nothing can be changed (EROFS).
    ReadOnly,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    data: Vec<u8>,
    /// Bytes that last.
    synced: usize,
    /// Some of what was written after `synced` was dropped by the system.
    dropped: bool,
}

#[derive(Debug, Clone)]
enum Change {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    now: BTreeMap<String, usize>,
    lasting: BTreeMap<String, usize>,
    /// Done to the directory since it was synced.
    changes: Vec<Change>,
    fault: Option<Fault>,
}

/// The disk. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Simulated(Arc<Mutex<State>>);

fn change(directory: &mut BTreeMap<String, usize>, change: &Change) {
    match change {
        Change::Link(name, inode) => drop(directory.insert(name.clone(), *inode)),
        Change::Unlink(name) => drop(directory.remove(name)),
        Change::Rename(from, to) => {
            if let Some(inode) = directory.remove(from) {
                directory.insert(to.clone(), inode);
            }
        }
    }
}

impl State {
    fn change(&mut self, done: Change) -> io::Result<()> {
        if self.fault == Some(Fault::ReadOnly) {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        change(&mut self.now, &done);
        self.changes.push(done);
        Ok(())
    }

    fn inode(&mut self, name: &str) -> io::Result<&mut Inode> {
        let inode = *self.now.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(&mut self.inodes[inode])
    }
}

impl Simulated {
    /// From now on this goes wrong; `None`: nothing any more.
    pub fn fault(&self, fault: Option<Fault>) {
        self.0.lock().fault = fault;
    }

    /// The power fails: of what was not synced, the beginning is kept or nothing, with holes or without.
    pub fn crash(&self, chance: &mut impl Rng) {
        let mut state = self.0.lock();
        let State { inodes, now, lasting, changes, fault } = &mut *state;
        let kept = chance.random_range(0..=changes.len());
        changes.drain(..).take(kept).for_each(|done| change(lasting, &done));
        *now = lasting.clone();
        *fault = None;
        for inode in inodes {
            let written = inode.data.len();
            let kept = if inode.dropped { inode.synced } else { chance.random_range(inode.synced..=written) };
            inode.data.truncate(kept);
            if kept > inode.synced && chance.random_bool(0.3) {
                let from = chance.random_range(inode.synced..kept);
                let to = chance.random_range(from..kept);
                inode.data[from..to].fill(0);
            }
            (inode.synced, inode.dropped) = (kept, false);
        }
    }

    /// Changes the bytes of a file, as a bad sector does.
    pub fn damage(&self, name: &str, at: usize, bytes: &[u8]) {
        self.0.lock().inode(name).unwrap().data[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Every file's name.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().now.keys().cloned().collect()
    }
}

impl Disk for Simulated {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.0.lock();
        Ok(state.now.iter().map(|(name, inode)| (name.clone(), state.inodes[*inode].data.len() as u64)).collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Appending>> {
        let mut state = self.0.lock();
        if state.now.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.inodes.len();
        state.change(Change::Link(name.to_owned(), inode))?;
        state.inodes.push(Inode::default());
        Ok(Box::new(Open { disk: self.clone(), inode }))
    }

    fn read(&self, name: &str, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        let mut state = self.0.lock();
        Ok(state.inode(name)?.data.iter().copied().skip(offset as usize).take(most).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.inode(from)?;
        state.change(Change::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.inode(name)?;
        state.change(Change::Unlink(name.to_owned()))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.fault == Some(Fault::SyncDirectory) {
            return Err(io::Error::other("EIO"));
        }
        let State { lasting, changes, .. } = &mut *state;
        changes.drain(..).for_each(|done| change(lasting, &done));
        Ok(())
    }

    fn place(&self, name: &str) -> String {
        format!("simulated/{name}")
    }
}

struct Open {
    disk: Simulated,
    inode: usize,
}

impl Appending for Open {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let (fits, error) = match state.fault {
            Some(Fault::Full) => (bytes.len() / 2, Some(io::ErrorKind::StorageFull)),
            Some(Fault::ReadOnly) => (0, Some(io::ErrorKind::ReadOnlyFilesystem)),
            _ => (bytes.len(), None),
        };
        state.inodes[self.inode].data.extend_from_slice(&bytes[..fits]);
        error.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let fails = state.fault == Some(Fault::Sync);
        let inode = &mut state.inodes[self.inode];
        if fails {
            inode.dropped = true;
            return Err(io::Error::other("EIO"));
        }
        // As the system does: it has forgotten what it dropped, and says that all is well.
        if !inode.dropped {
            inode.synced = inode.data.len();
        }
        Ok(())
    }
}
