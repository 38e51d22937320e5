//! A Kafka cluster: the embedded one, or one out there.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{FromClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError as NativeError;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::client;
use super::credit::Topics;
use super::error::KafkaError;
use super::health::{Board, Health, Place};
use super::settings::Settings;
use crate::config;
use crate::text::harmless;

/// A Kafka cluster. While it is open it watches whether Kafka answers; an embedded one lives as long as this does.
pub struct Cluster {
    /// Watches the cluster; of an embedded one, also the client that holds it.
    watch: Arc<BaseProducer<Watch>>,
    embedded: bool,
    settings: Settings,
    partitions: i32,
    replication: i32,
    topics: Arc<Topics>,
    board: Arc<Board>,
    stop: Arc<AtomicBool>,
    poller: Option<JoinHandle<()>>,
}

impl Cluster {
    /// How long a topic's creation may take, and asking for its partitions.
    const PATIENCE: Duration = Duration::from_secs(5);
    /// How often the watching client looks for something to tell.
    const POLL: Duration = Duration::from_millis(200);

    /// Starts an embedded cluster, or sets out to reach the one that the configuration names. That Kafka is away is no
    /// error here; a property that makes no sense is.
    pub fn open(kafka: &config::Kafka) -> Result<Self, KafkaError> {
        let embedded = kafka.bootstrap.is_empty();
        let settings = match embedded {
            true => Settings::embedded(String::new()),
            false => Settings::remote(kafka)?,
        };
        if embedded && !kafka.properties.is_empty() {
            tracing::warn!("kafka.properties have no meaning for the embedded Kafka and are not used");
        }
        let board = Board::new(&kafka.bootstrap);
        let mut config = settings.common();
        if embedded {
            config.set("test.mock.num.brokers", "1");
        }
        let watch = BaseProducer::from_config_and_context(&config, Watch { place: board.place() });
        let watch = Arc::new(watch.map_err(|error| KafkaError::client(&error))?);
        let settings = match watch.client().mock_cluster() {
            Some(mock) => Settings::embedded(mock.bootstrap_servers()),
            None => settings,
        };
        if embedded {
            watch.context().place.up();
        }

        let stop = Arc::new(AtomicBool::new(false));
        let poller = std::thread::Builder::new().name("kafka-watch".into()).spawn({
            let (watch, stop) = (watch.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Acquire) {
                    watch.poll(Self::POLL);
                }
            }
        });
        let poller = poller.map_err(|error| KafkaError::Client(format!("cannot start a thread: {error}")))?;
        Ok(Cluster {
            watch,
            embedded,
            settings,
            partitions: kafka.partitions.max(1),
            replication: kafka.replication,
            topics: Arc::new(Topics::new(embedded)),
            board,
            stop,
            poller: Some(poller),
        })
    }

    /// Where other clients connect: `127.0.0.1:PORT` of an embedded cluster.
    pub fn bootstrap(&self) -> &str {
        self.settings.bootstrap()
    }

    /// Whether it lives in this process, in memory.
    pub fn is_embedded(&self) -> bool {
        self.embedded
    }

    /// Whether Kafka answers, since when not and why.
    pub fn health(&self) -> Health {
        self.board.health()
    }

    /// Sees to it that the topic exists, with the configured partitions if it must be created; how many it has. Waits
    /// for Kafka a few seconds, so call it from a thread that may block.
    ///
    /// From the first call until one succeeds a producer answers [`super::SendError::Full`] for this topic, so that
    /// nothing is refused for good because Kafka was away at the start. After a [retriable](KafkaError::is_retriable)
    /// error call it again.
    pub fn ensure_topic(&self, name: &str) -> Result<i32, KafkaError> {
        let known = self.topics.known(name);
        if known.partitions() > 0 {
            return Ok(known.partitions());
        }
        let partitions = match self.watch.client().mock_cluster() {
            Some(mock) => {
                mock.create_topic(name, self.partitions, 1).map_err(|error| self.refused(name, &error.to_string()))?;
                self.partitions
            }
            None => self.ensure_remote(name)?,
        };
        self.topics.ready(name, partitions);
        Ok(partitions)
    }

    fn ensure_remote(&self, name: &str) -> Result<i32, KafkaError> {
        let denied = match self.create(name)? {
            Ok(_) | Err((_, Code::TopicAlreadyExists)) => None,
            Err((
                _,
                code @ (Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed | Code::PolicyViolation),
            )) => Some(code),
            Err((_, Code::InvalidReplicationFactor)) => {
                return Err(self.refused(
                    name,
                    &format!(
                        "it has too few brokers for kafka.replication = {}; set -1 for the cluster's own",
                        self.replication
                    ),
                ));
            }
            Err((_, code)) if is_passing(code) => return Err(self.away(&code.to_string())),
            Err((_, code)) => return Err(self.refused(name, &code.to_string())),
        };
        // It exists, or somebody else has to have created it. The cluster may need a moment to know its partitions.
        let deadline = Instant::now() + Self::PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
            match self.partitions_of(name, left)? {
                Ok(partitions) => return Ok(partitions),
                Err(Code::TopicAuthorizationFailed) => return Err(self.denied(name, "see it")),
                Err(_) if denied.is_some() => return Err(self.denied(name, "create topics")),
                Err(Code::InvalidTopic) => return Err(self.refused(name, "no name for a topic")),
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
                Err(code) => return Err(self.away(&code.to_string())),
            }
        }
    }

    /// Asks for the topic's creation.
    fn create(&self, name: &str) -> Result<Result<String, (String, Code)>, KafkaError> {
        // A client of its own and for this only: what librdkafka tells an admin client is never collected by its
        // binding, so one that lived on while Kafka is away would fill the memory with complaints.
        let admin = AdminClient::<DefaultClientContext>::from_config(&self.settings.common())
            .map_err(|error| KafkaError::client(&error))?;
        let topic = NewTopic::new(name, self.partitions, TopicReplication::Fixed(self.replication));
        let options = AdminOptions::new().request_timeout(Some(Self::PATIENCE)).operation_timeout(Some(Self::PATIENCE));
        let answer = wait_for(admin.create_topics([&topic], &options));
        match answer {
            Ok(results) => results.into_iter().next().ok_or_else(|| self.away("it did not say whether it created it")),
            Err(error) => Err(self.away(&error.to_string())),
        }
    }

    /// The partitions the topic has, or what the cluster says of it instead.
    fn partitions_of(&self, name: &str, timeout: Duration) -> Result<Result<i32, Code>, KafkaError> {
        let metadata = self.watch.client().fetch_metadata(Some(name), timeout);
        let metadata = metadata.map_err(|error| self.away(&error.to_string()))?;
        self.watch.context().place.up();
        Ok(match metadata.topics().first() {
            None => Err(Code::UnknownTopicOrPartition),
            Some(topic) => match topic.error() {
                Some(error) => Err(error.into()),
                None if topic.partitions().is_empty() => Err(Code::LeaderNotAvailable),
                None => Ok(topic.partitions().len() as i32),
            },
        })
    }

    /// The error of not getting an answer, with the reason librdkafka has for it if there is one.
    fn away(&self, said: &str) -> KafkaError {
        let why = match self.health() {
            Health::Away { reason, .. } => reason,
            Health::Up => harmless(said, 200).into_owned(),
        };
        KafkaError::Away { address: self.bootstrap().to_owned(), why }
    }

    fn refused(&self, topic: &str, why: &str) -> KafkaError {
        let (topic, why) = (harmless(topic, 100).into_owned(), harmless(why, 200).into_owned());
        KafkaError::Topic { address: self.bootstrap().to_owned(), topic, why }
    }

    fn denied(&self, topic: &str, what: &'static str) -> KafkaError {
        KafkaError::NotAuthorised { address: self.bootstrap().to_owned(), topic: topic.to_owned(), what }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn topics(&self) -> &Arc<Topics> {
        &self.topics
    }

    pub(super) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// The embedded cluster itself, for making trouble in tests.
    #[cfg(test)]
    pub(super) fn mock(&self) -> rdkafka::mocking::MockCluster<'_, impl ClientContext> {
        self.watch.client().mock_cluster().expect("embedded")
    }
}

/// Whether a refusal to create a topic is one of the moment.
fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::RequestTimedOut
            | Code::OperationTimedOut
            | Code::NotController
            | Code::BrokerNotAvailable
            | Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::NetworkException
            | Code::LeaderNotAvailable
    )
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(poller) = self.poller.take() {
            // It runs nothing that panics; were it so, that thread has told.
            let _ = poller.join();
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("settings", &self.settings)
            .field("embedded", &self.embedded)
            .finish_non_exhaustive()
    }
}

/// Hears from librdkafka on behalf of the cluster.
struct Watch {
    place: Place,
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client::on_log(&self.place, level, facility, line);
    }

    fn stats_raw(&self, json: &[u8]) {
        client::on_statistics(&self.place, json);
    }

    fn error(&self, error: NativeError, reason: &str) {
        client::on_error(&self.place, &error, reason);
    }
}

impl ProducerContext for Watch {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &rdkafka::producer::DeliveryResult<'_>, _: ()) {}
}

/// Waits on this thread for a future that another thread completes.
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => std::thread::park(),
        }
    }
}
