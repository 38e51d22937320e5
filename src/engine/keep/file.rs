//! One partition's cars as a file: what stands in it, and how it gets onto the disk whole or not at all.
//!
//! ```text
//! "dashcars" version │ length header │ length car │ length car │ … │ crc-32 of all before
//! ```
//!
//! A car's entry has a part that every version and model understands, and the detector's state, which only the version and
//! the calibration that wrote it do ([`Header::layout`], [`Header::basis`]).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::detect::{CarState, Kept};

/// How a file of ours begins: a name, and the version of what follows.
const MAGIC: [u8; 9] = *b"dashcars\x01";
/// Largest file that is read.
const MAX_BYTES: u64 = 4 << 30;
/// Largest header.
const MAX_HEADER: usize = 4096;
/// Longest part of a path that is made of a foreign name.
const MAX_NAME: usize = 120;

/// What a file says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The log that offsets are of: 0 for a cluster that outlives us, else when our own was started.
    pub log: u64,
    /// All readings before this offset are in the cars' states (of some cars, later ones too).
    pub offset: i64,
    /// The model and calibration that the states are of.
    pub basis: u64,
    /// How this version writes a state.
    pub layout: u32,
}

/// One car.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry<'a> {
    /// Its key in Kafka.
    pub key: &'a [u8],
    /// Offset behind its newest reading.
    pub next: i64,
    /// When that was received.
    pub last_received: i64,
    /// Readings so far.
    pub readings: u64,
    /// Episodes so far.
    pub episodes: u32,
    /// When its open episode was opened, by our clock.
    pub since: Option<i64>,
    /// Until when (our clock) it is muted.
    pub muted_until: Option<i64>,
    /// What any detector understands.
    pub kept: Kept,
    /// The detector's state.
    pub state: &'a [u8],
}

/// Why a file cannot be used: a clause to follow its name.
pub type Unreadable = String;

/// How this version of dashlight writes a state: changes when a field comes, goes or is renamed.
pub fn layout() -> u32 {
    static LAYOUT: OnceLock<u32> = OnceLock::new();
    *LAYOUT.get_or_init(|| {
        let specimen = CarState::specimen();
        let mut crc = flate2::Crc::new();
        // The names of the fields, and how many bytes they take.
        crc.update(&serde_json::to_vec(&specimen).unwrap_or_default());
        crc.update(&postcard::to_allocvec(&specimen).unwrap_or_default());
        crc.sum()
    })
}

/// A file in the making.
#[derive(Debug, Default)]
pub struct Builder {
    bytes: Vec<u8>,
    state: Vec<u8>,
}

impl Builder {
    /// Begins a file.
    pub fn begin(header: &Header) -> Self {
        let mut builder = Builder { bytes: MAGIC.to_vec(), state: Vec::new() };
        builder.frame(header);
        builder
    }

    /// Adds a car.
    pub fn car(&mut self, entry: Entry<'_>, state: &CarState) {
        let mut bytes = std::mem::take(&mut self.state);
        bytes.clear();
        // Plain data written into memory: it cannot fail, and an empty state would be refused and made anew.
        bytes = postcard::to_extend(state, bytes).unwrap_or_default();
        self.frame(&Entry { state: &bytes, ..entry });
        self.state = bytes;
    }

    fn frame(&mut self, what: &impl Serialize) {
        let bytes = std::mem::take(&mut self.bytes);
        let start = bytes.len();
        let mut bytes = postcard::to_extend(what, {
            let mut bytes = bytes;
            bytes.extend([0; 4]);
            bytes
        })
        .unwrap_or_default();
        if let Some(length) = bytes.len().checked_sub(start + 4)
            && let Some(place) = bytes.get_mut(start..start + 4)
        {
            place.copy_from_slice(&(length as u32).to_le_bytes());
        }
        self.bytes = bytes;
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The whole file.
    pub fn finish(mut self) -> Vec<u8> {
        let crc = crc32(&self.bytes);
        self.bytes.extend(crc.to_le_bytes());
        self.bytes
    }
}

/// A file that was read and is whole.
#[derive(Debug)]
pub struct Snapshot {
    /// What it says of itself.
    pub header: Header,
    bytes: Vec<u8>,
    cars: usize,
}

impl Snapshot {
    /// Reads a file; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Snapshot>, Unreadable> {
        let said = |error: io::Error| format!("cannot be read ({error})");
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(said)?,
        };
        if file.metadata().map_err(said)?.len() > MAX_BYTES {
            return Err("is larger than such a file can be".into());
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(said)?;
        Snapshot::parse(bytes).map(Some)
    }

    /// Takes the bytes of a file.
    pub fn parse(mut bytes: Vec<u8>) -> Result<Snapshot, Unreadable> {
        let header = header(&mut &bytes[..])?;
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or("is cut short")?;
        if crc32(body) != u32::from_le_bytes(*crc) {
            return Err("is damaged (its checksum is wrong)".into());
        }
        bytes.truncate(bytes.len() - 4);
        let mut rest = &bytes[MAGIC.len()..];
        frame(&mut rest).ok_or("is cut short")?;
        let cars = bytes.len() - rest.len();
        Ok(Snapshot { header, bytes, cars })
    }

    /// Its cars. One that cannot be read ends them: behind a good checksum that is a file of another make.
    pub fn cars(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut rest = &self.bytes[self.cars..];
        std::iter::from_fn(move || postcard::from_bytes(frame(&mut rest)?).ok())
    }
}

/// Reads only what a file says of itself; `None` if there is no such file or it is none of ours.
pub fn peek(path: &Path) -> Option<Header> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take((MAGIC.len() + 4 + MAX_HEADER) as u64).read_to_end(&mut bytes).ok()?;
    header(&mut &bytes[..]).ok()
}

fn header(bytes: &mut &[u8]) -> Result<Header, Unreadable> {
    let Some((magic, rest)) = bytes.split_first_chunk::<9>() else { return Err("is cut short".into()) };
    if magic[..8] != MAGIC[..8] {
        return Err("is no file of cars' states".into());
    }
    if *magic != MAGIC {
        return Err(format!(
            "was written by another version (it is of form {}, this one reads {})",
            magic[8], MAGIC[8]
        ));
    }
    *bytes = rest;
    let header = frame(bytes).filter(|header| header.len() <= MAX_HEADER).ok_or("is cut short")?;
    postcard::from_bytes(header).map_err(|error| format!("has a header that cannot be read ({error})"))
}

/// The next length-prefixed piece.
fn frame<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (piece, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *bytes = rest;
    Some(piece)
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Puts `bytes` in the place of the file at `path`: whoever reads it finds the old one or the new one, whatever happens.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_folder_of(path)
}

/// Makes sure that a file that was made, renamed or removed stays so.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// A foreign name as one part of a path: harmless, bounded, and never the same for two names.
pub fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => text.push(char::from(byte)),
            // A leading dot would hide it, or be the folder itself.
            b'.' if !text.is_empty() => text.push('.'),
            other => text.push_str(&format!("%{other:02x}")),
        }
    }
    if text.is_empty() {
        text.push('%');
    }
    if text.len() > MAX_NAME {
        // Two long names with the same beginning.
        text.truncate(MAX_NAME);
        text.push_str(&format!("%{:08x}{:x}", crc32(name.as_bytes()), name.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header { log: 0, offset: 42, basis: 7, layout: layout() }
    }

    fn entry(key: &[u8]) -> Entry<'_> {
        Entry {
            key,
            next: 17,
            last_received: 3,
            readings: 9,
            episodes: 2,
            since: Some(1),
            muted_until: None,
            kept: CarState::specimen().kept(),
            state: &[],
        }
    }

    fn file(keys: &[Vec<u8>]) -> Vec<u8> {
        let mut builder = Builder::begin(&header());
        for key in keys {
            builder.car(entry(key), &CarState::specimen());
        }
        builder.finish()
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..8)) {
            let snapshot = Snapshot::parse(file(&keys)).unwrap();
            prop_assert_eq!(&snapshot.header, &header());
            prop_assert_eq!(snapshot.cars().count(), keys.len());
            for (read, key) in snapshot.cars().zip(&keys) {
                prop_assert_eq!(read.key, &key[..]);
                prop_assert_eq!(read.kept.clone(), CarState::specimen().kept());
                prop_assert_eq!(postcard::from_bytes::<CarState>(read.state).unwrap(), CarState::specimen());
            }
        }

        #[test]
        fn a_damaged_file_is_refused(at in 0usize..300, flip in 1u8..) {
            let mut bytes = file(&[b"a".to_vec(), b"b".to_vec()]);
            let at = at % bytes.len();
            bytes[at] ^= flip;
            prop_assert!(Snapshot::parse(bytes).is_err());
        }

        #[test]
        fn a_cut_file_is_refused(keep in 0usize..300) {
            let mut bytes = file(&[b"a".to_vec(), b"b".to_vec()]);
            bytes.truncate(keep % bytes.len());
            prop_assert!(Snapshot::parse(bytes).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut ours = MAGIC.to_vec();
            ours.extend(&bytes);
            for bytes in [bytes, ours] {
                if let Ok(snapshot) = Snapshot::parse(bytes) {
                    snapshot.cars().count();
                }
            }
        }

        #[test]
        fn names_become_parts_of_a_path(name in any::<String>(), other in any::<String>()) {
            let part = escaped(&name);
            prop_assert!(!part.is_empty() && part.len() < 160);
            prop_assert!(part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.%".contains(&b)) && !part.starts_with('.'));
            prop_assert_eq!(name == other, part == escaped(&other));
        }
    }

    #[test]
    fn a_file_is_replaced_whole_and_a_missing_one_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.cars");
        assert!(Snapshot::read(&path).unwrap().is_none());
        for keys in [&[b"a".to_vec()][..], &[]] {
            replace(&path, &file(keys)).unwrap();
            assert_eq!(Snapshot::read(&path).unwrap().unwrap().cars().count(), keys.len());
        }
        assert_eq!(peek(&path), Some(header()));
        fs::write(&path, "something else").unwrap();
        assert_eq!(peek(&path), None);
        assert!(Snapshot::read(&path).unwrap_err().contains("no file of cars"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
