//! `dashlight evaluate`: Scores a labelled file with the very code that runs live, and prints how good the verdicts are.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;

use crate::detect::metrics::{Cause, Evaluation, FailureReport, Judged, Report, Summary};
use crate::detect::{Calibration, CarState, Detector, Scratch};
use crate::failure::Failure;
use crate::model::{Model, OutputKind};
use crate::telemetry::Schema;
use crate::telemetry::file::{FileReader, LabelKind};
use crate::telemetry::time;
use crate::text::harmless;

/// Readings given to the model at once.
const BATCH: usize = 512;

/// Scores a labelled file and prints the metrics
///
/// The file needs a label column: `anomaly` (0 or 1) or `failures` (names, blank-separated; empty is normal). Curve metrics are means over
/// the cars that have both anomalous and normal readings; what cannot be computed is `-`, in JSON null.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// CSV file, time,car,<sensor>…,anomaly|failures; `-` is stdin, a name ending in .gz is compressed
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Built-in model's name, or ONNX file
    #[arg(long, default_value = "car-sensors", value_name = "NAME|FILE")]
    model: String,
    /// Overrides the model's threshold (of a calibrated model: multiplies it)
    #[arg(long, value_name = "X")]
    threshold: Option<f64>,
    /// CSV file car,start,end,sensors: the sensors responsible for each anomaly, to measure blame by; what `simulate --labels`
    /// writes will do
    #[arg(long, value_name = "FILE")]
    causes: Option<PathBuf>,
    /// Readings by which labels are softened at the most for VUS-PR
    #[arg(long, default_value_t = 12, value_name = "READINGS", value_parser = clap::value_parser!(u16).range(0..=1000))]
    vus_window: u16,
    /// One JSON object instead of tables
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let report = evaluate(&args)?.report(args.vus_window.into());
    let text =
        if args.json { serde_json::to_string(&report).map_err(Failure::running)? + "\n" } else { tables(&report) };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::running(format!("stdout: {error}"))),
        _ => Ok(()),
    }
}

/// Readings on their way through the model.
#[derive(Default)]
struct Pending {
    values: Vec<f32>,
    rows: Vec<Row>,
}

struct Row {
    time_ms: i64,
    car: u32,
    /// `None`: nothing is known of it, so it counts nowhere.
    anomalous: Option<bool>,
    failures: String,
}

struct Evaluator {
    model: Model,
    detector: Detector,
    /// For a model that gives scores.
    threshold: f32,
    cars: Vec<(String, CarState)>,
    scratch: Scratch,
    evaluation: Evaluation,
}

fn evaluate(args: &Args) -> Result<Evaluation, Failure> {
    let model = Model::load(&args.model).map_err(Failure::usage)?;
    let calibration: Option<Calibration> = model.manifest().calibration().map_err(Failure::usage)?;
    let calibration = calibration.unwrap_or_else(|| Calibration::mse(model.threshold()));
    let refuse = |error| Failure::usage(format!("model {:?}: {error}", model.name()));
    let mut detector = Detector::new(&calibration, model.schema()).map_err(refuse)?;
    if let Some(threshold) = args.threshold {
        detector = detector.with_threshold(threshold).map_err(refuse)?;
    }
    let mut reader = FileReader::open(&args.file).map_err(Failure::usage)?;
    if reader.labels() == LabelKind::None {
        return Err(Failure::usage(format!(
            "{}, line 1: no label column: add `anomaly` (0 or 1) or `failures` (names, blank-separated)",
            reader.file()
        )));
    }
    let binding = reader.bind(model.schema()).map_err(Failure::usage)?;
    for sentence in model.assumed() {
        eprintln!("dashlight: {}: {sentence}", model.name());
    }
    if !binding.missing.is_empty() {
        let missing = binding.missing.join(", ");
        eprintln!("dashlight: not in {}, and so gaps: {}", reader.file(), harmless(&missing, 400));
    }
    let causes = args.causes.as_deref().map_or(Ok(Vec::new()), |file| read_causes(file, model.schema()))?;
    let threshold = args.threshold.unwrap_or(model.threshold()) as f32;
    let evaluation = Evaluation::new(causes);
    let evaluator = Evaluator { model, detector, threshold, cars: Vec::new(), scratch: Scratch::default(), evaluation };
    evaluator.all(&mut reader)
}

impl Evaluator {
    fn all(mut self, reader: &mut FileReader) -> Result<Evaluation, Failure> {
        let mut numbers: FxHashMap<String, u32> = FxHashMap::default();
        let mut row = vec![f32::NAN; self.model.schema().width()];
        let mut pending = Pending::default();
        let mut made = Vec::new();
        while let Some(meta) = reader.next_into(&mut row).map_err(Failure::usage)? {
            let car = match numbers.get(meta.car) {
                Some(&car) => car,
                None => {
                    let car = self.cars.len() as u32;
                    numbers.insert(meta.car.to_owned(), car);
                    self.cars.push((meta.car.to_owned(), self.detector.car(Some(meta.car))));
                    car
                }
            };
            let anomalous = meta.label.map(|label| label.anomalous);
            let failures = meta.label.map_or("", |label| label.failures).to_owned();
            pending.rows.push(Row { time_ms: meta.time_ms, car, anomalous, failures });
            pending.values.extend_from_slice(&row);
            if pending.rows.len() == BATCH {
                self.batch(&mut pending, &mut made)?;
            }
        }
        self.batch(&mut pending, &mut made)?;
        Ok(self.evaluation)
    }

    fn batch(&mut self, pending: &mut Pending, made: &mut Vec<f32>) -> Result<(), Failure> {
        let width = self.model.schema().width();
        let kind = self.model.kind();
        match kind {
            OutputKind::Reconstruction => self.model.expected(&pending.values, made),
            OutputKind::Score => self.model.scores(&pending.values, made),
        }
        .map_err(Failure::running)?;
        for (n, (row, values)) in pending.rows.drain(..).zip(pending.values.chunks_exact(width)).enumerate() {
            let Some((name, state)) = self.cars.get_mut(row.car as usize) else { continue };
            let mut judged = Judged {
                time_ms: row.time_ms,
                score: 0.0,
                flag: false,
                open: false,
                anomalous: row.anomalous.unwrap_or(false),
                failures: &row.failures,
                guilt: &[],
            };
            match kind {
                OutputKind::Reconstruction => {
                    let expected = &made[n * width..(n + 1) * width];
                    let verdict = self.detector.observe(state, row.time_ms, values, expected, &mut self.scratch);
                    let bad = verdict.quality.bad > 0;
                    judged.score = verdict.score;
                    judged.flag = verdict.flag || bad;
                    judged.open = state.open_episode().is_some() || bad;
                    judged.guilt = self.detector.guilt(state, &mut self.scratch);
                }
                OutputKind::Score => {
                    judged.score = made[n] / self.threshold;
                    judged.flag = judged.score > 1.0;
                    judged.open = judged.flag;
                }
            }
            if row.anomalous.is_some() {
                self.evaluation.add(name, &judged).map_err(Failure::usage)?;
            }
        }
        pending.values.clear();
        Ok(())
    }
}

/// Reads `car,start,end,sensors`, the sensors blank-separated. The columns are found by name, whatever stands beside them; a
/// start may be called `onset`, as the simulator's labels have it.
fn read_causes(file: &Path, schema: &Schema) -> Result<Vec<Cause>, Failure> {
    let shown = harmless(&file.display().to_string(), 300).into_owned();
    let mut reader = csv::Reader::from_path(file).map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
    let header = reader.headers().map_err(|error| Failure::usage(format!("{shown}: {error}")))?.clone();
    let column = |names: &[&str]| {
        header.iter().position(|name| names.contains(&name.trim())).ok_or_else(|| {
            Failure::usage(format!(
                "{shown}, line 1: no column {:?}: the header must have car,start,end,sensors (start may be onset)",
                names[0]
            ))
        })
    };
    let (car, start, end, sensors) =
        (column(&["car"])?, column(&["start", "onset"])?, column(&["end"])?, column(&["sensors"])?);
    let mut causes = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
        let line = record.position().map_or(0, csv::Position::line);
        let wrong = |what: &str, text: &str| {
            Failure::usage(format!("{shown}, line {line}: {:?} is no {what}", harmless(text, 60)))
        };
        let when = |text: &str| time::parse(text).ok_or_else(|| wrong("time", text));
        let field = |n: usize| record.get(n).unwrap_or_default().trim();
        let responsible = field(sensors)
            .split_whitespace()
            .map(|name| schema.position(name).ok_or_else(|| wrong("sensor of the model", name)))
            .collect::<Result<_, _>>()?;
        let (start_ms, end_ms) = (when(field(start))?, when(field(end))?);
        causes.push(Cause { car: field(car).to_owned(), start_ms, end_ms, sensors: responsible });
    }
    Ok(causes)
}

/// Most cars that the table shows, worst found first.
const CARS_SHOWN: usize = 20;

/// The report for people.
fn tables(report: &Report) -> String {
    let mut out = String::new();
    let all = &report.all;
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "{} readings of {} cars, {} anomalous in {} events\n",
        all.rows, report.cars, all.anomalous, all.events
    );
    let lines: [(&str, Option<f64>, &str); 14] = [
        ("ROC-AUC", all.roc_auc, "mean over cars"),
        ("PR-AUC", all.pr_auc, "mean over cars, average precision"),
        ("VUS-PR", all.vus_pr, "mean over cars"),
        ("event recall", all.event_recall, "events during which the flag was up"),
        ("median delay", all.median_delay_readings, "readings from an event's first to its first flagged"),
        ("false episodes", all.false_episodes_per_car_day, "per car and day"),
        ("F1", all.f1, "of the flag, reading by reading, nothing adjusted"),
        ("precision", all.precision, ""),
        ("recall", all.recall, ""),
        ("FAR", all.far, "false alarm rate, of normal readings"),
        ("MAR", all.mar, "missed alarm rate, of anomalous readings"),
        ("mean F1 of cars", report.mean_f1_of_cars, ""),
        ("blame top-1", report.attribution_top1, "most-blamed sensor is truly responsible"),
        ("blame hit rate", report.attribution_hit_rate, "responsible sensors among as many most-blamed"),
    ];
    for (name, value, remark) in lines {
        let _ = writeln!(out, "  {name:<16}{:>9}   {remark}", number(value));
    }
    let _ = writeln!(out, "  VUS-PR's window {:>9}   readings", report.vus_window);
    if !report.by_failure.is_empty() {
        let _ = writeln!(
            out,
            "\n{:<24}{:>9}{:>7}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
            "failure", "readings", "events", "found", "delay", "ROC-AUC", "PR-AUC", "flagged", "at 0.1%"
        );
        for (name, failure) in &report.by_failure {
            let FailureReport { rows, events, event_recall, median_delay_readings, .. } = failure;
            let _ = writeln!(
                out,
                "{:<24}{rows:>9}{events:>7}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
                harmless(name, 23),
                number(*event_recall),
                number(*median_delay_readings),
                number(failure.roc_auc),
                number(failure.pr_auc),
                number(failure.recall),
                number(failure.recall_at_one_in_1000)
            );
        }
    }
    let mut cars: Vec<(&String, &Summary)> = report.by_car.iter().filter(|(_, car)| car.events > 0).collect();
    cars.sort_by(|(_, a), (_, b)| a.event_recall.unwrap_or(1.0).total_cmp(&b.event_recall.unwrap_or(1.0)));
    if !cars.is_empty() {
        let _ = writeln!(
            out,
            "\n{:<24}{:>9}{:>7}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
            "car with events", "readings", "events", "found", "delay", "ROC-AUC", "PR-AUC", "VUS-PR", "F1"
        );
    }
    for (name, car) in cars.iter().take(CARS_SHOWN) {
        let _ = writeln!(
            out,
            "{:<24}{:>9}{:>7}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
            harmless(name, 23),
            car.rows,
            car.events,
            number(car.event_recall),
            number(car.median_delay_readings),
            number(car.roc_auc),
            number(car.pr_auc),
            number(car.vus_pr),
            number(car.f1)
        );
    }
    if cars.len() > CARS_SHOWN {
        let _ = writeln!(out, "and {} more cars (--json has all)", cars.len() - CARS_SHOWN);
    }
    out
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.3}"))
}
