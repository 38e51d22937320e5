//! The gate's router: sessions, subscriptions, retained messages and wills; who gets what somebody published.
//!
//! Why not rumqttd's: it would have to be fenced in on every side. A topic that begins with a non-ASCII letter, a client id
//! with a `+`, a late `Ready`, a leaving `$share` member each end its thread, and with debug assertions (every `cargo run`)
//! so does a plain beside a shared subscription to one filter; it keeps every topic, filter and client id it ever saw; its
//! readers skip messages in silence; and session expiry, Receive Maximum, Maximum Packet Size, retain handling, No Local
//! and delayed wills are not in it, so sessions, windows and retained messages would be kept here all the same. What
//! remains of a router is this: a tree of filters under a lock, walked by the connection that received the message. It has
//! no thread that could die, every part is bounded, and a message that nobody subscribed to costs one atomic load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;

use super::session::{Delivery, Forward, Kick, Link, Queued, Queues, Session};
use super::tree::{Match, Tree};
use crate::mqtt::topic;
use crate::mqtt::wire::{self, Publish, Reason, Will};

/// Longest filter in bytes that is kept.
const FILTER_MAX: usize = 4_096;
/// Levels of a filter, on average over all.
const LEVELS: usize = 10;

/// Bounds of the router; see [`super::GateOptions`].
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Sessions without a connection that are kept.
    pub sessions: usize,
    /// Subscriptions of one client.
    pub subscriptions: usize,
    /// Subscriptions in all.
    pub all_subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Their bytes.
    pub retained_bytes: usize,
}

/// A session's subscription to one filter.
#[derive(Debug, Clone)]
struct Subscription {
    session: Arc<Session>,
    qos: u8,
    no_local: bool,
    retain_as_published: bool,
    identifier: Option<u32>,
}

#[derive(Debug, Default)]
struct Retained {
    messages: FxHashMap<Bytes, Arc<Forward>>,
    bytes: usize,
}

/// Who gets what.
#[derive(Debug)]
pub struct Router {
    bounds: Bounds,
    queues: Arc<Queues>,
    sessions: Mutex<FxHashMap<Arc<str>, Arc<Session>>>,
    tree: RwLock<Tree<Subscription>>,
    /// Beside the tree's lock: whether there is anybody to forward to.
    subscriptions: AtomicUsize,
    retained: Mutex<Retained>,
    serial: AtomicU64,
    /// Messages queued for subscribers.
    pub forwarded: AtomicU64,
    /// Messages not delivered because a bound was reached.
    pub undelivered: AtomicU64,
}

/// What became of a CONNECT.
#[derive(Debug)]
pub struct Opened {
    /// The session, new or resumed.
    pub session: Arc<Session>,
    /// Whether it was there before.
    pub present: bool,
    /// Wills that fell due because an older session ended.
    pub wills: Vec<Will>,
}

impl Router {
    /// An empty router.
    pub fn new(bounds: Bounds, queues: Queues) -> Self {
        Router {
            bounds,
            queues: Arc::new(queues),
            sessions: Mutex::default(),
            tree: RwLock::default(),
            subscriptions: AtomicUsize::new(0),
            retained: Mutex::default(),
            serial: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
            undelivered: AtomicU64::new(0),
        }
    }

    /// Whether a connection holds this client id now.
    pub fn is_live(&self, client: &str) -> bool {
        self.sessions.lock().get(client).is_some_and(|session| session.is_live())
    }

    /// Sessions held, with or without a connection.
    pub fn sessions(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Subscriptions held.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.load(Ordering::Acquire)
    }

    /// Opens a session for a connection, taking it over from an older one of the same user. `None`: the client id is another
    /// user's.
    pub fn open(
        &self,
        client: &str,
        user: Option<&Arc<str>>,
        clean: bool,
        expiry: u32,
        link: &Arc<Link>,
    ) -> Option<Opened> {
        let mut sessions = self.sessions.lock();
        let old = sessions.get(client).cloned();
        if old.as_ref().is_some_and(|old| old.user.as_ref() != user) {
            return None;
        }
        if let Some(session) = &old
            && !clean
            && !session.has_expired(Instant::now())
        {
            if let Some(before) = session.attach(link.clone(), expiry) {
                before.kick(Kick::Resumed);
            }
            return Some(Opened { session: session.clone(), present: true, wills: Vec::new() });
        }
        let name: Arc<str> = client.into();
        let serial = self.serial.fetch_add(1, Ordering::Relaxed) + 1;
        let queues = self.queues.clone();
        let session = Arc::new(Session::new(name.clone(), user.cloned(), serial, expiry, link.clone(), queues));
        sessions.insert(name, session.clone());
        drop(sessions);
        let mut wills = Vec::new();
        if let Some(old) = old {
            if let Some(before) = old.link() {
                before.kick(Kick::Replaced);
            }
            wills.extend(self.end(&old));
        }
        Some(Opened { session, present: false, wills })
    }

    /// A connection has ended; answers the wills to publish now. `will` is `None` after a DISCONNECT that says so.
    pub fn close(&self, session: &Arc<Session>, link: &Arc<Link>, will: Option<Will>) -> Vec<Will> {
        let now = Instant::now();
        match link.kicked() {
            // The client is back before the delay was over.
            Some(Kick::Resumed) => return will.into_iter().filter(|will| will.delay == 0).collect(),
            Some(Kick::Replaced) => return will.into_iter().collect(),
            Some(Kick::Lapsed) | None => {}
        }
        if !session.detach(link, will.clone(), now) {
            return will.into_iter().filter(|will| will.delay == 0).collect();
        }
        if session.expiry() == 0 {
            self.forget(session);
            return self.end(session).into_iter().collect();
        }
        let mut wills: Vec<Will> = session.due_will(now, false).into_iter().collect();
        wills.extend(self.crowd_out());
        wills
    }

    /// To be called now and then: ends expired sessions and answers the wills that are due.
    pub fn tidy(&self) -> Vec<Will> {
        let now = Instant::now();
        let mut wills = Vec::new();
        let mut expired = Vec::new();
        self.sessions.lock().retain(|_, session| {
            wills.extend(session.due_will(now, false));
            let over = session.has_expired(now);
            if over {
                expired.push(session.clone());
            }
            !over
        });
        wills.extend(expired.iter().filter_map(|session| self.end(session)));
        let mut retained = self.retained.lock();
        let Retained { messages, bytes } = &mut *retained;
        messages.retain(|_, message| {
            let stale = message.expires.is_some_and(|expires| expires <= now);
            if stale {
                *bytes -= weight(message);
            }
            !stale
        });
        wills
    }

    /// Ends the session that has been away longest while there are more of them than allowed.
    fn crowd_out(&self) -> Option<Will> {
        let mut sessions = self.sessions.lock();
        if sessions.len() <= self.bounds.sessions {
            return None;
        }
        let longest = sessions.values().filter_map(|session| Some((session.away_since()?, session.clone())));
        let (_, longest) = longest.min_by_key(|(since, _)| *since)?;
        sessions.remove(&longest.client);
        drop(sessions);
        self.end(&longest)
    }

    fn forget(&self, session: &Arc<Session>) {
        let mut sessions = self.sessions.lock();
        if sessions.get(&session.client).is_some_and(|held| Arc::ptr_eq(held, session)) {
            sessions.remove(&session.client);
        }
    }

    fn end(&self, session: &Session) -> Option<Will> {
        let filters = session.end();
        if !filters.is_empty() {
            let mut tree = self.tree.write();
            for filter in &filters {
                if let Ok(filter) = topic::filter(filter) {
                    tree.remove(filter, session.serial);
                }
            }
            self.subscriptions.store(tree.len(), Ordering::Release);
        }
        session.due_will(Instant::now(), true)
    }

    /// Subscribes a session to one filter; answers the code for the SUBACK. Retained messages follow by themselves.
    pub fn subscribe(&self, session: &Arc<Session>, wanted: &wire::Filter, identifier: Option<u32>) -> Reason {
        let Ok(filter) = topic::filter(&wanted.path) else { return Reason::FILTER_INVALID };
        if wanted.path.len() > FILTER_MAX {
            return Reason::QUOTA_EXCEEDED;
        }
        let new = {
            let mut tree = self.tree.write();
            if tree.len() >= self.bounds.all_subscriptions
                || tree.levels() >= self.bounds.all_subscriptions.saturating_mul(LEVELS)
                || !session.subscribed(&wanted.path, self.bounds.subscriptions)
            {
                return Reason::QUOTA_EXCEEDED;
            }
            let subscription = Subscription {
                session: session.clone(),
                qos: wanted.qos,
                no_local: wanted.no_local,
                retain_as_published: wanted.retain_as_published,
                identifier,
            };
            let new = tree.insert(filter, session.serial, subscription);
            self.subscriptions.store(tree.len(), Ordering::Release);
            new
        };
        if filter.group.is_none() && (wanted.retain_handling == 0 || wanted.retain_handling == 1 && new) {
            self.send_retained(session, filter.filter, wanted.qos, identifier);
        }
        Reason(wanted.qos)
    }

    /// Takes back a subscription; answers whether there was one.
    pub fn unsubscribe(&self, session: &Session, path: &str) -> Result<bool, topic::TopicError> {
        let filter = topic::filter(path)?;
        let mut tree = self.tree.write();
        let removed = tree.remove(filter, session.serial);
        self.subscriptions.store(tree.len(), Ordering::Release);
        drop(tree);
        session.unsubscribed(path);
        Ok(removed)
    }

    fn send_retained(&self, session: &Session, filter: &str, qos: u8, identifier: Option<u32>) {
        let now = Instant::now();
        let matching: Vec<Arc<Forward>> = {
            let retained = self.retained.lock();
            if filter.contains(['+', '#']) {
                let matches = |topic: &Bytes| str::from_utf8(topic).is_ok_and(|topic| topic::matches(filter, topic));
                retained.messages.iter().filter(|(topic, _)| matches(topic)).map(|(_, held)| held.clone()).collect()
            } else {
                retained.messages.get(filter.as_bytes()).cloned().into_iter().collect()
            }
        };
        for message in matching {
            if message.expires.is_none_or(|expires| expires > now) {
                let qos = qos.min(message.qos);
                let identifiers = identifier.map(|identifier| Box::from([identifier]));
                self.deliver(session, Delivery { message, qos, retain: true, identifiers });
            }
        }
    }

    /// Whether a message with this flag would go anywhere: the one question asked of every message.
    pub fn wants(&self, retain: bool) -> bool {
        retain || self.subscriptions.load(Ordering::Acquire) > 0
    }

    /// Passes a message on to subscribers and keeps it if it is to be retained. `publisher` is its session's serial.
    pub fn publish(&self, publish: &Publish, publisher: u64) {
        let Ok(name) = str::from_utf8(&publish.topic) else { return };
        let message = Arc::new(forward(publish));
        if publish.retain {
            self.retain(&message);
        }
        let tree = self.tree.read();
        if tree.len() == 0 {
            return;
        }
        let mut hits: Vec<&Subscription> = Vec::new();
        tree.matches(name, &mut |hit| match hit {
            Match::One(subscription) => {
                if !(subscription.no_local && subscription.session.serial == publisher) {
                    hits.push(subscription);
                }
            }
            Match::Group(group) => {
                // The first in turn that is there; if none is, the first in turn keeps it for its return.
                let live = group.by_turn().find(|member| member.session.is_live());
                hits.extend(live.or_else(|| group.by_turn().next()));
            }
        });
        // A client whose filters overlap gets one message, at the best QoS, with all its identifiers.
        hits.sort_by_key(|hit| hit.session.serial);
        for same in hits.chunk_by(|a, b| a.session.serial == b.session.serial) {
            let qos = same.iter().map(|hit| hit.qos).max().unwrap_or(0).min(message.qos);
            let retain = publish.retain && same.iter().any(|hit| hit.retain_as_published);
            let identifiers: Vec<u32> = same.iter().filter_map(|hit| hit.identifier).collect();
            let identifiers = (!identifiers.is_empty()).then(|| identifiers.into_boxed_slice());
            self.deliver(&same[0].session, Delivery { message: message.clone(), qos, retain, identifiers });
        }
    }

    fn deliver(&self, session: &Session, delivery: Delivery) {
        match session.deliver(delivery) {
            Queued::Yes => drop(self.forwarded.fetch_add(1, Ordering::Relaxed)),
            Queued::Full => drop(self.undelivered.fetch_add(1, Ordering::Relaxed)),
            Queued::NotWanted => {}
        }
    }

    fn retain(&self, message: &Arc<Forward>) {
        let mut retained = self.retained.lock();
        if let Some(old) = retained.messages.remove(&message.topic) {
            retained.bytes -= weight(&old);
        }
        if message.payload.is_empty() {
            return;
        }
        let weight = weight(message);
        if retained.messages.len() >= self.bounds.retained || retained.bytes + weight > self.bounds.retained_bytes {
            self.undelivered.fetch_add(1, Ordering::Relaxed);
            return;
        }
        retained.bytes += weight;
        retained.messages.insert(message.topic.clone(), message.clone());
    }
}

fn weight(message: &Forward) -> usize {
    message.topic.len() + message.payload.len() + message.properties.len()
}

/// The message as it is kept for subscribers: copied out of the read buffer, so that a small message kept for long does not
/// keep a large buffer.
fn forward(publish: &Publish) -> Forward {
    let mut whole = BytesMut::with_capacity(publish.topic.len() + publish.payload.len());
    whole.put_slice(&publish.topic);
    whole.put_slice(&publish.payload);
    let mut whole = whole.freeze();
    let topic = whole.split_to(publish.topic.len());
    Forward {
        topic,
        payload: whole,
        qos: publish.qos,
        expires: publish.expiry.map(|seconds| Instant::now() + Duration::from_secs(u64::from(seconds))),
        properties: wire::forwardable(&publish.properties),
    }
}
