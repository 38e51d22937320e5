//! `dashlight replay`: Publishes a recorded file as live traffic.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::simulate::{checked_address, runtime, stop_on_signal};
use crate::failure::Failure;
use crate::simulate::link::{Link, LinkOptions, Qos};
use crate::telemetry::file::FileReader;
use crate::telemetry::{Schema, Sensor, encode_json};

/// Publishes a recorded file as live traffic
#[derive(Debug, clap::Args)]
pub struct Args {
    /// CSV with the columns time,car and any sensors, gzip if it ends in .gz; `-` is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// MQTT broker to publish to; a user's password is read from DASHLIGHT_MQTT_PASSWORD
    #[arg(long, value_name = "[USER@]HOST:PORT")]
    mqtt: String,
    /// How many times as fast as it was recorded; max is as fast as the broker takes it
    #[arg(long, default_value = "1", value_name = "FACTOR|max", value_parser = parse_speed)]
    speed: Speed,
    /// Topic; {car} stands for the car
    #[arg(long, default_value = "vehicles/sensor/data/{car}", value_name = "PATTERN")]
    topic: String,
    /// MQTT quality of service
    #[arg(long, value_name = "0|1|2", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Speed {
    Times(f64),
    Max,
}

fn parse_speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    match text.parse::<f64>() {
        Ok(times) if times.is_finite() && times > 0.0 => Ok(Speed::Times(times)),
        _ => Err("a number above 0, or max".into()),
    }
}

/// Readings published between two looks at the connection.
const BATCH: usize = 256;
/// How long a run that was stopped waits for acknowledgements.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a wait looks whether to stop.
const LOOK: Duration = Duration::from_millis(200);

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let (address, login) = checked_address(&args.mqtt)?;
    check_topic(&args.topic)?;
    let mut input = FileReader::open(&args.file).map_err(Failure::usage)?;
    let sensors = input.sensors().iter().map(Sensor::named).collect();
    let schema =
        Schema::new("replay", sensors).map_err(|error| Failure::usage(format!("{}, line 1: {error}", input.file())))?;
    let qos = Qos::level(args.qos).unwrap_or_default();
    let stop = stop_on_signal()?;
    runtime()?.block_on(async {
        let client_id = format!("dashlight-replay-{}", std::process::id());
        let mut link = Link::new(LinkOptions { address, client_id, login, qos });
        link.connect().await.map_err(Failure::running)?;
        let begun = Instant::now();
        let sent = publish_all(&mut input, &schema, &args, &mut link, &stop).await;
        // Whatever ended it: what went out is waited for, and said.
        settle(&mut link, &stop).await;
        let deadline = Instant::now() + if stop.load(Ordering::Relaxed) { PATIENCE } else { Duration::ZERO };
        let (link, settled) = link.close(deadline).await;
        let acknowledged =
            if qos == Qos::AtMostOnce { String::new() } else { format!(", {} acknowledged", link.acknowledged()) };
        let seconds = begun.elapsed().as_secs_f64();
        eprintln!("dashlight: {} readings published{acknowledged} in {seconds:.1} s", link.published());
        sent?;
        if settled { Ok(()) } else { Err(Failure::running("not everything was acknowledged when it was stopped")) }
    })
}

fn check_topic(topic: &str) -> Result<(), Failure> {
    let wrong =
        |why: &str| Err(Failure::usage(format!("--topic {topic:?} {why}, such as vehicles/sensor/data/{{car}}")));
    if topic.is_empty() || topic.len() > 32_768 {
        wrong("is no topic: give one of at most 32,768 bytes")
    } else if topic.contains(['+', '#', '\0']) {
        wrong("is a filter: publishing takes a topic without + and #")
    } else {
        Ok(())
    }
}

async fn publish_all(
    input: &mut FileReader,
    schema: &Schema,
    args: &Args,
    link: &mut Link,
    stop: &Arc<AtomicBool>,
) -> Result<(), Failure> {
    let mut row = vec![f32::NAN; schema.width()];
    let mut topic = String::new();
    let file = input.file().to_owned();
    let begun = Instant::now();
    let mut first = None;
    let mut batch = 0;
    while let Some(meta) = input.next_into(&mut row).map_err(Failure::usage)? {
        if meta.car.contains(['+', '#', '/', '\0']) || meta.car.len() > 1024 {
            let car = crate::text::harmless(meta.car, 60);
            return Err(Failure::usage(format!(
                "{file}, line {}: car {car:?} cannot be a level of an MQTT topic: no / + # in a car's name",
                meta.line
            )));
        }
        topic.clear();
        topic.push_str(&args.topic.replace("{car}", meta.car));
        let time_ms = meta.time_ms;
        if let Speed::Times(times) = args.speed {
            let since = time_ms - *first.get_or_insert(time_ms);
            // A file that is not in the order of time is published in the order it has.
            let due = begun + Duration::from_secs_f64(since.max(0) as f64 / 1000.0 / times);
            while Instant::now() < due && !stop.load(Ordering::Relaxed) {
                link.pace(due.min(Instant::now() + LOOK)).await;
            }
        }
        batch += 1;
        if batch == BATCH || !link.has_room() {
            batch = 0;
            // Once, to write; then for as long as it takes to have room.
            link.drive(Instant::now(), |_| true).await;
            while !link.has_room() && !stop.load(Ordering::Relaxed) {
                link.drive(Instant::now() + LOOK, Link::has_ample_room).await;
            }
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        link.publish(topic.as_bytes(), |payload| encode_json(schema, &row, time_ms, None, payload));
    }
    Ok(())
}

/// Waits until all is acknowledged, or it is to stop.
async fn settle(link: &mut Link, stop: &Arc<AtomicBool>) {
    while !link.is_settled() && !stop.load(Ordering::Relaxed) {
        link.drive(Instant::now() + LOOK, Link::is_settled).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_factor_or_max() {
        assert_eq!(parse_speed("10"), Ok(Speed::Times(10.0)));
        assert_eq!(parse_speed("0.5"), Ok(Speed::Times(0.5)));
        assert_eq!(parse_speed("max"), Ok(Speed::Max));
        for wrong in ["0", "-1", "inf", "NaN", "fast", ""] {
            assert!(parse_speed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_filter_is_no_topic() {
        assert!(check_topic("cars/{car}/all").is_ok());
        for wrong in ["", "cars/+/all", "cars/#"] {
            assert!(check_topic(wrong).is_err(), "{wrong}");
        }
    }
}
