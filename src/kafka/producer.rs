//! Into the log: accepted at once or not at all, and each record's fate told later.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError as NativeError;
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::client;
use super::cluster::Cluster;
use super::credit::{Credit, Topics, weight};
use super::error::{DeliveryError, KafkaError, SendError};
use super::health::Place;
use super::settings::Settings;
use super::tail::Written;

/// A record to be written.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Records of one key stay in order and go to one partition; the empty key is a key too.
    pub key: Option<&'a [u8]>,
    /// Its value, byte for byte.
    pub payload: &'a [u8],
    /// Its headers: names without a zero byte, and values.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// Writes records, each once and in order for its key, however long Kafka is away. One per process; its reports come
/// from a thread of its own.
///
/// `T` is a token that travels with a record and comes back with its fate: exactly once, either from
/// [`Producer::try_send`] with the reason why the record was not accepted, or to `on_delivery`.
pub struct Producer<T: Send + 'static> {
    native: Arc<BaseProducer<Reports<T>>>,
    topics: Arc<Topics>,
    queue: Arc<Queue>,
    stop: Arc<AtomicBool>,
    poller: Option<JoinHandle<()>>,
}

/// What is accepted and not yet reported, and how much that may be.
#[derive(Debug)]
struct Queue {
    records: AtomicUsize,
    bytes: AtomicUsize,
    max_records: usize,
    max_bytes: usize,
    max_record_bytes: usize,
    starved: AtomicBool,
    /// Why nothing more is accepted.
    stopped: Mutex<Option<String>>,
    is_stopped: AtomicBool,
}

/// What travels with a record through librdkafka.
struct Travelling<T> {
    /// Only ever taken out; the mutex makes it shareable, which librdkafka's binding asks of it.
    token: Mutex<T>,
    bytes: u32,
    /// For its credit: the partitions of its topic, and which it went to.
    credit: Option<(Arc<[Credit]>, i32)>,
}

type OnDelivery<T> = Box<dyn Fn(T, Result<Written, DeliveryError>) + Send + Sync>;

/// Hears from librdkafka.
struct Reports<T> {
    on_delivery: OnDelivery<T>,
    topics: Arc<Topics>,
    queue: Arc<Queue>,
    place: Place,
}

impl<T: Send + 'static> Producer<T> {
    /// How long a dropped producer waits for its poller.
    const POLL: Duration = Duration::from_millis(100);

    /// A producer for the cluster; needs no Kafka to be there. `on_delivery` is called from the producer's own thread
    /// and must not block.
    pub fn open(
        cluster: &Cluster,
        on_delivery: impl Fn(T, Result<(), DeliveryError>) + Send + Sync + 'static,
    ) -> Result<Self, KafkaError> {
        Self::open_telling(cluster, move |token, fate| on_delivery(token, fate.map(drop)))
    }

    /// The same, and tells where each record stands.
    pub fn open_telling(
        cluster: &Cluster,
        on_delivery: impl Fn(T, Result<Written, DeliveryError>) + Send + Sync + 'static,
    ) -> Result<Self, KafkaError> {
        let config = cluster.settings().producer();
        let number = |key| Settings::number(&config, key);
        let queue = Arc::new(Queue {
            records: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_records: number("queue.buffering.max.messages")?.max(1),
            max_bytes: number("queue.buffering.max.kbytes")? * 1024,
            // librdkafka counts the record's overhead too.
            max_record_bytes: number("message.max.bytes")?.saturating_sub(1024),
            starved: AtomicBool::new(false),
            stopped: Mutex::new(None),
            is_stopped: AtomicBool::new(false),
        });
        let topics = cluster.topics().clone();
        let reports = Reports {
            on_delivery: Box::new(on_delivery),
            topics: topics.clone(),
            queue: queue.clone(),
            place: cluster.board().place(),
        };
        let native = BaseProducer::from_config_and_context(&config, reports);
        let native = Arc::new(native.map_err(|error| KafkaError::client(&error))?);
        let stop = Arc::new(AtomicBool::new(false));
        let poller = std::thread::Builder::new().name("kafka-reports".into()).spawn({
            let (native, stop) = (native.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Acquire) {
                    native.poll(Self::POLL);
                }
            }
        });
        let poller = poller.map_err(|error| KafkaError::Client(format!("cannot start a thread: {error}")))?;
        Ok(Producer { native, topics, queue, stop, poller: Some(poller) })
    }

    /// Takes the record, or says why not and hands the token back. Never blocks, and copies what it takes.
    pub fn try_send(&self, out: Outgoing<'_>, token: T) -> Result<(), (T, SendError)> {
        let bytes = weight(out.payload, out.key, out.headers);
        if bytes > self.queue.max_record_bytes {
            return Err((token, SendError::TooLarge { bytes: out.payload.len(), max: self.queue.max_record_bytes }));
        }
        let bytes = bytes as u32;
        if let Err(error) = self.queue.enter(bytes, &self.topics) {
            return Err((token, error));
        }
        let (partition, credit) = match self.topics.get(out.topic) {
            None => (None, None),
            Some(topic) if topic.partitions() == 0 => {
                // Asked for, and not there yet: sent now, it would be refused for good.
                self.queue.leave(bytes, &self.topics);
                return Err((token, SendError::Full));
            }
            Some(topic) => match topic.credits() {
                None => (None, None),
                Some(credits) => {
                    let partition = topic.partition_of(out.key);
                    match credits.get(partition as usize) {
                        Some(credit) if !credit.take(bytes, &self.topics.room) => {
                            self.queue.leave(bytes, &self.topics);
                            return Err((token, SendError::Full));
                        }
                        _ => (Some(partition), Some((credits, partition))),
                    }
                }
            },
        };

        let travelling = Box::new(Travelling { token: Mutex::new(token), bytes, credit });
        let mut record = BaseRecord::with_opaque_to(out.topic, travelling).payload(out.payload);
        record.partition = partition;
        record.key = out.key;
        if !out.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(out.headers.len());
            record.headers = Some(
                out.headers
                    .iter()
                    .fold(headers, |headers, &(key, value)| headers.insert(Header { key, value: Some(value) })),
            );
        }
        match self.native.send::<[u8], [u8]>(record) {
            Ok(()) => Ok(()),
            Err((error, record)) => {
                let travelling = *record.delivery_opaque;
                travelling.give_back(&self.topics);
                self.queue.leave(bytes, &self.topics);
                Err((travelling.token.into_inner(), send_error(&error, out.payload.len(), &self.queue)))
            }
        }
    }

    /// Resolves when there may be room again after [`SendError::Full`]; try again then. Needs a tokio runtime with time.
    pub async fn room(&self) {
        self.topics.room.wait().await;
    }

    /// Records accepted whose fate is not known yet.
    pub fn in_flight(&self) -> usize {
        self.queue.records.load(Ordering::Acquire)
    }

    /// Waits until every accepted record has met its fate, at most `timeout`; how many have not.
    pub fn flush(&self, timeout: Duration) -> usize {
        let deadline = Instant::now() + timeout;
        while self.in_flight() > 0 && Instant::now() < deadline {
            // The reports come on the poller's thread; there is nothing to do here but wait for them.
            std::thread::sleep(Duration::from_millis(2));
        }
        self.in_flight()
    }
}

impl<T: Send + 'static> Drop for Producer<T> {
    /// What is not delivered yet comes back as [`DeliveryError::Closed`].
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(poller) = self.poller.take() {
            // It only fails if a report's receiver panicked, which that thread has already told.
            let _ = poller.join();
        }
    }
}

impl<T: Send + 'static> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl Queue {
    fn enter(&self, bytes: u32, topics: &Topics) -> Result<(), SendError> {
        if self.is_stopped.load(Ordering::Acquire) {
            return Err(SendError::Stopped(self.stopped.lock().clone().unwrap_or_default()));
        }
        let fits = || {
            let records = self.records.fetch_add(1, Ordering::SeqCst) + 1;
            let bytes_then = self.bytes.fetch_add(bytes as usize, Ordering::SeqCst) + bytes as usize;
            let fits = records <= self.max_records && bytes_then <= self.max_bytes;
            if !fits {
                self.records.fetch_sub(1, Ordering::SeqCst);
                self.bytes.fetch_sub(bytes as usize, Ordering::SeqCst);
            }
            fits
        };
        if fits() || topics.room.starved_unless(&self.starved, fits) { Ok(()) } else { Err(SendError::Full) }
    }

    fn leave(&self, bytes: u32, topics: &Topics) {
        let records = self.records.fetch_sub(1, Ordering::SeqCst) - 1;
        let bytes_left = self.bytes.fetch_sub(bytes as usize, Ordering::SeqCst) - bytes as usize;
        if records <= self.max_records / 4 * 3 && bytes_left <= self.max_bytes / 4 * 3 {
            topics.room.relieve(&self.starved);
        }
    }
}

impl<T> Travelling<T> {
    fn credit(&self) -> Option<&Credit> {
        let (credits, partition) = self.credit.as_ref()?;
        credits.get(*partition as usize)
    }

    fn give_back(&self, topics: &Topics) {
        if let Some(credit) = self.credit() {
            credit.give_back(self.bytes, &topics.room);
        }
    }
}

fn send_error(error: &NativeError, bytes: usize, queue: &Queue) -> SendError {
    match error.rdkafka_error_code() {
        Some(Code::QueueFull) => SendError::Full,
        Some(Code::MessageSizeTooLarge) => SendError::TooLarge { bytes, max: queue.max_record_bytes },
        Some(Code::Fatal) => SendError::Stopped(queue.stopped.lock().clone().unwrap_or_else(|| error.to_string())),
        Some(code) => SendError::Refused(code.to_string()),
        None => SendError::Refused(error.to_string()),
    }
}

impl<T: Send + 'static> ClientContext for Reports<T> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client::on_log(&self.place, level, facility, line);
    }

    fn stats_raw(&self, json: &[u8]) {
        client::on_statistics(&self.place, json);
    }

    fn error(&self, error: NativeError, reason: &str) {
        if error.rdkafka_error_code() == Some(Code::Fatal) {
            // librdkafka gives up only where going on would break its promise; whoever owns the producer decides.
            tracing::error!("Kafka: the producer has stopped: {}", crate::text::harmless(reason, 300));
            *self.queue.stopped.lock() = Some(crate::text::harmless(reason, 300).into_owned());
            self.queue.is_stopped.store(true, Ordering::Release);
        }
        client::on_error(&self.place, &error, reason);
    }
}

impl<T: Send + 'static> ProducerContext for Reports<T> {
    type DeliveryOpaque = Box<Travelling<T>>;

    fn delivery(&self, report: &DeliveryResult<'_>, travelling: Self::DeliveryOpaque) {
        let fate = match report {
            Ok(record) => {
                self.place.alive();
                match travelling.credit() {
                    // An offset that is not known cannot be waited for.
                    Some(credit) if record.offset() >= 0 => {
                        credit.delivered(record.offset(), travelling.bytes, &self.topics.room);
                    }
                    Some(credit) => credit.give_back(travelling.bytes, &self.topics.room),
                    None => {}
                }
                Ok(Written { partition: record.partition(), offset: record.offset() })
            }
            Err((error, _)) => {
                travelling.give_back(&self.topics);
                Err(DeliveryError::of(error))
            }
        };
        let bytes = travelling.bytes;
        (self.on_delivery)(travelling.token.into_inner(), fate);
        // Only now: whoever sees nothing in flight has heard of everything.
        self.queue.leave(bytes, &self.topics);
    }
}
