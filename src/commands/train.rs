//! `dashlight train`: Learns a model from unlabelled or normal readings.

mod topic;

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::detect;
use crate::failure::Failure;
use crate::model::train::{self, Learned, Options, Progress};
use crate::model::{Model, ModelError};
use crate::telemetry::file::{FileReader, LabelKind};
use crate::telemetry::{Recorder, Recording, Schema, Sensor, time};
use crate::text::harmless;

/// Most values (rows times sensors) held in memory: 256 MiB.
const MOST_VALUES: usize = 64 << 20;

/// Learns a model from unlabelled or normal readings
///
/// Writes NAME.onnx and NAME.toml: an autoencoder, and how its residuals are judged. Readings labelled as anomalous are left out. The
/// same files, options and seed make the same bytes. Ctrl-C ends learning early and keeps the best so far.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// CSV files, time,car,<sensor>…; `-` is stdin, a name ending in .gz is compressed
    #[arg(required_unless_present = "kafka", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The ONNX file to write; the manifest goes beside it
    #[arg(long, value_name = "NAME.onnx")]
    out: PathBuf,
    /// Same seed and files, same model
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
    /// Most times to go through the readings (of very many, through a drawn part)
    #[arg(long, default_value_t = 120, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// False episodes per car and day that the thresholds aim at, as held-out readings promise them
    #[arg(long, default_value_t = detect::Options::default().target, value_name = "PER_CAR_DAY", value_parser = false_episodes)]
    false_episodes: f64,
    /// Sizes of the hidden layers, such as 32,8,32 [default: from the number of sensors]
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', value_parser = layer)]
    layers: Vec<usize>,
    #[command(flatten)]
    topic: topic::Args,
}

/// A rate that thresholds can be set by.
fn false_episodes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (1e-6..=100.0).contains(&rate) => Ok(rate),
        _ => Err("a number from 0.000001 to 100".into()),
    }
}

/// The size of a layer.
fn layer(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|size| (1..=512).contains(size)).ok_or_else(|| "a layer has 1 to 512 units".to_owned())
}

/// What was read, beside the readings kept.
struct Read {
    recording: Recording,
    schema: Schema,
    rows: u64,
    cars: u64,
    left_out: u64,
    first_ms: i64,
    last_ms: i64,
    /// Where it came from, for the manifest.
    data: Vec<String>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    if args.out.extension().is_none_or(|extension| extension != "onnx") {
        let shown = harmless(&args.out.display().to_string(), 300).into_owned();
        return Err(Failure::usage(format!("--out {shown}: the name must end in .onnx")));
    }
    let name = args.out.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let stop = stop_on_signals()?;

    let read = match &args.topic.kafka {
        Some(_) => topic::read(&args.topic, &args.out, args.seed, &stop)?,
        None => read(&args, &stop)?,
    };
    let Read { schema, rows, cars, left_out, first_ms, last_ms, recording, data } = read;
    if left_out > 0 {
        eprintln!("dashlight: left out {left_out} readings that are labelled as anomalous");
    }
    if (recording.len() as u64) < rows - left_out {
        eprintln!(
            "dashlight: learning from {} of {rows} readings, as many as memory is set aside for",
            recording.len()
        );
    }
    // Of a fleet, other cars are held out than are learned from: what they are like says nothing of each one's own ways. Few
    // cars are all learned from, and the manifest keeps how each differs.
    let known_cars = if recording.is_fleet() { 0 } else { recording.cars() };
    let (readings, held_out) = recording.hold_out(args.seed);
    let options = Options { name: name.clone(), seed: args.seed, epochs: args.epochs, hidden: args.layers.clone() };
    let mut learned = learn(&schema, &readings, &held_out, &options, &stop)?;
    if !learned.constant.is_empty() {
        eprintln!("dashlight: never varied, and so is not learned: {}", harmless(&learned.constant.join(", "), 400));
    }
    if let Some(provenance) = &mut learned.manifest.provenance {
        provenance.data = data;
        provenance.rows = rows;
        provenance.cars = cars;
        provenance.first = time::format(first_ms);
        provenance.last = time::format(last_ms);
    }
    let judged = detect::Options { known_cars, target: args.false_episodes, ..detect::Options::default() };
    calibrate(&mut learned, &schema, &readings, &held_out, &judged)?;
    write(&args.out, &learned)?;
    let provenance = learned.manifest.provenance.unwrap_or_default();
    println!(
        "{}: {} sensors, learned from {} readings of {cars} cars, loss {:.4} ({:.4} on {} held out) after {} epochs",
        harmless(&args.out.display().to_string(), 300),
        schema.width(),
        provenance.rows_learned,
        provenance.loss,
        provenance.held_out_loss,
        provenance.rows_held_out,
        provenance.epochs
    );
    Ok(())
}

/// The first signal asks for an end, the second is one.
fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| Failure::running(format!("signals cannot be caught: {error}")))?;
    }
    Ok(stop)
}

/// Reads all files, in the order given; the first one's sensors are the model's.
fn read(args: &Args, stop: &AtomicBool) -> Result<Read, Failure> {
    let mut line = Line::new();
    let (mut schema, mut recorder): (Option<Schema>, Option<Recorder>) = (None, None);
    let (mut rows, mut left_out, mut first_ms, mut last_ms) = (0u64, 0u64, i64::MAX, i64::MIN);
    for file in &args.files {
        let mut reader = FileReader::open(file).map_err(Failure::usage)?;
        let schema = match &mut schema {
            Some(schema) => schema,
            none => none.insert(schema_of(&reader, &args.out)?),
        };
        let binding = reader.bind(schema).map_err(Failure::usage)?;
        if let Some(missing) = binding.missing.first() {
            return Err(Failure::usage(format!(
                "{}, line 1: no column {missing:?}, which {} has: all files need the same sensors",
                reader.file(),
                harmless(&args.files[0].display().to_string(), 300)
            )));
        }
        let recorder = recorder.get_or_insert_with(|| Recorder::new(schema.width(), MOST_VALUES, args.seed));
        let labelled = reader.labels() != LabelKind::None;
        let mut row = vec![f32::NAN; schema.width()];
        while let Some(meta) = reader.next_into(&mut row).map_err(Failure::usage)? {
            rows += 1;
            (first_ms, last_ms) = (first_ms.min(meta.time_ms), last_ms.max(meta.time_ms));
            if labelled && meta.label.is_some_and(|label| label.anomalous) {
                left_out += 1;
                recorder.part(meta.car);
            } else {
                recorder.push(meta.car, meta.time_ms, &row);
            }
            if rows % 4096 == 0 {
                line.show(|| format!("read {rows} readings"));
                if stop.load(Ordering::Relaxed) {
                    return Err(Failure::running("stopped while reading: nothing was learned yet, nothing is written"));
                }
            }
        }
    }
    line.clear();
    let (Some(schema), Some(recorder)) = (schema, recorder) else {
        return Err(Failure::usage("no file to learn from"));
    };
    if rows == 0 {
        let shown = harmless(&args.files[0].display().to_string(), 300).into_owned();
        return Err(Failure::usage(format!("{shown}: no reading after the header, so there is nothing to learn from")));
    }
    let cars = recorder.cars() as u64;
    let data = args.files.iter().map(|file| file_name(file)).collect();
    Ok(Read { recording: recorder.finish(), schema, rows, cars, left_out, first_ms, last_ms, data })
}

/// The sensors of a file; those of a car, as its own schema knows them.
fn schema_of(reader: &FileReader, out: &Path) -> Result<Schema, Failure> {
    let name = out.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    Schema::new(name, reader.sensors().iter().map(sensor_named).collect())
        .map_err(|error| Failure::usage(format!("{}, line 1: {error}", reader.file())))
}

/// The sensor of that name; one of a car, with the label, unit and range that are known of it.
fn sensor_named(name: &String) -> Sensor {
    let known = Schema::car_sensors();
    known.position(name).map_or_else(|| Sensor::named(name), |at| known.sensors()[at].clone())
}

fn learn(
    schema: &Schema,
    readings: &Recording,
    held_out: &Recording,
    options: &Options,
    stop: &AtomicBool,
) -> Result<Learned, Failure> {
    let mut line = Line::new();
    let began = Instant::now();
    let learned = train::learn(schema, readings, held_out, options, |progress| {
        line.show(|| words(progress, began.elapsed()));
        !stop.load(Ordering::Relaxed)
    });
    line.clear();
    if stop.load(Ordering::Relaxed) {
        eprintln!("dashlight: stopped; keeping the best so far");
    }
    learned.map_err(Failure::usage)
}

/// `epoch 12 of at most 120, loss 0.0213, held out 0.0240 (best 0.0239), at most 3m 20s left`
fn words(progress: &Progress, elapsed: Duration) -> String {
    let done = f64::from(progress.epoch) + f64::from(progress.part);
    let left = elapsed.as_secs_f64() / done.max(0.01) * (f64::from(progress.epochs) - done).max(0.0);
    format!(
        "epoch {} of at most {}, loss {:.4}, held out {:.4} (best {:.4}), at most {} left",
        progress.epoch + 1,
        progress.epochs,
        progress.loss,
        progress.held_out_loss,
        progress.best,
        humantime::format_duration(Duration::from_secs(left as u64))
    )
}

/// Has `detect` learn how the residuals of the new model are judged, from what the model itself, run as it will run live, expects.
fn calibrate(
    learned: &mut Learned,
    schema: &Schema,
    readings: &Recording,
    held_out: &Recording,
    options: &detect::Options,
) -> Result<(), Failure> {
    let text = learned.manifest.write().map_err(Failure::running)?;
    let mut model =
        Model::from_parts(Path::new(&learned.manifest.name), &learned.onnx, Some(&text)).map_err(Failure::running)?;
    let mut names: Vec<String> = readings.runs().iter().chain(held_out.runs()).map(|run| run.car.clone()).collect();
    names.sort_unstable();
    names.dedup();
    let held_out = if held_out.is_empty() { readings } else { held_out };
    let width = schema.width();
    let mut expected = Vec::new();
    let calibration = detect::calibrate(schema, &names, options, |part, each| {
        let recording = if part == detect::Part::HeldOut { held_out } else { readings };
        for run in recording.runs() {
            let car = names.binary_search(&run.car).unwrap_or(0) as u32;
            expected.clear();
            if part == detect::Part::HeldOut {
                model.expected(&run.values, &mut expected)?;
            }
            for (n, (&time_ms, values)) in run.times.iter().zip(run.values.chunks_exact(width)).enumerate() {
                let expected = expected.get(n * width..(n + 1) * width).unwrap_or(&[]);
                each(detect::Reading { car, time_ms, values, expected });
            }
        }
        Ok::<(), ModelError>(())
    })
    .map_err(Failure::usage)?;
    learned.manifest.calibrate(&calibration).map_err(Failure::running)
}

/// Writes both files beside their places and then moves them there, so that nobody ever reads half a model.
fn write(out: &Path, learned: &Learned) -> Result<(), Failure> {
    let manifest = learned.manifest.write().map_err(Failure::running)?;
    let failed = |path: &Path, error: io::Error| {
        Failure::running(format!("{}: cannot be written: {error}", harmless(&path.display().to_string(), 300)))
    };
    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    }
    let mut moves = Vec::new();
    for (path, bytes) in [(out.to_path_buf(), &learned.onnx[..]), (out.with_extension("toml"), manifest.as_bytes())] {
        let mut beside = path.clone().into_os_string();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let put = || -> io::Result<()> {
            let mut file = File::create(&beside)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        put().map_err(|error| failed(&beside, error))?;
        moves.push((beside, path));
    }
    for (beside, path) in moves {
        fs::rename(&beside, &path).map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

fn file_name(file: &Path) -> String {
    let name = file.file_name().map_or_else(|| "stdin".into(), |name| name.to_string_lossy());
    harmless(if name == "-" { "stdin" } else { &name }, 200).into_owned()
}

/// One line on a terminal's stderr that is written over as things go on; silent anywhere else.
struct Line {
    terminal: bool,
    shown: Option<Instant>,
}

impl Line {
    fn new() -> Self {
        Line { terminal: io::stderr().is_terminal(), shown: None }
    }

    /// Shows the text, at most ten times a second.
    fn show(&mut self, text: impl FnOnce() -> String) {
        if self.terminal && self.shown.is_none_or(|shown| shown.elapsed() > Duration::from_millis(100)) {
            eprint!("\r{}\x1b[K", text());
            self.shown = Some(Instant::now());
        }
    }

    fn clear(&mut self) {
        if self.shown.take().is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
