//! Judges the values of a configuration: what cannot work is refused before anything starts, with the way out.

mod mqtt;

use super::error::ConfigError;
use super::load::Loaded;
use super::{Codec, Config, Source};

/// Says what is wrong with a value, to be read after its key; `Ok` if nothing.
type Verdict = Result<(), String>;

/// Checks every value; the first that cannot work is told, in the order of declaration.
pub fn check(loaded: &Loaded) -> Result<(), ConfigError> {
    for (key, verdict) in verdicts(&loaded.config) {
        if let Err(why) = verdict {
            return Err(ConfigError::BadValue { origin: loaded.origin(&key), key, why });
        }
    }
    Ok(())
}

fn verdicts(config: &Config) -> Vec<(String, Verdict)> {
    let mut verdicts: Vec<(String, Verdict)> = Vec::new();
    let Config { mqtt, ingest: _, wal, kafka, source, model, simulate, console, limits, state, log } = config;

    verdicts.extend(self::mqtt::verdicts(mqtt));
    let mut say = |key: &str, verdict: Verdict| verdicts.push((key.to_owned(), verdict));

    if let Some(path) = &wal.directory {
        say("wal.directory", not_empty(&path.to_string_lossy(), "name a directory, or leave the key out"));
    }
    say("wal.max_bytes", log_bytes(wal.max_bytes, limits.reading_bytes));
    if let Some(age) = wal.max_age {
        say("wal.max_age", above_zero(age).and_then(|()| at_most(age, 1e9)));
    }

    say("kafka.bootstrap", bootstrap(&kafka.bootstrap));
    say("kafka.group", not_empty(&kafka.group, "name a consumer group, such as \"dashlight\""));
    say("kafka.partitions", within(i64::from(kafka.partitions), 1, 10_000));
    let replication = if kafka.replication == -1 { Ok(()) } else { within(i64::from(kafka.replication), 1, 100) };
    say("kafka.replication", replication.map_err(|why| format!("{why}, or -1 for the cluster's default")));
    let mut topics: Vec<(String, &str)> = Vec::new();
    for (key, topic) in [
        ("kafka.topics.scores", &kafka.topics.scores),
        ("kafka.topics.breaches", &kafka.topics.breaches),
        ("kafka.topics.episodes", &kafka.topics.episodes),
        ("kafka.topics.dead_letters", &kafka.topics.dead_letters),
    ] {
        say(key, kafka_topic(topic).and_then(|()| only_one(&topics, topic, "give each stream a topic of its own")));
        topics.push((key.to_owned(), topic));
    }

    if source.is_empty() {
        say("source", Err("is empty: leave it out for the default source, or describe one".into()));
    }
    let mut filters: Vec<(String, &str)> = Vec::new();
    for (n, one) in source.iter().enumerate() {
        let key = |name: &str| format!("source[{n}].{name}");
        if one.mqtt.is_empty() {
            say(&key("mqtt"), Err("is empty: name a topic filter, such as [\"vehicles/sensor/data/+\"]".into()));
        }
        for (m, filter) in one.mqtt.iter().enumerate() {
            let verdict = topic_filter(filter)
                .and_then(|()| only_one(&filters, filter, "one of the two sources would never get a message"));
            filters.push((format!("{}[{m}]", key("mqtt")), filter));
            say(&format!("{}[{m}]", key("mqtt")), verdict);
        }
        let way_out = "give each source a Kafka topic of its own (`topic = \"…\"`)";
        say(&key("topic"), kafka_topic(&one.topic).and_then(|()| only_one(&topics, &one.topic, way_out)));
        topics.push((key("topic"), &one.topic));
        say(&key("car"), car_from(one));
    }

    say("model.name", not_empty(&model.name, "name a built-in model (car-sensors) or an ONNX file"));
    if let Some(threshold) = model.threshold {
        say("model.threshold", above_zero(threshold));
    }

    say("simulate.rate", above_zero(simulate.rate).and_then(|()| at_most(simulate.rate, 1_000.0)));
    say("simulate.faults", not_negative(simulate.faults));
    if let Some(connections) = simulate.connections {
        say("simulate.connections", at_least_one(connections));
    }

    say("console.theme", not_empty(&console.theme, "name a theme (dark, light, high-contrast, mono) or a theme file"));
    say("console.color", color(&console.color));

    say("limits.cars", at_least_one(limits.cars));
    say("limits.stale_after", above_zero(limits.stale_after));
    say("limits.connections", at_least_one(limits.connections));
    // The upper bound is MQTT's own: four bytes of remaining length.
    say("limits.packet_bytes", within(limits.packet_bytes as i64, 256, 268_435_455));
    say("limits.reading_bytes", within(limits.reading_bytes as i64, 1, limits.packet_bytes as i64));
    if let Some(path) = state {
        say("state", not_empty(&path.to_string_lossy(), "name a directory, or leave the key out"));
    }
    say("log.level", log_level(&log.level));
    if let Some(path) = &log.file {
        say("log.file", not_empty(&path.to_string_lossy(), "name a file, or leave the key out"));
    }
    verdicts
}

/// `HOST:PORT` with a port above zero; says what is wrong with it.
fn host_port(text: &str) -> Result<(&str, u16), String> {
    let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
    let v6 = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || !(v6 || host.chars().all(plain)) {
        return Err("the host is not a name or an IP address".into());
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok((host, port)),
        _ => Err("the port is not a number from 1 to 65535".into()),
    }
}

fn bootstrap(text: &str) -> Verdict {
    if text.is_empty() {
        return Ok(());
    }
    for server in text.split(',') {
        host_port(server.trim()).map_err(|why| {
            let server = crate::text::harmless(server.trim(), 80);
            format!("names the server \"{server}\", but {why}: write HOST:PORT, several with commas between them")
        })?;
    }
    Ok(())
}

/// It takes some segments to remove one.
fn log_bytes(bytes: usize, reading: usize) -> Verdict {
    const LEAST: usize = 16 * 1024 * 1024;
    let least = LEAST.max(reading.saturating_mul(4));
    if bytes >= least {
        return Ok(());
    }
    Err(format!("is {bytes}, and must be at least {least} (16 MiB, and four times limits.reading_bytes)"))
}

fn kafka_topic(name: &str) -> Verdict {
    if name.is_empty() {
        return Err("is empty: name a Kafka topic".into());
    }
    let legal = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if !legal || name.len() > 249 || name == "." || name == ".." {
        let name = crate::text::harmless(name, 60);
        return Err(format!(
            "is \"{name}\", which Kafka takes for no topic: use letters, digits, `.`, `_` and `-`, at most 249 of them"
        ));
    }
    Ok(())
}

fn topic_filter(filter: &str) -> Verdict {
    let shown = crate::text::harmless(filter, 60);
    if filter.is_empty() {
        return Err("is empty: write a topic filter, such as \"vehicles/sensor/data/+\"".into());
    }
    if filter.contains('\0') || filter.len() > 65_535 {
        return Err(format!("is \"{shown}\", which MQTT forbids: no NUL, at most 65535 bytes"));
    }
    let levels: Vec<&str> = filter.split('/').collect();
    for (n, level) in levels.iter().enumerate() {
        if level.contains('#') && (*level != "#" || n + 1 != levels.len()) {
            return Err(format!("is \"{shown}\": `#` must be a whole level and the last one"));
        }
        if level.contains('+') && *level != "+" {
            return Err(format!("is \"{shown}\": `+` must be a whole level"));
        }
    }
    Ok(())
}

fn only_one(taken: &[(String, &str)], name: &str, way_out: &str) -> Verdict {
    match taken.iter().find(|(_, other)| *other == name) {
        Some((key, _)) => Err(format!("is \"{name}\", and so is `{key}`: {way_out}")),
        None => Ok(()),
    }
}

fn car_from(source: &Source) -> Verdict {
    let shown = crate::text::harmless(&source.car, 60);
    match (source.car.as_str(), source.codec) {
        ("topic", _) | ("event", Codec::Delimited | Codec::Csv) => Ok(()),
        ("event", Codec::Json) => {
            Err("is \"event\", but a JSON payload has no event id: use \"topic\" or \"field:NAME\"".into())
        }
        (text, codec) => match (text.strip_prefix("field:"), codec) {
            (Some(""), _) => Err("is \"field:\" without a name: write \"field:NAME\"".into()),
            (Some(_), Codec::Json) => Ok(()),
            (Some(_), codec) => {
                Err(format!("is \"{shown}\", but only JSON has fields, not {}: use \"topic\"", codec.word()))
            }
            (None, _) => Err(format!("is \"{shown}\", and must be \"topic\", \"field:NAME\" or \"event\"")),
        },
    }
}

fn color(word: &str) -> Verdict {
    const WORDS: [&str; 5] = ["auto", "truecolor", "256", "16", "none"];
    if WORDS.contains(&word) {
        return Ok(());
    }
    Err(format!("is \"{}\", and must be one of {}", crate::text::harmless(word, 40), WORDS.join(", ")))
}

fn log_level(text: &str) -> Verdict {
    crate::logging::filter(text).map(drop).map_err(|reason| {
        let text = crate::text::harmless(text, 80);
        format!("is \"{text}\", which is no level or filter ({reason}): write error, warn, info, debug or trace")
    })
}

fn not_empty(text: &str, way_out: &str) -> Verdict {
    if text.is_empty() { Err(format!("is empty: {way_out}")) } else { Ok(()) }
}

fn within(number: i64, low: i64, high: i64) -> Verdict {
    if (low..=high).contains(&number) { Ok(()) } else { Err(format!("is {number}, and must be from {low} to {high}")) }
}

fn at_least_one(number: usize) -> Verdict {
    if number >= 1 { Ok(()) } else { Err(format!("is {number}, and must be 1 or more")) }
}

fn above_zero(number: f64) -> Verdict {
    if number.is_finite() && number > 0.0 { Ok(()) } else { Err(format!("is {number}, and must be above 0")) }
}

fn not_negative(number: f64) -> Verdict {
    if number.is_finite() && number >= 0.0 { Ok(()) } else { Err(format!("is {number}, and must be 0 or more")) }
}

fn at_most(number: f64, high: f64) -> Verdict {
    if number <= high { Ok(()) } else { Err(format!("is {number}, and must be at most {high}")) }
}
