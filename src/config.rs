//! Configuration: defaults < file < environment < flags.
//!
//! The sections below are the one table of keys: name, type, default and doc string are declared once, and the check of
//! a file ([`file`]), the environment's names, `run --print-config` ([`print`]) and `docs/configuration.md` are derived.
//! [`load`] finds and merges the layers, [`check`] and [`listeners`] judge the values; both say in one sentence where a mistake stands and
//! what to write instead. Knows no broker, model or terminal: whether a named thing exists is for its owner to say.

use std::path::PathBuf;

pub mod check;
pub mod error;
pub mod file;
pub mod keys;
pub mod listeners;
pub mod load;
pub mod print;
pub mod secret;

pub use error::{ConfigError, Origin};
pub use keys::{Key, Kind};
pub use load::{Inputs, Loaded, Setting};
pub use print::print;
pub use secret::Properties;

use keys::sections;

sections! {
    /// Everything that can be configured.
    Config {
        /// Where devices connect, and which brokers to connect to.
        mqtt: Mqtt = Mqtt::default(),
        /// When a device is told that its message is kept.
        ingest: Ingest = Ingest::default(),
        /// The write-ahead log, which keeps messages on the disk until Kafka has them.
        wal: Wal = Wal::default(),
        /// The log that readings are written to and read from.
        kafka: Kafka = Kafka::default(),
        /// Which MQTT topics carry readings, and how they are written. Without any `[[source]]`, the one shown here applies.
        source: Vec<Source> = vec![Source::default()],
        /// The model that scores, and what is done with scores.
        model: Model = Model::default(),
        /// The simulated fleet.
        simulate: Simulate = Simulate::default(),
        /// The screen.
        console: Console = Console::default(),
        /// Bounds: what strangers send can cost this much, never more.
        limits: Limits = Limits::default(),
        /// Directory for what must survive a restart. Not set: `$XDG_STATE_HOME/dashlight`, else `~/.local/state/dashlight`.
        state: Option<PathBuf> = None,
        /// dashlight's own log.
        log: Log = Log::default(),
    }

    /// `[mqtt]`: where devices connect, and which brokers to connect to.
    Mqtt {
        /// Addresses of the embedded broker, `IP:PORT`, several with commas between them; `:PORT` is every interface, and
        /// `mqtts://IP:PORT` speaks TLS (see `mqtt.tls`). Port 0 takes a free one; a taken port makes way for the next free one.
        /// Empty: no embedded broker.
        listen: String = "127.0.0.1:1883".into(),
        /// File with the users of the embedded broker and their hashed passwords, written by `dashlight passwd`. It is read again
        /// when it changes; who is no longer in it, or has another password, is disconnected.
        users_file: Option<PathBuf> = None,
        /// Whether the embedded broker lets in who names no user. Not set: only as long as there is no users' file and every
        /// address is on loopback.
        anonymous: Option<bool> = None,
        /// External brokers to subscribe to, each `mqtt://[USER@]HOST[:PORT]`, or `mqtts://` for TLS. The password comes from
        /// `password_file` or from the environment variable DASHLIGHT_MQTT_PASSWORD.
        connect: Vec<String> = Vec::new(),
        /// Client id at external brokers. Empty: made from the host's name, so that the broker knows the session again.
        client_id: String = String::new(),
        /// File whose first line is the password for external brokers.
        password_file: Option<PathBuf> = None,
        /// PEM file with the authorities that external brokers' certificates are checked against. Not set: the system's.
        ca_file: Option<PathBuf> = None,
        /// TLS of the embedded broker's `mqtts://` addresses.
        tls: MqttTls = MqttTls::default(),
        /// What clients of the embedded broker may do. Without any `[[mqtt.rule]]`, everything; with some, only what those that fit a
        /// client allow it.
        rule: Vec<Rule> = Vec::new(),
        /// More external brokers, each with a user, password and certificate of its own.
        broker: Vec<Broker> = Vec::new(),
    }

    /// `[mqtt.tls]`: TLS 1.2 and 1.3 of the embedded broker's `mqtts://` addresses. The files are read again when they change.
    MqttTls {
        /// PEM file with the broker's certificate, and those between it and its authority.
        certificate: Option<PathBuf> = None,
        /// PEM file with the certificate's private key.
        key: Option<PathBuf> = None,
        /// PEM file with the authorities whose client certificates are accepted. Such a certificate stands for user and password:
        /// its common name, else its first DNS name, is the user. Not set: no certificate is asked for.
        client_ca: Option<PathBuf> = None,
        /// Whether who connects to a `mqtts://` address must have a certificate, or may give user and password instead.
        require_client_certificate: bool = false,
    }

    /// `[[mqtt.rule]]`: what some clients may do. In filters `%u` stands for the client's user and `%c` for its client id.
    Rule {
        /// Users it is for; `*` stands for any run of characters. Not set: everybody, also who names no user.
        user: Option<String> = None,
        /// Client ids it is for; `*` stands for any run of characters, `%u` for the user. Not set: every one.
        client: Option<String> = None,
        /// Topic filters of what they may publish.
        publish: Vec<String> = Vec::new(),
        /// Topic filters they may subscribe to, these or narrower ones.
        subscribe: Vec<String> = Vec::new(),
    }

    /// `[[mqtt.broker]]`: an external broker with a user, password and certificate of its own.
    Broker {
        /// Its address, `mqtt://[USER@]HOST[:PORT]`, or `mqtts://` for TLS.
        url: String = String::new(),
        /// Where the user's password is: `env:NAME` or `file:PATH`. Empty: there is none.
        password: String = String::new(),
        /// Client id there. Empty: `mqtt.client_id`.
        client_id: String = String::new(),
        /// PEM file with the authorities that its certificate is checked against. Not set: `mqtt.ca_file`.
        ca_file: Option<PathBuf> = None,
        /// PEM file with our certificate, for a broker that asks for one.
        certificate: Option<PathBuf> = None,
        /// PEM file with our certificate's private key.
        key: Option<PathBuf> = None,
    }

    /// `[ingest]`: when a device is told that its message is kept.
    Ingest {
        /// A message is acknowledged `disk`: once it is on the disk, in the write-ahead log; `kafka`: once Kafka has it; `memory`: at once, and
        /// it is lost if the process ends before Kafka has it. Not set: `disk`, or `kafka` with the embedded Kafka, which is in memory itself.
        ack: Option<Ack> = None,
    }

    /// `[wal]`: the write-ahead log, which keeps messages on the disk until Kafka has them. Used with `ingest.ack = "disk"`.
    Wal {
        /// Its directory, which one process has to itself. Not set: `wal` in the state directory.
        directory: Option<PathBuf> = None,
        /// Most bytes it takes up. Once it is full, devices wait until Kafka takes from it.
        max_bytes: usize = 4 * 1024 * 1024 * 1024,
        /// Seconds a message may wait in it for Kafka. Once one has waited longer, devices wait until Kafka takes it: what was acknowledged is
        /// never dropped. Not set: as long as there is room.
        max_age: Option<f64> = None,
    }

    /// `[kafka]`: the log that readings are written to and read from.
    Kafka {
        /// Bootstrap servers, `HOST:PORT[,HOST:PORT…]`. Empty: the embedded cluster, in memory, for demo and development.
        bootstrap: String = String::new(),
        /// Consumer group. Processes of one group share the cars among them.
        group: String = "dashlight".into(),
        /// Partitions of topics that dashlight creates.
        partitions: i32 = 8,
        /// Replication factor of topics that dashlight creates; -1 leaves it to the cluster.
        replication: i32 = -1,
        /// Any librdkafka property, for all clients: TLS and SASL among them. A value `env:NAME` or `file:PATH` is read from there.
        properties: Properties = Properties::default(),
        /// Names of the topics that dashlight writes beside the raw readings.
        topics: Topics = Topics::default(),
    }

    /// `[kafka.topics]`: names of the topics that dashlight writes beside the raw readings.
    Topics {
        /// The score of every reading, with `model.scores = "all"`.
        scores: String = "anomaly-detection".into(),
        /// Readings over their threshold, with the sensors to blame.
        breaches: String = "anomaly-detection-breaches".into(),
        /// Episodes opened, updated, closed; operators' marks.
        episodes: String = "anomaly-episodes".into(),
        /// What could not be taken or decoded, with the reason.
        dead_letters: String = "dead-letters".into(),
    }

    /// `[[source]]`: which MQTT topics carry readings, and how they are written.
    Source {
        /// MQTT topic filters whose messages are readings of this source.
        mqtt: Vec<String> = vec!["vehicles/sensor/data/+".into()],
        /// Kafka topic they are written to and read from.
        topic: String = "car-sensor".into(),
        /// How a payload is written: `json` (an object of sensor names), `delimited` (`EVENTID,v1#v2#…`) or `csv` (values in the
        /// model's order).
        codec: Codec = Codec::Json,
        /// Where the car's name comes from: `topic` (the MQTT topic's last level), `field:NAME` (of a JSON object) or `event` (the
        /// event id with which a delimited or csv payload begins).
        car: String = "topic".into(),
        /// JSON field with the event time: seconds, milliseconds or RFC 3339. Empty: the time received.
        time: String = "time".into(),
        /// Model for these readings, named as in `model.name`. Empty: `model.name` itself.
        model: String = String::new(),
    }

    /// `[model]`: the model that scores, and what is done with scores.
    Model {
        /// A built-in model's name, the path of an ONNX file, or of a folder of which the newest one counts. Files are looked at each
        /// second: a replaced one is taken up while running, one that cannot be used is refused and the one before goes on.
        name: String = "car-sensors".into(),
        /// A challenger, named as in `name`: judges the readings of every source without a model of its own beside the live model, with its
        /// own threshold. It publishes nothing; the Pipeline view and the summary compare the two. Empty: none.
        shadow: String = String::new(),
        /// Which scores are written to Kafka: `breaches` only, or `all` (which doubles the log's load).
        scores: Scores = Scores::Breaches,
        /// Threshold to use instead of the one in the model's manifest.
        threshold: Option<f64> = None,
    }

    /// `[simulate]`: the simulated fleet.
    Simulate {
        /// Cars; 0: no simulated fleet. Not set: 100 if readings could come from nowhere else (no external broker, no real Kafka,
        /// no `[[source]]` and a listener on loopback), else none.
        cars: Option<usize> = None,
        /// Readings per second of each car.
        rate: f64 = 5.0,
        /// Faults per car and hour.
        faults: f64 = 1.0,
        /// Seed of the fleet. Not set: another fleet at each start.
        seed: Option<u64> = None,
        /// MQTT connections the cars share. Not set: one each for up to 100 cars, and 100 beyond.
        connections: Option<usize> = None,
    }

    /// `[console]`: the screen.
    Console {
        /// Theme: `dark`, `light`, `high-contrast`, `mono`, or a theme file.
        theme: String = "dark".into(),
        /// Colours: `auto`, `truecolor`, `256`, `16` or `none`. `auto` asks NO_COLOR, COLORTERM and TERM.
        color: String = "auto".into(),
        /// Only ASCII characters.
        ascii: bool = false,
    }

    /// `[limits]`: what strangers send can cost this much, never more.
    Limits {
        /// Cars kept; readings of further ones are dead-lettered.
        cars: usize = 100_000,
        /// Seconds without a reading after which a car is stale.
        stale_after: f64 = 30.0,
        /// MQTT connections at once.
        connections: usize = 10_000,
        /// MQTT connections at once from one address (an IPv6 address counts with its /64); 0: as many as in all.
        connections_per_address: usize = 5_000,
        /// Messages a second that one MQTT connection may publish; beyond it the connection is read slower. 0: as many as it can.
        messages_per_second: usize = 100_000,
        /// Bytes a second that one MQTT connection may send; beyond it the connection is read slower. 0: as many as it can.
        bytes_per_second: usize = 64 * 1024 * 1024,
        /// Largest MQTT packet in bytes; a larger one ends its connection.
        packet_bytes: usize = 16 * 1024 * 1024,
        /// Largest reading in bytes; a larger one is dead-lettered, cut to its beginning.
        reading_bytes: usize = 512 * 1024,
    }

    /// `[log]`: dashlight's own log.
    Log {
        /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `warn,dashlight=debug`.
        level: String = "info".into(),
        /// File, replaced when it has grown to 10 MiB (the one before is kept as FILE.1). Not set: stderr when headless, else
        /// `dashlight.log` in the state directory.
        file: Option<PathBuf> = None,
    }
}

keys::choices! {
    /// How a payload is written.
    Codec {
        /// An object of sensor names.
        Json = "json",
        /// `EVENTID,v1#v2#…`
        Delimited = "delimited",
        /// Values in the model's order, comma-separated.
        Csv = "csv",
    }

    /// When a device is told that its message is kept.
    Ack {
        /// Once it is on the disk.
        Disk = "disk",
        /// Once Kafka has it.
        Kafka = "kafka",
        /// At once.
        Memory = "memory",
    }

    /// Which scores are written to Kafka.
    Scores {
        /// Only breaches.
        Breaches = "breaches",
        /// Every reading's.
        All = "all",
    }
}

impl Config {
    /// Cars to simulate: what is configured, else 100 if readings could come from nowhere else.
    ///
    /// A real Kafka, an external broker, a source of one's own, users, or a listener that other machines can reach all say that
    /// real cars are expected, and nobody wants invented ones among them unasked.
    pub fn simulated_cars(&self) -> usize {
        const DEMO: usize = 100;
        let demo = self.mqtt.connect.is_empty()
            && self.mqtt.broker.is_empty()
            && self.mqtt.users_file.is_none()
            && self.kafka.bootstrap.is_empty()
            && self.source == [Source::default()]
            && self.mqtt.is_loopback();
        self.simulate.cars.unwrap_or(if demo { DEMO } else { 0 })
    }
}

impl Mqtt {
    /// Whether the embedded broker can be reached from this machine only; also if there is none.
    pub fn is_loopback(&self) -> bool {
        let addresses = listeners::parse(&self.listen);
        addresses.is_ok_and(|addresses| addresses.iter().all(|listener| listener.address.ip().is_loopback()))
    }

    /// Whether the embedded broker lets in who names no user: as configured, else only if nobody else could come.
    pub fn lets_anyone_in(&self) -> bool {
        self.anonymous.unwrap_or(self.users_file.is_none() && self.is_loopback())
    }
}

impl Config {
    /// When devices are told that their messages are kept: as configured, else once they are on the disk. But where Kafka is
    /// in memory, the disk could not keep what it promises: the message leaves it as soon as Kafka has it.
    pub fn ack(&self) -> Ack {
        let usual = if self.kafka.bootstrap.is_empty() { Ack::Kafka } else { Ack::Disk };
        self.ingest.ack.unwrap_or(usual)
    }
}

impl Source {
    /// The model that scores this source's readings: its own, else `model.name`.
    pub fn model_or<'a>(&'a self, model: &'a Model) -> &'a str {
        if self.model.is_empty() { &model.name } else { &self.model }
    }
}
