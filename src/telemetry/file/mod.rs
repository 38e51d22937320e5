//! Readings in CSV files, in and out: `time,car,<sensor>…[,anomaly][,failures]`, gzip by extension, `-` for stdin or stdout.
//!
//! Reads as a stream: one line is in memory at a time, and a line has a greatest length, so a file of any size costs the
//! same. A field may stand in double quotes, but not run over the end of its line. Never guesses: what is not a number,
//! and not one of the spellings of a gap, is an error with file, line and column.

mod write;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use thiserror::Error;

pub use self::write::{FileWriter, quoted};

use super::{Schema, time};
use crate::text::harmless;

/// Longest line in bytes; 4096 sensors of 60 characters fit.
const MAX_LINE: usize = 256 * 1024;

/// Why a file of readings cannot be read or written.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be opened, read or written.
    #[error("{file}: {error}")]
    Io {
        /// Which.
        file: String,
        /// What the system says.
        error: io::Error,
    },
    /// Its header is not one of readings.
    #[error("{file}, line 1: {sentence}")]
    Header {
        /// Which.
        file: String,
        /// What is wrong and the way out.
        sentence: String,
    },
    /// A line is not a reading.
    #[error("{file}, line {line}: {sentence}")]
    Line {
        /// Which.
        file: String,
        /// Counted from 1, the header's.
        line: u64,
        /// What is wrong and the way out.
        sentence: String,
    },
}

/// What a file says about whether its readings are normal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelKind {
    /// Nothing.
    None,
    /// Whether a reading is anomalous, as 0 or 1.
    Anomaly,
    /// Which failures a reading shows, by name.
    Failures,
}

/// What a reading is labelled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label<'a> {
    /// Whether it is anomalous.
    pub anomalous: bool,
    /// The failures it shows, blank-separated; empty if normal, or if the file has no names for them.
    pub failures: &'a str,
}

/// What is known of a reading beside its sensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowMeta<'a> {
    /// Event time, milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Its car; in a file without a `car` column (or with an empty field there), the file's name without extensions.
    pub car: &'a str,
    /// Its label; `None` if the file has none or says nothing of this reading.
    pub label: Option<Label<'a>>,
    /// Its line, counted from 1, the header's.
    pub line: u64,
}

/// Where a column of the file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Time,
    Car,
    Anomaly,
    Failures,
    /// The sensor at this position of the row that is filled.
    Sensor(usize),
    Ignored,
}

/// How the columns of a file met a schema.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binding {
    /// Sensors of the schema that the file lacks: gaps in every reading.
    pub missing: Vec<String>,
    /// Columns of the file that the schema lacks: left out.
    pub ignored: Vec<String>,
}

/// A stream of readings from one file.
pub struct FileReader {
    file: String,
    input: Box<dyn BufRead + Send>,
    /// All column names, as the header has them.
    names: Vec<String>,
    columns: Vec<Column>,
    /// Names of the sensors, in the order of the row that is filled.
    sensors: Vec<String>,
    labels: LabelKind,
    has_car: bool,
    default_car: String,
    line: u64,
    text: Vec<u8>,
    fields: Fields,
}

impl std::fmt::Debug for FileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReader").field("file", &self.file).field("line", &self.line).finish_non_exhaustive()
    }
}

impl FileReader {
    /// Opens a file and reads its header; `-` is stdin, a name that ends in `.gz` is gzip.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let path = path.as_ref();
        if path == Path::new("-") {
            return FileReader::new("stdin", io::stdin());
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| FileError::Io { file: name.clone(), error })?;
        if is_gzip(path) { FileReader::new(name, MultiGzDecoder::new(file)) } else { FileReader::new(name, file) }
    }

    /// Reads CSV from anywhere; `file` is its name in messages (and, without extensions, its car's if it has no `car` column).
    pub fn new(file: impl Into<String>, input: impl Read + Send + 'static) -> Result<Self, FileError> {
        let file = harmless(&file.into(), 4096).into_owned();
        let mut reader = FileReader {
            default_car: stem(&file),
            file,
            input: Box::new(BufReader::with_capacity(128 * 1024, input)),
            names: Vec::new(),
            columns: Vec::new(),
            sensors: Vec::new(),
            labels: LabelKind::None,
            has_car: false,
            line: 0,
            text: Vec::new(),
            fields: Fields::default(),
        };
        reader.read_header()?;
        Ok(reader)
    }

    /// The file's name, for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Names of the sensors, in the order of the rows that [`FileReader::next_into`] fills: the file's own order, until
    /// [`FileReader::bind`].
    pub fn sensors(&self) -> &[String] {
        &self.sensors
    }

    /// How its readings are labelled.
    pub fn labels(&self) -> LabelKind {
        self.labels
    }

    /// Whether it has a `car` column.
    pub fn has_car(&self) -> bool {
        self.has_car
    }

    /// Fills rows in this schema's order from now on. Spellings are matched as [`Schema::position`] does. Fails if the file
    /// has none of the sensors, or has one twice.
    pub fn bind(&mut self, schema: &Schema) -> Result<Binding, FileError> {
        let mut found = vec![None; schema.width()];
        let mut columns = self.columns.clone();
        let mut binding = Binding::default();
        for (n, column) in columns.iter_mut().enumerate() {
            if !matches!(column, Column::Sensor(_) | Column::Ignored) {
                continue;
            }
            let name = &self.names[n];
            *column = match schema.position(name) {
                None => {
                    binding.ignored.push(name.clone());
                    Column::Ignored
                }
                Some(at) => {
                    if let Some(other) = found[at].replace(n) {
                        let other: &String = &self.names[other];
                        return Err(
                            self.bad_header(format!("columns {other:?} and {name:?} are one sensor: remove one"))
                        );
                    }
                    Column::Sensor(at)
                }
            };
        }
        let expected = schema.sensors();
        binding.missing =
            expected.iter().zip(&found).filter(|(_, at)| at.is_none()).map(|(sensor, _)| sensor.name.clone()).collect();
        if binding.missing.len() == schema.width() {
            let named: Vec<&str> = expected.iter().take(3).map(|sensor| sensor.name.as_str()).collect();
            return Err(self.bad_header(format!(
                "none of the {} sensors of {:?} is a column here ({}, …): this file is of another kind of reading",
                schema.width(),
                schema.name(),
                named.join(", ")
            )));
        }
        self.columns = columns;
        self.sensors = expected.iter().map(|sensor| sensor.name.clone()).collect();
        Ok(binding)
    }

    /// Reads the next reading: its sensors into `row` (as many as [`FileReader::sensors`]; a gap is NaN), the rest is
    /// returned. `None` at the end of the file. Blank lines are skipped.
    pub fn next_into(&mut self, row: &mut [f32]) -> Result<Option<RowMeta<'_>>, FileError> {
        debug_assert_eq!(row.len(), self.sensors.len(), "a row has a place for each sensor");
        loop {
            if !self.read_line()? {
                return Ok(None);
            }
            if !self.text.is_empty() {
                break;
            }
        }
        if self.fields.len() != self.columns.len() {
            return Err(self.bad_line(format!(
                "{} fields where the header has {}: every line needs as many",
                self.fields.len(),
                self.columns.len()
            )));
        }
        row.fill(f32::NAN);
        let (mut time_ms, mut car, mut anomalous, mut failures) = (0, None, None, None);
        for (n, &column) in self.columns.iter().enumerate() {
            let field = self.fields.get(&self.text, n);
            match column {
                Column::Ignored => {}
                Column::Sensor(at) => match number(field) {
                    Ok(value) => row[at] = value,
                    Err(why) => return Err(self.bad_field(n, why)),
                },
                Column::Time => match std::str::from_utf8(field).ok().and_then(time::parse) {
                    Some(moment) => time_ms = moment,
                    None => return Err(self.bad_field(n, "is no time (seconds, milliseconds or RFC 3339)")),
                },
                Column::Car => car = Some(n),
                Column::Anomaly => match field.trim_ascii() {
                    b"" => {}
                    b"0" | b"0.0" | b"false" | b"False" => anomalous = Some(false),
                    b"1" | b"1.0" | b"true" | b"True" => anomalous = Some(true),
                    _ => return Err(self.bad_field(n, "is neither 0 nor 1")),
                },
                Column::Failures => failures = Some(n),
            }
        }
        let car = self.name_in(car)?;
        let failures = self.name_in(failures)?;
        let label = match self.labels {
            LabelKind::None => None,
            LabelKind::Anomaly => anomalous.map(|anomalous| Label { anomalous, failures: "" }),
            // Beside a column of names, one of 0 and 1 has the last word: a failure may not show yet.
            LabelKind::Failures => Some(Label { anomalous: anomalous.unwrap_or(!failures.is_empty()), failures }),
        };
        let car = if car.is_empty() { &self.default_car } else { car };
        Ok(Some(RowMeta { time_ms, car, label, line: self.line }))
    }

    /// The text in a column, trimmed; empty if there is none.
    fn name_in(&self, column: Option<usize>) -> Result<&str, FileError> {
        let Some(n) = column else { return Ok("") };
        match std::str::from_utf8(self.fields.get(&self.text, n)) {
            Ok(text) => Ok(text.trim()),
            Err(_) => Err(self.bad_field(n, "is not UTF-8")),
        }
    }

    fn read_header(&mut self) -> Result<(), FileError> {
        if !self.read_line()? {
            return Err(self.bad_header("the file is empty; it should begin with time,car,<sensor>…"));
        }
        let mut seen = [false; 4];
        for n in 0..self.fields.len() {
            let Ok(name) = std::str::from_utf8(self.fields.get(&self.text, n)) else {
                return Err(self.bad_header("not UTF-8: is this a CSV file (or gzip without the extension .gz)?"));
            };
            // Spreadsheets begin a file with a byte order mark.
            let name = name.trim_start_matches('\u{feff}').trim();
            let special = match name.to_ascii_lowercase().as_str() {
                "time" => Some(Column::Time),
                "car" => Some(Column::Car),
                "anomaly" => Some(Column::Anomaly),
                "failures" => Some(Column::Failures),
                _ => None,
            };
            let column = match special {
                Some(column) => {
                    let which = match column {
                        Column::Time => 0,
                        Column::Car => 1,
                        Column::Anomaly => 2,
                        _ => 3,
                    };
                    if std::mem::replace(&mut seen[which], true) {
                        return Err(self.bad_header(format!("two columns named {name:?}")));
                    }
                    column
                }
                None if name.is_empty() => {
                    return Err(self.bad_header(format!("column {} has no name", n + 1)));
                }
                None => {
                    if self.sensors.len() == Schema::MAX_SENSORS {
                        return Err(self.bad_header(format!("more than {} sensors", Schema::MAX_SENSORS)));
                    }
                    self.sensors.push(name.to_owned());
                    Column::Sensor(self.sensors.len() - 1)
                }
            };
            self.names.push(name.to_owned());
            self.columns.push(column);
        }
        if !seen[0] {
            let begins: String = harmless(&self.names.join(","), 40).into_owned();
            return Err(self.bad_header(format!(
                "no column named `time` in {begins:?}; the header is time,car,<sensor>…, separated by commas"
            )));
        }
        let mut sorted: Vec<&String> = self.sensors.iter().collect();
        sorted.sort();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(self.bad_header(format!("two columns named {:?}", harmless(twice[0], 60))));
        }
        self.has_car = seen[1];
        self.labels = match (seen[2], seen[3]) {
            (_, true) => LabelKind::Failures,
            (true, false) => LabelKind::Anomaly,
            (false, false) => LabelKind::None,
        };
        Ok(())
    }

    /// Reads a line into `text`, without its end, and finds its fields. `false` at the end of the file.
    fn read_line(&mut self) -> Result<bool, FileError> {
        self.text.clear();
        let read = (&mut self.input).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut self.text);
        match read {
            Ok(0) => return Ok(false),
            Ok(_) => self.line += 1,
            Err(error) if self.line > 0 => {
                self.line += 1;
                return Err(self.bad_line(format!("cannot be read: {error}")));
            }
            Err(error) => return Err(FileError::Io { file: self.file.clone(), error }),
        }
        if self.text.len() > MAX_LINE {
            return Err(self.bad_line(format!("longer than {MAX_LINE} bytes: is this a CSV file of readings?")));
        }
        while matches!(self.text.last(), Some(b'\n' | b'\r')) {
            self.text.pop();
        }
        if let Err(sentence) = self.fields.split(&mut self.text) {
            return Err(self.bad_line(sentence));
        }
        Ok(true)
    }

    fn bad_header(&self, sentence: impl Into<String>) -> FileError {
        FileError::Header { file: self.file.clone(), sentence: sentence.into() }
    }

    fn bad_line(&self, sentence: impl Into<String>) -> FileError {
        FileError::Line { file: self.file.clone(), line: self.line, sentence: sentence.into() }
    }

    fn bad_field(&self, column: usize, why: &str) -> FileError {
        let field = String::from_utf8_lossy(self.fields.get(&self.text, column));
        let name = harmless(&self.names[column], 60);
        self.bad_line(format!("column {name:?}: {:?} {why}", harmless(&field, 40)))
    }
}

/// Where the fields of a line are in its text.
#[derive(Debug, Default)]
struct Fields(Vec<Range<usize>>);

impl Fields {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn get<'a>(&self, text: &'a [u8], n: usize) -> &'a [u8] {
        &text[self.0[n].clone()]
    }

    /// Finds the fields of `text`. Quoted ones are unquoted in place (a doubled quote is one).
    fn split(&mut self, text: &mut [u8]) -> Result<(), &'static str> {
        self.0.clear();
        let mut at = 0;
        loop {
            if text.get(at) == Some(&b'"') {
                let start = at;
                let mut to = at;
                at += 1;
                loop {
                    match text.get(at) {
                        Some(b'"') if text.get(at + 1) == Some(&b'"') => {
                            text[to] = b'"';
                            at += 2;
                        }
                        Some(b'"') => break,
                        Some(&byte) => {
                            text[to] = byte;
                            at += 1;
                        }
                        None => return Err("a double quote is not closed on its line"),
                    }
                    to += 1;
                }
                at += 1;
                if !matches!(text.get(at), None | Some(b',')) {
                    return Err("text after a closing double quote");
                }
                self.0.push(start..to);
            } else {
                let end = text[at..].iter().position(|&b| b == b',').map_or(text.len(), |n| at + n);
                self.0.push(at..end);
                at = end;
            }
            if at >= text.len() {
                return Ok(());
            }
            at += 1;
        }
    }
}

/// A sensor's value; NaN for a gap: empty, `NaN`, `NA`, `null` or `None`, whatever their case.
fn number(field: &[u8]) -> Result<f32, &'static str> {
    let field = field.trim_ascii();
    if field.is_empty() || [&b"nan"[..], b"na", b"null", b"none"].iter().any(|gap| field.eq_ignore_ascii_case(gap)) {
        return Ok(f32::NAN);
    }
    match std::str::from_utf8(field).ok().and_then(|text| text.parse::<f32>().ok()) {
        Some(value) if value.is_finite() => Ok(value),
        Some(_) => Err("is not finite: leave it empty for a gap"),
        None => Err("is not a number: leave it empty for a gap, or leave the column out"),
    }
}

fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"))
}

/// A file's name without folder and extensions.
fn stem(file: &str) -> String {
    let name = PathBuf::from(file).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    match name.split('.').next() {
        Some(stem) if !stem.is_empty() => stem.to_owned(),
        _ => "car".to_owned(),
    }
}

#[cfg(test)]
mod tests;
