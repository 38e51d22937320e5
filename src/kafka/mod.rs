//! The log: an embedded or a remote Kafka cluster, its topics, one producer and the consumers. The only place that knows
//! rdkafka.
//!
//! ```text
//! Cluster ── ensure_topic ──▶ topics (known to producer and consumers alike)
//!   │
//!   ├─ Producer<T>  try_send(record, token) … later on_delivery(token, result)      never blocks; Full is an answer
//!   ├─ Consumer     poll(max, wait, each record) … stored()                         at least once
//!   └─ History      poll(max, wait, each record) … finished()                       a stretch of time, once, in no group
//! ```
//!
//! **Embedded** is librdkafka's mock cluster: the real protocol on an ephemeral port of 127.0.0.1, everything in
//! memory, for demo and development. It keeps 5 MiB a partition and drops the oldest in silence, so what a consumer of
//! this process has not yet [stored](Consumer::stored) is credit the producer has used up: beyond it `try_send`
//! answers [`SendError::Full`] and nothing is ever dropped. Bytes that other processes produce into it are not counted.
//!
//! **Remote** is any Kafka. That it is away, now or at the start, is no error but a state ([`Cluster::health`]): what was
//! accepted waits in a bounded queue and is delivered in order, once, when it is back. What librdkafka has to say goes
//! to `tracing`, never to stderr, and secrets go nowhere.

mod client;
mod cluster;
mod consumer;
mod credit;
mod error;
mod health;
mod hearing;
mod history;
mod partition;
mod producer;
mod settings;
mod tail;

pub use cluster::Cluster;
pub use consumer::{Consumer, Polled, Record, Share};
pub use error::{DeliveryError, KafkaError, SendError};
pub use health::Health;
pub use hearing::{Assigned, Begin};
pub use history::History;
pub use partition::partition_of;
pub use producer::{Outgoing, Producer};
pub use tail::{Tail, Written};

/// Header with the MQTT topic a reading came on, as bytes.
pub const MQTT_TOPIC: &str = "mqtt-topic";
/// Header with the time a reading was received, milliseconds since the Unix epoch, in decimal digits.
pub const RECEIVED_MS: &str = "received-ms";
/// Header with the identity of a record that went through a write-ahead log: the log's id, `-`, and its number there.
pub const LOGGED: &str = "dashlight-log";

#[cfg(test)]
mod tests;
