//! Answers one console: takes its query, asks the workers, puts a snapshot together; passes its commands on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::ask::Asker;
use super::counts::Rates;
use super::lane::Lane;
use super::latency::Latency;
use super::order::{Candidate, Order, Place};
use super::path::Path;
use super::present::{self, Look};
use super::view::{
    CarName, CarQuery, CarView, Command, Counts, Episode, EpisodeSort, EpisodesQuery, FleetQuery, FleetRow, Handle,
    Millis, PipelineView, Query, Snapshot, StateCounts,
};
use super::worker::{Vitals, Worker};
use super::{now_ms, process};

/// A picture in which nothing moves is renewed this often all the same: ages grow.
const IDLE: Duration = Duration::from_secs(1);
/// Commands that may wait.
const COMMANDS: usize = 64;
/// Replies kept on screen.
const REPLIES: usize = 8;

/// What a viewer needs of the engine.
pub struct Viewer {
    pub(super) workers: Vec<Asker<Worker>>,
    pub(super) path: Arc<Path>,
    pub(super) stale_after: Millis,
}

/// What is gathered from one worker for one snapshot.
#[derive(Default)]
struct Part {
    cars: usize,
    states: StateCounts,
    candidates: Option<Vec<Candidate>>,
    located: Option<Box<CarView>>,
    episodes: Vec<Episode>,
    episodes_matching: usize,
    vitals: Vitals,
}

impl Viewer {
    /// Starts answering on the current tokio runtime; the console's end is handed back. Ends when the console is gone.
    pub async fn start(self) -> Handle {
        let (queries, mut asked) = watch::channel(Query::default());
        let (commands, mut commanded) = mpsc::channel(COMMANDS);
        let mut state = State::new(self);
        let first = state.snapshot(&Query::default()).await;
        let (publish, snapshots) = watch::channel(Arc::new(first));
        tokio::spawn(async move {
            let mut tick = Duration::ZERO;
            loop {
                tokio::select! {
                    biased;
                    changed = asked.changed() => if changed.is_err() { return },
                    command = commanded.recv() => match command {
                        Some(command) => state.execute(command).await,
                        None => return,
                    },
                    () = publish.closed() => return,
                    () = tokio::time::sleep(tick) => {}
                }
                let query = asked.borrow_and_update().clone();
                let snapshot = state.snapshot(&query).await;
                tick = if state.moved { query.every } else { IDLE.max(query.every) };
                if publish.send(Arc::new(snapshot)).is_err() {
                    return;
                }
            }
        });
        Handle { queries, snapshots, commands }
    }
}

struct State {
    viewer: Viewer,
    order: Order,
    rates: Rates<5>,
    latency: Latency,
    replies: Vec<(u64, String)>,
    sequence: u64,
    seen: Counts,
    moved: bool,
    /// Cars known at the last snapshot.
    cars: usize,
}

fn totals(counts: &Counts) -> [u64; 5] {
    [counts.received, counts.produced, counts.consumed, counts.scored, counts.published]
}

impl State {
    fn new(viewer: Viewer) -> Self {
        let counts = viewer.path.counters.read();
        State {
            rates: Rates::new(Instant::now(), totals(&counts)),
            latency: Latency::new(now_ms()),
            order: Order::default(),
            replies: Vec::new(),
            sequence: 0,
            seen: counts,
            moved: true,
            cars: 0,
            viewer,
        }
    }

    async fn snapshot(&mut self, query: &Query) -> Snapshot {
        let now = now_ms();
        let look = Look { now, stale_after: self.viewer.stale_after };
        let due = self.order.is_due(&query.fleet, self.cars, Instant::now());
        let mut whole = Part::default();
        let mut candidates = Vec::new();
        for (n, worker) in self.viewer.workers.iter().enumerate() {
            let query = query.clone();
            let Some(part) = worker.ask(move |worker| gather(worker, n, &query, due, look)).await else { continue };
            whole.cars += part.cars;
            for (sum, of) in whole.states.of.iter_mut().zip(part.states.of) {
                *sum += of;
            }
            candidates.extend(part.candidates.unwrap_or_default());
            whole.located = whole.located.or(part.located);
            whole.episodes.extend(part.episodes);
            whole.episodes_matching += part.episodes_matching;
            let (all, one) = (&mut whole.vitals, part.vitals);
            all.seen.extend(one.seen);
            all.lag = one.lag.map_or(all.lag, |lag| Some(all.lag.unwrap_or(0) + lag));
            all.partitions = (all.partitions.0 + one.partitions.0, all.partitions.1.max(one.partitions.1));
            all.mean_batch = all.mean_batch.max(one.mean_batch);
            all.shadow = all.shadow.take().or(one.shadow);
        }
        self.cars = whole.cars;
        if due {
            self.order.sort(&query.fleet, candidates, whole.cars, Instant::now());
        }
        let (fleet_offset, fleet) = self.rows(&query.fleet, look).await;
        for (received, count) in whole.vitals.seen.drain(..) {
            self.latency.record(received, now_ms(), count);
        }
        let counts = self.viewer.path.counters.read();
        self.moved = counts != self.seen;
        self.seen = counts;
        self.rates.observe(Instant::now(), totals(&counts));
        let (episodes_offset, episodes) = match &query.episodes {
            Some(wanted) => window_of_episodes(whole.episodes, wanted),
            None => (0, Vec::new()),
        };
        let mut car = whole.located;
        if let Some(car) = &mut car {
            car.fault = self.viewer.path.fault_of(&car.row.car);
        }
        Snapshot {
            taken: now,
            source: self.viewer.path.source.clone(),
            cars: whole.cars,
            matching: self.order.cars(),
            states: whole.states,
            located: query.fleet.locate.as_ref().and_then(|name| self.order.locate(name)),
            fleet,
            fleet_offset,
            car,
            episodes,
            episodes_offset,
            episodes_matching: whole.episodes_matching,
            seconds_per_point: present::seconds_per_point(query.fleet.points),
            pipeline: self.pipeline(counts, &whole.vitals),
            schema: self.viewer.path.shown.read().schemas.clone(),
            faults: self.viewer.path.faults(),
            replies: self.replies.clone(),
            query: query.clone(),
        }
    }

    async fn rows(&self, query: &FleetQuery, look: Look) -> (usize, Vec<FleetRow>) {
        let (offset, places) = self.order.window(query.offset, query.limit);
        let places: Vec<Place> = places.collect();
        let mut rows: Vec<Option<FleetRow>> = vec![None; places.len()];
        let points = query.points;
        for (n, worker) in self.viewer.workers.iter().enumerate() {
            let mine: Vec<(usize, Place)> =
                places.iter().copied().enumerate().filter(|(_, place)| place.worker == n).collect();
            if mine.is_empty() {
                continue;
            }
            let answer = worker.ask(move |worker| {
                let row = |place: Place| {
                    let lane = worker.lanes.get(place.lane)?;
                    // The order may be older than the last time cars were handed to another process.
                    ((place.car as usize) < lane.shard().cars().len())
                        .then(|| present::fleet_row(lane, place.car, points, look))
                };
                mine.into_iter().map(|(at, place)| (at, row(place))).collect::<Vec<_>>()
            });
            for (at, row) in answer.await.unwrap_or_default() {
                rows[at] = row;
            }
        }
        (offset, rows.into_iter().flatten().collect())
    }

    fn pipeline(&self, counts: Counts, vitals: &Vitals) -> PipelineView {
        let path = &self.viewer.path;
        let (model, threshold) = {
            let shown = path.shown.read();
            (shown.model.clone(), shown.threshold.clone())
        };
        PipelineView {
            counts,
            rates: self.rates.per_second(),
            received_series: self.rates.series(),
            ack: path.ack.word().to_owned(),
            log: path.store.as_ref().map(|store| store.view()),
            lag: vitals.lag,
            latency_ms: self.latency.p50_p99(),
            mqtt: path.mqtt_lines(),
            clients: path.clients(),
            kafka: path.kafka.clone(),
            kafka_embedded: path.kafka_embedded,
            topic: path.topic.clone(),
            partitions: vitals.partitions,
            model,
            backend: path.backend.clone(),
            mean_batch: vitals.mean_batch,
            threshold,
            shadow: vitals.shadow.clone(),
            memory: process::resident_bytes().unwrap_or(0),
            started: path.started,
            warnings: path.warnings(),
            trouble: path.trouble(),
        }
    }

    async fn execute(&mut self, command: Command) {
        let reply = match &command {
            Command::Break { car, fault } => self.viewer.path.break_car(car, fault),
            Command::Repair { car } => self.viewer.path.repair(car),
            Command::Acknowledge { car }
            | Command::Mute { car, .. }
            | Command::Unmute { car }
            | Command::Rebaseline { car } => self.mark(car.clone(), command.clone()).await,
        };
        self.sequence += 1;
        self.replies.push((self.sequence, reply));
        let surplus = self.replies.len().saturating_sub(REPLIES);
        self.replies.drain(..surplus);
        self.moved = true;
    }

    async fn mark(&self, car: CarName, command: Command) -> String {
        for worker in &self.viewer.workers {
            let command = command.clone();
            if let Some(Some(reply)) = worker.ask(move |worker| worker.mark(&command, now_ms())).await {
                return reply;
            }
        }
        format!("{car} is not known here")
    }
}

/// What one worker contributes; runs on its thread.
fn gather(worker: &mut Worker, n: usize, query: &Query, due: bool, look: Look) -> Part {
    let mut part = Part { candidates: due.then(Vec::new), ..Part::default() };
    let words = words(&query.fleet.filter);
    for (lane_number, lane) in worker.lanes.iter().enumerate() {
        let cars = lane.shard().cars();
        part.cars += cars.len();
        for (number, car) in cars.iter().enumerate() {
            let number = number as u32;
            part.states.of[present::state(lane, number, look) as usize] += 1;
            if let Some(candidates) = &mut part.candidates
                && present::passes(lane, number, &words, look)
            {
                candidates.push(Candidate {
                    rank: present::rank(lane, number, query.fleet.sort, look),
                    name: car.name.clone(),
                    place: Place { worker: n, lane: lane_number, car: number },
                });
            }
        }
        if let Some(CarQuery { car, points, at }) = &query.car
            && let Some(number) = lane.shard().named(car)
        {
            part.located = Some(Box::new(present::car_view(lane, number, *points, *at, look)));
        }
        if let Some(wanted) = &query.episodes {
            gather_episodes(lane, wanted, &mut part);
        }
    }
    part.vitals = worker.vitals();
    part
}

/// The first rows of a lane's episodes in the wanted order, as many as a window could need.
fn gather_episodes(lane: &Lane, wanted: &EpisodesQuery, part: &mut Part) {
    let words = words(&wanted.filter);
    let mut matching: Vec<&Episode> =
        lane.episodes().filter(|episode| words.iter().all(|word| episode_has(lane, episode, word))).collect();
    part.episodes_matching += matching.len();
    sort_episodes(&mut matching, wanted.sort);
    part.episodes.extend(matching.into_iter().take(wanted.offset.saturating_add(wanted.limit)).cloned());
}

fn episode_has(lane: &Lane, episode: &Episode, word: &str) -> bool {
    let state = match (episode.end, episode.acknowledged) {
        (None, false) => "open",
        (None, true) => "open acknowledged",
        (Some(_), false) => "closed",
        (Some(_), true) => "closed acknowledged",
    };
    state.contains(word)
        || episode.car.to_lowercase().contains(word)
        || episode.blames.iter().any(|blame| lane.sensor_label(blame.sensor).contains(word))
}

fn sort_episodes<E: std::borrow::Borrow<Episode>>(episodes: &mut [E], sort: EpisodeSort) {
    episodes.sort_unstable_by(|a, b| {
        let (a, b) = (a.borrow(), b.borrow());
        let newest = b.onset.cmp(&a.onset).then_with(|| a.id.cmp(&b.id));
        match sort {
            EpisodeSort::Newest => newest,
            EpisodeSort::Worst => b.severity.cmp(&a.severity).then(newest),
        }
    });
}

fn window_of_episodes(mut episodes: Vec<Episode>, wanted: &EpisodesQuery) -> (usize, Vec<Episode>) {
    sort_episodes(&mut episodes, wanted.sort);
    let offset = wanted.offset.min(episodes.len().saturating_sub(wanted.limit));
    (offset, episodes.into_iter().skip(offset).take(wanted.limit).collect())
}

fn words(filter: &str) -> Vec<String> {
    filter.split_whitespace().map(str::to_lowercase).collect()
}
