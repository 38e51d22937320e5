//! A stretch of a topic by the clock, read once from its first record to its last: for whoever learns from what the log holds.
//!
//! Joins no group and stores no offsets, so nobody else's reading changes by it. Never creates a topic.

use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError as NativeError;
use rdkafka::message::Message;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

use super::client;
use super::cluster::Cluster;
use super::consumer::{Record, record};
use super::error::KafkaError;
use super::health::Place;
use crate::text::harmless;

/// How long Kafka may take to say where a stretch begins and ends.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads the records of one topic that Kafka stamped within a stretch of time.
pub struct History {
    native: BaseConsumer<Hearing>,
    partitions: Vec<Partition>,
}

#[derive(Debug)]
struct Partition {
    number: i32,
    /// The offset that is not read any more; `None`: all that comes is.
    end: Option<i64>,
    done: bool,
}

/// Hears from librdkafka.
struct Hearing(Place);

impl ClientContext for Hearing {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client::on_log(&self.0, level, facility, line);
    }

    fn error(&self, error: NativeError, reason: &str) {
        client::on_error(&self.0, &error, reason);
    }
}

impl ConsumerContext for Hearing {}

impl History {
    /// The records of `topic` from `from_ms` on (milliseconds since the Unix epoch; `None`: from the oldest), before `to_ms`
    /// (`None`: without end, whatever comes). Waits for Kafka some seconds.
    pub fn open(
        cluster: &Cluster,
        topic: &str,
        from_ms: Option<i64>,
        to_ms: Option<i64>,
    ) -> Result<History, KafkaError> {
        // A group's name is asked for by librdkafka, but nothing is ever subscribed to or committed in it.
        let mut config = cluster.settings().consumer("dashlight-history");
        config.set("enable.auto.commit", "false");
        config.set("enable.partition.eof", "true");
        let native: BaseConsumer<Hearing> =
            BaseConsumer::from_config_and_context(&config, Hearing(cluster.board().place()))
                .map_err(|error| KafkaError::client(&error))?;
        let ask = Ask { native: &native, cluster, topic, deadline: Instant::now() + PATIENCE };
        let numbers = ask.partitions()?;
        let ends = to_ms.map(|to| ask.offsets_at(&numbers, to)).transpose()?;
        let begins = match from_ms {
            Some(from) => ask.offsets_at(&numbers, from)?,
            None => numbers.iter().map(|_| Offset::Beginning).collect(),
        };
        let mut list = TopicPartitionList::new();
        let mut partitions = Vec::new();
        for (n, (&number, begin)) in numbers.iter().zip(begins).enumerate() {
            // "After the last" moves on while records come: what it is now is what counts.
            let begin = ask.settled(number, begin)?;
            let end = match &ends {
                Some(ends) => match ask.settled(number, ends[n])? {
                    Offset::Offset(end) => Some(end),
                    _ => None,
                },
                None => None,
            };
            list.add_partition_offset(topic, number, begin).map_err(|error| KafkaError::client(&error))?;
            let done = matches!((begin, end), (Offset::Offset(begin), Some(end)) if begin >= end);
            partitions.push(Partition { number, end, done });
        }
        native.assign(&list).map_err(|error| KafkaError::client(&error))?;
        Ok(History { native, partitions })
    }

    /// Hands up to `max` records to `each`, waiting for the first one up to `wait`. Of one partition they come in order.
    pub fn poll(&mut self, max: usize, wait: Duration, mut each: impl FnMut(Record<'_>)) {
        let mut timeout = wait;
        for _ in 0..max {
            let Some(read) = self.native.poll(timeout) else { return };
            timeout = Duration::ZERO;
            let number = match &read {
                Ok(message) => message.partition(),
                Err(NativeError::PartitionEOF(number)) => *number,
                Err(error) => {
                    // That Kafka is away is a state, which the cluster's health tells; librdkafka goes on trying.
                    tracing::debug!("Kafka: {error}");
                    continue;
                }
            };
            let Some(partition) = self.partitions.iter_mut().find(|partition| partition.number == number) else {
                continue;
            };
            match read {
                Ok(message) => {
                    let within = partition.end.is_none_or(|end| message.offset() < end);
                    if within && !partition.done {
                        each(record(&message));
                    }
                    partition.done |= partition.end.is_some_and(|end| message.offset() + 1 >= end);
                }
                // Behind the last record there may be offsets that no record has (of transactions, of compaction).
                Err(_) => partition.done |= partition.end.is_some(),
            }
        }
    }

    /// Whether everything up to the stretch's end was read. Never true of one without end.
    pub fn finished(&self) -> bool {
        self.partitions.iter().all(|partition| partition.done)
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

/// Questions about one topic, all within one deadline.
struct Ask<'a> {
    native: &'a BaseConsumer<Hearing>,
    cluster: &'a Cluster,
    topic: &'a str,
    deadline: Instant,
}

impl Ask<'_> {
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100))
    }

    fn partitions(&self) -> Result<Vec<i32>, KafkaError> {
        let metadata =
            self.native.fetch_metadata(Some(self.topic), self.left()).map_err(|error| self.failed(&error))?;
        let refused = |why: &str| KafkaError::Topic {
            address: self.cluster.bootstrap().to_owned(),
            topic: harmless(self.topic, 100).into_owned(),
            why: why.to_owned(),
        };
        let Some(topic) = metadata.topics().first() else { return Err(refused("there is no such topic")) };
        match topic.error().map(Code::from) {
            Some(Code::UnknownTopicOrPartition) => Err(refused("there is no such topic")),
            Some(Code::TopicAuthorizationFailed) => Err(KafkaError::NotAuthorised {
                address: self.cluster.bootstrap().to_owned(),
                topic: self.topic.to_owned(),
                what: "read it",
            }),
            Some(code) => Err(refused(&code.to_string())),
            None => Ok(topic.partitions().iter().map(|partition| partition.id()).collect()),
        }
    }

    /// The offset of each partition's first record at that time or later.
    fn offsets_at(&self, numbers: &[i32], time_ms: i64) -> Result<Vec<Offset>, KafkaError> {
        let mut list = TopicPartitionList::new();
        for &number in numbers {
            list.add_partition_offset(self.topic, number, Offset::Offset(time_ms.max(0)))
                .map_err(|error| KafkaError::client(&error))?;
        }
        let found = self.native.offsets_for_times(list, self.left()).map_err(|error| self.failed(&error))?;
        let of = |number| found.find_partition(self.topic, number).map_or(Offset::End, |element| element.offset());
        Ok(numbers.iter().map(|&number| of(number)).collect())
    }

    /// `offset` as a number, if it is the end of what there is.
    fn settled(&self, number: i32, offset: Offset) -> Result<Offset, KafkaError> {
        match offset {
            Offset::Offset(_) | Offset::Beginning => Ok(offset),
            _ => {
                let (_, high) = self
                    .native
                    .fetch_watermarks(self.topic, number, self.left())
                    .map_err(|error| self.failed(&error))?;
                Ok(Offset::Offset(high))
            }
        }
    }

    fn failed(&self, error: &NativeError) -> KafkaError {
        let why = match self.cluster.health() {
            super::Health::Away { reason, .. } => reason,
            super::Health::Up => harmless(&error.to_string(), 200).into_owned(),
        };
        KafkaError::Away { address: self.cluster.bootstrap().to_owned(), why }
    }
}
