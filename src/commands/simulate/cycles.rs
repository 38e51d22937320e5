//! `dashlight simulate --kind engine-cycle`: engines instead of cars, to a file or a broker.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::{Args, LOOK, PATIENCE, cannot_create, checked_address, nothing_to_do, runtime, stop_on_signal};
use crate::failure::Failure;
use crate::simulate::cycle::{CycleLabel, CycleOptions, DEFAULT_FAULTS, Engines, FAULTS, TOPIC, VALUES, engine_name};
use crate::simulate::link::{Link, LinkOptions, Qos};
use crate::simulate::live::readings_in;
use crate::telemetry::codec::encode_delimited;
use crate::telemetry::file::{FileError, FileWriter, Label, LabelKind};
use crate::telemetry::time;

/// Readings published between two looks at the connection.
const BATCH: usize = 64;

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    if args.faithful {
        return Err(Failure::usage("--faithful is for cars: leave it out, or leave out --kind engine-cycle"));
    }
    if args.duration.is_some_and(|duration| readings_in(duration, args.rate) == 0) {
        return Err(nothing_to_do(args));
    }
    let options = CycleOptions {
        engines: args.cars,
        rate: args.rate,
        faults: args.faults.unwrap_or(DEFAULT_FAULTS),
        seed: args.seed,
        only_fault: args.only_fault.clone(),
        seconds: args.duration.map(|duration| duration.as_secs_f64()),
    };
    let engines = Engines::new(&options).map_err(Failure::usage)?;
    let labels = Labels::create(args.labels.as_deref())?;
    match &args.csv {
        Some(file) => to_file(args, engines, labels, file),
        None => to_broker(args, engines, labels),
    }
}

/// The labels file, if one is wanted.
struct Labels<'a>(Option<(BufWriter<File>, &'a Path)>);

impl<'a> Labels<'a> {
    fn create(path: Option<&'a Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Labels(None)) };
        let file = File::create(path).and_then(|file| {
            let mut out = BufWriter::new(file);
            out.write_all(b"car,fault,onset,end,severity,sensors\n")?;
            Ok(out)
        });
        let wrong =
            |error| Failure::usage(format!("{}: {error}; give --labels a file that can be written", path.display()));
        Ok(Labels(Some((file.map_err(wrong)?, path))))
    }

    fn write(&mut self, labels: &[CycleLabel]) -> Result<(), Failure> {
        let Some((out, path)) = &mut self.0 else { return Ok(()) };
        let done = labels.iter().try_for_each(|label| writeln!(out, "{}", label.line())).and_then(|()| out.flush());
        done.map_err(|error| Failure::running(format!("{}: {error}", path.display())))
    }
}

fn to_file(args: &Args, mut engines: Engines, mut labels: Labels<'_>, file: &Path) -> Result<(), Failure> {
    let Some(duration) = args.duration else {
        return Err(Failure::usage("a file has an end: say how long with --for, such as --for 10m"));
    };
    let start = time::parse(&args.start).ok_or_else(|| {
        Failure::usage(format!("--start {:?} is no time: seconds since 1970, or 2026-01-31T12:00:00Z", args.start))
    })?;
    let stop = stop_on_signal()?;
    let names: Vec<String> = (1..=VALUES).map(|n| format!("v{n:03}")).collect();
    let cars: Vec<String> = (0..engines.len()).map(engine_name).collect();
    let mut out = FileWriter::create(file, &names, LabelKind::Failures).map_err(cannot_create)?;
    let mut row = [0.0; VALUES];
    let broken_pipe = |error: &FileError| matches!(error, FileError::Io { error, .. } if error.kind() == std::io::ErrorKind::BrokenPipe);
    'rounds: for round in 0..readings_in(duration, args.rate) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let time_ms = start + (round as f64 * 1000.0 / args.rate).round() as i64;
        for (number, car) in cars.iter().enumerate() {
            let fault = engines.step(number, time_ms, &mut row);
            let failures = fault.and_then(|kind| FAULTS.get(kind)).map_or("", |fault| fault.id);
            match out.write(time_ms, car, &row, Label { anomalous: fault.is_some(), failures }) {
                // Whoever reads the other end of a pipe has seen enough.
                Err(error) if broken_pipe(&error) => break 'rounds,
                done => done.map_err(Failure::running)?,
            }
        }
        labels.write(&engines.take_labels())?;
    }
    match out.finish() {
        Err(error) if broken_pipe(&error) => {}
        done => done.map_err(Failure::running)?,
    }
    labels.write(&engines.finish())
}

fn to_broker(args: &Args, mut engines: Engines, mut labels: Labels<'_>) -> Result<(), Failure> {
    let (address, login) = checked_address(args.mqtt.as_deref().unwrap_or_default())?;
    let qos = Qos::level(args.qos).unwrap_or_default();
    let limit = args.duration.map(|duration| readings_in(duration, args.rate));
    let stop = stop_on_signal()?;
    runtime()?.block_on(async {
        let client_id = format!("dashlight-engines-{}", std::process::id());
        let mut link = Link::new(LinkOptions { address, client_id, login, qos });
        link.connect().await.map_err(Failure::running)?;
        let begun = Instant::now();
        let cars: Vec<String> = (0..engines.len()).map(engine_name).collect();
        let mut row = [0.0; VALUES];
        let (mut round, mut batch) = (0u64, 0);
        'rounds: while limit.is_none_or(|limit| round < limit) {
            for (number, car) in cars.iter().enumerate() {
                let turn = round as f64 + number as f64 / cars.len() as f64;
                let due = begun + Duration::from_secs_f64(turn / args.rate);
                while Instant::now() < due && !stop.load(Ordering::Relaxed) {
                    link.pace(due.min(Instant::now() + LOOK)).await;
                }
                batch += 1;
                if batch >= BATCH || !link.has_room() {
                    batch = 0;
                    link.drive(Instant::now(), |_| true).await;
                    while !link.has_room() && !stop.load(Ordering::Relaxed) {
                        link.drive(Instant::now() + LOOK, Link::has_ample_room).await;
                    }
                }
                if stop.load(Ordering::Relaxed) {
                    break 'rounds;
                }
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
                engines.step(number, now, &mut row);
                link.publish(TOPIC.as_bytes(), |payload| encode_delimited(car, &row, payload));
            }
            labels.write(&engines.take_labels())?;
            round += 1;
        }
        labels.write(&engines.finish())?;
        while !link.is_settled() && !stop.load(Ordering::Relaxed) {
            link.drive(Instant::now() + LOOK, Link::is_settled).await;
        }
        let (link, settled) = link.close(Instant::now() + PATIENCE).await;
        let acknowledged = match qos {
            Qos::AtMostOnce => String::new(),
            _ => format!(", {} acknowledged", link.acknowledged()),
        };
        let seconds = begun.elapsed().as_secs_f64();
        eprintln!(
            "dashlight: {} engines: {} readings published{acknowledged} in {seconds:.1} s",
            engines.len(),
            link.published()
        );
        if settled { Ok(()) } else { Err(Failure::running("not everything was acknowledged when it was stopped")) }
    })
}
