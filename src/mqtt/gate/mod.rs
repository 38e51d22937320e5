//! The gate: where devices connect. MQTT 3.1.1 and 5 on one port.
//!
//! Every message goes to the [`Intake`]; its PUBACK or PUBREC is sent when its receipt says that it is kept, in the order of
//! arrival. While the intake has no room the connection is not read, so that TCP holds the device back. Subscribers get what
//! is published (see [`router`]), but never hold the intake up. What a client sends can end its own connection and nothing
//! else; all it can make the gate hold is bounded by [`GateOptions`].
//!
//! | file | what it owns |
//! |---|---|
//! | here | the list of connections, the gate's own messages, the orderly stop |
//! | `connection` | one device's connection: the task that reads, waits, acknowledges and ends |
//! | `handshake`, `packets` | its beginning and end; what it does with each packet |
//! | `listen`, `stream` | ports and acceptors; a connection's socket, plain or TLS |
//! | `guard`, `limits` | who is let in, and as whom; how many and how much from one address and one client |
//! | `place` | what a connection holds of the gate, given up whatever way it ends |
//! | `session`, `inbound` | what outlives a connection: queue, window, subscriptions; unreleased QoS 2 ids |
//! | `report` | what an operator should hear of: clients refused, held back, kept from topics |
//! | `router` | sessions by client id, who gets what, retained messages, wills |
//! | `tree` | filters to subscribers |

mod connection;
mod guard;
mod handshake;
mod inbound;
mod limits;
mod listen;
mod options;
mod packets;
mod place;
mod report;
mod router;
mod session;
mod stream;
mod tree;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};

use self::guard::Guard;
pub use self::guard::{Access, Insider};
use self::limits::Origins;
pub use self::limits::Rates;
use self::listen::{accept, bind};
pub use self::options::GateOptions;
use self::report::Report;
use self::router::{Bounds, Router};
use self::session::{Kick, Link, Queues};
use super::MqttError;
use super::intake::{Intake, Message, Receipt};
use super::topic::{self, TopicError};
use super::wire::{Publish, Will};

/// How often sessions are looked through for those whose time is over, and wills for those that are due.
const TIDY: Duration = Duration::from_millis(500);
/// Wills that wait for room in the intake.
const BACKLOG: usize = 1_024;

/// A running gate. Dropped, it stops at once; [`Gate::stop`] waits for what is outstanding.
pub struct Gate {
    inner: Arc<Inner>,
    addresses: Vec<SocketAddr>,
    /// How many of the addresses, the first ones, are plain.
    plain: usize,
    moved: Vec<(SocketAddr, SocketAddr)>,
}

/// What the gate has counted since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GateCounts {
    /// Connections that got their CONNACK.
    pub accepted: u64,
    /// Connections that did not: too many, no CONNECT in time, not allowed, not MQTT.
    pub refused: u64,
    /// Of those, the ones that gave no right user, password or certificate.
    pub unauthorised: u64,
    /// Of those, the ones that were too many, in all or from one address.
    pub crowded: u64,
    /// Of those, the ones whose TLS could not be spoken.
    pub insecure: u64,
    /// Messages and subscriptions refused by a rule.
    pub denied: u64,
    /// Times a connection was read slower because it sent more than it may in a second.
    pub throttled: u64,
    /// Connections ended for a packet the standard forbids.
    pub malformed: u64,
    /// Connections ended because a message of theirs could not be kept.
    pub lost: u64,
    /// Messages taken: handed to the intake.
    pub messages: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
    /// Messages queued for subscribers.
    pub forwarded: u64,
    /// Messages not delivered to a subscriber, or not retained, because a bound was reached.
    pub undelivered: u64,
    /// Times a task of the gate's own died and was started anew.
    pub restarts: u64,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    refused: AtomicU64,
    unauthorised: AtomicU64,
    crowded: AtomicU64,
    insecure: AtomicU64,
    denied: AtomicU64,
    throttled: AtomicU64,
    malformed: AtomicU64,
    lost: AtomicU64,
    messages: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    restarts: AtomicU64,
}

/// What the acceptors and all connections share.
struct Inner {
    options: GateOptions,
    intake: Arc<dyn Intake>,
    guard: Guard,
    router: Router,
    counters: Counters,
    /// Sockets open, in the lobby or served.
    sockets: AtomicUsize,
    /// Of those, how many each address has.
    origins: Origins,
    /// Connections served, to be woken when the gate stops. Touched when one begins or ends.
    links: Mutex<FxHashMap<u64, Present>>,
    link_serial: AtomicU64,
    /// Rung when a socket is closed.
    closed: Notify,
    /// Told to stop: nothing more is read.
    stopping: watch::Sender<bool>,
    /// Told to stop waiting.
    abandoned: AtomicBool,
    /// Kibibytes that packets larger than the usual may take up in all while they come in.
    large: Arc<Semaphore>,
    backlog: Mutex<VecDeque<Message>>,
}

/// A connection that is served, as others see it.
struct Present {
    link: Arc<Link>,
    /// The user whose password let it in.
    user: Option<Arc<str>>,
}

impl Gate {
    /// Reads users and certificates, binds every address of `options` (a taken port: the next free one, up to 20 further) and serves it on
    /// `handle`'s runtime.
    ///
    /// # Errors
    /// A file that cannot be used or an address that cannot be bound, with the reason and the way out; nothing is left bound
    /// then.
    pub fn start(options: GateOptions, intake: Arc<dyn Intake>, handle: &Handle) -> Result<Gate, MqttError> {
        let _entered = handle.enter();
        let mut listeners = Vec::new();
        let (mut addresses, mut moved) = (Vec::new(), Vec::new());
        let guard = Guard::new(options.access.clone(), options.tls.clone())?;
        if guard.tls().is_none() && !options.listen_tls.is_empty() {
            return Err(MqttError::Tls("an address is to speak TLS, but there is no certificate: name one".into()));
        }
        for &asked in options.listen.iter().chain(&options.listen_tls) {
            let (listener, got) = bind(asked, options.further_ports)?;
            if asked.port() != 0 && got.port() != asked.port() {
                tracing::warn!(%asked, %got, "the MQTT port is taken: listening on the next free one");
                moved.push((asked, got));
            }
            addresses.push(got);
            listeners.push(Arc::new(listener));
        }
        let router = Router::new(
            Bounds {
                sessions: options.max_sessions.max(options.max_connections),
                subscriptions: options.max_subscriptions,
                all_subscriptions: options.max_subscriptions.saturating_mul(100),
                retained: options.max_retained,
                retained_bytes: options.max_retained_bytes,
            },
            Queues {
                messages: options.max_queued,
                bytes: options.max_queued_bytes,
                all_bytes: options.max_queued_bytes.saturating_mul(8),
                held: AtomicUsize::new(0),
            },
        );
        // At least two of the largest packets must fit at once.
        let large = options.large_packet_bytes.max(options.max_packet.saturating_mul(2)) / 1024;
        let inner = Arc::new(Inner {
            intake,
            guard,
            router,
            counters: Counters::default(),
            sockets: AtomicUsize::new(0),
            origins: Origins::default(),
            links: Mutex::default(),
            link_serial: AtomicU64::new(0),
            closed: Notify::new(),
            stopping: watch::Sender::new(false),
            abandoned: AtomicBool::new(false),
            large: Arc::new(Semaphore::new(large.min(Semaphore::MAX_PERMITS))),
            backlog: Mutex::default(),
            options,
        });
        let plain = inner.options.listen.len();
        for (n, listener) in listeners.into_iter().enumerate() {
            let gate = inner.clone();
            supervise(handle, &inner, move || accept(gate.clone(), listener.clone(), n >= plain));
        }
        let gate = inner.clone();
        supervise(handle, &inner, move || refresh(gate.clone()));
        let gate = inner.clone();
        supervise(handle, &inner, move || tidy(gate.clone()));
        Ok(Gate { inner, addresses, plain, moved })
    }

    /// Where devices connect: the addresses really bound.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Of these, the ones without TLS; they come first.
    pub fn plain_addresses(&self) -> &[SocketAddr] {
        &self.addresses[..self.plain]
    }

    /// Addresses asked for that were taken, each with the one bound instead.
    pub fn moved(&self) -> &[(SocketAddr, SocketAddr)] {
        &self.moved
    }

    /// Clients connected.
    pub fn clients(&self) -> usize {
        self.inner.links.lock().len()
    }

    /// Sessions held, with or without a connection.
    pub fn sessions(&self) -> usize {
        self.inner.router.sessions()
    }

    /// Subscriptions held.
    pub fn subscriptions(&self) -> usize {
        self.inner.router.subscriptions()
    }

    /// What has been counted.
    pub fn counts(&self) -> GateCounts {
        self.inner.counts()
    }

    /// Publishes to subscribers, not to the intake, at QoS 1 (each gets it at most at the QoS it asked for).
    ///
    /// # Errors
    /// A topic that is not legal.
    pub fn publish(&self, topic: &str, payload: impl Into<Bytes>, retain: bool) -> Result<(), TopicError> {
        topic::name(topic.as_bytes())?;
        if self.inner.router.wants(retain) {
            let topic = Bytes::copy_from_slice(topic.as_bytes());
            let message = Publish {
                topic,
                payload: payload.into(),
                qos: 1,
                dup: false,
                retain,
                id: 0,
                alias: None,
                expiry: None,
                properties: Bytes::new(),
            };
            self.inner.router.publish(&message, 0);
        }
        Ok(())
    }

    /// Stops: no more connections, nothing more read; waits up to `patience` for the receipts that are out, acknowledges
    /// what is kept, and says goodbye. Answers whether everything outstanding was settled in time.
    pub async fn stop(&self, patience: Duration) -> bool {
        self.inner.stop_reading();
        let settled = tokio::time::timeout(patience, self.inner.all_closed()).await.is_ok();
        self.inner.abandon();
        // What is left now is a write and a close each.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.inner.all_closed()).await;
        settled
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.inner.stop_reading();
        self.inner.abandon();
    }
}

impl Inner {
    fn stop_reading(&self) {
        self.stopping.send_replace(true);
        self.wake_all();
    }

    fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.wake_all();
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    fn wake_all(&self) {
        self.links.lock().values().for_each(|present| present.link.wake.ring());
    }

    fn counts(&self) -> GateCounts {
        let counters = &self.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GateCounts {
            accepted: get(&counters.accepted),
            refused: get(&counters.refused),
            unauthorised: get(&counters.unauthorised),
            crowded: get(&counters.crowded),
            insecure: get(&counters.insecure),
            denied: get(&counters.denied),
            throttled: get(&counters.throttled),
            malformed: get(&counters.malformed),
            lost: get(&counters.lost),
            messages: get(&counters.messages),
            bytes_in: get(&counters.bytes_in),
            bytes_out: get(&counters.bytes_out),
            forwarded: get(&self.router.forwarded),
            undelivered: get(&self.router.undelivered),
            restarts: get(&counters.restarts),
        }
    }

    async fn all_closed(&self) {
        loop {
            let closed = self.closed.notified();
            tokio::pin!(closed);
            closed.as_mut().enable();
            if self.sockets.load(Ordering::Acquire) == 0 {
                return;
            }
            closed.await;
        }
    }

    /// Publishes wills: to subscribers and, like any message, to the intake.
    fn publish_wills(&self, wills: Vec<Will>) {
        for Will { message, .. } in wills {
            if self.router.wants(message.retain) {
                self.router.publish(&message, 0);
            }
            if !message.topic.starts_with(b"$") {
                let message =
                    Message { topic: message.topic, payload: message.payload, received_ms: now_ms(), once: None };
                self.offer_or_keep(message);
            }
        }
    }

    fn next_of_backlog(&self) -> Option<Message> {
        self.backlog.lock().pop_front()
    }

    fn offer_or_keep(&self, message: Message) -> bool {
        match self.intake.offer(message, Receipt::none()) {
            Ok(()) => {
                self.counters.messages.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err((message, _)) => {
                let mut backlog = self.backlog.lock();
                if backlog.len() < BACKLOG {
                    backlog.push_front(message);
                } else {
                    self.router.undelivered.fetch_add(1, Ordering::Relaxed);
                }
                false
            }
        }
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Runs a task of the gate's own and starts it anew, counted and said, should it die.
fn supervise<F>(handle: &Handle, gate: &Arc<Inner>, task: impl Fn() -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let gate = Arc::downgrade(gate);
    handle.spawn(async move {
        while let Err(died) = tokio::spawn(task()).await {
            let Some(gate) = gate.upgrade() else { return };
            if died.is_cancelled() || gate.is_stopping() {
                return;
            }
            gate.counters.restarts.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%died, "a task of the MQTT gate died and is started anew");
            drop(gate);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

async fn tidy(gate: Arc<Inner>) {
    let mut stopping = gate.stopping.subscribe();
    let mut every = tokio::time::interval(TIDY);
    let mut report = Report::new(&gate);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            _ = stopping.wait_for(|&stopping| stopping) => return,
        }
        report.say(&gate);
        gate.guard.failures.tidy(tokio::time::Instant::now());
        let wills = gate.router.tidy();
        gate.publish_wills(wills);
        while let Some(message) = gate.next_of_backlog() {
            if !gate.offer_or_keep(message) {
                break;
            }
        }
    }
}

/// Puts users and certificates in force when their files change, and ends the connections of users who are no longer let in.
async fn refresh(gate: Arc<Inner>) {
    let mut stopping = gate.stopping.subscribe();
    let mut every = tokio::time::interval(gate.options.refresh);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            _ = stopping.wait_for(|&stopping| stopping) => return,
        }
        let guard = gate.clone();
        // A file may lie on a disk that hangs.
        let Ok(Some(lapsed)) = tokio::task::spawn_blocking(move || guard.guard.refresh()).await else { continue };
        for present in gate.links.lock().values() {
            if present.user.as_deref().is_some_and(&lapsed) {
                present.link.kick(Kick::Lapsed);
            }
        }
    }
}

#[cfg(test)]
mod tests;
