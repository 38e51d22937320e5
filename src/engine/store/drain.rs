//! The thread that hands the log on to Kafka, in order, and notes how far it is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::entry::{Entry, Kind};
use super::window::{Note, Turn};
use super::{Outlet, Slip, Store};
use crate::engine::counts::add;
use crate::engine::door::Token;
use crate::engine::now_ms;
use crate::engine::records::{DeadLetter, json};
use crate::kafka::{DeliveryError, Health, LOGGED, MQTT_TOPIC, Outgoing, RECEIVED_MS, SendError};
use crate::wal::{self, Batch, Reader};

/// Longest wait for something to hand on.
const WAIT: Duration = Duration::from_millis(50);
/// How often what Kafka has is noted.
const CHECKPOINT: Duration = Duration::from_secs(1);
/// Wait before what Kafka refused is offered again.
const AGAIN: Duration = Duration::from_secs(1);
/// Times a record is offered that Kafka refuses for a reason of its own.
const ATTEMPTS: u32 = 5;

/// The drain is to end now, whatever is left.
pub(super) struct Ended;

/// Hands the log on.
pub(super) struct Drain {
    pub store: Arc<Store>,
    reader: Reader<Slip>,
    pub outlet: Outlet,
    /// How each record's header begins: the log's id.
    pub id: String,
    /// Records below are of earlier runs.
    pub recovered: u64,
    checked: Instant,
    /// What the last checkpoint noted: the number below which Kafka has everything, and the note.
    noted: Option<Vec<u8>>,
    /// Records that Kafka refused: how often, and why once it was often enough.
    refusals: FxHashMap<u64, (u32, Option<String>)>,
}

impl Drain {
    pub fn new(store: Arc<Store>, reader: Reader<Slip>, recovered: u64, outlet: Outlet) -> Self {
        let id = format!("{:016x}-", store.wal.id());
        let checked = Instant::now();
        Drain { store, reader, outlet, id, recovered, checked, noted: None, refusals: FxHashMap::default() }
    }

    pub fn run(mut self) {
        // Nothing is left to do at the end but to note what Kafka has said meanwhile.
        let _ = self.work();
        self.checkpoint();
    }

    fn work(&mut self) -> Result<(), Ended> {
        self.recover()?;
        loop {
            self.tick()?;
            if self.store.window.lock().has_failed() {
                self.offer_again()?;
            }
            match self.reader.read(WAIT) {
                Ok(Some(batch)) => self.send(&batch)?,
                Ok(None) => {
                    let window = self.store.window.lock();
                    let done = window.in_flight() == 0 && !window.has_failed();
                    if done && self.is_finishing() && self.reader.position() >= self.store.wal.committed() {
                        return Ok(());
                    }
                }
                Err(error) => {
                    self.say(format!("the log cannot be read ({error}): what is in it waits; check the disk"));
                    std::thread::sleep(WAIT);
                }
            }
        }
    }

    fn is_finishing(&self) -> bool {
        self.store.finishing.load(Ordering::Acquire)
    }

    /// What is done between whatever else is done: a checkpoint when it is time, and the end if there is no use in going on.
    pub fn tick(&mut self) -> Result<(), Ended> {
        if self.checked.elapsed() >= CHECKPOINT {
            self.checkpoint();
        }
        let ended = self.outlet.orders.ended.load(Ordering::Relaxed);
        if self.is_finishing() && (ended || self.outlet.cluster.health() != Health::Up) { Err(Ended) } else { Ok(()) }
    }

    /// Notes what Kafka has, unless that is noted already.
    pub fn checkpoint(&mut self) {
        self.checked = Instant::now();
        self.peek();
        let window = self.store.window.lock();
        let (low, oldest) = (window.low(), window.oldest());
        let bounds = window.note();
        drop(window);
        let Ok(note) = serde_json::to_vec(&Note { bounds, once: self.store.note_once() }) else { return };
        let mut whole = low.to_le_bytes().to_vec();
        whole.extend_from_slice(&note);
        if self.noted.as_ref() == Some(&whole) {
            return;
        }
        match self.store.wal.checkpoint(low, oldest, &note) {
            Ok(()) => {
                // It goes on, whatever it was that held it up.
                if self.noted.as_ref().is_some_and(|before| before[..8] != whole[..8]) {
                    *self.store.trouble.lock() = None;
                }
                self.noted = Some(whole);
            }
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// While Kafka was never there nothing is read; how old the oldest record is must be known all the same.
    fn peek(&mut self) {
        let next = self.reader.position();
        if self.store.window.lock().oldest().is_some() || next >= self.store.wal.committed() {
            return;
        }
        // What cannot be read now is told when it is to be handed on.
        if let Ok(Some(batch)) = self.reader.read(Duration::ZERO)
            && let Some(first) = batch.entries().next()
        {
            self.store.window.lock().unread_since(first.time);
        }
        self.reader.seek(next);
    }

    pub fn say(&self, sentence: String) {
        let mut trouble = self.store.trouble.lock();
        if trouble.as_ref() != Some(&sentence) {
            tracing::error!("{sentence}");
            *trouble = Some(sentence);
        }
    }

    fn send(&mut self, batch: &Batch) -> Result<(), Ended> {
        for record in batch.entries() {
            if self.store.window.lock().has_failed() {
                // What was refused comes first: a car's readings stay in order.
                return Ok(());
            }
            self.hand_on(record)?;
        }
        let missing = self.store.window.lock().pass(batch.next, now_ms());
        add(&self.store.counters.lost, missing);
        Ok(())
    }

    fn hand_on(&mut self, record: wal::Entry<'_>) -> Result<(), Ended> {
        let Some(entry) = Entry::read(record.body) else {
            tracing::error!("record {} of the log is of a kind not known here, and is passed over", record.seq);
            let missing = self.store.window.lock().pass(record.seq + 1, record.time);
            add(&self.store.counters.lost, missing);
            return Ok(());
        };
        if entry.kind == Kind::Release {
            let (news, missing) = self.store.window.lock().not_for_kafka(record.seq, record.time);
            add(&self.store.counters.lost, missing);
            if news {
                self.store.releases.fetch_sub(1, Ordering::Relaxed);
            }
            return Ok(());
        }
        let refused = self.refusals.get(&record.seq).and_then(|(_, why)| why.clone());
        let mut letter = refused.map(|why| self.letter(&entry, record.time, &why));
        let topic = if letter.is_some() { self.dead_letters() } else { entry.topic };
        let (turn, missing) = self.store.window.lock().turn(record.seq, record.time, topic);
        add(&self.store.counters.lost, missing);
        if turn == Turn::Skip {
            return Ok(());
        }
        let identity = format!("{}{}", self.id, record.seq);
        let mut received = itoa::Buffer::new();
        let received = received.format(record.time);
        loop {
            let (kind, topic, payload) = match &letter {
                Some(letter) => (Kind::DeadLetter, self.dead_letters(), letter.as_slice()),
                None => (entry.kind, entry.topic, entry.payload),
            };
            let reading: [(&str, &[u8]); 3] =
                [(MQTT_TOPIC, entry.mqtt_topic), (RECEIVED_MS, received.as_bytes()), (LOGGED, identity.as_bytes())];
            let headers = if kind == Kind::Reading { &reading[..] } else { &reading[2..] };
            let out = Outgoing { topic, key: Some(entry.key), payload, headers };
            let token = Token::Stored { seq: record.seq, kind };
            match self.outlet.producer.try_send(out, token) {
                Ok(()) => return Ok(()),
                Err((_, SendError::Full)) => {
                    self.outlet.runtime.block_on(self.outlet.producer.room());
                    // A topic that is not there yet is no matter of room: nobody wakes us for it.
                    std::thread::sleep(Duration::from_millis(1));
                    if self.store.window.lock().has_failed() {
                        self.store.window.lock().unsent(record.seq);
                        return Ok(());
                    }
                    if let Err(ended) = self.tick() {
                        self.store.window.lock().unsent(record.seq);
                        return Err(ended);
                    }
                }
                Err((_, SendError::Stopped(why))) => {
                    self.store.window.lock().unsent(record.seq);
                    if !self.outlet.orders.ended.swap(true, Ordering::Relaxed) {
                        tracing::error!("the producer has stopped: {why}");
                    }
                    return Err(Ended);
                }
                Err((_, error)) if letter.is_none() => {
                    self.store.window.lock().redirect(record.seq, self.dead_letters());
                    letter = Some(self.letter(&entry, record.time, &format!("Kafka does not take it: {error}")));
                }
                Err((_, error)) => {
                    tracing::error!("a reading is lost, Kafka does not even take its dead letter: {error}");
                    self.store.window.lock().give_up(record.seq);
                    add(&self.store.counters.lost, 1);
                    return Ok(());
                }
            }
        }
    }

    fn dead_letters(&self) -> &str {
        self.outlet.topics.last().map_or("", String::as_str)
    }

    fn letter(&self, entry: &Entry<'_>, time: i64, why: &str) -> Vec<u8> {
        match entry.kind {
            Kind::Reading => json(&DeadLetter::new(why, time, entry.mqtt_topic, None, entry.payload)),
            Kind::DeadLetter | Kind::Release => entry.payload.to_vec(),
        }
    }

    /// Goes back to what Kafka refused, once nothing is on its way: what was delivered since is not sent again.
    fn offer_again(&mut self) -> Result<(), Ended> {
        while self.store.window.lock().in_flight() > 0 {
            std::thread::sleep(Duration::from_millis(2));
            self.tick()?;
        }
        let failed = self.store.window.lock().take_failed();
        let mut wait = false;
        for (seq, error) in &failed {
            let (times, reason) = self.refusals.entry(*seq).or_default();
            *times += 1;
            match error {
                DeliveryError::NotAuthorised | DeliveryError::NoTopic | DeliveryError::Closed => wait = true,
                DeliveryError::Other(_) if *times < ATTEMPTS => wait = true,
                DeliveryError::TooLarge | DeliveryError::Other(_) => {
                    *reason = Some(format!("Kafka does not take it: {error}"));
                }
            }
        }
        let Some((first, error)) = failed.iter().min_by_key(|(seq, _)| *seq) else { return Ok(()) };
        if wait {
            self.say(format!(
                "Kafka does not take a reading from the log ({error}): it is offered again until it does"
            ));
            let end = Instant::now() + AGAIN;
            while Instant::now() < end {
                std::thread::sleep(WAIT);
                self.tick()?;
            }
        }
        self.reader.seek(*first);
        let low = self.store.window.lock().low();
        self.refusals.retain(|seq, _| *seq >= low);
        Ok(())
    }
}
