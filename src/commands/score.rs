//! `dashlight score`: Scores a file, one line per reading, with the very code that runs live.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde_json::json;

use crate::detect::{Calibration, CarState, Detector, Scratch, severity};
use crate::failure::Failure;
use crate::model::{Model, OutputKind};
use crate::telemetry::file::{FileReader, quoted};
use crate::telemetry::time;
use crate::text::harmless;

/// Readings given to the model at once.
const BATCH: usize = 512;

/// Scores a file, one line per reading
///
/// Prints time, car, score (in multiples of the threshold: over 1 is a breach), flag (1 while an episode is open), severity (0 to
/// 100), and for each sensor the residual (value less what is expected, empty where either is missing).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// CSV file, time,car,<sensor>…; `-` is stdin, a name ending in .gz is compressed
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Built-in model's name, or ONNX file
    #[arg(long, default_value = "car-sensors", value_name = "NAME|FILE")]
    model: String,
    /// How the lines are written
    #[arg(long, default_value = "csv", value_name = "FORMAT")]
    format: Format,
    /// Overrides the model's threshold (of a calibrated model: multiplies it)
    #[arg(long, value_name = "X")]
    threshold: Option<f64>,
}

/// How the lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A header, then one line per reading
    Csv,
    /// One object per line
    Json,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let mut scorer = Scorer::open(&args)?;
    let mut reader = FileReader::open(&args.file).map_err(Failure::usage)?;
    let binding = reader.bind(scorer.model.schema()).map_err(Failure::usage)?;
    for sentence in scorer.model.assumed() {
        eprintln!("dashlight: {}: {sentence}", scorer.model.name());
    }
    if !binding.missing.is_empty() {
        let missing = binding.missing.join(", ");
        eprintln!("dashlight: not in {}, and so gaps: {}", reader.file(), harmless(&missing, 400));
    }
    let mut out = BufWriter::with_capacity(256 * 1024, io::stdout().lock());
    match scorer.all(&mut reader, args.format, &mut out) {
        Err(Stop::Unwritable(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Stop::Unwritable(error)) => Err(Failure::running(format!("stdout: {error}"))),
        Err(Stop::Failed(failure)) => Err(failure),
        Ok(()) => Ok(()),
    }
}

/// Why scoring ended before the file did.
enum Stop {
    Unwritable(io::Error),
    Failed(Failure),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Unwritable(error)
    }
}

/// A batch of readings on its way through the model.
#[derive(Default)]
struct Pending {
    values: Vec<f32>,
    times: Vec<i64>,
    cars: Vec<Arc<str>>,
}

struct Scorer {
    model: Model,
    detector: Detector,
    threshold: f64,
    states: FxHashMap<Arc<str>, CarState>,
    scratch: Scratch,
    pending: Pending,
    made: Vec<f32>,
}

/// One reading's verdict, as it is written.
struct Scored {
    score: f32,
    flag: bool,
    severity: u8,
}

impl Scorer {
    fn open(args: &Args) -> Result<Self, Failure> {
        let model = Model::load(&args.model).map_err(Failure::usage)?;
        let calibration: Option<Calibration> = model.manifest().calibration().map_err(Failure::usage)?;
        let calibration = calibration.unwrap_or_else(|| Calibration::mse(model.threshold()));
        let refuse = |error| Failure::usage(format!("model {:?}: {error}", model.name()));
        let mut detector = Detector::new(&calibration, model.schema()).map_err(refuse)?;
        if let Some(threshold) = args.threshold {
            detector = detector.with_threshold(threshold).map_err(refuse)?;
        }
        Ok(Scorer {
            threshold: args.threshold.unwrap_or(model.threshold()),
            detector,
            states: FxHashMap::default(),
            scratch: Scratch::default(),
            pending: Pending::default(),
            made: Vec::new(),
            model,
        })
    }

    fn all(&mut self, reader: &mut FileReader, format: Format, out: &mut impl Write) -> Result<(), Stop> {
        if format == Format::Csv {
            write!(out, "time,car,score,flag,severity")?;
            for sensor in self.model.schema().sensors() {
                write!(out, ",residual_{}", quoted(&sensor.name))?;
            }
            writeln!(out)?;
        }
        let mut row = vec![f32::NAN; self.model.schema().width()];
        while let Some(meta) = reader.next_into(&mut row).map_err(|error| Stop::Failed(Failure::usage(error)))? {
            let car = match self.states.get_key_value(meta.car) {
                Some((name, _)) => Arc::clone(name),
                None => {
                    let name: Arc<str> = meta.car.into();
                    self.states.insert(Arc::clone(&name), self.detector.car(Some(&name)));
                    name
                }
            };
            self.pending.times.push(meta.time_ms);
            self.pending.cars.push(car);
            self.pending.values.extend_from_slice(&row);
            if self.pending.times.len() == BATCH {
                self.batch(format, out)?;
            }
        }
        self.batch(format, out)?;
        out.flush()?;
        Ok(())
    }

    /// Runs what is pending through model and detector, and writes it.
    fn batch(&mut self, format: Format, out: &mut impl Write) -> Result<(), Stop> {
        let pending = std::mem::take(&mut self.pending);
        let mut made = std::mem::take(&mut self.made);
        let kind = self.model.kind();
        match kind {
            OutputKind::Reconstruction => self.model.expected(&pending.values, &mut made),
            OutputKind::Score => self.model.scores(&pending.values, &mut made),
        }
        .map_err(|error| Stop::Failed(Failure::running(error)))?;
        let width = self.model.schema().width();
        for (n, (&time_ms, car)) in pending.times.iter().zip(&pending.cars).enumerate() {
            let values = &pending.values[n * width..(n + 1) * width];
            let (scored, expected) = match kind {
                OutputKind::Reconstruction => {
                    let expected = &made[n * width..(n + 1) * width];
                    (self.observe(car, time_ms, values, expected), expected)
                }
                OutputKind::Score => {
                    let score = (f64::from(made[n]) / self.threshold) as f32;
                    (Scored { score, flag: score > 1.0, severity: severity(score) }, &[][..])
                }
            };
            let residual = |sensor: usize| expected.get(sensor).map(|expected| values[sensor] - expected);
            let residuals = (0..width).map(|sensor| residual(sensor).filter(|residual| residual.is_finite()));
            match format {
                Format::Csv => {
                    write!(out, "{},{},", time::Seconds(time_ms), quoted(car))?;
                    write!(out, "{},{},{}", scored.score, u8::from(scored.flag), scored.severity)?;
                    for residual in residuals {
                        match residual {
                            Some(residual) => write!(out, ",{residual}")?,
                            None => write!(out, ",")?,
                        }
                    }
                    writeln!(out)?;
                }
                Format::Json => {
                    let names = self.model.schema().sensors().iter().map(|sensor| sensor.name.clone());
                    let residuals: serde_json::Map<_, _> =
                        names.zip(residuals.map(|residual| json!(residual))).collect();
                    let line = json!({
                        "time": time_ms as f64 / 1000.0,
                        "car": harmless(car, 4096),
                        "score": scored.score,
                        "flag": scored.flag,
                        "severity": scored.severity,
                        "residuals": residuals,
                    });
                    writeln!(out, "{line}")?;
                }
            }
        }
        self.made = made;
        self.pending = pending;
        self.pending.values.clear();
        self.pending.times.clear();
        self.pending.cars.clear();
        Ok(())
    }

    fn observe(&mut self, car: &Arc<str>, time_ms: i64, values: &[f32], expected: &[f32]) -> Scored {
        let state = self.states.entry(Arc::clone(car)).or_insert_with(|| self.detector.car(Some(car)));
        let verdict = self.detector.observe(state, time_ms, values, expected, &mut self.scratch);
        Scored { score: verdict.score, flag: state.open_episode().is_some(), severity: verdict.severity }
    }
}
