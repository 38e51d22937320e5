//! After a restart: what stands in the log and not in the checkpoint may be in Kafka all the same, because the process died
//! between Kafka's taking it and our noting so. The tails of the topics say which; those are not sent again.

use std::time::{Duration, Instant};

use super::drain::{Drain, Ended};
use super::entry::Kind;
use crate::kafka::{KafkaError, LOGGED, Tail};

/// Wait between two looks: requests of the process that died may still be on their way through Kafka.
const SETTLING: Duration = Duration::from_secs(1);
/// Wait before Kafka is asked again when it is away.
const RETRY: Duration = Duration::from_millis(500);

impl Drain {
    /// Learns where the topics end, and which records of the log stand before that. Waits for Kafka as long as it takes; what
    /// devices send meanwhile goes into the log.
    pub(super) fn recover(&mut self) -> Result<(), Ended> {
        if self.outlet.cluster.is_embedded() {
            // It began with this process: nothing of an earlier one can be in it.
            return Ok(());
        }
        let waiting = self.store.waiting();
        if waiting > 0 {
            tracing::info!("looking in Kafka which of the {waiting} readings in the log it has already");
        }
        let mut found = 0;
        let topics = self.outlet.topics.clone();
        for topic in &topics {
            loop {
                match self.look(topic, waiting > 0, &mut found) {
                    Ok(()) => break,
                    Err(error) if error.is_retriable() => {
                        tracing::debug!("topic {topic}: {error}");
                        self.wait(RETRY)?;
                    }
                    Err(error) => {
                        tracing::warn!("{error}; readings that {topic} has already may come twice");
                        break;
                    }
                }
            }
        }
        // Before the first record is sent it must be known where to look for it.
        self.checkpoint();
        if waiting > 0 {
            tracing::info!("Kafka had {found} of them already");
        }
        Ok(())
    }

    fn look(&mut self, topic: &str, recovering: bool, found: &mut u64) -> Result<(), KafkaError> {
        let partitions = self.outlet.cluster.ensure_topic(topic)?;
        let tail = Tail::open(&self.outlet.cluster)?;
        let mut ends = tail.ends(topic, partitions)?;
        let from = self.store.window.lock().bounds().get(topic).cloned();
        if recovering && let Some(mut from) = from {
            self.mark(&tail, topic, &from, &ends, found)?;
            let settled = Instant::now() + SETTLING;
            while Instant::now() < settled {
                std::thread::sleep(Duration::from_millis(50));
            }
            from = std::mem::replace(&mut ends, tail.ends(topic, partitions)?);
            self.mark(&tail, topic, &from, &ends, found)?;
        }
        self.store.window.lock().begin(topic, ends);
        Ok(())
    }

    /// Marks the records of the log that stand in the topic.
    fn mark(&self, tail: &Tail, topic: &str, from: &[i64], ends: &[i64], found: &mut u64) -> Result<(), KafkaError> {
        let kind =
            if self.outlet.topics.last().is_some_and(|last| last == topic) { Kind::DeadLetter } else { Kind::Reading };
        tail.read(topic, from, ends, LOGGED, |written, value| {
            let seq: Option<u64> =
                std::str::from_utf8(value).ok().and_then(|value| value.strip_prefix(self.id.as_str())?.parse().ok());
            // Beyond, the number belongs to a record of this run, which is on its way the usual way.
            if let Some(seq) = seq
                && seq < self.recovered
                && self.store.window.lock().found(seq, topic, written)
            {
                self.store.count(kind);
                *found += 1;
            }
        })
    }

    fn wait(&mut self, time: Duration) -> Result<(), Ended> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
            self.tick()?;
        }
        Ok(())
    }
}
