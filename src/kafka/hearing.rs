//! What librdkafka tells a consumer: logs, statistics, and which partitions come and go; and what it is told of where to begin.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance, RebalanceProtocol};
use rdkafka::error::KafkaError as NativeError;
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaRespErr};
use rdkafka::util::Timeout;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::client::{self, Statistics};
use super::health::Place;

/// A partition that a consumer reads from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its number.
    pub partition: i32,
    /// Where it is read from, if [`Begin`] was asked and knew.
    pub from: Option<i64>,
    /// Before this offset everything is processed, as the group knows; `None` if it knows nothing, or was not asked because
    /// `from` is none.
    pub committed: Option<i64>,
}

/// Says from which offset a partition (cluster id, topic, number) of a remote cluster should be read, by whoever knows better than
/// the group's offset. What was processed is never skipped by it: the group's offset counts if it is the lower one.
pub type Begin = Box<dyn Fn(&str, &str, i32) -> Option<i64> + Send + Sync>;

/// Hears from librdkafka.
pub(super) struct Hearing {
    pub place: Place,
    pub heard: Mutex<Heard>,
    begin: Option<Begin>,
}

/// What was heard and not looked at yet.
#[derive(Default)]
pub(super) struct Heard {
    pub changes: Vec<Change>,
    pub statistics: Statistics,
}

/// A partition came or went.
pub(super) enum Change {
    Assigned(Assigned),
    Revoked(String, i32),
}

/// How long the group may take to say what it has committed.
const COMMITTED: Duration = Duration::from_secs(15);
/// How long a cluster may take to say its id; as a rule it has said it already.
pub(super) const IDENTITY: Duration = Duration::from_secs(5);

impl ClientContext for Hearing {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client::on_log(&self.place, level, facility, line);
    }

    fn stats_raw(&self, json: &[u8]) {
        if let Some(statistics) = client::on_statistics(&self.place, json) {
            self.heard.lock().statistics = statistics;
        }
    }

    fn error(&self, error: NativeError, reason: &str) {
        client::on_error(&self.place, &error, reason);
    }
}

impl Hearing {
    pub fn new(place: Place, begin: Option<Begin>) -> Self {
        Hearing { place, heard: Mutex::default(), begin }
    }

    /// Says in `list` where each partition is to be read from, where that is known, and notes that they are ours.
    fn begin(&self, native: &BaseConsumer<Self>, list: &mut TopicPartitionList) {
        let known = self.known(native, list);
        let mut changes = Vec::new();
        for (topic, partition) in partitions(list).collect::<Vec<_>>() {
            let found = known.iter().find(|(name, number, ..)| *name == topic && *number == partition);
            let (from, committed) = found.map_or((None, None), |&(.., from, committed)| (Some(from), committed));
            if let Some(from) = from
                && let Err(error) = list.set_partition_offset(&topic, partition, Offset::Offset(from))
            {
                tracing::warn!("Kafka: {topic}/{partition} is read from the group's offset, not from {from}: {error}");
            }
            changes.push(Change::Assigned(Assigned { topic: topic.into(), partition, from, committed }));
        }
        self.heard.lock().changes.extend(changes);
    }

    /// Topic, partition, where to begin, and what the group has committed, of those whose beginning is known.
    fn known(&self, native: &BaseConsumer<Self>, list: &TopicPartitionList) -> Vec<(String, i32, i64, Option<i64>)> {
        let Some(begin) = &self.begin else { return Vec::new() };
        let Some(cluster) = native.client().fetch_cluster_id(IDENTITY) else { return Vec::new() };
        let known: Vec<(String, i32, i64)> = partitions(list)
            .filter_map(|(topic, partition)| begin(&cluster, &topic, partition).map(|from| (topic, partition, from)))
            .collect();
        if known.is_empty() {
            return Vec::new();
        }
        let mut asked = TopicPartitionList::new();
        for (topic, partition, _) in &known {
            asked.add_partition(topic, *partition);
        }
        let answer = native.committed_offsets(asked, COMMITTED).unwrap_or_else(|error| {
            tracing::warn!("Kafka: the group's offsets are not known ({error}): some verdicts may be written twice");
            TopicPartitionList::new()
        });
        let committed = |topic: &str, partition| match answer.find_partition(topic, partition)?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        let known = known.into_iter().map(|(topic, partition, from)| {
            let committed = committed(&topic, partition);
            (topic, partition, committed.map_or(from, |committed| from.min(committed)), committed)
        });
        known.collect()
    }
}

impl ConsumerContext for Hearing {
    fn rebalance(&self, native: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let cooperative = matches!(native.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let done = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.begin(native, list);
                if cooperative { native.incremental_assign(list) } else { native.assign(list) }
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                self.pre_rebalance(native, &Rebalance::Revoke(list));
                if cooperative { native.incremental_unassign(list) } else { native.unassign() }
            }
            other => {
                self.pre_rebalance(native, &Rebalance::Error(NativeError::Rebalance(other.into())));
                if cooperative { native.incremental_unassign(list) } else { native.unassign() }
            }
        };
        if let Err(error) = done {
            tracing::error!("Kafka: partitions could not be taken or given up: {error}");
        }
    }

    fn pre_rebalance(&self, native: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            // Taken from us because we were silent too long: others own them already, and a commit would be refused.
            Rebalance::Revoke(_) if native.assignment_lost() => {}
            Rebalance::Revoke(_) => {
                if let Err(error) = native.commit_consumer_state(CommitMode::Sync)
                    && error.rdkafka_error_code() != Some(Code::NoOffset)
                {
                    tracing::warn!("Kafka: offsets not committed before partitions went to others: {error}");
                }
            }
            Rebalance::Assign(_) => {}
            Rebalance::Error(error) => tracing::warn!("Kafka: sharing out partitions failed: {error}"),
        }
        let mut heard = self.heard.lock();
        match rebalance {
            // Noted by `rebalance`, which knows where they are read from.
            Rebalance::Assign(_) => {}
            Rebalance::Revoke(list) => heard.changes.extend(partitions(list).map(|(t, p)| Change::Revoked(t, p))),
            Rebalance::Error(_) => {}
        }
    }

    fn main_queue_min_poll_interval(&self) -> Timeout {
        Timeout::After(Duration::from_millis(200))
    }
}

fn partitions(list: &TopicPartitionList) -> impl Iterator<Item = (String, i32)> {
    list.elements()
        .into_iter()
        .map(|element| (element.topic().to_owned(), element.partition()))
        .collect::<Vec<_>>()
        .into_iter()
}
