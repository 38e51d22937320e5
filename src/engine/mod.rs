//! The wiring of the path, MQTT to verdict, and the counts that prove nothing was lost.
//!
//! The engine knows no terminal. A console meets it in three types: [`Query`] (what it wants to see), [`Snapshot`] (what
//! can be seen) and [`Command`] (what can be asked). All three are plain data that can cross a socket.
//!
//! Who owns what:
//!
//! | piece | owner | others reach it by |
//! |---|---|---|
//! | a part of the fleet, its model and consumer | one [`worker`], a thread | questions between batches ([`ask`]) |
//! | the order in which a console sees the fleet | its [`viewer`], a task | the snapshots it sends |
//! | producer, counters | shared, lock-free | |
//! | what is on its way to Kafka by the disk | [`store`], two threads | `keep`, and delivery reports |
//! | gate, bridges, simulated fleet | [`path`] | their own handles |

mod ask;
mod build;
mod counts;
pub mod devices;
mod door;
mod keep;
pub mod lane;
mod latency;
pub mod models;
pub mod order;
mod path;
pub mod present;
mod process;
pub mod records;
mod reload;
mod store;
pub mod view;
mod viewer;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tokio::runtime::Runtime;

use crate::config::{self, Config};
use crate::detect::DetectError;
use crate::kafka::{Cluster, Consumer, KafkaError, Producer};
use crate::model::ModelError;
use crate::mqtt::bridge::Bridge;
use crate::mqtt::{Intake, MqttError};
use crate::telemetry::codec::CodecError;
use crate::wal::WalError;
use ask::Asker;
use build::Built;
use counts::Counters;
use door::{Door, Token};
use path::Path;
use records::{Summary, json};
use store::{AtWork, Outlet, Store};
use viewer::Viewer;
use worker::{Events, Orders, Parts, Worker};

pub use view::{Command, Query, Snapshot};

/// Events that may wait for whoever reads them before they are counted as dropped.
const EVENTS: usize = 65_536;
/// How long a stop waits for devices' messages in flight, and for Kafka to take what it was given.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait before asking a cluster that is away for its topics again.
const TOPIC_RETRY: Duration = Duration::from_secs(2);

/// Why the engine could not start.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The model cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Its calibration cannot be used.
    #[error("model {0}: {1}")]
    Detect(String, DetectError),
    /// A source cannot be decoded as configured.
    #[error("source {0}: {1}")]
    Codec(String, CodecError),
    /// Something configured leads nowhere.
    #[error("{0}")]
    Config(String),
    /// Kafka cannot be used as configured.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The write-ahead log cannot be used.
    #[error(transparent)]
    Log(#[from] WalError),
    /// The gate cannot listen, or a broker's address is none.
    #[error(transparent)]
    Mqtt(#[from] MqttError),
    /// The simulated fleet cannot drive.
    #[error("simulated fleet: {0}")]
    Simulate(String),
    /// The system gives no threads.
    #[error("the system gives no threads: {0}")]
    Threads(std::io::Error),
}

impl EngineError {
    /// Whether what was asked for is at fault, and not the world.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            EngineError::Model(_) | EngineError::Detect(..) | EngineError::Codec(..) | EngineError::Config(_)
        ) || matches!(self, EngineError::Mqtt(error) if error.is_usage()        )
    }
}

/// The running path.
pub struct Engine {
    runtime: Runtime,
    path: Arc<Path>,
    /// While it is there, models' files are looked at.
    watch: crossbeam_channel::Sender<()>,
    asker: Asker<Worker>,
    worker: JoinHandle<Worker>,
    orders: Arc<Orders>,
    producer: Arc<Producer<Token>>,
    counters: Arc<Counters>,
    /// With `ingest.ack = "disk"`, what keeps messages and hands them on.
    log: Option<AtWork>,
    stale_after: i64,
    events_dropped: Arc<AtomicU64>,
    started: Instant,
}

/// Events as lines of JSON, for whoever runs the engine without a screen.
pub type EventLines = crossbeam_channel::Receiver<Vec<u8>>;

impl Engine {
    /// Opens Kafka, loads the models, starts worker, gate, bridges and the simulated fleet. With `with_events`, what happens
    /// to episodes comes as lines of JSON too.
    pub fn start(config: &Config, with_events: bool) -> Result<(Engine, Option<EventLines>), EngineError> {
        let started = Instant::now();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("dashlight-io")
            .build()
            .map_err(EngineError::Threads)?;
        let counters = Arc::new(Counters::default());
        let cluster = Arc::new(Cluster::open(&config.kafka)?);
        let (store, hands) = Store::configured(config, &counters)?.unzip();
        let outstanding = Arc::new(AtomicU64::new(0));
        let producer = {
            let (counters, outstanding, store) = (counters.clone(), outstanding.clone(), store.clone());
            Producer::open_telling(&cluster, move |token: Token, result| {
                if let (Token::Stored { seq, kind }, Some(store)) = (&token, &store) {
                    return store.settled(*seq, *kind, result);
                }
                if matches!(token, Token::DeadLetter | Token::Verdict) {
                    outstanding.fetch_sub(1, Relaxed);
                }
                match result {
                    Ok(_) => token.delivered(&counters),
                    Err(error) => {
                        tracing::error!("Kafka does not take a record: {error}");
                        token.failed(&counters);
                    }
                }
            })?
        };
        let producer = Arc::new(producer);

        let sources = &config.source;
        let Built { mut lanes, routes, watched, shown } = build::lanes(config)?;
        let topics: Vec<&str> = sources.iter().map(|source| source.topic.as_str()).collect();
        ensure_topics(&runtime, &cluster, config, &topics);

        let (keeper, begin) = build::keeper(config, &cluster, &mut lanes).unzip();
        let consumer = match begin {
            Some(begin) if !cluster.is_embedded() => {
                Consumer::open_from(&cluster, &config.kafka.group, &topics, begin)?
            }
            _ => Consumer::open(&cluster, &config.kafka.group, &topics)?,
        };
        let (asker, asks) = ask::channel();
        let orders = Arc::new(Orders::default());
        let events_dropped = Arc::new(AtomicU64::new(0));
        let (events, lines) = with_events
            .then(|| crossbeam_channel::bounded(EVENTS))
            .map(|(lines, receiver)| (Events { lines, dropped: events_dropped.clone() }, receiver))
            .unzip();
        let worker = Worker::new(Parts {
            lanes,
            consumer,
            producer: producer.clone(),
            outstanding,
            counters: counters.clone(),
            topics: config.kafka.topics.clone(),
            events,
            orders: orders.clone(),
            exclusive: cluster.is_embedded(),
            keeper,
        });
        let worker = std::thread::Builder::new()
            .name("dashlight-worker".into())
            .spawn(move || worker.run(&asks))
            .map_err(EngineError::Threads)?;

        let outlet = |dead_letters: &str| Outlet {
            cluster: cluster.clone(),
            producer: producer.clone(),
            topics: topics.iter().copied().chain([dead_letters]).map(str::to_owned).collect(),
            orders: orders.clone(),
            runtime: runtime.handle().clone(),
        };
        let log = match store.clone().zip(hands) {
            Some((store, hands)) => Some(store.start(hands, outlet(&config.kafka.topics.dead_letters))?),
            None => None,
        };
        let intake: Arc<dyn Intake> = Arc::new(Door::new(
            door::Ack::of(config.ack(), store.as_ref()),
            routes,
            producer.clone(),
            counters.clone(),
            config.limits.reading_bytes,
            config.kafka.topics.dead_letters.clone(),
            orders.clone(),
        ));
        let gate = devices::start_gate(config, intake.clone(), &runtime)?;
        let bridges = devices::start_bridges(config, &intake, &runtime)?;

        let cars = config.simulated_cars();
        let live = match &gate {
            Some((gate, insider)) if cars > 0 => Some(devices::start_fleet(config, gate, insider, &runtime)?),
            _ => None,
        };
        let path = Path {
            source: source_words(&bridges, cars),
            kafka: cluster.bootstrap().to_owned(),
            kafka_embedded: cluster.is_embedded(),
            topic: topics.first().copied().unwrap_or_default().to_owned(),
            backend: crate::model::BACKEND.to_owned(),
            shown: shown.into(),
            started: now_ms(),
            counters: counters.clone(),
            ack: config.ack(),
            store,
            cluster,
            gate: gate.map(|(gate, _)| gate),
            bridges,
            live: live.into(),
        };
        let path = Arc::new(path);
        let watch = reload::start(watched, asker.clone(), path.clone()).map_err(EngineError::Threads)?;
        let engine = Engine {
            runtime,
            path,
            watch,
            asker,
            worker,
            orders,
            producer,
            counters,
            log,
            stale_after: (config.limits.stale_after * 1000.0) as i64,
            events_dropped,
            started,
        };
        Ok((engine, lines))
    }

    /// A console's end.
    pub fn attach(&self) -> view::Handle {
        self.orders.watched.store(true, Relaxed);
        let viewer =
            Viewer { workers: vec![self.asker.clone()], path: self.path.clone(), stale_after: self.stale_after };
        self.runtime.block_on(viewer.start())
    }

    /// Where tasks of the command that runs the engine may live.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        self.runtime.handle()
    }

    /// Where devices can connect.
    pub fn mqtt_lines(&self) -> Vec<String> {
        self.path.mqtt_lines()
    }

    /// Kafka's bootstrap address.
    pub fn kafka(&self) -> &str {
        &self.path.kafka
    }

    /// Tells, from anywhere and for as long as one likes, whether the worker still works.
    pub fn liveness(&self) -> impl Fn() -> bool + Send + 'static {
        let orders = self.orders.clone();
        move || !orders.ended.load(Relaxed)
    }

    /// Whether the worker still works; if it does not, the engine must be stopped.
    pub fn is_alive(&self) -> bool {
        !self.orders.ended.load(Relaxed)
    }

    /// Stops taking messages, waits until what was taken is judged and written, and says what went where.
    pub fn stop(self) -> Result<Summary, EngineError> {
        let Engine {
            runtime,
            path,
            watch,
            asker,
            worker,
            orders,
            producer,
            counters,
            log,
            events_dropped,
            started,
            ..
        } = self;
        drop(watch);
        let live = path.live.write().take();
        runtime.block_on(async {
            if let Some(live) = live
                && !live.stop(PATIENCE).await.settled
            {
                tracing::warn!("some simulated readings were never acknowledged");
            }
            for bridge in &path.bridges {
                bridge.stop(PATIENCE).await;
            }
            if let Some(gate) = &path.gate
                && !gate.stop(PATIENCE).await
            {
                tracing::warn!("some devices' messages were still in flight at the end; they were not acknowledged");
            }
        });
        let in_log = log.map_or(0, |log| log.finish(&path.cluster, PATIENCE));
        // What Kafka, being away, does not take now is in the log.
        producer.flush(if in_log > 0 { Duration::ZERO } else { PATIENCE });
        orders.cut_off.store(in_log > 0, Relaxed);
        orders.drain.store(true, Relaxed);
        drop(asker);
        let worker = worker.join().map_err(|_| {
            EngineError::Threads(std::io::Error::other(
                "the worker died; the log says of what (its readings are in Kafka)",
            ))
        })?;
        let counts = counters.read();
        let seconds = started.elapsed().as_secs_f64();
        let latency = worker.latency();
        runtime.shutdown_timeout(Duration::from_secs(1));
        Ok(Summary {
            event: "summary",
            counts,
            cars: worker.lanes.iter().map(|lane| lane.shard().cars().len()).sum(),
            seconds,
            scored_per_second: counts.scored as f64 / seconds.max(f64::EPSILON),
            latency_p50_ms: latency.map(|(p50, _)| p50),
            latency_p99_ms: latency.map(|(_, p99)| p99),
            peak_memory_mib: process::peak_resident_mib(),
            in_log,
            events_dropped: events_dropped.load(Relaxed),
            shadow: worker.lanes.iter().find_map(|lane| lane.comparison()),
        })
    }
}

/// Creates what topics are missing. A remote cluster that is away now is asked again until it answers.
fn ensure_topics(runtime: &Runtime, cluster: &Arc<Cluster>, config: &Config, raw: &[&str]) {
    let config::Topics { scores, breaches, episodes, dead_letters } = config.kafka.topics.clone();
    let mut missing: Vec<String> = raw.iter().map(|&topic| topic.to_owned()).collect();
    missing.extend([scores, breaches, episodes, dead_letters]);
    missing.sort_unstable();
    missing.dedup();
    let cluster = cluster.clone();
    let mut said = String::new();
    // Until a topic is there nothing is accepted for it, so what is refused today is asked for again too: somebody may
    // grant it.
    let mut ensure = move || {
        missing.retain(|topic| match cluster.ensure_topic(topic) {
            Ok(_) => false,
            Err(error) if error.is_retriable() => {
                tracing::debug!("topic {topic}: {error}");
                true
            }
            Err(error) => {
                let sentence = format!("topic {topic} cannot be made, and without it nothing is accepted: {error}");
                if sentence != said {
                    tracing::error!("{sentence}");
                    said = sentence;
                }
                true
            }
        });
        missing.is_empty()
    };
    // An embedded cluster answers at once; a remote one must not keep the console waiting.
    if config.kafka.bootstrap.is_empty() {
        ensure();
        return;
    }
    runtime.spawn_blocking(move || {
        while !ensure() {
            std::thread::sleep(TOPIC_RETRY);
        }
    });
}

fn source_words(bridges: &[Bridge], cars: usize) -> String {
    if cars > 0 {
        "demo fleet".into()
    } else if let [broker] = bridges {
        crate::text::harmless(&broker.broker().to_string(), 48).into_owned()
    } else {
        "mqtt".into()
    }
}

/// The last line of a headless run.
pub fn summary_line(summary: &Summary) -> Vec<u8> {
    json(summary)
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
