//! Out of the log: batches of borrowed records, at least once.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError as NativeError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

use super::client::Partition;
use super::cluster::Cluster;
use super::credit::{Credit, Topics};
use super::error::KafkaError;
use super::hearing::{Assigned, Begin, Change, Hearing, IDENTITY};
use super::{MQTT_TOPIC, RECEIVED_MS};
use crate::text::harmless;

/// A record as read, borrowed from librdkafka until the next.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The topic it was read from.
    pub topic: &'a str,
    /// See `offset`.
    pub partition: i32,
    /// With topic and partition, its identity.
    pub offset: i64,
    /// Its key, as a rule the car.
    pub key: Option<&'a [u8]>,
    /// Its value, byte for byte; empty if it has none.
    pub payload: &'a [u8],
    /// The MQTT topic it came on, if its producer said so.
    pub mqtt_topic: Option<&'a [u8]>,
    /// When it was received, milliseconds since the Unix epoch: as its producer said, else as Kafka stamped it.
    pub received_ms: i64,
}

/// What one poll brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// Records handed out.
    pub records: usize,
    /// Partitions that this consumer reads from now on. Of a remote cluster, none of their records were handed out yet.
    pub assigned: Vec<Assigned>,
    /// Partitions that it reads no more; what was stored of them is committed.
    pub revoked: Vec<(Arc<str>, i32)>,
    /// Offsets passed over because Kafka had dropped their records before they were read (or, on a topic that is
    /// compacted or written in transactions, never had one).
    pub skipped: u64,
    /// What Kafka won't let us do, and waiting won't change.
    pub refused: Option<String>,
}

/// Which of several consumers in one process this is. A remote cluster shares out by itself; of an embedded one,
/// consumer `n` of `of` takes every partition whose number leaves the rest `n` when divided by `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which, counted from 0.
    pub n: usize,
    /// Of how many.
    pub of: usize,
}

/// Reads topics, at least once: what was not [stored](Consumer::stored) is read again by whoever reads next.
///
/// Belongs to one thread. Dropping it commits what is stored and leaves the group.
pub struct Consumer {
    native: BaseConsumer<Hearing>,
    topics: Vec<Topic>,
    shared: Arc<Topics>,
    slots: Vec<Slot>,
    /// The slot of the last record: the next one's, nearly always.
    last: usize,
}

/// A topic that this consumer reads.
#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    /// Its partitions' credit, if the cluster is embedded.
    credits: Option<Arc<[Credit]>>,
}

/// A partition that this consumer reads.
#[derive(Debug)]
struct Slot {
    /// Position in `Consumer::topics`.
    topic: usize,
    partition: i32,
    /// Next offset to be handed out, -1 if nobody knows.
    next: i64,
    /// Next offset to be processed: all before is stored; -1 as in `next`.
    stored: i64,
    /// What the group has committed, where reading began before that: nothing below is stored again.
    committed: i64,
}

impl Consumer {
    /// A consumer of these topics, as the only one in this process. See [`Consumer::open_share`].
    pub fn open(cluster: &Cluster, group: &str, topics: &[&str]) -> Result<Self, KafkaError> {
        Self::open_share(cluster, group, topics, Share { n: 0, of: 1 })
    }

    /// The same, of a remote cluster, beginning where `begin` says.
    pub fn open_from(cluster: &Cluster, group: &str, topics: &[&str], begin: Begin) -> Result<Self, KafkaError> {
        Self::build(cluster, group, topics, Share { n: 0, of: 1 }, Some(begin))
    }

    /// A consumer of these topics, in this group, for its share of the partitions. A topic of a remote cluster need not
    /// exist yet; of an embedded one it must have been [ensured](Cluster::ensure_topic), and must be opened before
    /// anything is produced into it, because credit is counted from then on.
    pub fn open_share(cluster: &Cluster, group: &str, topics: &[&str], share: Share) -> Result<Self, KafkaError> {
        Self::build(cluster, group, topics, share, None)
    }

    fn build(
        cluster: &Cluster,
        group: &str,
        topics: &[&str],
        share: Share,
        begin: Option<Begin>,
    ) -> Result<Self, KafkaError> {
        let config = cluster.settings().consumer(group);
        let hearing = Hearing::new(cluster.board().place(), begin);
        let native: BaseConsumer<Hearing> =
            BaseConsumer::from_config_and_context(&config, hearing).map_err(|error| KafkaError::client(&error))?;
        let shared = cluster.topics().clone();
        let named = topics.iter().map(|&name| Topic { name: name.into(), credits: shared.read_here(name) }).collect();
        let mut consumer = Consumer { native, topics: named, shared, slots: Vec::new(), last: 0 };
        if cluster.is_embedded() {
            consumer.assign(share)?;
        } else {
            consumer.native.subscribe(topics).map_err(|error| KafkaError::client(&error))?;
        }
        Ok(consumer)
    }

    /// Takes partitions without asking the group, which would make everybody wait three seconds, and goes on where the
    /// last consumer of this process stopped.
    fn assign(&mut self, share: Share) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        let context = self.native.context().clone();
        let mut heard = context.heard.lock();
        for Topic { name, credits } in &self.topics {
            for (partition, credit) in credits.iter().flat_map(|credits| credits.iter().enumerate()) {
                if partition % share.of.max(1) == share.n {
                    let partition = partition as i32;
                    list.add_partition_offset(name, partition, Offset::Offset(credit.position()))
                        .map_err(|error| KafkaError::client(&error))?;
                    let (from, committed) = (None, None);
                    heard.changes.push(Change::Assigned(Assigned { topic: name.clone(), partition, from, committed }));
                }
            }
        }
        self.native.assign(&list).map_err(|error| KafkaError::client(&error))
    }

    /// Hands up to `max` records to `each`, waiting for the first one up to `wait`. Call it often, records or not: it is
    /// also how the consumer stays in its group. Ends early when partitions come or go.
    pub fn poll(&mut self, max: usize, wait: Duration, mut each: impl FnMut(Record<'_>)) -> Polled {
        let mut polled = Polled::default();
        self.take_changes(&mut polled);
        let mut timeout = if polled.assigned.is_empty() { wait } else { Duration::ZERO };
        while polled.records < max {
            let Some(read) = self.native.poll(timeout) else {
                break;
            };
            timeout = Duration::ZERO;
            match read {
                Ok(message) => {
                    let slot = slot_of(&mut self.slots, &mut self.last, &self.topics, &message);
                    let Some(slot) = slot else {
                        continue; // Not one of ours any more.
                    };
                    let offset = message.offset();
                    if slot.next >= 0 && offset > slot.next {
                        polled.skipped += (offset - slot.next) as u64;
                    }
                    if slot.stored < 0 {
                        slot.stored = offset;
                    }
                    slot.next = offset + 1;
                    polled.records += 1;
                    each(record(&message));
                }
                Err(error) => self.failed(&error, &mut polled),
            }
        }
        if polled.records > 0 {
            self.native.context().place.alive();
        }
        self.take_changes(&mut polled);
        polled
    }

    /// Everything handed out so far is processed: nobody has to read it again. Committed within a second, and at once
    /// when partitions are revoked or the consumer is dropped.
    pub fn stored(&mut self) {
        let mut list: Option<TopicPartitionList> = None;
        for slot in self.slots.iter_mut().filter(|slot| slot.next > slot.stored) {
            let Topic { name, credits } = &self.topics[slot.topic];
            match credits {
                Some(credits) => {
                    if let Some(credit) = credits.get(slot.partition as usize) {
                        credit.stored(slot.next, &self.shared.room);
                    }
                }
                // Read once more from before what the group knows: its offset must not go back.
                None if slot.next <= slot.committed => {}
                None => {
                    let list = list.get_or_insert_default();
                    if let Err(error) = list.add_partition_offset(name, slot.partition, Offset::Offset(slot.next)) {
                        tracing::warn!("Kafka: cannot store the offset of {name}/{}: {error}", slot.partition);
                    }
                }
            }
            slot.stored = slot.next;
        }
        if let Some(list) = list
            && let Err(error) = self.native.store_offsets(&list)
        {
            // A partition that was taken away meanwhile: its new reader reads these records again.
            tracing::debug!("Kafka: offsets not stored: {error}");
        }
    }

    /// Has what is stored committed now, without waiting for the answer.
    pub fn commit(&self) {
        if let Err(error) = self.native.commit_consumer_state(CommitMode::Async)
            && error.rdkafka_error_code() != Some(Code::NoOffset)
        {
            tracing::debug!("Kafka: offsets not committed early: {error}");
        }
    }

    /// Records in this consumer's partitions that are not processed yet, as of Kafka's last answers; `None` before the
    /// first.
    pub fn lag(&self) -> Option<u64> {
        let heard = self.native.context().heard.lock();
        let mut lag = None;
        for slot in &self.slots {
            let topic = heard.statistics.topics.get(&*self.topics[slot.topic].name);
            let known = topic.and_then(|topic| topic.partitions.get(&slot.partition));
            if let Some(&Partition { hi_offset: end, committed_offset }) = known
                && end >= 0
            {
                // Where nothing was read yet, only the group knows what is processed.
                let done = slot.stored.max(slot.committed).max(committed_offset).max(0);
                *lag.get_or_insert(0) += end.saturating_sub(done).max(0) as u64;
            }
        }
        lag
    }

    /// The cluster's own name for itself, if it has said one.
    pub fn cluster_id(&self) -> Option<String> {
        self.native.client().fetch_cluster_id(IDENTITY)
    }

    /// Partitions that this consumer reads, and all that its topics have, as far as known.
    pub fn partitions(&self) -> (usize, usize) {
        let all =
            self.topics.iter().filter_map(|topic| self.shared.get(&topic.name)).map(|t| t.partitions() as usize).sum();
        (self.slots.len(), all)
    }

    /// Brings the slots in line with what was assigned and revoked.
    fn take_changes(&mut self, polled: &mut Polled) {
        let changes = std::mem::take(&mut self.native.context().heard.lock().changes);
        for change in changes {
            match change {
                Change::Assigned(mut assigned) => {
                    let Assigned { partition, committed, .. } = assigned;
                    let Some(topic) = self.topics.iter().position(|topic| topic.name == assigned.topic) else {
                        continue;
                    };
                    let Topic { name, credits } = &self.topics[topic];
                    // Of an embedded cluster we know where we begin; of another one, its group's offset, once it reads.
                    let credit = credits.as_ref().and_then(|credits| credits.get(partition as usize));
                    let next = credit.map_or(-1, Credit::position);
                    if !self.slots.iter().any(|slot| slot.topic == topic && slot.partition == partition) {
                        self.slots.push(Slot {
                            topic,
                            partition,
                            next,
                            stored: next,
                            committed: committed.unwrap_or(-1),
                        });
                    }
                    assigned.topic = name.clone();
                    polled.assigned.push(assigned);
                }
                Change::Revoked(name, partition) => {
                    let Some(topic) = self.topics.iter().position(|topic| *topic.name == *name) else { continue };
                    self.slots.retain(|slot| slot.topic != topic || slot.partition != partition);
                    polled.revoked.push((self.topics[topic].name.clone(), partition));
                }
            }
        }
    }

    fn failed(&self, error: &NativeError, polled: &mut Polled) {
        match error.rdkafka_error_code() {
            Some(
                code @ (Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::InconsistentGroupProtocol
                | Code::Fatal),
            ) => polled.refused = Some(harmless(&code.to_string(), 200).into_owned()),
            // The topic is not there yet, or Kafka is away: states that others report. We go on trying.
            _ => tracing::debug!("Kafka: {error}"),
        }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("topics", &self.topics).field("slots", &self.slots).finish_non_exhaustive()
    }
}

/// The slot of the message's partition; made now if the message comes before the news of its assignment was taken.
fn slot_of<'s>(
    slots: &'s mut Vec<Slot>,
    last: &mut usize,
    topics: &[Topic],
    message: &BorrowedMessage<'_>,
) -> Option<&'s mut Slot> {
    let (name, partition) = (message.topic(), message.partition());
    let is = |slot: &Slot| slot.partition == partition && *topics[slot.topic].name == *name;
    if !slots.get(*last).is_some_and(is) {
        *last = match slots.iter().position(is) {
            Some(found) => found,
            None => {
                let topic = topics.iter().position(|topic| *topic.name == *name)?;
                slots.push(Slot { topic, partition, next: -1, stored: -1, committed: -1 });
                slots.len() - 1
            }
        };
    }
    slots.get_mut(*last)
}

pub(super) fn record<'a>(message: &'a BorrowedMessage<'a>) -> Record<'a> {
    let (mut mqtt_topic, mut received) = (None, None);
    each_header(message, |key, value| match key {
        MQTT_TOPIC => mqtt_topic = value,
        RECEIVED_MS => received = value.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok()),
        _ => {}
    });
    Record {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        key: message.key(),
        payload: message.payload().unwrap_or_default(),
        mqtt_topic,
        received_ms: received.or_else(|| message.timestamp().to_millis()).unwrap_or(0),
    }
}

fn each_header<'a>(message: &'a BorrowedMessage<'a>, mut each: impl FnMut(&'a str, Option<&'a [u8]>)) {
    let Some(headers) = message.headers() else { return };
    for n in 0..headers.count() {
        // The binding panics at a header whose name is not UTF-8, and any producer can write one.
        if let Ok(Some(header)) = catch_unwind(AssertUnwindSafe(|| headers.try_get(n))) {
            each(header.key, header.value);
        }
    }
}

/// The value of the header of that name, if the message has one.
pub(super) fn header<'a>(message: &'a BorrowedMessage<'a>, name: &str) -> Option<&'a [u8]> {
    let mut found = None;
    each_header(message, |key, value| {
        if key == name {
            found = value;
        }
    });
    found
}
