//! A client's session: what outlives a connection. Its subscriptions, the messages queued for it, those it has not yet
//! acknowledged, and the packet ids of its own QoS 2 messages that it has not released.
//!
//! The lock is held for moments and never while another session's is held.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::inbound::Inbound;
use crate::mqtt::ledger::Wake;
use crate::mqtt::wire::{self, AckKind, Outgoing, Reason, Version, Will};

/// A message on its way to subscribers.
#[derive(Debug)]
pub struct Forward {
    /// Topic, legal.
    pub topic: Bytes,
    /// Payload.
    pub payload: Bytes,
    /// The publisher's QoS.
    pub qos: u8,
    /// When it is of no use any more.
    pub expires: Option<Instant>,
    /// MQTT 5 properties as they are passed on.
    pub properties: Bytes,
}

/// A message queued for one session.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The message.
    pub message: Arc<Forward>,
    /// The lesser of the publisher's and the subscriber's.
    pub qos: u8,
    /// As the subscriber is to see it.
    pub retain: bool,
    /// Subscription identifiers it matched.
    pub identifiers: Option<Box<[u32]>>,
}

/// What became of a message for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// It is in its queue.
    Yes,
    /// It is dropped: the queue, or all queues together, are full.
    Full,
    /// Nobody is there to take it.
    NotWanted,
}

/// The live connection's end that others hold.
#[derive(Debug, Default)]
pub struct Link {
    /// Wakes the connection's task.
    pub wake: Arc<Wake>,
    /// Why the connection is to end: 0, or a [`Kick`].
    kick: AtomicU8,
}

/// Why a connection is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kick {
    /// Another connection resumed the session.
    Resumed = 1,
    /// Another connection began the session anew.
    Replaced = 2,
    /// Its user is no longer let in, or not with this password.
    Lapsed = 3,
}

impl Link {
    /// Ends the connection.
    pub fn kick(&self, kick: Kick) {
        self.kick.store(kick as u8, Ordering::Release);
        self.wake.ring();
    }

    /// Whether it is to end.
    pub fn kicked(&self) -> Option<Kick> {
        match self.kick.load(Ordering::Acquire) {
            1 => Some(Kick::Resumed),
            2 => Some(Kick::Replaced),
            3 => Some(Kick::Lapsed),
            _ => None,
        }
    }
}

/// Bounds of what is queued for subscribers.
#[derive(Debug)]
pub struct Queues {
    /// Messages a session's queue holds.
    pub messages: usize,
    /// Payload bytes a session's queue holds.
    pub bytes: usize,
    /// Payload bytes all queues hold.
    pub all_bytes: usize,
    /// Payload bytes all queues hold now.
    pub held: AtomicUsize,
}

/// A client's session.
#[derive(Debug)]
pub struct Session {
    /// The client's id.
    pub client: Arc<str>,
    /// The user it belongs to; nobody else may take it over.
    pub user: Option<Arc<str>>,
    /// Unlike any other session's, never 0.
    pub serial: u64,
    /// QoS 2 messages of the client between PUBLISH and PUBREL.
    pub inbound: Arc<Inbound>,
    state: Mutex<State>,
    queues: Arc<Queues>,
}

#[derive(Debug)]
struct State {
    link: Option<Arc<Link>>,
    ended: bool,
    queue: VecDeque<Delivery>,
    queued_bytes: usize,
    unacknowledged: VecDeque<Sent>,
    next_id: u16,
    subscriptions: FxHashMap<Box<str>, ()>,
    expiry: u32,
    away_since: Option<Instant>,
    will: Option<(Instant, Will)>,
}

#[derive(Debug)]
struct Sent {
    id: u16,
    /// `None` once the subscriber has it (PUBREC) and only its id is to be released.
    delivery: Option<Delivery>,
}

/// What a connection needs to know to write messages for its client.
#[derive(Debug)]
pub struct Writer {
    /// Dialect.
    pub version: Version,
    /// Messages of QoS 1 and 2 it takes at once.
    pub window: usize,
    /// Largest packet it takes.
    pub max_packet: usize,
    /// Topic aliases it takes.
    pub alias_maximum: u16,
    aliases: FxHashMap<Bytes, u16>,
}

impl Writer {
    /// For a connection that has told no aliases yet.
    pub fn new(version: Version, window: usize, max_packet: usize, alias_maximum: u16) -> Self {
        Writer { version, window, max_packet, alias_maximum, aliases: FxHashMap::default() }
    }

    /// Writes the message unless it is stale or too large for the client; answers whether it did.
    fn write(&mut self, out: &mut BytesMut, delivery: &Delivery, id: u16, dup: bool) -> bool {
        let message = &*delivery.message;
        let expiry = match message.expires {
            None => None,
            Some(expires) => match expires.checked_duration_since(Instant::now()) {
                Some(left) => Some(u32::try_from(left.as_secs()).unwrap_or(u32::MAX)),
                None => return false,
            },
        };
        let mut outgoing = Outgoing {
            topic: &message.topic,
            payload: &message.payload,
            qos: delivery.qos,
            dup,
            retain: delivery.retain,
            packet: id,
            alias: None,
            expiry,
            subscriptions: delivery.identifiers.as_deref().unwrap_or_default(),
            properties: &message.properties,
        };
        if self.alias_maximum > 0 {
            if let Some(&alias) = self.aliases.get(&message.topic) {
                (outgoing.alias, outgoing.topic) = (Some(alias), b"");
            } else if self.aliases.len() < usize::from(self.alias_maximum) {
                outgoing.alias = Some(self.aliases.len() as u16 + 1);
            }
        }
        let written = wire::publish(out, self.version, &outgoing, self.max_packet);
        if written && let Some(alias) = outgoing.alias {
            self.aliases.entry(message.topic.clone()).or_insert(alias);
        }
        written
    }
}

impl Session {
    /// A new session, attached to its first connection.
    pub fn new(
        client: Arc<str>,
        user: Option<Arc<str>>,
        serial: u64,
        expiry: u32,
        link: Arc<Link>,
        queues: Arc<Queues>,
    ) -> Self {
        let state = State {
            link: Some(link),
            ended: false,
            queue: VecDeque::new(),
            queued_bytes: 0,
            unacknowledged: VecDeque::new(),
            next_id: 0,
            subscriptions: FxHashMap::default(),
            expiry,
            away_since: None,
            will: None,
        };
        Session { client, user, serial, inbound: Arc::default(), state: Mutex::new(state), queues }
    }

    /// Attaches a new connection; answers the old one, if it is still there. A will that still waits is dropped: the
    /// client is back before its delay was over.
    pub fn attach(&self, link: Arc<Link>, expiry: u32) -> Option<Arc<Link>> {
        let mut state = self.state.lock();
        state.expiry = expiry;
        state.away_since = None;
        state.will = None;
        state.link.replace(link)
    }

    /// Gives back the memory of a connection at rest.
    pub fn rest(&self) {
        self.inbound.rest();
    }

    /// Detaches `link`; answers whether it was the one attached. A will with a delay waits here.
    pub fn detach(&self, link: &Arc<Link>, will: Option<Will>, now: Instant) -> bool {
        let mut state = self.state.lock();
        if !state.link.as_ref().is_some_and(|attached| Arc::ptr_eq(attached, link)) {
            return false;
        }
        state.link = None;
        state.away_since = Some(now);
        state.will = will.map(|will| (now + std::time::Duration::from_secs(u64::from(will.delay)), will));
        true
    }

    /// Whether a connection is attached.
    pub fn is_live(&self) -> bool {
        self.state.lock().link.is_some()
    }

    /// The connection attached.
    pub fn link(&self) -> Option<Arc<Link>> {
        self.state.lock().link.clone()
    }

    /// Since when no connection is attached.
    pub fn away_since(&self) -> Option<Instant> {
        self.state.lock().away_since
    }

    /// Seconds the session outlives its connection.
    pub fn expiry(&self) -> u32 {
        self.state.lock().expiry
    }

    /// Changes the seconds the session outlives its connection.
    pub fn set_expiry(&self, seconds: u32) {
        self.state.lock().expiry = seconds;
    }

    /// Whether its time is over.
    pub fn has_expired(&self, now: Instant) -> bool {
        let state = self.state.lock();
        let Some(since) = state.away_since else { return false };
        state.expiry != u32::MAX && now.saturating_duration_since(since).as_secs() >= u64::from(state.expiry)
    }

    /// A will whose delay is over, or that the session's end makes due.
    pub fn due_will(&self, now: Instant, ending: bool) -> Option<Will> {
        let mut state = self.state.lock();
        match &state.will {
            Some((at, _)) if ending || *at <= now => state.will.take().map(|(_, will)| will),
            _ => None,
        }
    }

    /// Ends the session: frees what is queued, takes no more, and answers its subscriptions.
    pub fn end(&self) -> Vec<Box<str>> {
        let mut state = self.state.lock();
        state.ended = true;
        state.queue.clear();
        state.unacknowledged.clear();
        self.queues.held.fetch_sub(std::mem::take(&mut state.queued_bytes), Ordering::Relaxed);
        state.subscriptions.drain().map(|(filter, ())| filter).collect()
    }

    /// Notes a subscription; answers `false` if it would be one more than `max`.
    pub fn subscribed(&self, filter: &str, max: usize) -> bool {
        let mut state = self.state.lock();
        if state.ended || state.subscriptions.len() >= max && !state.subscriptions.contains_key(filter) {
            return false;
        }
        state.subscriptions.insert(filter.into(), ());
        true
    }

    /// Forgets a subscription.
    pub fn unsubscribed(&self, filter: &str) {
        self.state.lock().subscriptions.remove(filter);
    }

    /// Queues a message; at QoS 0 only for a client that is there.
    pub fn deliver(&self, delivery: Delivery) -> Queued {
        let bytes = delivery.message.payload.len();
        let mut state = self.state.lock();
        if state.ended || delivery.qos == 0 && state.link.is_none() {
            return Queued::NotWanted;
        }
        let held = self.queues.held.load(Ordering::Relaxed);
        if state.queue.len() >= self.queues.messages
            || state.queued_bytes + bytes > self.queues.bytes
            || held + bytes > self.queues.all_bytes
        {
            return Queued::Full;
        }
        self.queues.held.fetch_add(bytes, Ordering::Relaxed);
        state.queued_bytes += bytes;
        state.queue.push_back(delivery);
        if let Some(link) = &state.link {
            link.wake.ring();
        }
        Queued::Yes
    }

    /// Writes queued messages until `out` holds `fill` bytes, the client's window is full, or none is left; answers how
    /// many were written.
    pub fn write(&self, writer: &mut Writer, out: &mut BytesMut, fill: usize) -> u64 {
        let mut state = self.state.lock();
        let mut written = 0;
        while out.len() < fill {
            match state.queue.front() {
                Some(first) if first.qos == 0 || state.unacknowledged.len() < writer.window => {}
                _ => break,
            }
            let Some(delivery) = state.queue.pop_front() else { break };
            let bytes = delivery.message.payload.len();
            state.queued_bytes -= bytes;
            self.queues.held.fetch_sub(bytes, Ordering::Relaxed);
            let id = if delivery.qos == 0 { 0 } else { state.fresh_id() };
            if writer.write(out, &delivery, id, false) {
                written += 1;
                if delivery.qos > 0 {
                    state.unacknowledged.push_back(Sent { id, delivery: Some(delivery) });
                }
            }
        }
        if state.queue.is_empty() && state.queue.capacity() > 64 {
            state.queue = VecDeque::new();
        }
        written
    }

    /// Writes again what the client has not acknowledged, in its order ([MQTT-4.4.0-1]).
    pub fn rewrite(&self, writer: &mut Writer, out: &mut BytesMut) {
        let mut state = self.state.lock();
        state.unacknowledged.retain(|sent| match &sent.delivery {
            Some(delivery) => writer.write(out, delivery, sent.id, true),
            None => {
                wire::ack(out, writer.version, AckKind::PubRel, sent.id, Reason::SUCCESS);
                true
            }
        });
    }

    /// The client has the message: PUBACK, or PUBREC with a failure, or PUBCOMP. `false` for an id that is not out.
    pub fn acknowledged(&self, id: u16) -> bool {
        let mut state = self.state.lock();
        let at = state.unacknowledged.iter().position(|sent| sent.id == id);
        at.and_then(|at| state.unacknowledged.remove(at)).is_some()
    }

    /// The client has a message of QoS 2 (PUBREC); only its id is still out. `false` for an id that is not out.
    pub fn received(&self, id: u16) -> bool {
        let mut state = self.state.lock();
        match state.unacknowledged.iter_mut().find(|sent| sent.id == id) {
            Some(sent) => {
                sent.delivery = None;
                true
            }
            None => false,
        }
    }
}

impl State {
    /// The next packet id that is not out. The window is far below 65,535, so there is one.
    fn fresh_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if !self.unacknowledged.iter().any(|sent| sent.id == self.next_id) {
                return self.next_id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Queued::*;
    use super::*;

    fn session(queues: Queues) -> (Arc<Session>, Arc<Link>) {
        let link = Arc::new(Link::default());
        (Arc::new(Session::new("c".into(), None, 1, u32::MAX, link.clone(), Arc::new(queues))), link)
    }

    fn queues(messages: usize, bytes: usize) -> Queues {
        Queues { messages, bytes, all_bytes: usize::MAX, held: AtomicUsize::new(0) }
    }

    fn delivery(payload: &'static str, qos: u8) -> Delivery {
        let message = Forward {
            topic: Bytes::from_static(b"t"),
            payload: Bytes::from_static(payload.as_bytes()),
            qos,
            expires: None,
            properties: Bytes::new(),
        };
        Delivery { message: Arc::new(message), qos, retain: false, identifiers: None }
    }

    fn writer(window: usize) -> Writer {
        Writer::new(Version::V311, window, usize::MAX, 0)
    }

    #[test]
    fn a_queue_holds_its_bound_and_what_is_freed_is_given_back() {
        let (session, _) = session(queues(2, 100));
        assert_eq!(["a", "b", "c"].map(|payload| session.deliver(delivery(payload, 1))), [Yes, Yes, Full]);
        let mut out = BytesMut::new();
        assert_eq!(session.write(&mut writer(10), &mut out, usize::MAX), 2);
        assert_eq!(session.deliver(delivery("d", 1)), Yes);
        assert_eq!(session.queues.held.load(Ordering::Relaxed), 1);
        session.end();
        assert_eq!(session.queues.held.load(Ordering::Relaxed), 0);
        assert_eq!(session.deliver(delivery("e", 1)), NotWanted, "the session has ended");
        assert_eq!(session.queues.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_window_holds_messages_back_until_acknowledgements_make_room_in_any_order() {
        let (session, _) = session(queues(10, 100));
        for payload in ["a", "b", "c"] {
            session.deliver(delivery(payload, 1));
        }
        let (mut writer, mut out) = (writer(2), BytesMut::new());
        assert_eq!(session.write(&mut writer, &mut out, usize::MAX), 2);
        assert!(session.acknowledged(2), "out of order");
        assert!(!session.acknowledged(2), "twice");
        assert_eq!(session.write(&mut writer, &mut out, usize::MAX), 1);
        assert!(session.acknowledged(3) && session.acknowledged(1));
    }

    #[test]
    fn a_returning_client_gets_what_it_did_not_acknowledge_again() {
        let (session, _) = session(queues(10, 100));
        session.deliver(delivery("one", 1));
        session.deliver(delivery("two", 2));
        let mut out = BytesMut::new();
        session.write(&mut writer(9), &mut out, usize::MAX);
        assert!(session.received(2));
        out.clear();
        session.rewrite(&mut writer(9), &mut out);
        assert_eq!(&out[..], b"\x3a\x08\x00\x01t\x00\x01one\x62\x02\x00\x02");
    }
}
