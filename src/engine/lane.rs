//! One source's path from payload to verdict: decode, score, detect, remember. Owned by one worker; does no I/O.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::records::{DeadLetter, EpisodeRecord, MarkRecord, Origin, ScoreRecord, blamed, json};
use super::view::{Blame, Command, Episode, Millis};
use crate::config::Scores;
use crate::detect::{self, Change, Detector, Scratch, SensorQuality};
use crate::fleet::{Judged, Shard};
use crate::kafka::Record;
use crate::model::{Model, ModelError};
use crate::telemetry::codec::Codec;
use crate::telemetry::{Batch, ReadingMeta};

/// Episodes kept once they are closed.
const CLOSED: usize = 10_000;
/// A device whose clock is further ahead is not believed: its readings count as of when they were received.
const AHEAD_MS: Millis = 60_000;

/// Readings from which a re-baseline learns.
const REBASELINE_READINGS: u16 = 300;

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
}

/// What tells normal from not.
pub struct Judge {
    /// A model's calibration, ready for use.
    pub detector: Detector,
    /// What records call a score of 1: a foreign model's own threshold, in its units, else 1.
    pub threshold: f64,
}

/// The lane.
pub struct Lane {
    index: usize,
    topic: Arc<str>,
    codec: Arc<Codec>,
    model: Model,
    model_name: String,
    detector: Detector,
    /// What one unit of the detector's score is in the units that records speak: a foreign model's own threshold, else 1.
    threshold: f64,
    scores: Scores,
    shard: Shard,
    /// By car, like the shard's.
    states: Vec<detect::CarState>,
    /// By car too: the Kafka partition its readings come from.
    partitions: Vec<i32>,
    open: FxHashMap<u32, Open>,
    closed: VecDeque<(u32, Episode)>,
    labels: Vec<String>,
    batch: Batch,
    /// The payloads of the batch, end to end, each cut to what is kept of it, and where each ends.
    raw: Vec<u8>,
    raw_ends: Vec<usize>,
    expected: Vec<f32>,
    scratch: Scratch,
}

impl Lane {
    /// A lane for the Kafka topic `topic`. `index` is its schema's position among all schemas shown.
    pub fn new(
        index: usize,
        topic: Arc<str>,
        codec: Arc<Codec>,
        model: Model,
        judge: Judge,
        scores: Scores,
        limit: usize,
    ) -> Self {
        let schema = model.schema().clone();
        Lane {
            index,
            topic,
            codec,
            model_name: model.name().to_owned(),
            scratch: Scratch::default(),
            detector: judge.detector,
            threshold: judge.threshold,
            scores,
            states: Vec::new(),
            partitions: Vec::new(),
            open: FxHashMap::default(),
            closed: VecDeque::new(),
            labels: schema.sensors().iter().map(|sensor| sensor.label.to_lowercase()).collect(),
            batch: Batch::new(schema.width()),
            raw: Vec::new(),
            raw_ends: Vec::new(),
            expected: Vec::new(),
            shard: Shard::new(schema, limit),
            model,
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

    /// Takes a record in, to be judged with the batch. The error is the reason for its dead letter.
    pub fn decode(&mut self, record: &Record<'_>) -> Result<(), String> {
        let Lane { batch, codec, shard, states, partitions, detector, .. } = self;
        batch.try_push(|row| {
            let decoded = codec.decode(record.payload, row).map_err(|error| error.to_string())?;
            let key = match (&decoded.car, record.key) {
                (Some(car), _) => car.as_bytes(),
                (None, Some(key)) if !key.is_empty() => key,
                (None, _) => return Err("no car: the record has no key, and the payload names none".to_owned()),
            };
            let (car, new) = shard.car(key).map_err(|full| full.to_string())?;
            if new {
                states.push(detector.car(Some(&shard.cars()[car as usize].name)));
                partitions.push(record.partition);
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
        self.expected.clear();
        self.model.expected(self.batch.values(), &mut self.expected)?;
        let width = self.batch.width();
        for n in 0..self.batch.len() {
            let meta = *self.batch.meta(n);
            let values = self.batch.row(n);
            let expected = &self.expected[n * width..(n + 1) * width];
            let state = &mut self.states[meta.car as usize];
            let verdict = self.detector.observe(state, meta.time_ms, values, expected, &mut self.scratch);
            tally.scored += 1;
            tally.anomalies += u64::from(verdict.breach);
            let raw_start = if n == 0 { 0 } else { self.raw_ends[n - 1] };
            self.shard.remember(
                meta.car,
                Judged {
                    time: meta.time_ms,
                    received: meta.received_ms,
                    values,
                    expected,
                    sigmas: self.scratch.sigmas(),
                    score: verdict.score,
                    severity: verdict.severity,
                    breach: verdict.breach,
                    raw: &self.raw[raw_start..self.raw_ends[n]],
                },
            );
            if verdict.breach || self.scores == Scores::All {
                self.report(n, &verdict, out);
            }
            if verdict.change != Change::None {
                tally.episodes += u64::from(verdict.change == Change::Opened);
                self.follow(meta, verdict.change, now, out);
            }
        }
        self.forget();
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
        let mut of = self.partitions.iter().copied();
        let moved = self.shard.retain(|_| of.next() != Some(partition));
        let kept = |n: u32| moved.get(n as usize).copied().flatten();
        let mut n = 0..;
        self.states.retain(|_| n.next().and_then(kept).is_some());
        self.partitions.retain(|&of| of != partition);
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
        let threshold = self.threshold;
        let mut record = ScoreRecord {
            car: &car.name,
            time: meta.time_ms,
            score: f64::from(verdict.score) * threshold,
            threshold,
            breach: verdict.breach,
            severity: verdict.severity,
            model: &self.model_name,
            sensors: Vec::new(),
            origin: Origin { topic: &self.topic, partition: meta.partition, offset: meta.offset },
        };
        if self.scores == Scores::All {
            out(&car.key, Verdict::Score(json(&record)));
        }
        if verdict.breach {
            let blames: Vec<Blame> = self.scratch.blames().iter().map(blame).collect();
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
            let record = EpisodeRecord::new(event, meta.time_ms, &episode, self.shard.schema(), &self.model_name);
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
        let record = EpisodeRecord::new("episode_closed", time, &episode, self.shard.schema(), &self.model_name);
        out(&key, Verdict::Episode(json(&record)));
        self.open.remove(&n);
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

    /// Does what an operator asks of a car; `None` if the car is not here.
    pub fn mark(&mut self, command: &Command, now: Millis, out: &mut Out<'_>) -> Option<String> {
        let (Command::Acknowledge { car: name }
        | Command::Mute { car: name, .. }
        | Command::Unmute { car: name }
        | Command::Rebaseline { car: name }) = command
        else {
            return None;
        };
        let n = self.shard.named(name)?;
        let key = self.shard.cars()[n as usize].key.clone();
        let state = &mut self.states[n as usize];
        let mut mark = MarkRecord { event: "car_rebaselined", car: name, time: now, until: None };
        let reply = match command {
            Command::Acknowledge { .. } => {
                let Some(open) = self.open.get_mut(&n) else { return Some(format!("{name} has no open episode")) };
                state.acknowledge();
                open.episode.acknowledged = true;
                let record = EpisodeRecord::new(
                    "episode_acknowledged",
                    now,
                    &open.episode,
                    self.shard.schema(),
                    &self.model_name,
                );
                out(&key, Verdict::Episode(json(&record)));
                return Some(format!("{name} acknowledged"));
            }
            Command::Mute { duration, .. } => {
                let until = now.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX));
                let car = self.shard.car_mut(n);
                car.muted_until = Some(until);
                // The detector's time is what readings say, which in a replay is not now.
                state.mute(car.last_time.saturating_add(until.saturating_sub(now)));
                (mark.event, mark.until) = ("car_muted", Some(until));
                format!("{name} muted for {}", humantime::format_duration(*duration))
            }
            Command::Unmute { .. } => {
                self.shard.car_mut(n).muted_until = None;
                state.unmute();
                mark.event = "car_unmuted";
                format!("{name} no longer muted")
            }
            _ => {
                if state.rebaseline(REBASELINE_READINGS).is_some() {
                    self.close(n, now, out);
                }
                format!("{name}: what it does now is taken as normal")
            }
        };
        out(&key, Verdict::Episode(json(&mark)));
        Some(reply)
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

fn blame(blame: &detect::SensorBlame) -> Blame {
    let detect::SensorBlame { sensor, value, expected, sigma, share } = *blame;
    Blame { sensor, value, expected, sigma, share }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
