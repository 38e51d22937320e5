//! What was written last: where topics end, and which of somebody's records stand before that. For whoever must know after a
//! restart what of its own got through.

use std::time::{Duration, Instant};

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError as NativeError;
use rdkafka::message::Message;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::client;
use super::cluster::Cluster;
use super::consumer::header;
use super::error::KafkaError;
use super::health::Place;
use crate::text::harmless;

/// How long Kafka may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads topics up to their end, in no group. Waits for Kafka, so it belongs on a thread that may block.
pub struct Tail {
    native: BaseConsumer<Hearing>,
    address: String,
}

/// A record's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
}

impl Tail {
    /// For topics of this cluster.
    ///
    /// # Errors
    /// librdkafka makes no client.
    pub fn open(cluster: &Cluster) -> Result<Tail, KafkaError> {
        // It joins no group and commits nothing; librdkafka wants a name all the same.
        let mut config = cluster.settings().consumer("dashlight-tail");
        config.set("enable.auto.commit", "false");
        config.set("enable.partition.eof", "true");
        config.set("auto.offset.reset", "earliest");
        let hearing = Hearing { place: cluster.board().place() };
        let native =
            BaseConsumer::from_config_and_context(&config, hearing).map_err(|error| KafkaError::client(&error))?;
        Ok(Tail { native, address: cluster.bootstrap().to_owned() })
    }

    /// The offset after the last record of each of the topic's partitions, of which there are so many.
    ///
    /// # Errors
    /// Kafka does not answer, or does not let us.
    pub fn ends(&self, topic: &str, partitions: i32) -> Result<Vec<i64>, KafkaError> {
        let end = |partition| match self.native.fetch_watermarks(topic, partition, PATIENCE) {
            Ok((_, end)) => Ok(end),
            Err(error) => Err(self.failed(topic, &error)),
        };
        (0..partitions).map(end).collect()
    }

    /// Hands the value of the header `name` of every record that has one to `each`, from offset `from[partition]` on (from the
    /// beginning, where that is not given) up to where the partitions end now.
    ///
    /// # Errors
    /// Kafka does not answer, or does not let us; some may have been handed over.
    pub fn read(
        &self,
        topic: &str,
        from: &[i64],
        ends: &[i64],
        name: &str,
        mut each: impl FnMut(Written, &[u8]),
    ) -> Result<(), KafkaError> {
        let start = |partition: usize| from.get(partition).copied().unwrap_or(0);
        let mut list = TopicPartitionList::new();
        let mut unread: Vec<i32> = Vec::new();
        for (partition, end) in ends.iter().enumerate().filter(|(partition, end)| start(*partition) < **end) {
            tracing::debug!("reading {topic}/{partition} from {} to {end}", start(partition));
            list.add_partition_offset(topic, partition as i32, Offset::Offset(start(partition)))
                .map_err(|error| KafkaError::client(&error))?;
            unread.push(partition as i32);
        }
        self.native.assign(&list).map_err(|error| KafkaError::client(&error))?;
        let mut deadline = Instant::now() + PATIENCE;
        while !unread.is_empty() {
            match self.native.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    deadline = Instant::now() + PATIENCE;
                    let written = Written { partition: message.partition(), offset: message.offset() };
                    if let Some(value) = header(&message, name) {
                        each(written, value);
                    }
                    if ends.get(written.partition as usize).is_some_and(|end| written.offset + 1 >= *end) {
                        unread.retain(|partition| *partition != written.partition);
                    }
                }
                // The last offsets may hold no record that is handed out, as after a transaction.
                Some(Err(NativeError::PartitionEOF(partition))) => unread.retain(|unread| *unread != partition),
                Some(Err(error)) if is_refusal(&error) => return Err(self.failed(topic, &error)),
                Some(Err(_)) | None if Instant::now() >= deadline => {
                    return Err(self.failed(topic, &NativeError::MessageConsumption(Code::OperationTimedOut)));
                }
                Some(Err(_)) | None => {}
            }
        }
        self.native.unassign().map_err(|error| KafkaError::client(&error))
    }

    fn failed(&self, topic: &str, error: &NativeError) -> KafkaError {
        let (address, topic) = (self.address.clone(), topic.to_owned());
        match error.rdkafka_error_code() {
            Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => {
                KafkaError::NotAuthorised { address, topic, what: "read it" }
            }
            _ => KafkaError::Away { address, why: harmless(&error.to_string(), 200).into_owned() },
        }
    }
}

fn is_refusal(error: &NativeError) -> bool {
    matches!(error.rdkafka_error_code(), Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed))
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Hears from librdkafka.
struct Hearing {
    place: Place,
}

impl ClientContext for Hearing {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client::on_log(&self.place, level, facility, line);
    }

    fn stats_raw(&self, json: &[u8]) {
        client::on_statistics(&self.place, json);
    }

    fn error(&self, error: NativeError, reason: &str) {
        if error.rdkafka_error_code() == Some(Code::PartitionEOF) {
            return; // What we asked to be told; it comes by another way as well.
        }
        client::on_error(&self.place, &error, reason);
    }
}

impl ConsumerContext for Hearing {}
