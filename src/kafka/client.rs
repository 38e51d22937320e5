//! What every librdkafka client of ours does with what it hears: errors, log lines and statistics.

use std::collections::BTreeMap;

use rdkafka::config::RDKafkaLogLevel as Level;
use rdkafka::error::KafkaError as NativeError;
use rdkafka::types::RDKafkaErrorCode as Code;
use serde::Deserialize;

use super::health::Place;
use crate::text::harmless;

/// The part of librdkafka's statistics that we read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Statistics {
    /// Brokers by name.
    pub brokers: BTreeMap<String, Broker>,
    /// Topics by name.
    pub topics: BTreeMap<String, Topic>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Broker {
    /// `UP` once it has been connected to and asked for what it can do.
    pub state: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Topic {
    /// Partitions by number; -1 is no partition.
    pub partitions: BTreeMap<i32, Partition>,
}

/// What librdkafka says of a partition.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default)]
pub(super) struct Partition {
    /// Offset after the last record, as of the last fetch; negative if not known.
    pub hi_offset: i64,
    /// What the group has committed; negative if not known.
    pub committed_offset: i64,
}

impl Default for Partition {
    fn default() -> Self {
        Partition { hi_offset: -1, committed_offset: -1 }
    }
}

/// Takes note of an error that librdkafka reports of the whole client.
pub(super) fn on_error(place: &Place, error: &NativeError, reason: &str) {
    match error.rdkafka_error_code() {
        Some(Code::AllBrokersDown) => place.down(),
        Some(
            Code::BrokerTransportFailure | Code::Resolve | Code::Authentication | Code::SSL | Code::OperationTimedOut,
        ) => place.failed(reason),
        _ => {
            place.failed(reason);
            tracing::warn!("Kafka: {}", harmless(reason, 300));
        }
    }
}

/// Takes note of a line of librdkafka's log. Its failed attempts are one state of ours, so they are told at `debug`.
pub(super) fn on_log(place: &Place, level: Level, facility: &str, line: &str) {
    if facility == "FAIL" {
        place.failed(line);
    }
    let line = harmless(line, 500);
    match level {
        Level::Emerg | Level::Alert | Level::Critical => tracing::error!("Kafka: {facility}: {line}"),
        Level::Error if !matches!(facility, "FAIL" | "ERROR") => tracing::warn!("Kafka: {facility}: {line}"),
        _ => tracing::debug!("Kafka: {facility}: {line}"),
    }
}

/// Takes note of the statistics, as JSON; what they say of topics is for the caller.
pub(super) fn on_statistics(place: &Place, json: &[u8]) -> Option<Statistics> {
    let statistics: Statistics = serde_json::from_slice(json).ok()?;
    if statistics.brokers.values().any(|broker| broker.state == "UP") {
        place.up();
    } else {
        place.down();
    }
    Some(statistics)
}
