//! ONNX models: the manifest beside one, the session that runs it, training, and the models built into the binary.
//!
//! A [`Model`] takes readings in raw units and answers with what it expects each sensor to be, in raw units. What the difference
//! means is `detect`'s business. Nothing outside this module knows `ort` or ONNX.

pub mod built_in;
pub mod graph;
mod lower;
pub mod manifest;
mod session;
mod sound;
pub mod train;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use thiserror::Error;

pub use graph::{BatchSize, rehearsing};
pub use manifest::{Manifest, ManifestError, OutputKind, Units};
pub use session::BACKEND;

use crate::telemetry::Schema;
use crate::text::harmless;
use graph::{Graph, GraphError, Wanted};
use session::Session;

/// Threshold of the mean squared error of a model that says nothing of one: the KSQL demo's.
pub const ASSUMED_THRESHOLD: f64 = 3.0;

/// Entries of a folder that are looked at.
const MOST_FILES: usize = 10_000;

/// Why a model cannot be loaded or run.
#[derive(Debug, Error)]
pub enum ModelError {
    /// No built-in model of that name, and no file.
    #[error("no model {name:?}: neither built in ({}) nor a file; give one's name or the path of an ONNX file", built_in::names().join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// A file cannot be read.
    #[error("{file}: {error}")]
    Io {
        /// Which.
        file: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// A folder without models.
    #[error("{folder}: no ONNX file in this folder; put one there, or name a file")]
    Empty {
        /// Which.
        folder: String,
    },
    /// The manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The ONNX file cannot be used.
    #[error("{file}: {error}")]
    Graph {
        /// Which.
        file: String,
        /// Why.
        error: GraphError,
    },
    /// The backend refused.
    #[error("model {name:?}: {sentence}")]
    Backend {
        /// Which model.
        name: String,
        /// What it said.
        sentence: String,
    },
    /// Values that are not rows of the model's sensors.
    #[error("{values} values are not rows of {width} sensors")]
    Shape {
        /// How many came.
        values: usize,
        /// Sensors of a reading.
        width: usize,
    },
    /// Asked for what the model does not make.
    #[error("model {name:?} gives {gives}: it has no {asked} to give")]
    Kind {
        /// Which model.
        name: String,
        /// What it makes.
        gives: &'static str,
        /// What was asked for.
        asked: &'static str,
    },
}

/// A model's files, read and found sound; what its sessions share.
#[derive(Debug)]
struct Shared {
    manifest: Manifest,
    schema: Arc<Schema>,
    graph: Graph,
    crc32: u32,
    assumed: Vec<String>,
}

/// A model and a session of its own to run it: one for each worker.
#[derive(Debug)]
pub struct Model {
    shared: Arc<Shared>,
    session: Session,
    filled: Vec<f32>,
}

impl Model {
    /// Loads a built-in model by its name, or an ONNX file by its path, with the manifest beside it if there is one (a manifest's
    /// path will do too, and of a folder the newest ONNX file is taken). The graph is tried out before this returns.
    pub fn load(name_or_path: &str) -> Result<Model, ModelError> {
        if let Some(model) = built_in::find(name_or_path) {
            return Model::from_parts(Path::new(model.name), model.onnx, Some(model.manifest));
        }
        let newest = newest_in(Path::new(name_or_path))?;
        let path = newest.as_deref().unwrap_or(Path::new(name_or_path));
        if !path.exists() && path.extension().is_none() {
            return Err(ModelError::Unknown { name: harmless(name_or_path, 200).into_owned() });
        }
        let read = |file: &Path| std::fs::read(file).map_err(|error| ModelError::Io { file: shown(file), error });
        let onnx = read(&path.with_extension("onnx"))?;
        let manifest = path.with_extension("toml");
        let text = if manifest.exists() {
            let bytes = read(&manifest)?;
            let error = |_| ManifestError { file: shown(&manifest), line: None, sentence: "not UTF-8".into() };
            Some(String::from_utf8(bytes).map_err(error)?)
        } else {
            None
        };
        Model::from_parts(path, &onnx, text.as_deref())
    }

    /// Makes a model of the bytes of an ONNX file and its manifest's text; `file` names it in messages.
    pub fn from_parts(file: &Path, onnx: &[u8], manifest: Option<&str>) -> Result<Model, ModelError> {
        let manifest = match manifest {
            Some(text) => Some(Manifest::read(&file.with_extension("toml"), text)?),
            None => None,
        };
        if manifest.as_ref().is_some_and(|manifest| !manifest.belongs_to(onnx)) {
            return Err(ModelError::Manifest(ManifestError {
                file: shown(&file.with_extension("toml")),
                line: None,
                sentence: "it belongs to another ONNX file than the one beside it: bring the pair together again, or take the \
                           key `onnx_crc32` out if the ONNX file was changed on purpose"
                    .into(),
            }));
        }
        let wanted = match &manifest {
            Some(manifest) => Wanted {
                width: Some(manifest.sensors.len()),
                kind: manifest.output.kind,
                output: manifest.output.name.as_deref(),
            },
            None => Wanted::default(),
        };
        let graph = Graph::read(onnx, wanted)
            .map_err(|error| ModelError::Graph { file: shown(&file.with_extension("onnx")), error })?;
        let mut assumed = Vec::new();
        let manifest = manifest.unwrap_or_else(|| {
            let name = file.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy());
            assumed.push(format!(
                "no manifest {}: sensors v001 to v{:03} in the graph's order, values in and out in raw units",
                shown(&file.with_extension("toml")),
                graph.width
            ));
            assumed.push("a gap goes into the model as 0".into());
            Manifest::assumed(&harmless(&name, 60), graph.width)
        });
        if manifest.calibration.is_none() {
            let (score, threshold) = match manifest.output.kind {
                OutputKind::Reconstruction => ("mean squared error in raw units", ASSUMED_THRESHOLD),
                OutputKind::Score => ("the model's own", ASSUMED_THRESHOLD),
            };
            assumed.push(match &manifest.threshold {
                Some(threshold) => {
                    format!("no calibration: the score is {score}, over {} is a breach", threshold.value)
                }
                None => format!("no calibration and no threshold: the score is {score}, over {threshold} is a breach"),
            });
        }
        if let BatchSize::Fixed(rows) = graph.batch {
            assumed.push(format!("the graph takes {rows} reading{} at a time", if rows == 1 { "" } else { "s" }));
        }
        let schema = manifest.schema().map_err(|sentence| ManifestError {
            file: shown(&file.with_extension("toml")),
            line: None,
            sentence,
        })?;
        Model::open(Arc::new(Shared {
            manifest,
            schema: Arc::new(schema),
            graph,
            crc32: manifest::crc32(onnx),
            assumed,
        }))
    }

    /// The same model with a session of its own, for another worker.
    pub fn another(&self) -> Result<Model, ModelError> {
        Model::open(Arc::clone(&self.shared))
    }

    fn open(shared: Arc<Shared>) -> Result<Model, ModelError> {
        let session = Session::open(&shared.graph).map_err(|sentence| ModelError::Backend {
            name: shared.manifest.name.clone(),
            sentence: harmless(&sentence, 300).into(),
        })?;
        Ok(Model { shared, session, filled: Vec::new() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.manifest.name
    }

    /// The sensors it takes, in order.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.shared.schema
    }

    /// Its manifest, or the one assumed for it.
    pub fn manifest(&self) -> &Manifest {
        &self.shared.manifest
    }

    /// Its graph: inputs, outputs, sizes.
    pub fn graph(&self) -> &Graph {
        &self.shared.graph
    }

    /// CRC-32 of its ONNX file.
    pub fn crc32(&self) -> u32 {
        self.shared.crc32
    }

    /// What had to be assumed, one sentence each, to be said to whoever loaded it.
    pub fn assumed(&self) -> &[String] {
        &self.shared.assumed
    }

    /// What its output means.
    pub fn kind(&self) -> OutputKind {
        self.shared.manifest.output.kind
    }

    /// The threshold given in the manifest, or [`ASSUMED_THRESHOLD`]. Meant for a model without calibration.
    pub fn threshold(&self) -> f64 {
        self.shared.manifest.threshold.as_ref().map_or(ASSUMED_THRESHOLD, |threshold| threshold.value)
    }

    /// What the model expects of readings. `values` is row-major `[N, S]` in raw units, NaN in a gap, for which the sensor's usual
    /// value stands in. `out` becomes `[N, S]` in raw units.
    pub fn expected(&mut self, values: &[f32], out: &mut Vec<f32>) -> Result<(), ModelError> {
        self.run(values, out, OutputKind::Reconstruction)?;
        let sensors = &self.shared.manifest.sensors;
        if self.shared.manifest.output.units == Units::Standardised {
            for row in out.chunks_exact_mut(sensors.len()) {
                for (value, sensor) in row.iter_mut().zip(sensors) {
                    *value = *value * sensor.scale + sensor.centre;
                }
            }
        }
        Ok(())
    }

    /// The scores that the model itself gives readings, `[N]`, higher is worse; `values` as for [`Model::expected`].
    pub fn scores(&mut self, values: &[f32], out: &mut Vec<f32>) -> Result<(), ModelError> {
        self.run(values, out, OutputKind::Score)
    }

    fn run(&mut self, values: &[f32], out: &mut Vec<f32>, asked: OutputKind) -> Result<(), ModelError> {
        let manifest = &self.shared.manifest;
        let words = |kind| match kind {
            OutputKind::Reconstruction => "expected values",
            OutputKind::Score => "scores",
        };
        if manifest.output.kind != asked {
            let (gives, asked) = (words(manifest.output.kind), words(asked));
            return Err(ModelError::Kind { name: manifest.name.clone(), gives, asked });
        }
        let width = manifest.sensors.len();
        if !values.len().is_multiple_of(width) {
            return Err(ModelError::Shape { values: values.len(), width });
        }
        let standardised = manifest.input.units == Units::Standardised;
        let done = if standardised || values.iter().any(|value| !value.is_finite()) {
            self.filled.clear();
            self.filled.extend_from_slice(values);
            for row in self.filled.chunks_exact_mut(width) {
                for (value, sensor) in row.iter_mut().zip(&manifest.sensors) {
                    if !value.is_finite() {
                        *value = sensor.centre;
                    }
                    if standardised {
                        *value = (*value - sensor.centre) / sensor.scale;
                    }
                }
            }
            self.session.run(&self.filled, out)
        } else {
            self.session.run(values, out)
        };
        done.map_err(|sentence| ModelError::Backend {
            name: manifest.name.clone(),
            sentence: harmless(&sentence, 300).into_owned(),
        })
    }
}

fn shown(file: &Path) -> String {
    harmless(&file.display().to_string(), 4096).into_owned()
}

/// The ONNX file in a folder that was changed last, of several of one time the last by name; `None` if it is no folder.
fn newest_in(folder: &Path) -> Result<Option<PathBuf>, ModelError> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let failed = |error| ModelError::Io { file: shown(folder), error };
    let mut newest: Option<(SystemTime, PathBuf)> = None;
    for entry in std::fs::read_dir(folder).map_err(failed)?.take(MOST_FILES) {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|extension| extension != "onnx") {
            continue;
        }
        // One that is gone again, or cannot be looked at, is none.
        let Ok(changed) = path.metadata().and_then(|meta| meta.modified()) else { continue };
        newest = newest.max(Some((changed, path)));
    }
    newest.map(|(_, path)| Some(path)).ok_or_else(|| ModelError::Empty { folder: shown(folder) })
}

/// The files that [`Model::load`] would read: an ONNX file and the manifest beside it, there or not. None of a built-in model.
pub fn files(name_or_path: &str) -> Vec<PathBuf> {
    if built_in::find(name_or_path).is_some() {
        return Vec::new();
    }
    let path = Path::new(name_or_path);
    let path = match newest_in(path) {
        Ok(Some(newest)) => newest,
        Ok(None) | Err(_) => path.to_owned(),
    };
    vec![path.with_extension("onnx"), path.with_extension("toml")]
}

/// The manifest's place beside a model's file.
pub fn manifest_path(onnx: &Path) -> PathBuf {
    onnx.with_extension("toml")
}

#[cfg(test)]
mod tests;
