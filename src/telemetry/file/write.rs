//! Writes readings as [`super::FileReader`] reads them.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{FileError, Label, LabelKind, is_gzip};
use crate::telemetry::time;
use crate::text::harmless;

/// Writes readings to one file.
pub struct FileWriter {
    file: String,
    output: Output,
    labels: LabelKind,
    sensors: usize,
}

enum Output {
    Plain(Box<dyn Write + Send>),
    Gzip(Box<GzEncoder<BufWriter<File>>>),
}

impl std::fmt::Debug for FileWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWriter").field("file", &self.file).finish_non_exhaustive()
    }
}

impl FileWriter {
    /// Creates (or overwrites) a file and writes its header; `-` is stdout, a name that ends in `.gz` is gzip.
    pub fn create(path: impl AsRef<Path>, sensors: &[String], labels: LabelKind) -> Result<Self, FileError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        if path == Path::new("-") {
            let output = Output::Plain(Box::new(BufWriter::with_capacity(128 * 1024, io::stdout())));
            return FileWriter::begin("stdout".into(), output, sensors, labels);
        }
        let file = File::create(path).map_err(|error| FileError::Io { file: name.clone(), error })?;
        let file = BufWriter::with_capacity(128 * 1024, file);
        let output = if is_gzip(path) {
            // Without name and time in its header, the same readings make the same bytes.
            Output::Gzip(Box::new(GzEncoder::new(file, Compression::default())))
        } else {
            Output::Plain(Box::new(file))
        };
        FileWriter::begin(name, output, sensors, labels)
    }

    /// Writes CSV to anywhere; `file` is its name in messages.
    pub fn new(
        file: impl Into<String>,
        output: impl Write + Send + 'static,
        sensors: &[String],
        labels: LabelKind,
    ) -> Result<Self, FileError> {
        FileWriter::begin(file.into(), Output::Plain(Box::new(output)), sensors, labels)
    }

    fn begin(file: String, output: Output, sensors: &[String], labels: LabelKind) -> Result<Self, FileError> {
        let mut writer = FileWriter { file, output, labels, sensors: sensors.len() };
        let mut header = String::from("time,car");
        for sensor in sensors {
            header.push(',');
            header.push_str(&quoted(sensor));
        }
        header.push_str(match labels {
            LabelKind::None => "\n",
            LabelKind::Anomaly => ",anomaly\n",
            LabelKind::Failures => ",failures\n",
        });
        writer.put(|out| out.write_all(header.as_bytes()))?;
        Ok(writer)
    }

    /// Writes a reading: `values` in the header's order, NaN for a gap. The time is written in seconds, with milliseconds
    /// where there are any; values in the fewest digits that read back as the same number.
    pub fn write(&mut self, time_ms: i64, car: &str, values: &[f32], label: Label<'_>) -> Result<(), FileError> {
        debug_assert_eq!(values.len(), self.sensors, "a value or a gap for each sensor");
        let labels = self.labels;
        self.put(|out| {
            write!(out, "{},{}", time::Seconds(time_ms), quoted(car))?;
            for value in values {
                if value.is_finite() {
                    write!(out, ",{value}")?;
                } else {
                    out.write_all(b",")?;
                }
            }
            match labels {
                LabelKind::None => writeln!(out),
                LabelKind::Anomaly => writeln!(out, ",{}", u8::from(label.anomalous)),
                LabelKind::Failures => writeln!(out, ",{}", quoted(label.failures)),
            }
        })
    }

    /// Writes what is still held back. Without it the end of the file may be lost unnoticed.
    pub fn finish(self) -> Result<(), FileError> {
        let FileWriter { file, output, .. } = self;
        let done = match output {
            Output::Plain(mut out) => out.flush(),
            Output::Gzip(out) => out.finish().and_then(|mut file| file.flush()),
        };
        done.map_err(|error| FileError::Io { file, error })
    }

    fn put(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), FileError> {
        let done = match &mut self.output {
            Output::Plain(out) => write(out),
            Output::Gzip(out) => write(out),
        };
        done.map_err(|error| FileError::Io { file: self.file.clone(), error })
    }
}

/// `text` as a field: harmless, and in quotes where it must be.
pub fn quoted(text: &str) -> Cow<'_, str> {
    let text = harmless(text, 4096);
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")).into() } else { text }
}
