//! One source's path from payload to verdict: decode, score, detect, remember. Owned by one worker; does no I/O.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use rustc_hash::FxHashMap;

mod challenger;
pub mod keep;
mod marks;

pub use marks::Marked;

use super::models::{Scorer, blame};
use super::records::{DeadLetter, EpisodeRecord, Origin, ScoreRecord, blamed, json};
use super::view::{Episode, Millis};
use crate::config::Scores;
use crate::detect::{self, Change, SensorQuality};
use crate::fleet::{Judged, Shard};
use crate::kafka::Record;
use crate::model::ModelError;
use crate::telemetry::codec::Codec;
use crate::telemetry::{Batch, ReadingMeta, Schema};

/// Episodes kept once they are closed.
const CLOSED: usize = 10_000;
/// A device whose clock is further ahead is not believed: its readings count as of when they were received.
const AHEAD_MS: Millis = 60_000;

/// From which share of the blame, and how many standard deviations off, a sensor is shown as in breach.
const BLAMED_SHARE: f32 = 0.1;
const BLAMED_SIGMA: f32 = 2.0;

/// A car's open episode.
#[derive(Debug)]
pub struct Open {
    /// As operators see it.
    pub episode: Episode,
    /// When it was opened, by our clock (a replayed file's times may be years old).
    pub since: Millis,
}

/// What comes out of a batch.
#[derive(Debug)]
pub enum Verdict {
    /// To `anomaly-detection`.
    Score(Vec<u8>),
    /// To `anomaly-detection-breaches`.
    Breach(Vec<u8>),
    /// To `anomaly-episodes`, and headless to stdout.
    Episode(Vec<u8>),
}

/// Receives each verdict, with the key of its car.
pub type Out<'a> = dyn FnMut(&[u8], Verdict) + 'a;

/// What happened in a batch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Readings scored.
    pub scored: u64,
    /// Of these, breaches.
    pub anomalies: u64,
    /// Episodes opened.
    pub episodes: u64,
    /// Readings judged once more, to catch up after a restart: nothing of them was written or counted again.
    pub again: u64,
}

/// Why a record is not judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// What was kept of its car over a restart has it in already.
    Known,
    /// The reason for its dead letter.
    Unusable(String),
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Refusal::Unusable(reason)
    }
}

/// Where a car's readings come from.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The Kafka partition.
    partition: i32,
    /// The offset behind its newest reading there.
    next: i64,
}

/// The lane.
pub struct Lane {
    index: usize,
    topic: Arc<str>,
    codec: Arc<Codec>,
    scorer: Scorer,
    challenger: Option<challenger::Challenger>,
    scores: Scores,
    shard: Shard,
    /// By car, like the shard's.
    states: Vec<detect::CarState>,
    /// By car too.
    places: Vec<Place>,
    /// Partitions that are being read again, to be where they were before a restart. Empty, as a rule.
    catching_up: FxHashMap<i32, keep::CatchUp>,
    open: FxHashMap<u32, Open>,
    closed: VecDeque<(u32, Episode)>,
    labels: Vec<String>,
    batch: Batch,
    /// The payloads of the batch, end to end, each cut to what is kept of it, and where each ends.
    raw: Vec<u8>,
    raw_ends: Vec<usize>,
}

impl Lane {
    /// A lane for the Kafka topic `topic`. `index` is its schema's position among all schemas shown.
    pub fn new(index: usize, topic: Arc<str>, codec: Arc<Codec>, scorer: Scorer, scores: Scores, limit: usize) -> Self {
        let schema = scorer.schema().clone();
        Lane {
            index,
            topic,
            codec,
            scorer,
            challenger: None,
            scores,
            states: Vec::new(),
            places: Vec::new(),
            catching_up: FxHashMap::default(),
            open: FxHashMap::default(),
            closed: VecDeque::new(),
            labels: labels(&schema),
            batch: Batch::new(schema.width()),
            raw: Vec::new(),
            raw_ends: Vec::new(),
            shard: Shard::new(schema, limit),
        }
    }

    /// The Kafka topic it reads.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// Its part of the fleet.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Its schema's position among all schemas shown.
    pub fn schema_index(&self) -> usize {
        self.index
    }

    /// Readings waiting to be judged.
    pub fn waiting(&self) -> usize {
        self.batch.len()
    }

    /// Takes a record in, to be judged with the batch.
    pub fn decode(&mut self, record: &Record<'_>) -> Result<(), Refusal> {
        if !self.catching_up.is_empty() {
            self.follow_log(record);
        }
        let Lane { batch, codec, shard, states, places, scorer, .. } = self;
        batch.try_push(|row| {
            let decoded = codec.decode(record.payload, row).map_err(|error| error.to_string())?;
            let key = match (&decoded.car, record.key) {
                (Some(car), _) => car.as_bytes(),
                (None, Some(key)) if !key.is_empty() => key,
                (None, _) => return Err("no car: the record has no key, and the payload names none".to_owned().into()),
            };
            let (car, new) = shard.car(key).map_err(|full| full.to_string())?;
            let here = Place { partition: record.partition, next: record.offset.saturating_add(1) };
            if new {
                states.push(scorer.car(&shard.cars()[car as usize].name));
                places.push(here);
            } else {
                let place = &mut places[car as usize];
                if place.partition == here.partition && record.offset < place.next {
                    return Err(Refusal::Known);
                }
                *place = here;
            }
            let time_ms =
                decoded.time_ms.filter(|&time| time <= record.received_ms + AHEAD_MS).unwrap_or(record.received_ms);
            Ok(ReadingMeta {
                car,
                time_ms,
                received_ms: record.received_ms,
                partition: record.partition,
                offset: record.offset,
            })
        })?;
        self.raw.extend_from_slice(&record.payload[..record.payload.len().min(crate::fleet::shard::RAW_BYTES)]);
        self.raw_ends.push(self.raw.len());
        Ok(())
    }

    /// Scores and judges the batch, hands out the verdicts, remembers the readings, and forgets the batch.
    pub fn judge(&mut self, now: Millis, out: &mut Out<'_>) -> Result<Tally, ModelError> {
        let mut tally = Tally::default();
        if self.batch.is_empty() {
            return Ok(tally);
        }
        let began = Instant::now();
        self.scorer.run(&self.batch)?;
        let looked = began.elapsed();
        for n in 0..self.batch.len() {
            let meta = *self.batch.meta(n);
            let timed = self.challenger.is_some().then(Instant::now);
            let verdict = self.scorer.judge(&self.batch, n, &mut self.states[meta.car as usize]);
            if let (Some(challenger), Some(timed)) = (&mut self.challenger, timed) {
                challenger.hear(&verdict, timed.elapsed());
            }
            let again = self.is_again(meta.partition, meta.offset);
            if again {
                tally.again += 1;
            } else {
                tally.scored += 1;
                tally.anomalies += u64::from(verdict.breach);
            }
            let raw_start = if n == 0 { 0 } else { self.raw_ends[n - 1] };
            self.shard.remember(
                meta.car,
                Judged {
                    time: meta.time_ms,
                    received: meta.received_ms,
                    values: self.batch.row(n),
                    expected: self.scorer.expected(n),
                    sigmas: self.scorer.sigmas(),
                    score: verdict.score,
                    severity: verdict.severity,
                    breach: verdict.breach,
                    raw: &self.raw[raw_start..self.raw_ends[n]],
                },
            );
            if again {
                // Its verdicts were written before the restart.
                self.follow(meta, verdict.change, meta.received_ms, &mut |_, _| {});
                continue;
            }
            if verdict.breach || self.scores == Scores::All {
                self.report(n, &verdict, out);
            }
            if verdict.change != Change::None {
                tally.episodes += u64::from(verdict.change == Change::Opened);
                self.follow(meta, verdict.change, now, out);
            }
        }
        if let Some(challenger) = &mut self.challenger
            && let Err(error) = challenger.judge(&self.batch, &self.shard, looked)
        {
            tracing::error!("the challenger failed and is let go: {error}");
            self.challenger = None;
        }
        self.forget();
        if !self.catching_up.is_empty() {
            self.catch_up(out);
        }
        Ok(tally)
    }

    /// Empties the batch after the model failed on it: a dead letter (key, JSON) for each reading.
    pub fn give_up(&mut self, reason: &str, now: Millis) -> Vec<(Box<[u8]>, Vec<u8>)> {
        let mut letters = Vec::with_capacity(self.batch.len());
        for n in 0..self.batch.len() {
            let meta = self.batch.meta(n);
            let raw = &self.raw[if n == 0 { 0 } else { self.raw_ends[n - 1] }..self.raw_ends[n]];
            let origin = Origin { topic: &self.topic, partition: meta.partition, offset: meta.offset };
            let key = self.shard.cars()[meta.car as usize].key.clone();
            letters.push((key, json(&DeadLetter::new(reason, now, b"", Some(origin), raw))));
        }
        self.forget();
        letters
    }

    /// Lets go of the cars of a partition that another process reads from now on. Not while readings wait.
    pub fn release(&mut self, partition: i32) {
        debug_assert!(self.batch.is_empty(), "readings name cars by number");
        let mut of = self.places.iter().map(|place| place.partition);
        let moved = self.shard.retain(|_| of.next() != Some(partition));
        let kept = |n: u32| moved.get(n as usize).copied().flatten();
        let mut n = 0..;
        self.states.retain(|_| n.next().and_then(kept).is_some());
        if let Some(challenger) = &mut self.challenger {
            challenger.retain(|n| kept(n).is_some());
        }
        self.places.retain(|place| place.partition != partition);
        self.catching_up.remove(&partition);
        self.open = self.open.drain().filter_map(|(car, open)| Some((kept(car)?, open))).collect();
        self.closed = self.closed.drain(..).filter_map(|(car, episode)| Some((kept(car)?, episode))).collect();
    }

    fn forget(&mut self) {
        self.batch.clear();
        self.raw.clear();
        self.raw_ends.clear();
    }

    fn report(&self, n: usize, verdict: &detect::Verdict, out: &mut Out<'_>) {
        let meta = self.batch.meta(n);
        let car = &self.shard.cars()[meta.car as usize];
        let threshold = self.scorer.threshold;
        let mut record = ScoreRecord {
            car: &car.name,
            time: meta.time_ms,
            score: f64::from(verdict.score) * threshold,
            threshold,
            breach: verdict.breach,
            severity: verdict.severity,
            model: self.scorer.name(),
            sensors: Vec::new(),
            origin: Origin { topic: &self.topic, partition: meta.partition, offset: meta.offset },
        };
        if self.scores == Scores::All {
            out(&car.key, Verdict::Score(json(&record)));
        }
        if verdict.breach {
            let blames = self.scorer.blames();
            record.sensors = blamed(&blames, self.shard.schema());
            out(&car.key, Verdict::Breach(json(&record)));
        }
    }

    /// Brings the operator's picture of a car's episode up to the detector's.
    fn follow(&mut self, meta: ReadingMeta, change: Change, now: Millis, out: &mut Out<'_>) {
        let Some(episode) = self.episode_of(meta.car) else { return };
        let car = &self.shard.cars()[meta.car as usize];
        let (event, say) = match change {
            Change::None => return,
            Change::Opened => ("episode_opened", true),
            Change::Updated => {
                let before = self.open.get(&meta.car).map_or(0, |open| open.episode.severity);
                // Kafka and stdout hear of steps, not of every new peak; the screen shows them all.
                ("episode_updated", episode.severity / 10 > before / 10)
            }
            Change::Closed => return self.close(meta.car, meta.time_ms, out),
        };
        if say {
            let record = EpisodeRecord::new(event, meta.time_ms, &episode, self.shard.schema(), self.scorer.name());
            out(&car.key, Verdict::Episode(json(&record)));
        }
        let car = self.shard.car_mut(meta.car);
        car.episodes += u32::from(change == Change::Opened);
        car.blamed = episode.blames.first().map(|blame| blame.sensor);
        match self.open.entry(meta.car) {
            Entry::Occupied(mut open) => open.get_mut().episode = episode,
            Entry::Vacant(free) => drop(free.insert(Open { episode, since: now })),
        }
    }

    /// Moves a car's episode, which the detector has closed, to the closed ones.
    fn close(&mut self, n: u32, time: Millis, out: &mut Out<'_>) {
        let Some(episode) = self.episode_of(n) else { return };
        let car = self.shard.car_mut(n);
        car.blamed = None;
        let key = car.key.clone();
        let record = EpisodeRecord::new("episode_closed", time, &episode, self.shard.schema(), self.scorer.name());
        out(&key, Verdict::Episode(json(&record)));
        self.open.remove(&n);
        self.keep_closed(n, episode);
    }

    fn keep_closed(&mut self, n: u32, episode: Episode) {
        self.closed.push_back((n, episode));
        if self.closed.len() > CLOSED {
            self.closed.pop_front();
        }
    }

    /// The detector's picture of a car's episode, as operators see it.
    fn episode_of(&self, n: u32) -> Option<Episode> {
        let known = self.states[n as usize].episode()?;
        let car = &self.shard.cars()[n as usize];
        Some(Episode {
            id: detect::episode_id(&car.name, known.onset_ms),
            car: car.name.clone(),
            onset: known.onset_ms,
            end: known.end_ms(),
            peak: known.peak_ms,
            severity: known.severity,
            blames: known.blames().iter().map(blame).collect(),
            acknowledged: known.acknowledged,
            breaches: known.breaches,
            schema: self.index,
        })
    }

    /// The open episode of a car.
    pub fn open(&self, car: u32) -> Option<&Open> {
        self.open.get(&car)
    }

    /// All episodes, open ones first, then the closed ones, newest first.
    pub fn episodes(&self) -> impl Iterator<Item = &Episode> {
        self.open.values().map(|open| &open.episode).chain(self.closed.iter().rev().map(|(_, episode)| episode))
    }

    /// The episodes of one car, newest first.
    pub fn episodes_of(&self, car: u32) -> impl Iterator<Item = &Episode> {
        let closed = self.closed.iter().rev().filter(move |(of, _)| *of == car).map(|(_, episode)| episode);
        self.open(car).map(|open| &open.episode).into_iter().chain(closed)
    }

    /// Whether a sensor's data are bad (which is no anomaly).
    pub fn has_bad_data(&self, n: u32) -> bool {
        let state = &self.states[n as usize];
        (0..self.labels.len()).any(|sensor| state.quality(sensor).0 != SensorQuality::Good)
    }

    /// What is wrong with each sensor's data, in words.
    pub fn quality(&self, n: u32) -> Vec<(usize, String)> {
        let state = &self.states[n as usize];
        (0..self.labels.len())
            .filter_map(|sensor| match state.quality(sensor) {
                (SensorQuality::Good, _) => None,
                (bad, readings) => Some((sensor, format!("{} for {readings} readings", bad.word()))),
            })
            .collect()
    }

    /// Whether a sensor is among those to blame for the open episode, and off by enough now.
    pub fn in_breach(&self, n: u32, sensor: usize) -> bool {
        let blamed = self.open(n).is_some_and(|open| {
            open.episode.blames.iter().any(|blame| usize::from(blame.sensor) == sensor && blame.share >= BLAMED_SHARE)
        });
        blamed && self.shard.latest(n).2.get(sensor).is_some_and(|sigma| sigma.abs() >= BLAMED_SIGMA)
    }

    /// A sensor's label, in lower case.
    pub fn sensor_label(&self, sensor: u16) -> &str {
        self.labels.get(usize::from(sensor)).map_or("", String::as_str)
    }
}

/// Labels of sensors, in lower case.
fn labels(schema: &Schema) -> Vec<String> {
    schema.sensors().iter().map(|sensor| sensor.label.to_lowercase()).collect()
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
