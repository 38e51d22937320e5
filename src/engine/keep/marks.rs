//! What operators asked for since the cars of a partition were last written: a line of JSON each, on the disk before anybody
//! could miss it.
//!
//! A mark names the place in the log at which it was made. A car's written state either has readings from behind that place, and
//! then the mark too, or it has not, and the mark is made again: making one twice at the same place changes nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::file::{replace, sync_folder_of};

/// Largest file of marks; what comes beyond is not kept. At a hundred bytes each, nobody presses a key that often.
const MAX_BYTES: u64 = 4 << 20;

/// One mark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// The car's key.
    pub key: Key,
    /// When it was made.
    pub time: i64,
    /// The log it was made in: see [`super::file::Header::log`].
    pub log: u64,
    /// Offset of the first reading of the partition that comes after it.
    pub offset: i64,
    /// What was asked.
    pub mark: What,
}

/// What was asked of a car.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The open episode is seen.
    Acknowledged,
    /// No episode is opened until then: by our clock, and by that of the readings.
    Muted {
        /// Our clock.
        until: i64,
        /// The readings'.
        until_event: i64,
    },
    /// A mute ended.
    Unmuted,
    /// What it does is taken as normal.
    Rebaselined,
}

/// A car's key as JSON can hold it: text where it is text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Key {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Bytes(Vec<u8>),
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Self {
        std::str::from_utf8(key).map_or_else(|_| Key::Bytes(key.to_vec()), |text| Key::Text(text.to_owned()))
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        match self {
            Key::Text(text) => text.as_bytes(),
            Key::Bytes(bytes) => bytes,
        }
    }
}

impl Mark {
    /// Whether a car's state that has all its readings before `next` in the log `log` lacks this mark.
    pub fn is_news_to(&self, log: u64, next: i64) -> bool {
        self.log != log || next <= self.offset
    }
}

/// Adds a mark to the file.
pub fn append(path: &Path, mark: &Mark) -> io::Result<()> {
    // A line that a crash cut short must not swallow this one.
    let mut line = vec![b'\n'];
    serde_json::to_writer(&mut line, mark)?;
    line.push(b'\n');
    let is_new = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    if file.metadata()?.len() > MAX_BYTES {
        return Err(io::Error::other("too many marks since the cars were last written"));
    }
    file.write_all(&line)?;
    file.sync_data()?;
    if is_new { sync_folder_of(path) } else { Ok(()) }
}

/// The marks in a file, in the order they were made; none if there is none. A line that was cut off by a crash, or is not ours, is
/// passed over.
pub fn read(path: &Path) -> io::Result<Vec<Mark>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let mut marks = Vec::new();
    for line in BufReader::new(file.take(2 * MAX_BYTES)).split(b'\n') {
        marks.extend(serde_json::from_slice::<Mark>(&line?).ok());
    }
    Ok(marks)
}

/// Takes those marks out of the file that are in cars written up to `offset` of `log`.
pub fn trim(path: &Path, log: u64, offset: i64) -> io::Result<()> {
    let marks = read(path)?;
    let left: Vec<&Mark> = marks.iter().filter(|mark| mark.log == log && offset <= mark.offset).collect();
    if left.len() == marks.len() {
        return Ok(());
    }
    if left.is_empty() {
        fs::remove_file(path)?;
        return sync_folder_of(path);
    }
    let mut text = Vec::new();
    for mark in left {
        serde_json::to_writer(&mut text, mark)?;
        text.push(b'\n');
    }
    replace(path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(offset: i64, mark: What) -> Mark {
        Mark { key: b"car".as_slice().into(), time: 5, log: 0, offset, mark }
    }

    #[test]
    fn marks_read_back_in_order_and_a_torn_one_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.marks");
        assert_eq!(read(&path).unwrap(), []);
        let muted = mark(7, What::Muted { until: 1, until_event: 2 });
        let odd = Mark { key: [0xff, 0].as_slice().into(), ..mark(9, What::Rebaselined) };
        let all = [mark(3, What::Acknowledged), muted, odd, mark(9, What::Unmuted)];
        for mark in &all {
            append(&path, mark).unwrap();
        }
        assert_eq!(read(&path).unwrap(), all);
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 3);
        fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path).unwrap(), all[..3]);
        append(&path, &all[3]).unwrap();
        assert_eq!(read(&path).unwrap(), all);
    }

    #[test]
    fn what_the_cars_hold_already_is_taken_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.marks");
        for offset in [3, 7, 9] {
            append(&path, &mark(offset, What::Unmuted)).unwrap();
        }
        trim(&path, 0, 7).unwrap();
        assert_eq!(read(&path).unwrap().iter().map(|mark| mark.offset).collect::<Vec<_>>(), [7, 9]);
        trim(&path, 0, 10).unwrap();
        assert!(!path.exists());
        append(&path, &mark(99, What::Unmuted)).unwrap();
        trim(&path, 1, 0).unwrap();
        assert!(!path.exists(), "a log that is gone has no places any more");
    }

    #[test]
    fn a_mark_is_news_only_to_what_was_written_before_it() {
        let mark = mark(7, What::Acknowledged);
        assert!(mark.is_news_to(0, 7) && mark.is_news_to(0, 3) && !mark.is_news_to(0, 8));
        assert!(mark.is_news_to(1, 8), "another log's offsets say nothing");
    }
}
