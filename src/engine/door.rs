//! The door: MQTT messages that some source takes go on to Kafka, by way of the write-ahead log or not; a device's
//! acknowledgement waits as long as `ingest.ack` says.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::counts::{Counters, add};
use super::records::{DeadLetter, json};
use super::store::{Entry, Kind, Store};
use super::worker::Orders;
use crate::config::{self, Source};
use crate::kafka::{MQTT_TOPIC, Outgoing, Producer, RECEIVED_MS, SendError};
use crate::mqtt::{Intake, Message, Receipt, topic};
use crate::telemetry::codec::{Car, Codec};

/// What a delivery report is about.
#[derive(Debug)]
pub enum Token {
    /// A reading; its device may be waiting.
    Reading(Receipt),
    /// A message refused at the door; its device may be waiting.
    Refused(Receipt),
    /// A message from the write-ahead log.
    Stored {
        /// Its number there.
        seq: u64,
        /// What it is written as.
        kind: Kind,
    },
    /// A dead letter of something already in the log.
    DeadLetter,
    /// A verdict: score, breach, episode or mark.
    Verdict,
}

/// Where the readings of one source go.
pub struct Route {
    /// The source as configured.
    pub source: Source,
    /// How its payloads are written.
    pub codec: Arc<Codec>,
}

/// What a message must have reached before its device is told that it is kept.
pub enum Ack {
    /// The write-ahead log, synced.
    Disk(Arc<Store>),
    /// Kafka, by its delivery report.
    Kafka,
    /// Our memory.
    Memory,
}

impl Ack {
    /// As configured; `store` is there if it takes one.
    pub fn of(ack: config::Ack, store: Option<&Arc<Store>>) -> Self {
        match (ack, store) {
            (config::Ack::Disk, Some(store)) => Ack::Disk(store.clone()),
            (config::Ack::Memory, _) => Ack::Memory,
            (config::Ack::Disk | config::Ack::Kafka, _) => Ack::Kafka,
        }
    }
}

/// The [`Intake`] of every gate and bridge.
pub struct Door {
    ack: Ack,
    routes: Vec<Route>,
    producer: Arc<Producer<Token>>,
    counters: Arc<Counters>,
    reading_bytes: usize,
    dead_letters: String,
    orders: Arc<Orders>,
}

impl Door {
    /// A door for these sources. Readings over `reading_bytes` are dead-lettered to the topic `dead_letters`.
    pub fn new(
        ack: Ack,
        routes: Vec<Route>,
        producer: Arc<Producer<Token>>,
        counters: Arc<Counters>,
        reading_bytes: usize,
        dead_letters: String,
        orders: Arc<Orders>,
    ) -> Self {
        Door { ack, routes, producer, counters, reading_bytes, dead_letters, orders }
    }

    fn route(&self, topic: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.source.mqtt.iter().any(|filter| topic::matches(filter, topic)))
    }

    fn refuse(&self, message: Message, receipt: Receipt, reason: &str) -> Result<(), (Message, Receipt)> {
        let letter = json(&DeadLetter::new(reason, message.received_ms, &message.topic, None, &message.payload));
        let key = last_level(&message.topic);
        if let Ack::Disk(store) = &self.ack {
            let (kind, topic) = (Kind::DeadLetter, self.dead_letters.as_str());
            let entry =
                Entry { kind, topic, mqtt_topic: &message.topic, key, payload: &letter, sender: sender_of(&message) };
            let kept = store.keep(&entry, &message, receipt);
            return kept.map_err(|receipt| (message, receipt));
        }
        let out = Outgoing { topic: &self.dead_letters, key: Some(key), payload: &letter, headers: &[] };
        match self.send(out, Token::Refused, receipt) {
            Ok(()) => Ok(()),
            Err((receipt, SendError::Full)) => Err((message, receipt)),
            Err((receipt, error)) => {
                tracing::error!("a message is lost, Kafka does not even take its dead letter: {error}");
                add(&self.counters.received, 1);
                Token::Refused(receipt).failed(&self.counters);
                Ok(())
            }
        }
    }

    /// Sends without the write-ahead log.
    fn send(
        &self,
        out: Outgoing<'_>,
        token: fn(Receipt) -> Token,
        receipt: Receipt,
    ) -> Result<(), (Receipt, SendError)> {
        let (waits, at_once) = match self.ack {
            Ack::Memory => (Receipt::none(), Some(receipt)),
            Ack::Kafka | Ack::Disk(_) => (receipt, None),
        };
        match self.producer.try_send(out, token(waits)) {
            Ok(()) => {
                add(&self.counters.received, 1);
                at_once.into_iter().for_each(Receipt::kept);
                Ok(())
            }
            Err((token, error)) => Err((at_once.unwrap_or_else(|| token.into_receipt()), error)),
        }
    }
}

impl Route {
    /// The car that the payload itself names, where the source says that it does.
    fn named_car<'a>(&self, payload: &'a [u8]) -> Option<Cow<'a, str>> {
        if *self.codec.car() == Car::Topic {
            return None;
        }
        // What does not decode gets its dead letter from the worker, in its place in the log.
        let mut row = vec![f32::NAN; self.codec.schema().width()];
        self.codec.decode(payload, &mut row).ok()?.car
    }
}

impl Token {
    fn into_receipt(self) -> Receipt {
        match self {
            Token::Reading(receipt) | Token::Refused(receipt) => receipt,
            Token::Stored { .. } | Token::DeadLetter | Token::Verdict => Receipt::none(),
        }
    }

    /// Settles what waited for this delivery: counts it, and lets the device have its acknowledgement.
    pub fn delivered(self, counters: &Counters) {
        match self {
            Token::Reading(receipt) => {
                add(&counters.produced, 1);
                receipt.kept();
            }
            Token::Refused(receipt) => {
                add(&counters.refused, 1);
                receipt.kept();
            }
            // The store hears of its own.
            Token::Stored { .. } | Token::DeadLetter => {}
            Token::Verdict => add(&counters.published, 1),
        }
    }

    /// Kafka won't ever take it: the device gets no acknowledgement, and the loss is counted.
    pub fn failed(self, counters: &Counters) {
        match self {
            Token::Reading(receipt) | Token::Refused(receipt) => {
                add(&counters.lost, 1);
                drop(receipt);
            }
            Token::Stored { .. } | Token::DeadLetter | Token::Verdict => {}
        }
    }
}

/// Who sent a message of QoS 2, and under which packet id.
fn sender_of(message: &Message) -> Option<(&str, u16)> {
    message.once.as_ref().map(|once| (&*once.client, once.id))
}

/// The part of a topic after its last `/`: the car, by default.
pub fn last_level(topic: &[u8]) -> &[u8] {
    topic.rsplit(|&byte| byte == b'/').next().unwrap_or(topic)
}

impl Intake for Door {
    fn offer(&self, message: Message, receipt: Receipt) -> Result<(), (Message, Receipt)> {
        let Some(route) = std::str::from_utf8(&message.topic).ok().and_then(|topic| self.route(topic)) else {
            // Some other application's message: passed on to its subscribers, and none of our business.
            add(&self.counters.unmapped, 1);
            receipt.kept();
            return Ok(());
        };
        if message.payload.len() > self.reading_bytes {
            let reason = format!(
                "{} bytes are more than a reading may have (limits.reading_bytes = {})",
                message.payload.len(),
                self.reading_bytes
            );
            return self.refuse(message, receipt, &reason);
        }
        let named = route.named_car(&message.payload);
        let key = named.as_deref().map_or_else(|| last_level(&message.topic), str::as_bytes);
        if let Ack::Disk(store) = &self.ack {
            let (kind, topic) = (Kind::Reading, route.source.topic.as_str());
            let entry = Entry {
                kind,
                topic,
                mqtt_topic: &message.topic,
                key,
                payload: &message.payload,
                sender: sender_of(&message),
            };
            let kept = store.keep(&entry, &message, receipt);
            drop(named);
            return kept.map_err(|receipt| (message, receipt));
        }
        let mut received = itoa::Buffer::new();
        let headers: [(&str, &[u8]); 2] =
            [(MQTT_TOPIC, &message.topic), (RECEIVED_MS, received.format(message.received_ms).as_bytes())];
        let out = Outgoing { topic: &route.source.topic, key: Some(key), payload: &message.payload, headers: &headers };
        match self.send(out, Token::Reading, receipt) {
            Ok(()) => Ok(()),
            Err((receipt, SendError::Full)) => Err((message, receipt)),
            Err((receipt, SendError::Stopped(why))) => {
                // Nothing will ever be accepted again: better to end, and be started anew, than to look alive.
                if !self.orders.ended.swap(true, Relaxed) {
                    tracing::error!("the producer has stopped: {why}");
                }
                Err((message, receipt))
            }
            Err((receipt, error)) => {
                let reason = format!("Kafka does not take it: {error}");
                self.refuse(message, receipt, &reason)
            }
        }
    }

    fn release(&self, client: &Arc<str>, id: u16, receipt: Receipt) {
        match &self.ack {
            Ack::Disk(store) => store.release(client, id, receipt),
            Ack::Kafka | Ack::Memory => receipt.kept(),
        }
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        match &self.ack {
            Ack::Disk(store) => Box::pin(store.room()),
            Ack::Kafka | Ack::Memory => Box::pin(self.producer.room()),
        }
    }
}
