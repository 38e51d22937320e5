//! A client of a broker that exists already (Mosquitto, HiveMQ, EMQX): subscribes at QoS 1 with a persistent session and
//! acknowledges a message to the broker only when its receipt says that it is kept, in the order of arrival.
//!
//! While the intake has no room, messages are held, up to [`HOLD`] of them; then the broker is no longer read but for what
//! the keep-alive needs, and its own limit of messages in flight holds it back. After a lost connection the broker sends
//! again what was not acknowledged: nothing is lost, some messages come twice.

mod broker;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use rumqttc::mqttbytes::v4::{Packet, SubscribeReasonCode};
use rumqttc::{AsyncClient, Event, EventLoop, NetworkOptions, Publish, QoS, SubscribeFilter};
use tokio::runtime::Handle;
use tokio::sync::watch;

pub use self::broker::Broker;
use super::intake::{Acknowledge, Fate, Intake, Message, Receipt};
use super::ledger::{Outstanding, Wake};
use super::{MqttError, topic};
use crate::text::harmless;

/// Messages held while the intake has no room.
const HOLD: usize = 1_024;
/// Messages that wait for their fate at once; brokers allow 20 to a few thousand.
const OUTSTANDING: usize = 65_536;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// First and longest wait before the next attempt to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long the broker is given to read our last words.
const GOODBYE: Duration = Duration::from_secs(5);
/// Acknowledgements handed to the client library at once.
const REQUESTS: usize = 1_024;

/// What to subscribe to, where, and as whom.
#[derive(Debug, Clone)]
pub struct BridgeOptions {
    /// The broker.
    pub broker: Broker,
    /// Filters to subscribe to at QoS 1. Those of an earlier run under the same client id stay subscribed: the broker keeps
    /// them with the session.
    pub filters: Vec<String>,
    /// The session's name at the broker, which keeps messages for it while dashlight is away: the same at every start, and
    /// no other client's.
    pub client_id: String,
    /// Largest packet in bytes; a larger one ends the connection.
    pub max_packet: usize,
}

impl BridgeOptions {
    /// With a client id made from the host's name.
    pub fn new(broker: Broker, filters: Vec<String>) -> Self {
        BridgeOptions { broker, filters, client_id: default_client_id(), max_packet: 16 * 1024 * 1024 }
    }
}

/// `dashlight-HOSTNAME`: the same at every start on this machine.
pub fn default_client_id() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::fs::read_to_string("/etc/hostname"))
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok())
        .unwrap_or_default();
    let host: String = host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    format!("dashlight-{}", if host.is_empty() { "edge" } else { &host })
}

/// Whether the broker is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BridgeStatus {
    /// Connected and subscribed.
    Connected,
    /// Not; attempts go on.
    Away {
        /// Since when.
        since: SystemTime,
        /// Why, for people.
        reason: String,
    },
}

/// A running client of an external broker. Dropped, it stops at once.
pub struct Bridge {
    shared: Arc<Shared>,
    broker: Broker,
}

struct Shared {
    status: Mutex<BridgeStatus>,
    messages: AtomicU64,
    acknowledged: AtomicU64,
    stopping: watch::Sender<bool>,
    stopped: watch::Sender<bool>,
}

impl Bridge {
    /// Connects, and keeps connecting, in the background.
    ///
    /// # Errors
    /// A filter that is not legal, or an empty client id.
    pub fn start(options: BridgeOptions, intake: Arc<dyn Intake>, handle: &Handle) -> Result<Bridge, MqttError> {
        for filter in &options.filters {
            topic::filter(filter).map_err(|why| MqttError::Filter { filter: filter.clone(), why })?;
        }
        if options.client_id.is_empty() {
            return Err(MqttError::ClientId);
        }
        if !options.broker.is_ready() {
            return Err(MqttError::Tls(format!("{}: nobody said which authorities to believe", options.broker)));
        }
        let shared = Arc::new(Shared {
            status: Mutex::new(BridgeStatus::Away { since: SystemTime::now(), reason: "connecting".into() }),
            messages: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            stopping: watch::Sender::new(false),
            stopped: watch::Sender::new(false),
        });
        let broker = options.broker.clone();
        let (supervised, told) = (shared.clone(), shared.clone());
        handle.spawn(async move {
            loop {
                let client = Client::new(options.clone(), intake.clone(), supervised.clone());
                match tokio::spawn(client.run()).await {
                    Err(died) if died.is_panic() => {
                        // The client library met something it did not expect; a new one begins afresh.
                        supervised.away("the connection failed and is made anew");
                        tokio::time::sleep(BACKOFF.0).await;
                    }
                    _ => break,
                }
            }
            told.stopped.send_replace(true);
        });
        Ok(Bridge { shared, broker })
    }

    /// The broker.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Whether it is there.
    pub fn status(&self) -> BridgeStatus {
        self.shared.status.lock().clone()
    }

    /// Messages taken from it.
    pub fn messages(&self) -> u64 {
        self.shared.messages.load(Ordering::Relaxed)
    }

    /// Acknowledgements sent to it; of those sent when a connection broke, some may not have arrived.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Stops: takes nothing more, waits up to `patience` for the receipts that are out, acknowledges what is kept, and
    /// disconnects; the session stays at the broker.
    pub async fn stop(&self, patience: Duration) {
        self.shared.stopping.send_replace(true);
        let mut stopped = self.shared.stopped.subscribe();
        let _ = tokio::time::timeout(patience, stopped.wait_for(|&stopped| stopped)).await;
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.shared.stopping.send_replace(true);
    }
}

impl Shared {
    fn away(&self, reason: &str) {
        let mut status = self.status.lock();
        let since = match &*status {
            BridgeStatus::Connected => SystemTime::now(),
            BridgeStatus::Away { since, .. } => *since,
        };
        *status = BridgeStatus::Away { since, reason: reason.to_owned() };
    }
}

/// The task's side.
struct Client {
    options: BridgeOptions,
    intake: Arc<dyn Intake>,
    shared: Arc<Shared>,
    client: AsyncClient,
    events: Option<EventLoop>,
    desk: Desk,
    /// Told to stop: nothing more is taken.
    finishing: bool,
}

/// What has been received and not yet acknowledged.
struct Desk {
    intake: Arc<dyn Intake>,
    wake: Arc<Wake>,
    outstanding: Outstanding<Publish>,
    /// Received, but the intake had no room yet.
    held: VecDeque<(Message, Receipt)>,
    /// Kept, but the client library has not yet taken the acknowledgement.
    acks: VecDeque<Publish>,
    /// A message was not kept: only the broker's sending it again can help.
    lost: bool,
}

impl Desk {
    fn new(intake: Arc<dyn Intake>) -> Self {
        let wake = Arc::new(Wake::default());
        let outstanding = Outstanding::new(OUTSTANDING, wake.clone());
        Desk { intake, wake, outstanding, held: VecDeque::new(), acks: VecDeque::new(), lost: false }
    }

    /// When a connection is over: on the next the broker sends again what was not acknowledged, and if it has lost the
    /// session, the same packet ids stand for other messages; so no acknowledgement of the old one may go out. What is held
    /// stays: if the broker lost the session, nobody else has it.
    fn disconnected(&mut self) {
        self.outstanding = Outstanding::new(OUTSTANDING, self.wake.clone());
        self.acks.clear();
        self.lost = false;
    }

    fn take(&mut self, mut publish: Publish) {
        let payload = std::mem::take(&mut publish.payload);
        let topic = Bytes::from(std::mem::take(&mut publish.topic));
        let receipt = if publish.qos == QoS::AtMostOnce {
            Receipt::none()
        } else if self.outstanding.is_full() {
            // No broker has this many in flight; one that does sends the message again.
            self.lost = true;
            return;
        } else {
            let (ledger, ticket) = self.outstanding.open(publish);
            if topic::name(&topic).is_err() || topic.starts_with(b"$") {
                ledger.settle(ticket, Fate::Kept);
                return;
            }
            Receipt::new(ledger, ticket)
        };
        if topic::name(&topic).is_err() || topic.starts_with(b"$") {
            return;
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let received_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        self.held.push_back((Message { topic, payload, received_ms, once: None }, receipt));
        self.offer();
    }

    /// Offers what is held, oldest first, until the intake has no room.
    fn offer(&mut self) {
        while let Some((message, receipt)) = self.held.pop_front() {
            if let Err(back) = self.intake.offer(message, receipt) {
                self.held.push_front(back);
                return;
            }
        }
    }

    /// Acknowledges what is kept, as far as the client library takes acknowledgements now.
    fn settle(&mut self, client: &AsyncClient, acknowledged: &AtomicU64) {
        let acks = &mut self.acks;
        if self.outstanding.settled(|publish| acks.push_back(publish)).is_err() {
            self.lost = true;
        }
        while let Some(publish) = self.acks.front() {
            if client.try_ack(publish).is_err() {
                return;
            }
            acknowledged.fetch_add(1, Ordering::Relaxed);
            self.acks.pop_front();
        }
    }
}

/// What the loop woke up for.
enum Woken {
    Event(Box<Result<Event, rumqttc::ConnectionError>>),
    /// It is to stop, and nothing is outstanding any more.
    Done,
    /// A message was not kept.
    Lost,
}

impl Client {
    fn new(options: BridgeOptions, intake: Arc<dyn Intake>, shared: Arc<Shared>) -> Self {
        let mut settings = options.broker.settings(&options.client_id);
        settings.set_keep_alive(KEEP_ALIVE).set_clean_session(false).set_manual_acks(true);
        settings.set_max_packet_size(options.max_packet, 1024 * 1024);
        let (client, mut events) = AsyncClient::new(settings, REQUESTS);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(10);
        events.set_network_options(network);
        Client {
            desk: Desk::new(intake.clone()),
            options,
            intake,
            shared,
            client,
            events: Some(events),
            finishing: false,
        }
    }

    async fn run(mut self) {
        let Some(mut events) = self.events.take() else { return };
        let mut backoff = BACKOFF.0;
        let mut subscribed = false;
        loop {
            match self.next(&mut events).await {
                Woken::Done => return self.finish(events).await,
                Woken::Lost if self.finishing => return,
                Woken::Lost => {
                    self.shared.away("a message could not be kept; the broker is asked to send it again");
                    events.clean();
                    self.desk.disconnected();
                    if self.pause(&mut backoff).await {
                        return;
                    }
                }
                Woken::Event(event) => match *event {
                    Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                        if ack.session_present && subscribed {
                            self.connected(&mut backoff);
                        } else {
                            let filters = self.options.filters.iter();
                            let filters = filters.map(|path| SubscribeFilter::new(path.clone(), QoS::AtLeastOnce));
                            // With nothing queued yet on this connection there is room for it.
                            if self.client.try_subscribe_many(filters).is_err() {
                                events.clean();
                                self.desk.disconnected();
                            }
                        }
                    }
                    Ok(Event::Incoming(Packet::SubAck(ack))) => {
                        let refused = ack.return_codes.iter().position(|code| *code == SubscribeReasonCode::Failure);
                        if let Some(filter) = refused.and_then(|at| self.options.filters.get(at)) {
                            self.shared
                                .away(&format!("the broker refuses the subscription to {}", harmless(filter, 80)));
                            events.clean();
                            if self.pause(&mut backoff).await {
                                return;
                            }
                        } else {
                            subscribed = true;
                            self.connected(&mut backoff);
                        }
                    }
                    // Not taken, not acknowledged: the broker sends it again next time.
                    Ok(Event::Incoming(Packet::Publish(_))) if self.finishing => {}
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        self.shared.messages.fetch_add(1, Ordering::Relaxed);
                        self.desk.take(publish);
                    }
                    Ok(_) => {}
                    Err(error) => {
                        // The client library has dropped the acknowledgements it had not sent.
                        self.desk.disconnected();
                        let reason = error.to_string();
                        self.shared.away(&harmless(&reason, 200));
                        tracing::warn!(broker = %self.options.broker, reason = %harmless(&reason, 200), "the MQTT broker is away");
                        if self.pause(&mut backoff).await {
                            return;
                        }
                    }
                },
            }
        }
    }

    fn connected(&self, backoff: &mut Duration) {
        *backoff = BACKOFF.0;
        *self.shared.status.lock() = BridgeStatus::Connected;
        tracing::info!(broker = %self.options.broker, "subscribed at the MQTT broker");
    }

    /// Waits before the next attempt, twice as long as the last time; answers whether it is to stop instead.
    async fn pause(&mut self, backoff: &mut Duration) -> bool {
        let mut stopping = self.shared.stopping.subscribe();
        let wait = *backoff;
        *backoff = (wait * 2).min(BACKOFF.1);
        tokio::time::timeout(wait, stopping.wait_for(|&stopping| stopping)).await.is_ok()
    }

    /// The next event of the connection. Meanwhile settles and offers. The client library's future is never dropped half
    /// way: it would lose the packet it was writing.
    async fn next(&mut self, events: &mut EventLoop) -> Woken {
        let mut stopping = self.shared.stopping.subscribe();
        let intake = self.intake.clone();
        // With as much held as may be, the broker is not read for a while: but for its keep-alive, which is part of reading.
        let mut breather = pin!(tokio::time::sleep(KEEP_ALIVE / 4));
        let mut rested = self.desk.held.len() < HOLD;
        let mut poll = None;
        let mut events = Some(events);
        loop {
            self.desk.wake.listen();
            self.desk.settle(&self.client, &self.shared.acknowledged);
            if self.desk.lost {
                return Woken::Lost;
            }
            if self.finishing && self.desk.outstanding.is_empty() && self.desk.acks.is_empty() {
                return Woken::Done;
            }
            rested |= self.desk.held.len() < HOLD;
            if rested && let Some(events) = events.take() {
                poll = Some(Box::pin(events.poll()));
            }
            let full = !self.desk.held.is_empty();
            tokio::select! {
                biased;
                event = async { match poll.as_mut() { Some(poll) => poll.await, None => std::future::pending().await } } => {
                    return Woken::Event(Box::new(event));
                }
                () = self.desk.wake.rung() => {}
                () = intake.room(), if full => self.desk.offer(),
                () = breather.as_mut(), if !rested => rested = true,
                _ = stopping.wait_for(|&stopping| stopping), if !self.finishing => self.finishing = true,
            }
        }
    }

    /// Disconnects, after everything outstanding is settled. The session stays at the broker.
    async fn finish(self, mut events: EventLoop) {
        if self.client.try_disconnect().is_ok() {
            // The broker closes the connection once it has read everything before: only then are we sure that it did.
            let closed = async { while events.poll().await.is_ok() {} };
            let _ = tokio::time::timeout(GOODBYE, closed).await;
        }
        self.shared.away("stopped");
    }
}

mod probe;

#[cfg(test)]
mod tests;
