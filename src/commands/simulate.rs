//! `dashlight simulate`: Publishes a simulated fleet, or writes it to a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::failure::Failure;
use crate::simulate::labels::LabelWriter;
use crate::simulate::{DEFAULT_FAULTS, Faults, Fleet, FleetOptions, car_name, sensor};
use crate::telemetry::file::{FileError, FileWriter, Label, LabelKind};
use crate::telemetry::{Schema, time};

/// Publishes a simulated fleet, or writes it to a file
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("to").required(true).args(["csv", "mqtt"])))]
pub struct Args {
    /// Write readings to this file with their failures as labels: `-` is stdout, a name ending in .gz is compressed.
    /// Time is simulated: same options, same bytes
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Publish to this MQTT broker, on topics vehicles/sensor/data/<car>, as time passes
    #[arg(long, value_name = "HOST:PORT")]
    mqtt: Option<String>,
    /// Cars
    #[arg(long, default_value_t = 100, value_name = "N")]
    cars: usize,
    /// Readings per second of each car
    #[arg(long, default_value_t = 1.0, value_name = "HZ")]
    rate: f64,
    /// How long: 30s, 10m, 24h. A file needs it; publishing goes on until Ctrl-C without it
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Faults per car and hour; 0 for none
    #[arg(long, default_value_t = DEFAULT_FAULTS, value_name = "PER_CAR_HOUR")]
    faults: f64,
    /// Give each car exactly one fault: a kind's id, or the beginning that several share (tire, shock, sensor)
    #[arg(long, value_name = "KIND", conflicts_with = "faults")]
    only_fault: Option<String>,
    /// Use the original demo's recurrences and latching failures
    #[arg(long)]
    faithful: bool,
    /// Same seed, same fleet
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
    /// Write each fault to this file: car,fault,onset,end,severity,sensors
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Time of the file's first reading: seconds since 1970, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", requires = "csv", default_value = "2026-01-01T00:00:00Z")]
    start: String,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let fleet = Fleet::new(&FleetOptions {
        cars: args.cars,
        rate: args.rate,
        faults: args.faults,
        seed: args.seed,
        faithful: args.faithful,
        only_fault: args.only_fault.clone(),
        duration: args.duration,
        labels: args.labels.is_some(),
    })
    .map_err(Failure::usage)?;
    match &args.csv {
        Some(file) => to_file(&args, fleet, file),
        None => Err(Failure::running("publishing a simulated fleet comes with the next landing; --csv works")),
    }
}

/// Sees to it that Ctrl-C and SIGTERM end the run in good order, and only set this.
fn stop_on_signal() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Failure::running(format!("signals cannot be caught: {error}")))?;
    }
    Ok(stop)
}

fn to_file(args: &Args, mut fleet: Fleet, file: &Path) -> Result<(), Failure> {
    let Some(duration) = args.duration else {
        return Err(Failure::usage("a file has an end: say how long with --for, such as --for 10m"));
    };
    let start = time::parse(&args.start).ok_or_else(|| {
        Failure::usage(format!("--start {:?} is no time: seconds since 1970, or 2026-01-31T12:00:00Z", args.start))
    })?;
    let rounds = (duration.as_secs_f64() * args.rate + 1e-6).floor();
    if rounds < 1.0 {
        return Err(Failure::usage(format!(
            "--for {} at {} Hz is not one reading: make one of them greater",
            humantime::format_duration(duration),
            args.rate
        )));
    }
    let stop = stop_on_signal()?;
    let names: Vec<String> = Schema::car_sensors().sensors().iter().map(|sensor| sensor.name.clone()).collect();
    let cars: Vec<String> = (0..fleet.len()).map(car_name).collect();
    let mut out = FileWriter::create(file, &names, LabelKind::Failures).map_err(cannot_create)?;
    let mut labels = match &args.labels {
        Some(path) => Some((LabelWriter::create(path).map_err(|error| unwritable(path, &error, true))?, path)),
        None => None,
    };
    let (mut row, mut failures) = ([0.0; sensor::COUNT], String::new());
    'rounds: for round in 0..rounds as u64 {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let time_ms = start + (round as f64 * 1000.0 / args.rate).round() as i64;
        for (car, name) in cars.iter().enumerate() {
            let faults = fleet.step(car, time_ms, &mut row);
            name_faults(&mut failures, faults);
            let label = Label { anomalous: !faults.is_empty(), failures: &failures };
            match out.write(time_ms, name, &row, label) {
                // Whoever reads the other end of a pipe has seen enough.
                Err(FileError::Io { error, .. }) if error.kind() == std::io::ErrorKind::BrokenPipe => break 'rounds,
                done => done.map_err(Failure::running)?,
            }
        }
        if let Some((labels, path)) = &mut labels {
            labels.write(&fleet.take_labels()).map_err(|error| unwritable(path, &error, false))?;
        }
    }
    match out.finish() {
        Err(FileError::Io { error, .. }) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        done => done.map_err(Failure::running)?,
    }
    if let Some((mut labels, path)) = labels {
        labels
            .write(&fleet.finish())
            .and_then(|()| labels.finish())
            .map_err(|error| unwritable(path, &error, false))?;
    }
    Ok(())
}

/// Writes the ids of `faults` to `text`, blank-separated.
fn name_faults(text: &mut String, faults: Faults) {
    text.clear();
    for id in faults.ids() {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(id);
    }
}

fn cannot_create(error: FileError) -> Failure {
    Failure::usage(format!("{error}; give --csv a file that can be written"))
}

fn unwritable(path: &Path, error: &std::io::Error, at_start: bool) -> Failure {
    if at_start {
        Failure::usage(format!("{}: {error}; give --labels a file that can be written", path.display()))
    } else {
        Failure::running(format!("{}: {error}", path.display()))
    }
}
