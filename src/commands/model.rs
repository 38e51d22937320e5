//! `dashlight model`: Looks into a model file.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::model::graph::{self, Description};
use crate::model::manifest::{SensorEntry, Threshold};
use crate::model::{ASSUMED_THRESHOLD, BatchSize, Manifest, Model, OutputKind, Units, built_in, manifest_path};
use crate::telemetry::file::FileReader;
use crate::telemetry::{Schema, Sensor};
use crate::text::harmless;

/// Looks into a model file
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Say what a model takes and gives, and what is assumed of it
    Inspect(Inspect),
}

#[derive(Debug, clap::Args)]
struct Inspect {
    /// Built-in model's name, or ONNX file
    #[arg(value_name = "NAME|FILE")]
    model: String,
    /// Write a manifest to start from beside the ONNX file, if there is none
    #[arg(long)]
    write: bool,
    /// Name the manifest's sensors after the columns of this CSV file
    #[arg(long, value_name = "FILE", requires = "write")]
    like: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let What::Inspect(inspect) = args.what;
    match built_in::find(&inspect.model) {
        Some(model) => {
            describe(&graph::describe(model.onnx).map_err(Failure::usage)?);
            if inspect.write {
                return Err(Failure::usage(format!(
                    "{:?} is built in and has its manifest: --write is for files",
                    model.name
                )));
            }
        }
        None => {
            let onnx = Path::new(&inspect.model).with_extension("onnx");
            let shown = harmless(&onnx.display().to_string(), 300).into_owned();
            if onnx.exists() {
                let bytes = fs::read(&onnx).map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
                let description =
                    graph::describe(&bytes).map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
                describe(&description);
                if inspect.write {
                    start_manifest(&onnx, &bytes, inspect.like.as_deref())?;
                }
            }
        }
    }
    let model = Model::load(&inspect.model).map_err(Failure::usage)?;
    usable(&model);
    Ok(())
}

fn describe(description: &Description) {
    let made_by = if description.made_by.is_empty() { "unknown" } else { &description.made_by };
    println!(
        "made by     {made_by}, operators of version {}, {} parameters",
        description.opset, description.parameters
    );
    for input in &description.inputs {
        println!("input       {input}");
    }
    for output in &description.outputs {
        println!("output      {output}");
    }
    let operators: Vec<String> = description.operators.iter().map(|(name, times)| format!("{name} x{times}")).collect();
    println!("operators   {}", operators.join(", "));
}

fn usable(model: &Model) {
    let (manifest, graph) = (model.manifest(), model.graph());
    let units = |units| match units {
        Units::Raw => "raw units",
        Units::Standardised => "standardised units",
    };
    println!("name        {}", harmless(model.name(), 60));
    let names: Vec<&str> = manifest.sensors.iter().take(6).map(|sensor| sensor.name.as_str()).collect();
    let more = if manifest.sensors.len() > names.len() { ", …" } else { "" };
    println!("sensors     {}: {}{more}", manifest.sensors.len(), harmless(&names.join(", "), 200));
    let batch = match graph.batch {
        BatchSize::Any => "any number of readings at once".to_owned(),
        BatchSize::Fixed(rows) => format!("{rows} at once"),
    };
    println!("takes       {:?}, in {}, {batch}", harmless(&graph.input, 60), units(manifest.input.units));
    match manifest.output.kind {
        OutputKind::Reconstruction => {
            println!(
                "gives       {:?}: what it expects, in {}",
                harmless(&graph.output, 60),
                units(manifest.output.units)
            );
        }
        OutputKind::Score => println!("gives       {:?}: a score", harmless(&graph.output, 60)),
    }
    if let Some(provenance) = &manifest.provenance {
        println!(
            "learned     from {} readings ({}), loss {}, held out {}",
            provenance.rows_learned,
            harmless(&provenance.data.join(", "), 200),
            provenance.loss,
            provenance.held_out_loss
        );
    }
    if manifest.calibration.is_some() {
        println!("calibrated  in its manifest");
    }
    for sentence in model.assumed() {
        println!("assumed     {sentence}");
    }
}

/// Writes a manifest that says what would be assumed, for somebody to go on from.
fn start_manifest(onnx: &Path, bytes: &[u8], like: Option<&Path>) -> Result<(), Failure> {
    let path = manifest_path(onnx);
    let shown = harmless(&path.display().to_string(), 300).into_owned();
    if path.exists() {
        return Err(Failure::usage(format!("{shown} is there already: move it away to have another written")));
    }
    let name = onnx.file_stem().map_or_else(String::new, |stem| harmless(&stem.to_string_lossy(), 60).into_owned());
    let mut manifest = match like {
        Some(file) => {
            let reader = FileReader::open(file).map_err(Failure::usage)?;
            let known = Schema::car_sensors();
            let sensors = reader.sensors().iter().map(|name| {
                let sensor = known.position(name).map_or_else(|| Sensor::named(name), |at| known.sensors()[at].clone());
                SensorEntry::of(&sensor, 0.0, 1.0)
            });
            Manifest { sensors: sensors.collect(), ..Manifest::assumed(&name, 0) }
        }
        None => {
            let model = Model::from_parts(onnx, bytes, None).map_err(Failure::usage)?;
            Manifest::assumed(&name, model.schema().width())
        }
    };
    manifest.threshold = Some(Threshold { value: ASSUMED_THRESHOLD, set_by: "assumed: set your own".into() });
    let text = manifest.write().map_err(Failure::running)?;
    // A manifest that does not fit the graph is of no use to start from.
    Model::from_parts(onnx, bytes, Some(&text)).map_err(Failure::usage)?;
    let text = format!("{MANUAL}{text}");
    fs::write(&path, text).map_err(|error| Failure::running(format!("{shown}: {error}")))?;
    println!("manifest    {shown} written");
    Ok(())
}

const MANUAL: &str = "\
# What the ONNX file beside this one cannot say of itself.
# input.units, output.units: \"raw\", or \"standardised\" if the graph works on (value - centre) / scale of each sensor.
# output.kind: \"reconstruction\" ([N, S]: what each sensor should be) or \"score\" ([N]: higher is worse).
# output.name: which output, if the graph has several.
# Each sensor may have label, unit, range = [low, high], decimals, centre (its usual value: stands in for a gap) and scale.

";
