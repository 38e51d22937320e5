//! The manifest beside a model, `NAME.toml` beside `NAME.onnx`: which sensors in which order, what the graph takes and
//! gives, the threshold, the calibration of its residuals, and what it was learned from.
//!
//! Owns the file's shape and its checks. What a calibration holds is not its business: that is a table it carries.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::telemetry::{Schema, Sensor};
use crate::text::harmless;

/// Why a manifest cannot be used.
#[derive(Debug, Error)]
#[error("{file}{}: {sentence}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct ManifestError {
    /// Which.
    pub file: String,
    /// Where, if it is one place.
    pub line: Option<usize>,
    /// What is wrong and the way out.
    pub sentence: String,
}

/// What a model's file cannot say of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The model's name.
    pub name: String,
    /// CRC-32 of the ONNX file it belongs to, in hexadecimal; tells a pair that was torn apart. Not needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onnx_crc32: Option<String>,
    /// In what shape readings go into the graph.
    #[serde(default)]
    pub input: Input,
    /// What comes out of it.
    #[serde(default)]
    pub output: Output,
    /// Threshold of the score, if the model was given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Threshold>,
    /// What it was learned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// The sensors, in the order of the graph's columns.
    #[serde(rename = "sensor")]
    pub sensors: Vec<SensorEntry>,
    /// How its residuals are judged; made and read by `detect`, opaque here. Last, since it is long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<toml::Table>,
}

/// `[input]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Input {
    /// Units of the values that go in.
    pub units: Units,
}

/// `[output]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Output {
    /// What it is.
    pub kind: OutputKind,
    /// Which of the graph's outputs, where it has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Units of a reconstruction.
    pub units: Units,
}

/// Units of the graph's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Units {
    /// The sensors' own.
    #[default]
    Raw,
    /// `(value − centre) / scale`, with each sensor's `centre` and `scale`.
    Standardised,
}

/// What a graph's output means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputKind {
    /// `[N, S]`: what the model expects each sensor to be.
    #[default]
    Reconstruction,
    /// `[N]` or `[N, 1]`: how unusual each reading is, higher is worse.
    Score,
}

/// `[threshold]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// A reading whose score is over it is a breach.
    pub value: f64,
    /// How it was set, for people.
    #[serde(default)]
    pub set_by: String,
}

/// `[[sensor]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SensorEntry {
    /// Its name in files, JSON and manifests.
    pub name: String,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Unit of its values.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// Usual range; a value outside is bad data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(f32, f32)>,
    /// Decimals worth showing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decimals: Option<u8>,
    /// Its usual value: stands in for a gap at the model's input, and is the zero of standardised units.
    #[serde(default)]
    pub centre: f32,
    /// One standardised unit in the sensor's own, above zero.
    #[serde(default = "one")]
    pub scale: f32,
}

fn one() -> f32 {
    1.0
}

impl SensorEntry {
    /// A sensor as a schema has it, with what was learned of it.
    pub fn of(sensor: &Sensor, centre: f32, scale: f32) -> Self {
        let plain = Sensor::named(&sensor.name);
        SensorEntry {
            name: sensor.name.clone(),
            label: (sensor.label != plain.label).then(|| sensor.label.clone()),
            unit: sensor.unit.clone(),
            range: (sensor.range != plain.range).then_some(sensor.range),
            decimals: (sensor.decimals != plain.decimals).then_some(sensor.decimals),
            centre,
            scale,
        }
    }

    fn sensor(&self) -> Sensor {
        let plain = Sensor::named(&self.name);
        Sensor {
            label: self.label.clone().unwrap_or(plain.label),
            unit: self.unit.clone(),
            range: self.range.unwrap_or(plain.range),
            decimals: self.decimals.unwrap_or(plain.decimals),
            name: plain.name,
        }
    }
}

/// `[provenance]`: what a model was learned from. Holds no moment of learning and no folder: the same readings and seed make the
/// same bytes anywhere.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Provenance {
    /// What made it, with its version.
    pub made_by: String,
    /// The files' names.
    pub data: Vec<String>,
    /// Readings in them.
    pub rows: u64,
    /// Cars in them.
    pub cars: u64,
    /// Readings learned from.
    pub rows_learned: u64,
    /// Readings held out to stop the learning and to calibrate.
    pub rows_held_out: u64,
    /// Earliest event time, RFC 3339.
    pub first: String,
    /// Latest event time, RFC 3339.
    pub last: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Units of each layer, from input to output.
    pub layers: Vec<u32>,
    /// Epochs until the best.
    pub epochs: u32,
    /// Mean squared error in standardised units, on readings learned from and held out.
    pub loss: f64,
    /// See `loss`.
    pub held_out_loss: f64,
}

impl Manifest {
    /// The manifest of a model that came without one: sensors `v001` and on, raw units, a reconstruction.
    pub fn assumed(name: &str, width: usize) -> Self {
        let sensors = (1..=width).map(|n| SensorEntry::of(&Sensor::named(format!("v{n:03}")), 0.0, 1.0)).collect();
        Manifest {
            name: name.to_owned(),
            onnx_crc32: None,
            input: Input::default(),
            output: Output::default(),
            threshold: None,
            provenance: None,
            sensors,
            calibration: None,
        }
    }

    /// Reads and checks a manifest; `file` is its name in messages.
    pub fn read(file: &Path, text: &str) -> Result<Self, ManifestError> {
        let file = harmless(&file.display().to_string(), 4096).into_owned();
        let manifest: Manifest = toml::from_str(text).map_err(|error| ManifestError {
            line: error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1),
            sentence: sentence(error.message()),
            file: file.clone(),
        })?;
        manifest.check().map_err(|sentence| ManifestError { file, line: None, sentence })?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        self.schema().map(drop)?;
        for sensor in &self.sensors {
            let name = harmless(&sensor.name, 60);
            if !(sensor.scale.is_finite() && sensor.scale > 0.0 && sensor.centre.is_finite()) {
                return Err(format!("sensor {name:?}: `centre` must be finite and `scale` finite and above zero"));
            }
            if sensor.range.is_some_and(|(low, high)| low.is_nan() || high.is_nan() || low >= high) {
                return Err(format!("sensor {name:?}: `range` must be [low, high] with low below high"));
            }
        }
        if self.threshold.as_ref().is_some_and(|threshold| !(threshold.value.is_finite() && threshold.value > 0.0)) {
            return Err("`threshold.value` must be finite and above zero".into());
        }
        Ok(())
    }

    /// Whether it belongs to this ONNX file; a manifest that does not say belongs to any.
    pub fn belongs_to(&self, onnx: &[u8]) -> bool {
        self.onnx_crc32.as_ref().is_none_or(|crc| crc.eq_ignore_ascii_case(&format!("{:08x}", crc32(onnx))))
    }

    /// The manifest as TOML: the same manifest makes the same bytes.
    pub fn write(&self) -> Result<String, ManifestError> {
        toml::to_string(self).map_err(|error| ManifestError {
            file: format!("{}.toml", self.name),
            line: None,
            sentence: format!("cannot be written: {error}"),
        })
    }

    /// The sensors as a schema.
    pub fn schema(&self) -> Result<Schema, String> {
        let sensors = self.sensors.iter().map(SensorEntry::sensor).collect();
        Schema::new(self.name.clone(), sensors).map_err(|error| harmless(&error.to_string(), 300).into_owned())
    }

    /// The calibration as whoever made it knows it; `None` if the model has none.
    pub fn calibration<T: DeserializeOwned>(&self) -> Result<Option<T>, ManifestError> {
        let Some(table) = &self.calibration else { return Ok(None) };
        table.clone().try_into().map(Some).map_err(|error: toml::de::Error| ManifestError {
            file: format!("{}.toml", self.name),
            line: None,
            sentence: format!("[calibration]: {}", sentence(error.message())),
        })
    }

    /// Takes a calibration in.
    pub fn calibrate<T: Serialize>(&mut self, calibration: &T) -> Result<(), ManifestError> {
        let table = toml::Table::try_from(calibration).map_err(|error| ManifestError {
            file: format!("{}.toml", self.name),
            line: None,
            sentence: format!("a calibration that TOML cannot hold: {error}"),
        })?;
        self.calibration = Some(table);
        Ok(())
    }
}

/// CRC-32, which manifests have in eight hexadecimal digits.
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// A parser's message as one sentence; of an unknown key, with the nearest known one.
fn sentence(message: &str) -> String {
    let mut words = message.split('`');
    if message.starts_with("unknown field `")
        && let Some(unknown) = words.nth(1)
    {
        let known = words.skip(1).step_by(2);
        let nearest =
            known.max_by(|a, b| strsim::jaro_winkler(a, unknown).total_cmp(&strsim::jaro_winkler(b, unknown)));
        let unknown = harmless(unknown, 60);
        return match nearest {
            Some(nearest) => format!("no key `{unknown}` here; the nearest is `{nearest}`"),
            None => format!("no key `{unknown}` here"),
        };
    }
    harmless(&message.replace('\n', " "), 300).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Manifest, ManifestError> {
        Manifest::read(Path::new("models/x.toml"), text)
    }

    fn refusal(text: &str) -> String {
        read(text).expect_err("refused").to_string()
    }

    #[test]
    fn a_few_lines_are_a_manifest() {
        let manifest =
            read("name = 'x'\n[[sensor]]\nname = 'a_b'\n[[sensor]]\nname = 'c'\nunit = 'V'\nscale = 2\n").unwrap();
        assert_eq!((manifest.input.units, manifest.output.kind), (Units::Raw, OutputKind::Reconstruction));
        let schema = manifest.schema().unwrap();
        assert_eq!(schema.sensors()[0], Sensor::named("a_b"));
        assert_eq!((schema.sensors()[1].unit.as_str(), manifest.sensors[1].scale), ("V", 2.0));
    }

    #[test]
    fn what_is_written_reads_back() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Scales {
            sigma: Vec<f32>,
            nested: Vec<Vec<f64>>,
        }
        let mut manifest = Manifest::assumed("round", 2);
        manifest.sensors[0] = SensorEntry::of(&Schema::car_sensors().sensors()[3], 0.1, 1e-7);
        manifest.threshold = Some(Threshold { value: 3.0, set_by: "hand".into() });
        manifest.output = Output { kind: OutputKind::Score, name: Some("y".into()), units: Units::Standardised };
        manifest.provenance = Some(Provenance { seed: 7, layers: vec![2, 1, 2], loss: 0.1, ..Provenance::default() });
        let scales = Scales { sigma: vec![0.1, f32::MIN_POSITIVE], nested: vec![vec![1.0 / 3.0], vec![]] };
        manifest.calibrate(&scales).unwrap();
        let text = manifest.write().unwrap();
        let back = read(&text).unwrap();
        assert_eq!(back, manifest);
        assert_eq!(back.calibration::<Scales>().unwrap(), Some(scales));
        assert_eq!(back.write().unwrap(), text);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known() {
        assert_eq!(
            refusal("name = 'x'\n[[sensor]]\nname = 'a'\nuinit = 'V'\n"),
            "models/x.toml, line 4: no key `uinit` here; the nearest is `unit`"
        );
        let said = refusal("name = 'x'\ntreshold = 3\n[[sensor]]\nname = 'a'\n");
        assert!(said.contains("line 2") && said.ends_with("the nearest is `threshold`"), "{said}");
        let said = refusal("name = 'x'\n[output]\nkind = 'recon'\n[[sensor]]\nname = 'a'\n");
        assert!(said.contains("line 3") && said.contains("reconstruction"), "{said}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, part) in [
            ("name = 'x'", "sensor"),
            ("name = 'x'\nsensor = []", "at least one sensor"),
            ("name = 'x'\n[[sensor]]\nname='a'\n[[sensor]]\nname='A'", "rename one"),
            ("name = 'x'\n[[sensor]]\nname='a'\nscale = 0", "above zero"),
            ("name = 'x'\n[[sensor]]\nname='a'\ncentre = nan", "finite"),
            ("name = 'x'\n[[sensor]]\nname='a'\nrange = [3, 2]", "low below high"),
            ("name = 'x'\nthreshold = {value = -1}\n[[sensor]]\nname='a'", "threshold.value"),
            ("name = 'x", "line 1"),
        ] {
            let said = refusal(text);
            assert!(said.contains(part) && said.starts_with("models/x.toml"), "{text:?}: {said}");
        }
    }
}
