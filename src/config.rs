//! Configuration: defaults < file < environment < flags.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything that can be configured, with its defaults.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where devices connect, or which brokers to connect to.
    pub mqtt: Mqtt,
    /// The log.
    pub kafka: Kafka,
    /// Which MQTT topics carry readings, and how they are written.
    pub source: Vec<Source>,
    /// The model that scores, and what is done with scores.
    pub model: Model,
    /// The simulated fleet.
    pub simulate: Simulate,
    /// The screen.
    pub console: Console,
    /// Bounds.
    pub limits: Limits,
    /// Directory for what must survive a restart; `None` is `$XDG_STATE_HOME/dashlight`.
    pub state: Option<PathBuf>,
    /// Logging.
    pub log: Log,
}

/// `[mqtt]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mqtt {
    /// Address of the embedded broker (MQTT 3.1.1 and 5 on one port). Empty: none.
    pub listen: String,
    /// External brokers to subscribe to: `mqtt://[user@]host:1883`. The password comes from `password_file` or the environment.
    pub connect: Vec<String>,
    /// Client id at external brokers; empty: made from the host's name, so that the session persists.
    pub client_id: String,
    /// File with the password for external brokers.
    pub password_file: Option<PathBuf>,
}

impl Default for Mqtt {
    fn default() -> Self {
        Mqtt { listen: "127.0.0.1:1883".into(), connect: Vec::new(), client_id: String::new(), password_file: None }
    }
}

/// `[kafka]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// Bootstrap servers; empty: the embedded cluster, in memory.
    pub bootstrap: String,
    /// Consumer group.
    pub group: String,
    /// Partitions of topics that are created.
    pub partitions: i32,
    /// Replication factor of topics that are created; -1 is the cluster's default.
    pub replication: i32,
    /// Any librdkafka property, for all clients. A value `env:NAME` or `file:PATH` is read from there.
    pub properties: BTreeMap<String, String>,
    /// Names of the topics dashlight writes beside the raw ones.
    pub topics: Topics,
}

impl Default for Kafka {
    fn default() -> Self {
        Kafka {
            bootstrap: String::new(),
            group: "dashlight".into(),
            partitions: 8,
            replication: -1,
            properties: BTreeMap::new(),
            topics: Topics::default(),
        }
    }
}

/// `[kafka.topics]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Topics {
    /// The score of every reading, if `model.scores = "all"`.
    pub scores: String,
    /// Readings over their threshold.
    pub breaches: String,
    /// Episodes opened, updated, closed; operators' marks.
    pub episodes: String,
    /// What could not be decoded, with the reason.
    pub dead_letters: String,
}

impl Default for Topics {
    fn default() -> Self {
        Topics {
            scores: "anomaly-detection".into(),
            breaches: "anomaly-detection-breaches".into(),
            episodes: "anomaly-episodes".into(),
            dead_letters: "dead-letters".into(),
        }
    }
}

/// `[[source]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// MQTT topic filters whose messages are readings of this source.
    pub mqtt: Vec<String>,
    /// Kafka topic they are written to and read from.
    pub topic: String,
    /// How a payload is written.
    pub codec: Codec,
    /// Where the car's name comes from: `topic` (the last level), `field:NAME` (of a JSON object), `event` (a delimited payload's event id).
    pub car: String,
    /// JSON field with the event time (seconds, milliseconds or RFC 3339); empty: the time received.
    pub time: String,
    /// Model name or file; empty: `model.name`.
    pub model: String,
}

impl Default for Source {
    fn default() -> Self {
        Source {
            mqtt: vec!["vehicles/sensor/data/+".into()],
            topic: "car-sensor".into(),
            codec: Codec::Json,
            car: "topic".into(),
            time: "time".into(),
            model: String::new(),
        }
    }
}

/// How a payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// An object of sensor names.
    Json,
    /// `EVENTID,v1#v2#…`
    Delimited,
    /// Values in the model's order, comma-separated.
    Csv,
}

/// Which scores are written to Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scores {
    /// Only breaches.
    #[default]
    Breaches,
    /// Every reading's.
    All,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// A built-in model's name, or the path of an ONNX file.
    pub name: String,
    /// Which scores are written to Kafka.
    pub scores: Scores,
    /// Overrides the manifest's threshold.
    pub threshold: Option<f64>,
}

impl Default for Model {
    fn default() -> Self {
        Model { name: "car-sensors".into(), scores: Scores::Breaches, threshold: None }
    }
}

/// `[simulate]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Simulate {
    /// Cars; 0: no simulated fleet. `None`: 100 if nothing else is configured to send readings, else none.
    pub cars: Option<usize>,
    /// Readings per second of each car.
    pub rate: f64,
    /// Faults per car and hour.
    pub faults: f64,
    /// Seed of the fleet; `None`: from the clock.
    pub seed: Option<u64>,
    /// MQTT connections; `None`: one a car up to 100, and 100 beyond.
    pub connections: Option<usize>,
}

impl Default for Simulate {
    fn default() -> Self {
        Simulate { cars: None, rate: 5.0, faults: 1.0, seed: None, connections: None }
    }
}

/// `[console]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Console {
    /// Theme's name or file.
    pub theme: String,
    /// `auto`, `truecolor`, `256`, `16`, `none`.
    pub color: String,
    /// Only ASCII characters.
    pub ascii: bool,
}

impl Default for Console {
    fn default() -> Self {
        Console { theme: "dark".into(), color: "auto".into(), ascii: false }
    }
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Cars kept; readings of further ones are dead-lettered.
    pub cars: usize,
    /// Seconds without a reading after which a car is stale.
    pub stale_after: f64,
    /// MQTT connections at once.
    pub connections: usize,
    /// Largest MQTT packet in bytes; a larger one ends its connection.
    pub packet_bytes: usize,
    /// Largest reading in bytes; a larger one is dead-lettered, cut to its beginning.
    pub reading_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            cars: 100_000,
            stale_after: 30.0,
            connections: 10_000,
            packet_bytes: 16 * 1024 * 1024,
            reading_bytes: 512 * 1024,
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `warn,dashlight=debug`.
    pub level: String,
    /// File; `None`: stderr when headless, `dashlight.log` under `state` otherwise.
    pub file: Option<PathBuf>,
}

impl Default for Log {
    fn default() -> Self {
        Log { level: "info".into(), file: None }
    }
}
