//! From the configuration to librdkafka's properties: what is ours to set, what can be overridden, and secrets.

use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError as NativeError;

use super::error::KafkaError;
use crate::config;
use crate::config::Properties;

/// Properties that the delivery promise, or another key of the configuration, already decides.
const OURS: &[(&str, &str)] = &[
    ("bootstrap.servers", "set kafka.bootstrap instead"),
    ("metadata.broker.list", "set kafka.bootstrap instead"),
    ("group.id", "set kafka.group instead"),
    ("enable.idempotence", "is always on: nothing is lost, doubled or reordered on the way"),
    ("acks", "is always all: what is acknowledged is on every replica in sync"),
    ("request.required.acks", "is always all: what is acknowledged is on every replica in sync"),
    ("message.timeout.ms", "is always unlimited: what was accepted is delivered, however long Kafka is away"),
    ("delivery.timeout.ms", "is always unlimited: what was accepted is delivered, however long Kafka is away"),
    ("enable.auto.offset.store", "is always off: an offset is stored once its reading is scored"),
    ("enable.auto.commit", "is always on, and commits only what is scored"),
    ("partitioner", "is always murmur2_random, which every other Kafka client agrees with"),
    ("transactional.id", "has no use here"),
    ("test.mock.num.brokers", "is what an empty kafka.bootstrap is for"),
    ("log.queue", "is how log lines reach dashlight's own log"),
    ("statistics.interval.ms", "is how dashlight knows whether Kafka is up"),
];

/// Bytes of one record that the embedded cluster takes.
pub(super) const EMBEDDED_MESSAGE_BYTES: usize = 1024 * 1024;
/// Bytes of one batch that the embedded cluster takes.
pub(super) const EMBEDDED_BATCH_BYTES: usize = 256 * 1024;
/// Produce requests on their way to the embedded cluster at once.
pub(super) const EMBEDDED_REQUESTS: usize = 2;

/// What all clients of a cluster are set to.
#[derive(Clone)]
pub(super) struct Settings {
    bootstrap: String,
    embedded: bool,
    properties: Vec<(String, String)>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys only: any value may be a secret.
        let keys: Vec<_> = self.properties.iter().map(|(key, _)| key).collect();
        f.debug_struct("Settings").field("bootstrap", &self.bootstrap).field("properties", &keys).finish()
    }
}

impl Settings {
    /// Settings for an embedded cluster that listens on `bootstrap`.
    pub fn embedded(bootstrap: String) -> Self {
        Settings { bootstrap, embedded: true, properties: Vec::new() }
    }

    /// Settings for a remote cluster; reads the secrets, and asks librdkafka whether it takes each property.
    pub fn remote(kafka: &config::Kafka) -> Result<Self, KafkaError> {
        for key in kafka.properties.keys() {
            if let Some((_, why)) = OURS.iter().find(|(ours, _)| ours == key) {
                return Err(KafkaError::Property { key: key.clone(), why: (*why).into() });
            }
        }
        let properties = kafka.resolved_properties().map_err(|error| KafkaError::Secret(error.to_string()))?;
        for (key, value) in &properties {
            let as_written = kafka.properties.get(key).map_or("", String::as_str);
            let hidden = Properties::is_secret(key) || Properties::is_reference(as_written);
            let why = match ClientConfig::new().set(key, value).create_native_config() {
                Ok(_) => continue,
                Err(NativeError::ClientConfig(_, why, ..)) if !hidden => why,
                Err(_) => "librdkafka does not take this value (not shown: it is a secret)".into(),
            };
            return Err(KafkaError::Property { key: key.clone(), why });
        }
        Ok(Settings { bootstrap: kafka.bootstrap.clone(), embedded: false, properties })
    }

    /// Where to begin looking for brokers.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Properties of any client.
    pub fn common(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Info);
        // Ours can be overridden, apart from those in OURS.
        config.set("client.id", "dashlight");
        config.set("socket.keepalive.enable", "true");
        config.set("socket.timeout.ms", "30000");
        config.set("reconnect.backoff.ms", "100");
        config.set("reconnect.backoff.max.ms", "2000");
        config.set("topic.metadata.refresh.interval.ms", "10000");
        // A topic is created with the partitions we ask for, never by a stray request for its metadata.
        config.set("allow.auto.create.topics", "false");
        if !self.embedded {
            // OpenSSL is linked in and knows no directory of this system's certificates: look where systems keep them.
            config.set("ssl.ca.location", "probe");
        }
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.bootstrap);
        config.set("statistics.interval.ms", "1000");
        config
    }

    /// Properties of the producer.
    pub fn producer(&self) -> ClientConfig {
        let mut config = self.common();
        let mut default = |key: &str, value: &str| {
            if !self.properties.iter().any(|(set, _)| set == key) {
                config.set(key, value);
            }
        };
        default("linger.ms", "5");
        default("batch.num.messages", "10000");
        default("queue.buffering.max.messages", "100000");
        default("queue.buffering.max.kbytes", "131072");
        if self.embedded {
            // See `credit` for what these two bound.
            default("batch.size", &EMBEDDED_BATCH_BYTES.to_string());
            default("max.in.flight.requests.per.connection", &EMBEDDED_REQUESTS.to_string());
            default("message.max.bytes", &(EMBEDDED_MESSAGE_BYTES + 4096).to_string());
        } else {
            default("compression.type", "lz4");
        }
        config.set("enable.idempotence", "true");
        config.set("message.timeout.ms", "0");
        config.set("partitioner", "murmur2_random");
        config
    }

    /// Properties of a consumer.
    pub fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.common();
        let mut default = |key: &str, value: &str| {
            if !self.properties.iter().any(|(set, _)| set == key) {
                config.set(key, value);
            }
        };
        default("auto.offset.reset", "earliest");
        default("partition.assignment.strategy", "cooperative-sticky");
        default("auto.commit.interval.ms", "1000");
        default("session.timeout.ms", "10000");
        default("heartbeat.interval.ms", "2000");
        default("queued.min.messages", "20000");
        default("queued.max.messages.kbytes", "16384");
        // A topic that is created after we subscribed is noticed that soon.
        default("topic.metadata.refresh.interval.ms", "5000");
        if self.embedded {
            // It answers an empty fetch only after this wait, whatever is produced meanwhile.
            config.set("fetch.wait.max.ms", "10");
        }
        config.set("group.id", group);
        config.set("enable.auto.offset.store", "false");
        // The embedded cluster has one reader, whose position we keep ourselves.
        config.set("enable.auto.commit", if self.embedded { "false" } else { "true" });
        config
    }

    /// The number that property `key` has in `config`, as librdkafka sees it.
    pub fn number(config: &ClientConfig, key: &str) -> Result<usize, KafkaError> {
        let native = config.create_native_config().map_err(|error| KafkaError::client(&error))?;
        let value = native.get(key).map_err(|error| KafkaError::client(&error))?;
        value.parse().map_err(|_| KafkaError::Property { key: key.into(), why: format!("{value:?} is no number") })
    }
}
