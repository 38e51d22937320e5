//! `dashlight simulate`: Publishes a simulated fleet, or writes it to a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

mod cycles;

use crate::config::secret::MQTT_PASSWORD;
use crate::failure::Failure;
use crate::simulate::cycle::FAULTS;
use crate::simulate::labels::LabelWriter;
use crate::simulate::link::{Link, LinkOptions, Login, Qos};
use crate::simulate::live::{self, LiveOptions, Outcome};
use crate::simulate::{DEFAULT_FAULTS, Faults, Fleet, FleetOptions, car_name, faults, sensor};
use crate::telemetry::file::{FileError, FileWriter, Label, LabelKind};
use crate::telemetry::{Schema, time};

/// Publishes a simulated fleet, or writes it to a file
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("to").required(true).args(["csv", "mqtt"])), after_long_help = kinds_of_fault())]
pub struct Args {
    /// What is simulated
    #[arg(long, default_value = "cars", value_name = "KIND")]
    kind: Kind,
    /// Write readings to this file with their failures as labels: `-` is stdout, a name ending in .gz is compressed.
    /// Time is simulated: same options, same bytes
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Publish to this MQTT broker as time passes, on topics vehicles/sensor/data/<car>, or car/engine/temperature; a user's
    /// password is read from DASHLIGHT_MQTT_PASSWORD
    #[arg(long, value_name = "[USER@]HOST:PORT")]
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
    /// Faults per car and hour; 0 for none [default: 0.12, of engines 0.5]
    #[arg(long, value_name = "PER_CAR_HOUR")]
    faults: Option<f64>,
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
    #[arg(long, value_name = "TIME", conflicts_with = "mqtt", default_value = "2026-01-01T00:00:00Z")]
    start: String,
    /// MQTT connections that the cars share; without it one a car, but at most 100
    #[arg(long, value_name = "N", conflicts_with = "csv", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: Option<u32>,
    /// MQTT quality of service
    #[arg(long, value_name = "0|1|2", conflicts_with = "csv", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
}

/// What can be simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Electric cars: 18 sensors a reading
    Cars,
    /// Engines: 210 values a reading, one working cycle each (the KSQL demo's message)
    EngineCycle,
}

/// The table of faults, for `--help` and the manual.
fn kinds_of_fault() -> String {
    let mut text = String::from("Kinds of fault:");
    for kind in faults() {
        text += &format!("\n  {:<16}{}", kind.id, kind.label);
    }
    text += "\n\nOf engines:";
    for fault in FAULTS {
        text += &format!("\n  {:<16}{}", fault.id, fault.label);
    }
    text
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    if args.kind == Kind::EngineCycle {
        return cycles::run(&args);
    }
    let fleet_options = FleetOptions {
        cars: args.cars,
        rate: args.rate,
        faults: args.faults.unwrap_or(DEFAULT_FAULTS),
        seed: args.seed,
        faithful: args.faithful,
        only_fault: args.only_fault.clone(),
        duration: args.duration,
        labels: args.labels.is_some(),
    };
    match &args.csv {
        Some(file) => to_file(&args, Fleet::new(&fleet_options).map_err(Failure::usage)?, file),
        None => to_broker(&args, fleet_options),
    }
}

/// How long a run that was stopped waits for acknowledgements.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the labels are written, and how far behind the fleet is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Sees to it that Ctrl-C and SIGTERM end the run in good order, and only set this.
pub(super) fn stop_on_signal() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Failure::running(format!("signals cannot be caught: {error}")))?;
    }
    Ok(stop)
}

/// A runtime for one command's connections.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::running(format!("the system gives no event loop: {error}")))
}

/// `[USER@]HOST:PORT` as address and login, or a sentence.
pub(super) fn checked_address(address: &str) -> Result<(String, Option<Login>), Failure> {
    let bare = address.strip_prefix("mqtt://").unwrap_or(address);
    let (user, place) = bare.rsplit_once('@').map_or((None, bare), |(user, place)| (Some(user), place));
    let refused = |why: &str| Err(Failure::usage(format!("--mqtt {why}")));
    if user.is_some_and(|user| user.is_empty() || user.contains(':')) {
        return refused(&format!("takes USER@HOST:PORT; the password comes from the variable {MQTT_PASSWORD}"));
    }
    match place.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {}
        _ => return refused(&format!("{address:?} is no address: write HOST:PORT, such as localhost:1883")),
    }
    let Some(user) = user else { return Ok((place.to_owned(), None)) };
    let Ok(password) = std::env::var(MQTT_PASSWORD) else {
        return refused(&format!("names a user, and the variable {MQTT_PASSWORD} no password: set it"));
    };
    // MQTT gives each of them two bytes of length.
    if user.len().max(password.len()) > usize::from(u16::MAX) {
        return refused("names a user, or the variable a password, longer than MQTT allows: at most 65535 bytes");
    }
    Ok((place.to_owned(), Some(Login { user: user.to_owned(), password })))
}

fn to_broker(args: &Args, fleet: FleetOptions) -> Result<(), Failure> {
    let (address, login) = checked_address(args.mqtt.as_deref().unwrap_or_default())?;
    let qos = Qos::level(args.qos).unwrap_or_default();
    if args.duration.is_some_and(|duration| live::readings_in(duration, args.rate) == 0) {
        return Err(nothing_to_do(args));
    }
    // What is wrong with the fleet is said before anything is connected or overwritten.
    Fleet::new(&FleetOptions { cars: 1.min(fleet.cars), ..fleet.clone() }).map_err(Failure::usage)?;
    let mut labels = Labels::create(args)?;
    let stop = stop_on_signal()?;
    let runtime = runtime()?;
    runtime.block_on(async {
        // Once, to say at once if nobody is there; from then on connections are made again as often as it takes.
        let client_id = format!("dashlight-{}", std::process::id());
        let mut first = Link::new(LinkOptions {
            address: address.clone(),
            client_id,
            login: login.clone(),
            qos: Qos::AtMostOnce,
        });
        first.connect().await.map_err(Failure::running)?;
        first.close(Instant::now()).await;

        let connections = args.connections.map(|n| n as usize);
        let options = LiveOptions { address, login, fleet, connections, qos };
        let live = live::start(options, &tokio::runtime::Handle::current()).map_err(Failure::usage)?;
        let begun = Instant::now();
        let mut furthest_behind = Duration::ZERO;
        let mut stopped = false;
        let finished = live.finished();
        tokio::pin!(finished);
        let outcome = loop {
            let outcome = tokio::select! {
                outcome = &mut finished => Some(outcome),
                () = tokio::time::sleep(LOOK) => None,
            };
            labels.write(&live.take_labels())?;
            furthest_behind = furthest_behind.max(live.behind());
            if let Some(outcome) = outcome {
                break outcome;
            }
            if stop.load(Ordering::Relaxed) && !stopped {
                stopped = true;
                live.ask_to_stop(PATIENCE);
            }
        };
        labels.finish(&live.take_labels())?;
        let behind = match furthest_behind {
            behind if behind < Duration::from_millis(100) => String::new(),
            behind => format!(", at most {:.1} s behind its timetable", behind.as_secs_f64()),
        };
        let Outcome { published, acknowledged, settled } = outcome;
        let acknowledged = if qos == Qos::AtMostOnce { String::new() } else { format!(", {acknowledged} acknowledged") };
        let seconds = begun.elapsed().as_secs_f64();
        eprintln!(
            "dashlight: {} cars, {} connections: {published} readings published{acknowledged} in {seconds:.1} s{behind}",
            live.cars(),
            live.connections()
        );
        match settled {
            true => Ok(()),
            false => Err(Failure::running(match live.trouble() {
                Some(trouble) => format!("not everything was acknowledged: {trouble}"),
                None => format!("not everything was acknowledged within {} s", PATIENCE.as_secs()),
            })),
        }
    })
}

fn nothing_to_do(args: &Args) -> Failure {
    Failure::usage(format!(
        "--for {} at {} Hz is not one reading: make one of them greater",
        humantime::format_duration(args.duration.unwrap_or_default()),
        args.rate
    ))
}

/// The labels file, if one is wanted.
struct Labels(Option<(LabelWriter<std::io::BufWriter<std::fs::File>>, PathBuf)>);

impl Labels {
    fn create(args: &Args) -> Result<Self, Failure> {
        let Some(path) = &args.labels else { return Ok(Labels(None)) };
        let writer = LabelWriter::create(path).map_err(|error| {
            Failure::usage(format!("{}: {error}; give --labels a file that can be written", path.display()))
        })?;
        Ok(Labels(Some((writer, path.clone()))))
    }

    fn write(&mut self, labels: &[crate::simulate::Label]) -> Result<(), Failure> {
        let Some((writer, path)) = &mut self.0 else { return Ok(()) };
        writer.write(labels).map_err(|error| Failure::running(format!("{}: {error}", path.display())))
    }

    fn finish(mut self, labels: &[crate::simulate::Label]) -> Result<(), Failure> {
        self.write(labels)?;
        let Some((writer, path)) = self.0 else { return Ok(()) };
        writer.finish().map_err(|error| Failure::running(format!("{}: {error}", path.display())))
    }
}

fn to_file(args: &Args, mut fleet: Fleet, file: &Path) -> Result<(), Failure> {
    let Some(duration) = args.duration else {
        return Err(Failure::usage("a file has an end: say how long with --for, such as --for 10m"));
    };
    let start = time::parse(&args.start).ok_or_else(|| {
        Failure::usage(format!("--start {:?} is no time: seconds since 1970, or 2026-01-31T12:00:00Z", args.start))
    })?;
    let rounds = live::readings_in(duration, args.rate);
    if rounds == 0 {
        return Err(nothing_to_do(args));
    }
    let stop = stop_on_signal()?;
    let names: Vec<String> = Schema::car_sensors().sensors().iter().map(|sensor| sensor.name.clone()).collect();
    let cars: Vec<String> = (0..fleet.len()).map(car_name).collect();
    let mut out = FileWriter::create(file, &names, LabelKind::Failures).map_err(cannot_create)?;
    let mut labels = Labels::create(args)?;
    let (mut row, mut failures) = ([0.0; sensor::COUNT], String::new());
    'rounds: for round in 0..rounds {
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
        labels.write(&fleet.take_labels())?;
    }
    match out.finish() {
        Err(FileError::Io { error, .. }) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        done => done.map_err(Failure::running)?,
    }
    labels.finish(&fleet.finish())
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
