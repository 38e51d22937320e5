//! How far the log has been handed on, in a file that is replaced as a whole: either the old one is there or the new one.

use std::io;

use super::disk::Disk;

const NAME: &str = "checkpoint";
const NEW: &str = "checkpoint.new";
const MAGIC: &[u8; 8] = b"DLCHK 1\n";
/// Bytes beside the note.
const FIXED: usize = 8 + 8 + 8 + 4;

/// What outlives the records it is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's id.
    pub id: u64,
    /// Every record below this number has been handed on.
    pub low: u64,
    /// Whatever the log's user wants back.
    pub note: Vec<u8>,
}

/// What there was in the place of a checkpoint.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    /// One.
    Whole(Checkpoint),
    /// Something that cannot be read as one.
    Damaged,
    /// Nothing.
    None,
}

impl Checkpoint {
    /// Puts this one in the place of the one before.
    pub fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(FIXED + self.note.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.id.to_le_bytes());
        bytes.extend_from_slice(&self.low.to_le_bytes());
        bytes.extend_from_slice(&self.note);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        // One that a full disk cut short, the time before.
        match disk.remove(NEW) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = disk.create(NEW)?;
        file.append(&bytes)?;
        file.sync()?;
        disk.rename(NEW, NAME)?;
        disk.sync()
    }

    /// The one that is there.
    pub fn read(disk: &dyn Disk) -> io::Result<Kept> {
        let bytes = match disk.read(NAME, 0, usize::MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::None),
            Err(error) => return Err(error),
        };
        Ok(Self::parse(&bytes).map_or(Kept::Damaged, Kept::Whole))
    }

    fn parse(bytes: &[u8]) -> Option<Checkpoint> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (id, rest) = body.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
        let (low, note) = rest.split_first_chunk::<8>()?;
        Some(Checkpoint { id: u64::from_le_bytes(*id), low: u64::from_le_bytes(*low), note: note.to_vec() })
    }
}
