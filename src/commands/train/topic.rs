//! Readings to learn from, straight out of a Kafka topic: what it holds of a stretch of time, or what comes from now on.
//!
//! Disturbs nobody: joins no consumer group, commits nothing, creates no topic.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Line, MOST_VALUES, Read, sensor_named};
use crate::config::{Codec as Grammar, Inputs, Setting, Source};
use crate::failure::Failure;
use crate::kafka::{Cluster, Health, History, Record};
use crate::model::Model;
use crate::telemetry::codec::{Car, Codec};
use crate::telemetry::{Recorder, Schema, time};
use crate::text::harmless;

/// Readings looked at to find out which sensors there are, and the most bytes of them.
const LOOK: usize = 1000;
const LOOK_BYTES: usize = 16 << 20;
/// Most sensors that a topic's readings may turn out to have.
const MOST_SENSORS: usize = 500;
/// Records taken between two looks at the clock and at Ctrl-C.
const BATCH: usize = 4096;
const WAIT: Duration = Duration::from_millis(200);
/// How long Kafka may be away before reading is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where in Kafka to learn from.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Learn from a Kafka topic instead of files; how its readings are written is what the configuration's source of that topic
    /// says, else JSON with the record's key as the car
    #[arg(long, value_name = "BOOTSTRAP", conflicts_with = "files", help_heading = "From Kafka")]
    pub kafka: Option<String>,
    /// The topic [default: car-sensor]
    #[arg(long, value_name = "TOPIC", requires = "kafka", conflicts_with = "files", help_heading = "From Kafka")]
    topic: Option<String>,
    /// Learn from what comes in this time from now on: 10m, 2h
    #[arg(long = "for", value_name = "TIME", requires = "kafka", conflicts_with_all = ["from", "to", "files"], value_parser = humantime::parse_duration, help_heading = "From Kafka")]
    duration: Option<Duration>,
    /// Learn from what Kafka holds since this time: seconds since 1970, or 2026-01-31T12:00:00Z [default: the oldest]
    #[arg(long, value_name = "TIME", requires = "kafka", conflicts_with = "files", help_heading = "From Kafka")]
    from: Option<String>,
    /// … up to this time [default: now]
    #[arg(long, value_name = "TIME", requires = "kafka", conflicts_with = "files", help_heading = "From Kafka")]
    to: Option<String>,
    /// Configuration file, for TLS, SASL and sources [default: as `dashlight run` finds it]
    #[arg(long, value_name = "FILE", requires = "kafka", conflicts_with = "files", help_heading = "From Kafka")]
    config: Option<PathBuf>,
}

/// The stretch of time to read, milliseconds since the Unix epoch.
struct Stretch {
    from_ms: Option<i64>,
    to_ms: i64,
    now_ms: i64,
}

impl Stretch {
    fn of(args: &Args) -> Result<Self, Failure> {
        let when = |flag: &str, text: &Option<String>| {
            let parsed = text.as_deref().map(|text| {
                time::parse(text).ok_or_else(|| {
                    Failure::usage(format!(
                        "{flag} {:?} is no time: seconds since 1970, or 2026-01-31T12:00:00Z",
                        harmless(text, 60)
                    ))
                })
            });
            parsed.transpose()
        };
        let now_ms = now_ms();
        let (from, to) = (when("--from", &args.from)?, when("--to", &args.to)?);
        if let Some(duration) = args.duration {
            let to_ms = now_ms.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX));
            return Ok(Stretch { from_ms: Some(now_ms), to_ms, now_ms });
        }
        let to_ms = to.unwrap_or(now_ms);
        if from.is_some_and(|from| from >= to_ms) {
            return Err(Failure::usage(
                "--from is not before --to (which is now unless it is given): nothing lies between",
            ));
        }
        Ok(Stretch { from_ms: from, to_ms, now_ms })
    }

    /// Where the log itself knows the end; of the future it does not.
    fn known_end(&self) -> Option<i64> {
        (self.to_ms <= self.now_ms).then_some(self.to_ms)
    }
}

/// Reads the topic into a recording.
pub fn read(args: &Args, out: &std::path::Path, seed: u64, stop: &AtomicBool) -> Result<Read, Failure> {
    let stretch = Stretch::of(args)?;
    let bootstrap = args.kafka.clone().unwrap_or_default();
    if bootstrap.trim().is_empty() {
        return Err(Failure::usage("--kafka needs an address: HOST:PORT"));
    }
    let flag = Setting { flag: "--kafka", key: "kafka.bootstrap", value: bootstrap.into() };
    let inputs = Inputs { file: args.config.clone(), flags: vec![flag], ..Inputs::of_process() };
    let config = inputs.load()?.config;
    let topic = args.topic.clone().unwrap_or_else(|| Source::default().topic);
    let source = config.source.iter().find(|source| source.topic == topic).cloned();
    let mut source = source.unwrap_or_else(|| Source { topic: topic.clone(), ..Source::default() });
    if source.model.is_empty() {
        source.model.clone_from(&config.model.name);
    }

    let cluster = Cluster::open(&config.kafka).map_err(Failure::usage)?;
    let mut history =
        History::open(&cluster, &topic, stretch.from_ms, stretch.known_end()).map_err(Failure::running)?;
    let mut taker = Taker::new(source, out, seed)?;
    let mut line = Line::new();
    let mut heard = Instant::now();
    loop {
        let over = match stretch.known_end() {
            Some(_) => history.finished(),
            None => now_ms() >= stretch.to_ms,
        };
        if over {
            break;
        }
        let mut failed = None;
        history.poll(BATCH, WAIT, |record| {
            if failed.is_none() {
                failed = taker.take(&record).err();
            }
        });
        if let Some(failure) = failed {
            return Err(failure);
        }
        match cluster.health() {
            Health::Up => heard = Instant::now(),
            Health::Away { reason, .. } if heard.elapsed() > PATIENCE => {
                return Err(Failure::running(format!(
                    "Kafka at {} went away while topic {:?} was read ({reason}): nothing is written; try again once it is back",
                    cluster.bootstrap(),
                    harmless(&topic, 100)
                )));
            }
            Health::Away { .. } => {}
        }
        line.show(|| taker.words(stretch.to_ms - now_ms(), cluster.health()));
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::running("stopped while reading: nothing was learned yet, nothing is written"));
        }
    }
    line.clear();
    taker.finish(&topic, cluster.bootstrap())
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A record kept until it is known which sensors there are.
struct Kept {
    key: Vec<u8>,
    payload: Vec<u8>,
    received_ms: i64,
}

/// Takes records: finds out which sensors there are, then records readings.
struct Taker {
    source: Source,
    name: String,
    seed: u64,
    looked_at: Vec<Kept>,
    bytes: usize,
    open: Option<Open>,
    rows: u64,
    /// Records that are no readings, and why the first of them is none.
    refused: u64,
    reason: Option<String>,
    span: (i64, i64),
}

struct Open {
    schema: Schema,
    codec: Codec,
    recorder: Recorder,
    row: Vec<f32>,
}

impl Taker {
    fn new(source: Source, out: &std::path::Path, seed: u64) -> Result<Self, Failure> {
        let name = out.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let mut taker = Taker {
            source,
            name,
            seed,
            looked_at: Vec::new(),
            bytes: 0,
            open: None,
            rows: 0,
            refused: 0,
            reason: None,
            span: (i64::MAX, i64::MIN),
        };
        if taker.source.codec != Grammar::Json {
            // Values without names: they are those of the model that scores this topic.
            let model = Model::load(&taker.source.model).map_err(Failure::usage)?;
            taker.begin(Schema::new(taker.name.clone(), model.schema().sensors().to_vec()).map_err(Failure::usage)?)?;
        }
        Ok(taker)
    }

    fn begin(&mut self, schema: Schema) -> Result<(), Failure> {
        let codec = Codec::of_source(&self.source, Arc::new(schema.clone()))
            .map_err(|error| Failure::usage(format!("[[source]] of topic {:?}: {error}", self.source.topic)))?;
        let recorder = Recorder::new(schema.width(), MOST_VALUES, self.seed);
        self.open = Some(Open { row: vec![f32::NAN; schema.width()], schema, codec, recorder });
        Ok(())
    }

    fn take(&mut self, record: &Record<'_>) -> Result<(), Failure> {
        let key = record.key.unwrap_or_default();
        if self.open.is_some() {
            self.decode(key, record.payload, record.received_ms);
            return Ok(());
        }
        self.bytes += record.payload.len();
        self.looked_at.push(Kept { key: key.into(), payload: record.payload.into(), received_ms: record.received_ms });
        if self.looked_at.len() >= LOOK || self.bytes >= LOOK_BYTES { self.settle() } else { Ok(()) }
    }

    /// Settles which sensors there are, and takes the records that were kept for it.
    fn settle(&mut self) -> Result<(), Failure> {
        let kept = std::mem::take(&mut self.looked_at);
        let names = sensors_of(kept.iter().map(|kept| &kept.payload[..]), &self.source);
        if names.len() > MOST_SENSORS {
            return Err(Failure::usage(format!(
                "topic {:?}: its readings have {} numeric fields; at most {MOST_SENSORS} sensors can be learned at once",
                harmless(&self.source.topic, 100),
                names.len()
            )));
        }
        if names.is_empty() {
            // Said with the first reason at the end; a schema is needed to know that reason.
            self.begin(Schema::car_sensors())?;
        } else {
            let schema = Schema::new(self.name.clone(), names.iter().map(sensor_named).collect());
            self.begin(schema.map_err(Failure::usage)?)?;
        }
        for Kept { key, payload, received_ms } in kept {
            self.decode(&key, &payload, received_ms);
        }
        Ok(())
    }

    fn decode(&mut self, key: &[u8], payload: &[u8], received_ms: i64) {
        let Some(Open { codec, recorder, row, .. }) = &mut self.open else { return };
        let car = |car: Option<&str>| match (car, std::str::from_utf8(key)) {
            (Some(car), _) => Ok(car.to_owned()),
            (None, Ok(key)) if !key.is_empty() => Ok(key.to_owned()),
            (None, _) => Err("no car: the record has no key that is text, and the payload names none".to_owned()),
        };
        let decoded = codec.decode(payload, row).map_err(|error| error.to_string());
        let known = decoded.and_then(|decoded| Ok((car(decoded.car.as_deref())?, decoded.time_ms)));
        match known {
            Ok((car, time_ms)) => {
                let time_ms = time_ms.unwrap_or(received_ms);
                recorder.push(&car, time_ms, row);
                self.rows += 1;
                self.span = (self.span.0.min(time_ms), self.span.1.max(time_ms));
            }
            Err(reason) => {
                self.refused += 1;
                self.reason.get_or_insert(reason);
            }
        }
    }

    /// `read 12000 readings, 3m 20s left`
    fn words(&self, left_ms: i64, health: Health) -> String {
        let rows = self.rows + self.looked_at.len() as u64;
        let left = match u64::try_from(left_ms / 1000) {
            Ok(seconds) if seconds > 0 => {
                format!(", {} left", humantime::format_duration(Duration::from_secs(seconds)))
            }
            _ => String::new(),
        };
        match health {
            Health::Up => format!("read {rows} readings{left}"),
            Health::Away { .. } => format!("read {rows} readings{left}; Kafka does not answer"),
        }
    }

    fn finish(mut self, topic: &str, address: &str) -> Result<Read, Failure> {
        if !self.looked_at.is_empty() {
            self.settle()?;
        }
        let shown = harmless(topic, 100).into_owned();
        let reason = self.reason.unwrap_or_default();
        let (Some(Open { schema, recorder, .. }), true) = (self.open, self.rows > 0) else {
            return Err(Failure::usage(match self.refused {
                0 => format!(
                    "topic {shown:?} of {address} holds no record of that time: choose another, or wait with --for"
                ),
                refused => {
                    format!(
                        "topic {shown:?} of {address}: none of its {refused} records is a reading; the first: {reason}"
                    )
                }
            }));
        };
        if self.refused > 0 {
            eprintln!("dashlight: left out {} records that are no readings; the first: {reason}", self.refused);
        }
        let cars = recorder.cars() as u64;
        Ok(Read {
            recording: recorder.finish(),
            schema,
            rows: self.rows,
            cars,
            left_out: 0,
            first_ms: self.span.0,
            last_ms: self.span.1,
            data: vec![format!("topic {shown}")],
        })
    }
}

/// The fields of these JSON objects that hold numbers and nothing else, but for the car's and the time's: a car's sensors in their
/// usual order, then the others by name.
fn sensors_of<'a>(payloads: impl Iterator<Item = &'a [u8]>, source: &Source) -> Vec<String> {
    let car_field = match source.car.parse() {
        Ok(Car::Field(name)) => name,
        _ => String::new(),
    };
    let mut numeric: BTreeMap<String, bool> = BTreeMap::new();
    for payload in payloads {
        let Ok(fields) = serde_json::from_slice::<BTreeMap<String, serde_json::Value>>(payload) else { continue };
        for (name, value) in fields {
            let is_number = match &value {
                serde_json::Value::Null => continue,
                serde_json::Value::Number(_) | serde_json::Value::Bool(_) => true,
                serde_json::Value::String(text) => text.trim().parse::<f32>().is_ok_and(f32::is_finite),
                _ => false,
            };
            *numeric.entry(name).or_insert(true) &= is_number;
            if numeric.len() > 4 * MOST_SENSORS {
                // Whoever invents a new name for each reading is refused by the count.
                return numeric.into_keys().collect();
            }
        }
    }
    let known = Schema::car_sensors();
    let place = |name: &str| known.position(name).unwrap_or(usize::MAX);
    let names: BTreeSet<(usize, String)> = numeric
        .into_iter()
        .filter(|(name, is_number)| *is_number && *name != car_field && *name != source.time)
        .map(|(name, _)| (place(&name), name))
        .collect();
    names.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_always_numbers_are_sensors_a_cars_own_first() {
        let payloads: [&[u8]; 3] = [
            br#"{"zeta":1,"speed":2.5,"vin":7,"time":1,"note":"hi","coolant_temp":null,"alpha":true}"#,
            br#"{"zeta":"4.5","coolant_temp":90,"alpha":"off","nested":{"a":1}}"#,
            b"no JSON at all",
        ];
        let source = Source { car: "field:vin".into(), ..Source::default() };
        assert_eq!(sensors_of(payloads.into_iter(), &source), ["coolant_temp", "speed", "zeta"]);
    }

    #[test]
    fn a_stretch_that_ends_before_it_begins_is_refused() {
        let args = |from: &str, to: &str| Args {
            kafka: Some("localhost:9092".into()),
            topic: None,
            duration: None,
            from: Some(from.into()),
            to: Some(to.into()),
            config: None,
        };
        assert!(Stretch::of(&args("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z")).is_err());
        let error = Stretch::of(&args("yesterday", "0")).err().map(|failure| failure.to_string());
        assert!(error.is_some_and(|text| text.contains("--from \"yesterday\" is no time")));
        let day = Stretch::of(&args("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")).ok();
        assert!(day.is_some_and(|day| day.known_end() == Some(1_767_312_000_000)));
    }
}
