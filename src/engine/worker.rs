//! A worker: one consumer, one model session per source, one part of the fleet, one thread. It owns all of them outright;
//! others ask it questions between batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::ask::Ask;
use super::counts::{Counters, add};
use super::door::Token;
use super::keep::{Keeper, Mark, Next};
use super::lane::{Lane, Refusal, Tally, Verdict};
use super::latency::Latency;
use super::models::Scorer;
use super::now_ms;
use super::records::{DeadLetter, Origin, json};
use super::view::{Command, Millis, ShadowView};
use crate::config::Topics;
use crate::kafka::{Consumer, Outgoing, Producer, Record, SendError};

/// Readings judged at once.
const BATCH: usize = 1024;
/// How long to wait for readings before looking at questions again.
const WAIT: Duration = Duration::from_millis(10);
/// Verdicts and dead letters that may wait for room in Kafka before no more readings are taken.
const OUTBOX: usize = 8 * BATCH;
/// Offsets are stored at least this often, even if that means waiting for outputs to be delivered.
const STORE: Duration = Duration::from_millis(200);
/// How long a drain may take once nothing comes any more.
const DRAIN: Duration = Duration::from_secs(30);

/// What the worker is told from outside.
#[derive(Debug, Default)]
pub struct Orders {
    /// Judge what is in flight, then end.
    pub drain: AtomicBool,
    /// Kafka is away: nothing more comes from it, and nothing can be written to it.
    pub cut_off: AtomicBool,
    /// Whether a console looks on (and takes the delays of readings); else the worker keeps them itself.
    pub watched: AtomicBool,
    /// The path is broken or has ended: said by the worker when it ends, in order or not, and by the door when Kafka's producer
    /// has stopped for good.
    pub ended: AtomicBool,
}

/// Says that the worker has ended, however it does.
struct Farewell(Arc<Orders>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.ended.store(true, Relaxed);
    }
}

/// Where events go, headless: never blocks the worker.
#[derive(Debug, Clone)]
pub struct Events {
    /// Lines of JSON.
    pub lines: Sender<Vec<u8>>,
    /// Lines nobody took in time.
    pub dropped: Arc<AtomicU64>,
}

/// Outputs under way to Kafka, so that offsets are stored only behind what is delivered.
pub type Outstanding = Arc<AtomicU64>;

struct Output {
    to: To,
    key: Box<[u8]>,
    payload: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum To {
    Scores,
    Breaches,
    Episodes,
    DeadLetters,
}

/// The worker.
pub struct Worker {
    /// One a source.
    pub lanes: Vec<Lane>,
    pub(super) consumer: Consumer,
    pub(super) producer: Arc<Producer<Token>>,
    pub(super) outstanding: Outstanding,
    pub(super) counters: Arc<Counters>,
    pub(super) topics: Topics,
    pub(super) events: Option<Events>,
    pub(super) orders: Arc<Orders>,
    pub(super) exclusive: bool,
    keeper: Option<Keeper>,
    state: State,
}

/// How a worker is doing.
#[derive(Debug, Default)]
pub struct Vitals {
    /// (received, readings) since this was last asked.
    pub seen: Vec<(Millis, u64)>,
    /// Records behind the end of its partitions, if known.
    pub lag: Option<u64>,
    /// Partitions it reads, and all.
    pub partitions: (usize, usize),
    /// Mean records a batch of late.
    pub mean_batch: f32,
    /// How the challenger compares, if there is one.
    pub shadow: Option<ShadowView>,
}

/// What a worker remembers between batches.
struct State {
    /// The next offset of each (lane, partition): what is below was judged.
    next: Next,
    outbox: VecDeque<Output>,
    /// (received, readings) since a console last asked.
    seen: Vec<(Millis, u64)>,
    latency: Latency,
    stored: Instant,
    unstored: bool,
    /// Whether an episode was written about since offsets were stored.
    told: bool,
    mean_batch: f32,
}

/// What a worker is made of.
pub struct Parts {
    /// One a source.
    pub lanes: Vec<Lane>,
    /// Its consumer, of all lanes' topics.
    pub consumer: Consumer,
    /// Shared with the door.
    pub producer: Arc<Producer<Token>>,
    /// Counted up here, counted down by the delivery reports.
    pub outstanding: Outstanding,
    /// Shared by all.
    pub counters: Arc<Counters>,
    /// Where verdicts go.
    pub topics: Topics,
    /// Headless: where events go too.
    pub events: Option<Events>,
    /// What it is told.
    pub orders: Arc<Orders>,
    /// Whether nobody but this process writes the raw topics (the embedded cluster).
    pub exclusive: bool,
    /// Keeps what must survive a restart, if anything does.
    pub keeper: Option<Keeper>,
}

impl Worker {
    /// A worker of these parts.
    pub fn new(parts: Parts) -> Self {
        let Parts { lanes, consumer, producer, outstanding, counters, topics, events, orders, exclusive, keeper } =
            parts;
        let state = State {
            next: Next::default(),
            outbox: VecDeque::new(),
            seen: Vec::new(),
            latency: Latency::new(now_ms()),
            stored: Instant::now(),
            unstored: false,
            told: false,
            mean_batch: 0.0,
        };
        Worker { lanes, consumer, producer, outstanding, counters, topics, events, orders, exclusive, keeper, state }
    }

    /// Works until told to drain, and then until everything is judged. The worker is handed back for its last numbers.
    pub fn run(mut self, asks: &Receiver<Ask<Worker>>) -> Self {
        let _farewell = Farewell(self.orders.clone());
        let mut draining: Option<Instant> = None;
        loop {
            while let Ok(ask) = asks.try_recv() {
                ask(&mut self);
            }
            self.send_outbox();
            if self.state.outbox.len() >= OUTBOX {
                // Kafka has no room for verdicts: take no more readings, but stay answerable.
                if let Ok(ask) = asks.recv_timeout(WAIT) {
                    ask(&mut self);
                }
            } else {
                let took = self.step();
                if took > 0 {
                    draining = draining.map(|_| Instant::now());
                }
            }
            self.store_offsets();
            if let Some(keeper) = &mut self.keeper {
                keeper.advance(&self.lanes, &self.state.next);
                if !self.state.unstored {
                    keeper.stored(&self.state.next);
                }
            }
            if self.orders.drain.load(Relaxed) {
                let since = *draining.get_or_insert_with(Instant::now);
                if self.is_drained() || since.elapsed() > self.patience() {
                    break;
                }
            }
        }
        self.finish();
        self
    }

    /// Takes one batch through. Answers how many records it had.
    fn step(&mut self) -> usize {
        let Worker { lanes, consumer, counters, state, .. } = self;
        let now = now_ms();
        let (mut oldest, mut newest) = (Millis::MAX, Millis::MIN);
        let (mut duplicates, mut undecodable) = (0, 0);
        let polled = consumer.poll(BATCH, WAIT, |record: Record<'_>| {
            let Some(n) = lanes.iter().position(|lane| **lane.topic() == *record.topic) else {
                debug_assert!(false, "only the lanes' topics are subscribed");
                undecodable += 1;
                return;
            };
            let next = state.next.entry((n, record.partition)).or_insert(i64::MIN);
            if record.offset < *next {
                duplicates += 1;
                return;
            }
            *next = record.offset + 1;
            (oldest, newest) = (oldest.min(record.received_ms), newest.max(record.received_ms));
            if let Err(refusal) = lanes[n].decode(&record) {
                let Refusal::Unusable(reason) = refusal else {
                    duplicates += 1;
                    return;
                };
                undecodable += 1;
                let origin = Origin { topic: record.topic, partition: record.partition, offset: record.offset };
                let mqtt_topic = record.mqtt_topic.unwrap_or_default();
                let letter = DeadLetter::new(&reason, now, mqtt_topic, Some(origin), record.payload);
                let key = record.key.unwrap_or_default().into();
                state.outbox.push_back(Output { to: To::DeadLetters, key, payload: json(&letter) });
            }
        });
        add(&counters.consumed, polled.records as u64);
        add(&counters.duplicates, duplicates);
        add(&counters.undecodable, undecodable);
        if polled.skipped > 0 {
            tracing::warn!(
                "{} records were gone from Kafka before they were read: its retention is too short",
                polled.skipped
            );
        }
        for assigned in &polled.assigned {
            if let Some(keeper) = self.keeper.as_mut().filter(|_| !self.exclusive)
                && let Some(n) = self.lanes.iter().position(|lane| *lane.topic() == assigned.topic)
            {
                let consumer = &self.consumer;
                keeper.restore(n, &mut self.lanes[n], assigned, || consumer.cluster_id());
            }
        }
        if let Some(refused) = &polled.refused {
            tracing::error!("Kafka refuses to be read: {refused}");
        }
        if polled.records > 0 {
            self.judge(now);
            let state = &mut self.state;
            state.unstored = true;
            state.mean_batch += 0.05 * (polled.records as f32 - state.mean_batch);
            if oldest <= newest {
                let count = polled.records as u64;
                for (received, count) in [(oldest, count / 2), (newest, count - count / 2)] {
                    if self.orders.watched.load(Relaxed) && state.seen.len() < 100_000 {
                        state.seen.push((received, count));
                    }
                    state.latency.record(received, now_ms(), count);
                }
            }
        }
        for (topic, partition) in &polled.revoked {
            if let Some(n) = self.lanes.iter().position(|lane| **lane.topic() == **topic) {
                // If it comes back, it is read from where the other process stopped.
                self.state.next.remove(&(n, *partition));
                self.lanes[n].release(*partition);
                if let Some(keeper) = &mut self.keeper {
                    keeper.changed(n, &self.lanes[n]);
                }
            }
        }
        polled.records
    }

    fn judge(&mut self, now: Millis) {
        let Worker { lanes, state, events, counters, .. } = self;
        for lane in lanes {
            let waiting = lane.waiting() as u64;
            let judged = lane.judge(now, &mut |key, verdict| put(state, events.as_ref(), key, verdict));
            match judged {
                Ok(Tally { scored, anomalies, episodes, again }) => {
                    add(&counters.duplicates, again);
                    add(&counters.anomalies, anomalies);
                    add(&counters.episodes, episodes);
                    add(&counters.scored, scored);
                }
                Err(error) => {
                    // A model that answered before and fails now: the readings are not silently good.
                    tracing::error!("the model failed on {waiting} readings, which are dead-lettered: {error}");
                    add(&counters.undecodable, waiting);
                    let reason = format!("the model failed: {error}");
                    for letter in lane.give_up(&reason, now) {
                        state.outbox.push_back(Output { to: To::DeadLetters, key: letter.0, payload: letter.1 });
                    }
                }
            }
        }
    }

    /// Does what an operator asks of a car; `None` if it is not here.
    pub fn mark(&mut self, command: &Command, now: Millis) -> Option<String> {
        let Worker { lanes, state, events, keeper, .. } = self;
        lanes.iter_mut().enumerate().find_map(|(n, lane)| {
            let marked = lane.mark(command, now, &mut |key, verdict| put(state, events.as_ref(), key, verdict))?;
            if let (Some(keeper), Some(keep)) = (keeper.as_mut(), marked.keep) {
                let offset = state.next.get(&(n, keep.partition)).copied().unwrap_or(keep.next);
                let mark = Mark { key: (&*keep.key).into(), time: now, log: keeper.log(), offset, mark: keep.what };
                keeper.mark(lane, keep.partition, mark);
            }
            Some(marked.reply)
        })
    }

    /// Replaces a lane's model, or its challenger; see [`Lane::take_up`] and [`Lane::challenge`].
    pub fn take_up(&mut self, n: usize, scorer: Scorer, shadow: bool) -> Result<bool, String> {
        let Some(lane) = self.lanes.get_mut(n) else { return Err("its source is gone".into()) };
        if shadow {
            return lane.challenge(scorer).map(|()| false);
        }
        let kept = lane.take_up(scorer)?;
        if let Some(keeper) = &mut self.keeper {
            keeper.changed(n, lane);
        }
        Ok(kept)
    }

    /// What a snapshot wants of the worker beside its cars.
    pub fn vitals(&mut self) -> Vitals {
        Vitals {
            seen: std::mem::take(&mut self.state.seen),
            lag: self.consumer.lag(),
            partitions: self.consumer.partitions(),
            mean_batch: self.state.mean_batch,
            shadow: self.lanes.iter().find_map(Lane::comparison),
        }
    }

    /// Gate to verdict, milliseconds: p50 and p99.
    pub fn latency(&self) -> Option<(f32, f32)> {
        self.state.latency.p50_p99()
    }

    fn send_outbox(&mut self) {
        while let Some(output) = self.state.outbox.pop_front() {
            let (topic, token) = match output.to {
                To::Scores => (&self.topics.scores, Token::Verdict),
                To::Breaches => (&self.topics.breaches, Token::Verdict),
                To::Episodes => (&self.topics.episodes, Token::Verdict),
                To::DeadLetters => (&self.topics.dead_letters, Token::DeadLetter),
            };
            let out = Outgoing { topic, key: Some(&output.key), payload: &output.payload, headers: &[] };
            self.outstanding.fetch_add(1, Relaxed);
            match self.producer.try_send(out, token) {
                Ok(()) => {}
                Err((_, SendError::Full)) => {
                    self.outstanding.fetch_sub(1, Relaxed);
                    self.state.outbox.push_front(output);
                    return;
                }
                Err((_, error)) => {
                    self.outstanding.fetch_sub(1, Relaxed);
                    tracing::error!("a record for {topic} is lost, Kafka does not take it: {error}");
                }
            }
        }
    }

    /// Stores the offsets of what was judged, once all that came of it is delivered: at least once, whatever happens.
    fn store_offsets(&mut self) {
        if !self.state.unstored || !self.state.outbox.is_empty() {
            return;
        }
        if self.outstanding.load(Relaxed) == 0 {
            if let Some(keeper) = &mut self.keeper
                && keeper.is_founding(&self.lanes, &self.state.next)
            {
                return;
            }
            self.consumer.stored();
            self.state.stored = Instant::now();
            self.state.unstored = false;
            // The group's offset is all that tells a restart which verdicts are written: of an episode at once, not within a second.
            if std::mem::take(&mut self.state.told) && !self.exclusive {
                self.consumer.commit();
            }
        } else if self.state.stored.elapsed() > STORE {
            // Outputs follow each other without a pause: make one, short.
            self.producer.flush(Duration::from_millis(50));
        }
    }

    fn patience(&self) -> Duration {
        if self.orders.cut_off.load(Relaxed) { Duration::ZERO } else { DRAIN }
    }

    fn is_drained(&self) -> bool {
        let counts = self.counters.read();
        let caught_up =
            if self.exclusive { counts.consumed >= counts.produced } else { self.consumer.lag() == Some(0) };
        caught_up && self.state.outbox.is_empty()
    }

    fn finish(&mut self) {
        let deadline = Instant::now() + self.patience();
        while !self.state.outbox.is_empty() && Instant::now() < deadline {
            self.send_outbox();
            self.producer.flush(Duration::from_millis(100));
        }
        let left = self.producer.flush(deadline.saturating_duration_since(Instant::now()));
        let all = left == 0 && self.state.outbox.is_empty();
        // First the states, then the offsets: in the other order a crash between the two would forget.
        if let Some(keeper) = self.keeper.take() {
            keeper.close(&self.lanes, &self.state.next, all);
        }
        if all {
            self.consumer.stored();
        }
        if !all {
            tracing::error!(
                "{left} records were not delivered to Kafka before the end; their readings will be judged again"
            );
        }
    }
}

fn put(state: &mut State, events: Option<&Events>, key: &[u8], verdict: Verdict) {
    let (to, payload) = match verdict {
        Verdict::Score(payload) => (To::Scores, payload),
        Verdict::Breach(payload) => (To::Breaches, payload),
        Verdict::Episode(payload) => {
            state.told = true;
            if let Some(events) = events
                && events.lines.try_send(payload.clone()).is_err()
            {
                events.dropped.fetch_add(1, Relaxed);
            }
            (To::Episodes, payload)
        }
    };
    state.outbox.push_back(Output { to, key: key.into(), payload });
}
