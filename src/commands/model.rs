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
    /// Write that manifest to this file instead; `-` is stdout, and what is seen goes to stderr
    #[arg(long, value_name = "FILE", conflicts_with = "write")]
    out: Option<PathBuf>,
    /// Name the manifest's sensors after the columns of this CSV file
    #[arg(long, value_name = "FILE")]
    like: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let What::Inspect(inspect) = args.what;
    let to_stdout = inspect.out.as_deref() == Some(Path::new("-"));
    let (mut text, mut manifest) = (String::new(), None);
    let done = look_into(&inspect, &mut text, &mut manifest);
    // As much is said as there was to see, whatever came of it in the end.
    if to_stdout {
        eprint!("{text}");
        super::to_stdout(manifest.unwrap_or_default().as_bytes())?;
    } else {
        super::to_stdout(text.as_bytes())?;
    }
    done
}

/// Writes what it sees to `text`, and to `on_stdout` the manifest that is wanted there.
fn look_into(inspect: &Inspect, text: &mut String, on_stdout: &mut Option<String>) -> Result<(), Failure> {
    let wanted = inspect.write || inspect.out.is_some();
    if inspect.like.is_some() && !wanted {
        return Err(Failure::usage("--like names the sensors of a manifest: add --write or --out FILE"));
    }
    if let Some(model) = built_in::find(&inspect.model) {
        describe(&graph::describe(model.onnx).map_err(Failure::usage)?, text);
        if wanted {
            return Err(Failure::usage(format!(
                "{:?} is built in and has its manifest: --write is for files",
                model.name
            )));
        }
        usable(&Model::load(&inspect.model).map_err(Failure::usage)?, text);
        return Ok(());
    }
    let onnx = Path::new(&inspect.model).with_extension("onnx");
    let shown = harmless(&onnx.display().to_string(), 300).into_owned();
    if !Path::new(&inspect.model).is_dir() && onnx.exists() {
        let bytes = fs::read(&onnx).map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
        let description = graph::describe(&bytes).map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
        describe(&description, text);
        if wanted {
            let beside = manifest_path(&onnx);
            let path = inspect.out.as_deref().unwrap_or(&beside);
            if path != Path::new("-") && path.exists() {
                let path = harmless(&path.display().to_string(), 300).into_owned();
                return Err(Failure::usage(format!("{path} is there already: move it away to have another written")));
            }
            let written = start_manifest(&onnx, &bytes, &description, inspect.like.as_deref())?;
            if path == Path::new("-") {
                *on_stdout = Some(written.clone());
            } else {
                let path_shown = harmless(&path.display().to_string(), 300).into_owned();
                fs::write(path, &written).map_err(|error| Failure::running(format!("{path_shown}: {error}")))?;
                say(text, "manifest", &format!("{path_shown} written"));
            }
            // What the manifest makes of it, wherever that went.
            usable(&Model::from_parts(&onnx, &bytes, Some(&written)).map_err(Failure::usage)?, text);
            return Ok(());
        }
    }
    usable(&Model::load(&inspect.model).map_err(Failure::usage)?, text);
    Ok(())
}

/// One line of what is seen.
fn say(text: &mut String, what: &str, is: &str) {
    *text += &format!("{what:<12}{is}\n");
}

fn describe(description: &Description, text: &mut String) {
    let Description { made_by, opset, parameters, .. } = description;
    let made_by = if made_by.is_empty() { "unknown" } else { made_by };
    say(text, "made by", &format!("{made_by}, operators of version {opset}, {parameters} parameters"));
    description.inputs.iter().for_each(|input| say(text, "input", input));
    description.outputs.iter().for_each(|output| say(text, "output", output));
    let operators: Vec<String> = description.operators.iter().map(|(name, times)| format!("{name} x{times}")).collect();
    say(text, "operators", &operators.join(", "));
}

fn usable(model: &Model, text: &mut String) {
    let (manifest, graph) = (model.manifest(), model.graph());
    let units = |units| match units {
        Units::Raw => "raw units",
        Units::Standardised => "standardised units",
    };
    say(text, "name", &harmless(model.name(), 60));
    let names: Vec<&str> = manifest.sensors.iter().take(6).map(|sensor| sensor.name.as_str()).collect();
    let more = if manifest.sensors.len() > names.len() { ", …" } else { "" };
    say(text, "sensors", &format!("{}: {}{more}", manifest.sensors.len(), harmless(&names.join(", "), 200)));
    let batch = match graph.batch {
        BatchSize::Any => "any number of readings at once".to_owned(),
        BatchSize::Fixed(rows) => format!("{rows} at once"),
    };
    let (input, output) = (harmless(&graph.input, 60), harmless(&graph.output, 60));
    say(text, "takes", &format!("{input:?}, in {}, {batch}", units(manifest.input.units)));
    match manifest.output.kind {
        OutputKind::Reconstruction => {
            say(text, "gives", &format!("{output:?}: what it expects, in {}", units(manifest.output.units)));
        }
        OutputKind::Score => say(text, "gives", &format!("{output:?}: a score")),
    }
    if let Some(provenance) = &manifest.provenance {
        let data = harmless(&provenance.data.join(", "), 200).into_owned();
        let (learned, loss, held_out) = (provenance.rows_learned, provenance.loss, provenance.held_out_loss);
        say(text, "learned", &format!("from {learned} readings ({data}), loss {loss}, held out {held_out}"));
    }
    if manifest.calibration.is_some() {
        say(text, "calibrated", "in its manifest");
    }
    model.assumed().iter().for_each(|sentence| say(text, "assumed", sentence));
}

/// A manifest that says what would be assumed, for somebody to go on from.
fn start_manifest(
    onnx: &Path,
    bytes: &[u8],
    description: &Description,
    like: Option<&Path>,
) -> Result<String, Failure> {
    let name = onnx.file_stem().map_or_else(String::new, |stem| harmless(&stem.to_string_lossy(), 60).into_owned());
    let sensors = match like {
        Some(file) => {
            let reader = FileReader::open(file).map_err(Failure::usage)?;
            let known = Schema::car_sensors();
            let sensors = reader.sensors().iter().map(|name| {
                let sensor = known.position(name).map_or_else(|| Sensor::named(name), |at| known.sensors()[at].clone());
                SensorEntry::of(&sensor, 0.0, 1.0)
            });
            Some(sensors.collect::<Vec<_>>())
        }
        // Without a width there is nothing to assume, which is said in the words of a model that is loaded bare.
        None if description.width.is_none() => {
            Model::from_parts(onnx, bytes, None).map_err(Failure::usage)?;
            None
        }
        None => None,
    };
    // What it gives is tried: what each sensor should be, else, output by output, a score.
    let scores = description.output_names.iter().map(|name| (OutputKind::Score, Some(name.clone())));
    let named = description.output_names.iter().map(|name| (OutputKind::Reconstruction, Some(name.clone())));
    let mut first_error = None;
    for (kind, output) in std::iter::once((OutputKind::Reconstruction, None)).chain(named).chain(scores) {
        let mut manifest = match &sensors {
            Some(sensors) => Manifest { sensors: sensors.clone(), ..Manifest::assumed(&name, 0) },
            None => Manifest::assumed(&name, description.width.unwrap_or(1)),
        };
        (manifest.output.kind, manifest.output.name) = (kind, output);
        manifest.threshold = Some(Threshold { value: ASSUMED_THRESHOLD, set_by: "assumed: set your own".into() });
        let text = manifest.write().map_err(Failure::running)?;
        // A manifest that does not fit the graph is of no use to start from.
        match Model::from_parts(onnx, bytes, Some(&text)) {
            Ok(_) => return Ok(format!("{MANUAL}{text}")),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.map_or_else(|| Failure::usage("it has no output"), Failure::usage))
}

const MANUAL: &str = "\
# What the ONNX file beside this one cannot say of itself.
# input.units, output.units: \"raw\", or \"standardised\" if the graph works on (value - centre) / scale of each sensor.
# output.kind: \"reconstruction\" ([N, S]: what each sensor should be) or \"score\" ([N]: higher is worse).
# output.name: which output, if the graph has several.
# Each sensor may have label, unit, range = [low, high], decimals, centre (its usual value: stands in for a gap) and scale.

";
