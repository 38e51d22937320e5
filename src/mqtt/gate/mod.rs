//! The gate: where devices connect. MQTT 3.1.1 and 5 on one port.
//!
//! Every message goes to the [`Intake`]; its PUBACK or PUBREC is sent when its receipt says that it is kept, in the order of
//! arrival. While the intake has no room the connection is not read, so that TCP holds the device back. Subscribers get what
//! is published (see [`router`]), but never hold the intake up. What a client sends can end its own connection and nothing
//! else; all it can make the gate hold is bounded by [`GateOptions`].
//!
//! | file | what it owns |
//! |---|---|
//! | here | ports, acceptors, the list of connections, the gate's own messages, the orderly stop |
//! | `connection` | one device's connection: the task that reads, waits, acknowledges and ends |
//! | `handshake`, `packets` | its beginning and end; what it does with each packet |
//! | `place` | what a connection holds of the gate, given up whatever way it ends |
//! | `session`, `inbound` | what outlives a connection: queue, window, subscriptions; unreleased QoS 2 ids |
//! | `router` | sessions by client id, who gets what, retained messages, wills |
//! | `tree` | filters to subscribers |

mod connection;
mod handshake;
mod inbound;
mod options;
mod packets;
mod place;
mod router;
mod session;
mod tree;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};

pub use self::options::{GateOptions, Rules};
use self::router::{Bounds, Router};
use self::session::{Link, Queues};
use super::MqttError;
use super::intake::{Intake, Message, Receipt};
use super::topic::{self, TopicError};
use super::wire::{Publish, Will};

/// How often sessions are looked through for those whose time is over, and wills for those that are due.
const TIDY: Duration = Duration::from_millis(500);
/// Connections beyond the bound that are let in far enough to be told why they are refused.
const LOBBY: usize = 64;
/// Wills that wait for room in the intake.
const BACKLOG: usize = 1_024;
/// Connections the kernel holds for us between two calls of accept.
const QUEUE: u32 = 4_096;

/// A running gate. Dropped, it stops at once; [`Gate::stop`] waits for what is outstanding.
pub struct Gate {
    inner: Arc<Inner>,
    addresses: Vec<SocketAddr>,
    moved: Vec<(SocketAddr, SocketAddr)>,
}

/// What the gate has counted since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GateCounts {
    /// Connections that got their CONNACK.
    pub accepted: u64,
    /// Connections that did not: too many, no CONNECT in time, not allowed, not MQTT.
    pub refused: u64,
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
    router: Router,
    counters: Counters,
    /// Sockets open, in the lobby or served.
    sockets: AtomicUsize,
    /// Connections served, to be woken when the gate stops. Touched when one begins or ends.
    links: Mutex<FxHashMap<u64, Arc<Link>>>,
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

impl Gate {
    /// Binds every address of `options.listen` (a taken port: the next free one, up to 20 further) and serves it on
    /// `handle`'s runtime.
    ///
    /// # Errors
    /// An address that cannot be bound, with the reason and the way out; nothing is left bound then.
    pub fn start(options: GateOptions, intake: Arc<dyn Intake>, handle: &Handle) -> Result<Gate, MqttError> {
        let _entered = handle.enter();
        let mut listeners = Vec::new();
        let (mut addresses, mut moved) = (Vec::new(), Vec::new());
        for &asked in &options.listen {
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
            router,
            counters: Counters::default(),
            sockets: AtomicUsize::new(0),
            links: Mutex::default(),
            link_serial: AtomicU64::new(0),
            closed: Notify::new(),
            stopping: watch::Sender::new(false),
            abandoned: AtomicBool::new(false),
            large: Arc::new(Semaphore::new(large.min(Semaphore::MAX_PERMITS))),
            backlog: Mutex::default(),
            options,
        });
        for listener in listeners {
            let gate = inner.clone();
            supervise(handle, &inner, move || accept(gate.clone(), listener.clone()));
        }
        let gate = inner.clone();
        supervise(handle, &inner, move || tidy(gate.clone()));
        Ok(Gate { inner, addresses, moved })
    }

    /// Where devices connect: the addresses really bound.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
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
        let Counters { accepted, refused, malformed, lost, messages, bytes_in, bytes_out, restarts } =
            &self.inner.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GateCounts {
            accepted: get(accepted),
            refused: get(refused),
            malformed: get(malformed),
            lost: get(lost),
            messages: get(messages),
            bytes_in: get(bytes_in),
            bytes_out: get(bytes_out),
            forwarded: get(&self.inner.router.forwarded),
            undelivered: get(&self.inner.router.undelivered),
            restarts: get(restarts),
        }
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
        self.links.lock().values().for_each(|link| link.wake.ring());
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

fn bind(asked: SocketAddr, further: u16) -> Result<(TcpListener, SocketAddr), MqttError> {
    let last = if asked.port() == 0 { 0 } else { asked.port().saturating_add(further) };
    for port in asked.port()..=last {
        let address = SocketAddr::new(asked.ip(), port);
        match listen(address) {
            Ok(listener) => {
                let got = listener.local_addr().map_err(|source| MqttError::Bind { address, source })?;
                return Ok((listener, got));
            }
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(source) => return Err(MqttError::Bind { address, source }),
        }
    }
    Err(MqttError::Taken { address: asked, last })
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit it: a device that vanished is noticed even if it asked for no keep-alive.
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)
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

async fn accept(gate: Arc<Inner>, listener: Arc<TcpListener>) {
    let mut stopping = gate.stopping.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|&stopping| stopping) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let before = gate.sockets.fetch_add(1, Ordering::AcqRel);
                let place = place::Place::new(gate.clone());
                if before >= gate.options.max_connections + LOBBY {
                    gate.counters.refused.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let crowded = before >= gate.options.max_connections;
                tokio::spawn(connection::run(place, stream, peer, crowded));
            }
            // Out of file descriptors, or a client gone before it was accepted: neither ends the gate.
            Err(error) => {
                tracing::warn!(%error, "an MQTT connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn tidy(gate: Arc<Inner>) {
    let mut stopping = gate.stopping.subscribe();
    let mut every = tokio::time::interval(TIDY);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            _ = stopping.wait_for(|&stopping| stopping) => return,
        }
        let wills = gate.router.tidy();
        gate.publish_wills(wills);
        while let Some(message) = gate.next_of_backlog() {
            if !gate.offer_or_keep(message) {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests;
