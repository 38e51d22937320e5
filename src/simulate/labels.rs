//! The labels file: what was wrong with which car, from when to when.
//!
//! CSV with the header `car,fault,onset,end,severity,sensors`: one line a fault, in the order in which they ended. `onset`
//! and `end` are the times of the first and the last reading with the fault, written as in files of readings; `severity`
//! is its height, above 0 to 1; `sensors` are the names of those it moved, blank-separated.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};

use super::fault::KINDS;
use super::fleet::{Label, car_name};
use crate::telemetry::Schema;

/// Writes labels.
pub struct LabelWriter<W: Write> {
    out: W,
    names: Vec<String>,
}

impl LabelWriter<BufWriter<File>> {
    /// Creates (or overwrites) the file.
    pub fn create(path: impl AsRef<std::path::Path>) -> io::Result<Self> {
        LabelWriter::new(BufWriter::new(File::create(path)?))
    }
}

impl<W: Write> LabelWriter<W> {
    /// Writes the header.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(b"car,fault,onset,end,severity,sensors\n")?;
        let names = Schema::car_sensors().sensors().iter().map(|sensor| sensor.name.clone()).collect();
        Ok(LabelWriter { out, names })
    }

    /// Writes these labels.
    pub fn write(&mut self, labels: &[Label]) -> io::Result<()> {
        for label in labels {
            let mut line = car_name(label.car);
            // Writing to a string cannot fail.
            let _ = write!(line, ",{},", KINDS.get(label.kind).map_or("", |kind| kind.id));
            push_seconds(&mut line, label.onset);
            line.push(',');
            push_seconds(&mut line, label.end);
            let _ = write!(line, ",{:.2},", label.severity);
            let moved = self.names.iter().enumerate().filter(|(n, _)| label.sensors & (1 << n) != 0);
            for (n, (_, name)) in moved.enumerate() {
                if n > 0 {
                    line.push(' ');
                }
                line.push_str(name);
            }
            line.push('\n');
            self.out.write_all(line.as_bytes())?;
        }
        Ok(())
    }

    /// Writes what is still held back.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn push_seconds(line: &mut String, time_ms: i64) {
    let (seconds, millis) = (time_ms.div_euclid(1000), time_ms.rem_euclid(1000));
    let _ = write!(line, "{seconds}");
    if millis != 0 {
        let _ = write!(line, ".{millis:03}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_line_with_its_sensors_by_name() {
        let mut out = Vec::new();
        let mut writer = LabelWriter::new(&mut out).unwrap();
        let label = Label {
            car: 6,
            kind: 8,
            onset: 1_767_225_600_000,
            end: 1_767_225_660_200,
            severity: 0.756,
            sensors: 1 << 7,
        };
        writer.write(&[label]).unwrap();
        writer.finish().unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "car,fault,onset,end,severity,sensors\n\
             electric-vehicle-00007,drive_shaft,1767225600,1767225660.200,0.76,engine_vibration_amplitude\n"
        );
    }
}
