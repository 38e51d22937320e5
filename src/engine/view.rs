//! What a console and the engine say to each other: [`Query`], [`Snapshot`], [`Command`], [`Handle`].
//!
//! The engine keeps one ordering of the fleet per console, so that a thin link carries a window of rows, never the fleet.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod shadow;

pub use shadow::{ShadowSide, ShadowView};

/// Milliseconds since the Unix epoch.
pub type Millis = i64;

/// A car's name as shown: bounded and harmless (see [`crate::text::harmless`]), and unique within a fleet.
pub type CarName = Arc<str>;

/// What a console wants to see next. The engine answers each query at once, and then as often as `every` says while
/// anything changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// The window of the fleet's list; always answered, since every view needs its totals.
    pub fleet: FleetQuery,
    /// The car to look into, if one is open.
    pub car: Option<CarQuery>,
    /// The window of the episodes' list, if it is open.
    pub episodes: Option<EpisodesQuery>,
    /// Shortest time between two answers to the same query.
    pub every: Duration,
}

impl Default for Query {
    fn default() -> Self {
        Query { fleet: FleetQuery::default(), car: None, episodes: None, every: Duration::from_millis(200) }
    }
}

/// A window of the fleet, in an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FleetQuery {
    /// By what the rows are ordered; ties by name.
    pub sort: FleetSort,
    /// Only cars whose name, state or blamed sensor's label holds each of these blank-separated words (case aside).
    pub filter: String,
    /// First row of the window.
    pub offset: usize,
    /// Rows in the window.
    pub limit: usize,
    /// A car to say the row of, wherever it is (the selected one).
    pub locate: Option<CarName>,
    /// Keep the order as it is, whatever has changed (a key is held). The engine re-sorts at most every 2 s anyway.
    pub hold_order: bool,
    /// Points wanted in each sparkline.
    pub points: usize,
}

impl Default for FleetQuery {
    fn default() -> Self {
        FleetQuery {
            sort: FleetSort::Severity,
            filter: String::new(),
            offset: 0,
            limit: 64,
            locate: None,
            hold_order: false,
            points: 60,
        }
    }
}

/// The orders of the fleet's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FleetSort {
    /// Worst first: open episodes by severity, then stale cars, then by score.
    Severity,
    /// By name.
    Name,
    /// Highest score first.
    Score,
    /// Most episodes first.
    Episodes,
    /// Longest unseen first.
    LastSeen,
}

/// One car in depth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CarQuery {
    /// Which.
    pub car: CarName,
    /// Points wanted in each sensor's series.
    pub points: usize,
    /// The time the series should end near (an episode's peak); `None` is now.
    pub at: Option<Millis>,
}

/// A window of the episodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpisodesQuery {
    /// In what order.
    pub sort: EpisodeSort,
    /// Words as in [`FleetQuery::filter`]; `open`, `closed` and `acknowledged` match the state.
    pub filter: String,
    /// First row of the window.
    pub offset: usize,
    /// Rows in the window.
    pub limit: usize,
}

/// The orders of the episodes' list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EpisodeSort {
    /// Latest onset first.
    Newest,
    /// Highest peak severity first.
    Worst,
}

/// How a car is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CarState {
    /// An open episode of severity 70 or more.
    Critical,
    /// An open episode below that.
    Warning,
    /// An open episode that an operator has acknowledged.
    Acknowledged,
    /// No reading for a while.
    Stale,
    /// Bad data (stuck, missing, out of range), which is no anomaly.
    BadData,
    /// Muted by an operator.
    Muted,
    /// Nothing to see.
    Quiet,
}

impl CarState {
    /// Severity from which an open episode is critical.
    pub const CRITICAL_FROM: u8 = 70;

    /// Whether there is an open episode that is neither acknowledged nor muted.
    pub fn is_open(self) -> bool {
        matches!(self, CarState::Critical | CarState::Warning)
    }

    /// Its word on screen and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            CarState::Critical => "critical",
            CarState::Warning => "warning",
            CarState::Acknowledged => "acknowledged",
            CarState::Stale => "stale",
            CarState::BadData => "bad data",
            CarState::Muted => "muted",
            CarState::Quiet => "quiet",
        }
    }
}

/// The sensor held responsible, and how far it is from what the model expects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Blame {
    /// Position in the schema.
    pub sensor: u16,
    /// Its value, NaN in a gap.
    pub value: f32,
    /// What the model expects.
    pub expected: f32,
    /// Signed, in standard deviations of this sensor's usual residual; above zero is too high.
    pub sigma: f32,
    /// Its part of the blame, 0 to 1.
    pub share: f32,
}

/// Points of one quantity, oldest first, evenly spaced; a gap is NaN.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The points; each the extreme of what was read in its stretch of time.
    pub values: Vec<f32>,
    /// For each point, whether a reading in it was a breach.
    pub breaches: Vec<bool>,
}

/// A row of the fleet's list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FleetRow {
    /// The car.
    pub car: CarName,
    /// How it is.
    pub state: CarState,
    /// Its sensors are [`Snapshot::schema`] at this index; [`Blame::sensor`] is a position in it.
    pub schema: usize,
    /// Severity 0–100: of the open episode, else of the latest reading.
    pub severity: u8,
    /// The worst sensor; none while quiet.
    pub blame: Option<Blame>,
    /// Latest score, in multiples of the threshold (1 is the threshold).
    pub score: f32,
    /// Scores of late, as `score`.
    pub scores: Series,
    /// The blamed sensor (or, while quiet, none) of late.
    pub blamed_series: Series,
    /// Episodes so far.
    pub episodes: u32,
    /// When the open episode began.
    pub since: Option<Millis>,
    /// When it was last heard of.
    pub last_seen: Millis,
}

/// One sensor of the open car.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SensorRow {
    /// Latest value, NaN in a gap.
    pub value: f32,
    /// What the model expects of it, NaN if unknown.
    pub expected: f32,
    /// Signed residual in standard deviations.
    pub sigma: f32,
    /// Whether this sensor is in breach now.
    pub breach: bool,
    /// What is wrong with its data, if anything (`stuck`, `missing for 12 s`, `out of range`).
    pub quality: Option<String>,
    /// Values of late.
    pub series: Series,
}

/// The open car.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CarView {
    /// Its row.
    pub row: FleetRow,
    /// Its schema's sensors are [`Snapshot::schema`] at this index.
    pub schema: usize,
    /// Each sensor, in the schema's order.
    pub sensors: Vec<SensorRow>,
    /// The sensors to blame, worst first.
    pub blames: Vec<Blame>,
    /// Its episodes, newest first, at most 100.
    pub episodes: Vec<Episode>,
    /// Event time of the latest reading (or of the one `at` asked for).
    pub time: Millis,
    /// Seconds that one point of the series spans.
    pub seconds_per_point: f32,
    /// The latest reading's payload as received, harmless, at most 4 KiB.
    pub raw: String,
    /// Readings of this car so far.
    pub readings: u64,
    /// Muted until then, if it is.
    pub muted_until: Option<Millis>,
    /// Whether the series are of `at` and not of now.
    pub past: bool,
    /// The fault a simulated car has now, if known.
    pub fault: Option<String>,
}

/// Breaches joined into one thing an operator handles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// Deterministic: same readings, same id.
    pub id: String,
    /// The car.
    pub car: CarName,
    /// Time of the first breach.
    pub onset: Millis,
    /// Time of the last breach; `None` while open.
    pub end: Option<Millis>,
    /// Time of the worst reading.
    pub peak: Millis,
    /// Severity 0–100 at the peak.
    pub severity: u8,
    /// The sensors to blame, worst first, values as at the peak.
    pub blames: Vec<Blame>,
    /// Whether an operator acknowledged it.
    pub acknowledged: bool,
    /// Breaches in it.
    pub breaches: u32,
    /// Index into [`Snapshot::schema`].
    pub schema: usize,
}

/// What went where since the start. `received + recovered = produced + refused + lost + in flight to Kafka (in the log)`,
/// `consumed = scored + undecodable + duplicates`, and on a topic of our own `produced = consumed + in flight from Kafka`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Readings the gate (or an external broker's client) took.
    pub received: u64,
    /// Readings of earlier runs found in the write-ahead log at the start.
    pub recovered: u64,
    /// Of received and recovered, in Kafka by its delivery report (or, of the recovered, since before the start).
    pub produced: u64,
    /// Refused at the door (too large for Kafka), dead-lettered with the reason.
    pub refused: u64,
    /// Not kept, because Kafka refused them for good; their senders got no acknowledgement.
    pub lost: u64,
    /// Read back.
    pub consumed: u64,
    /// Scored by the model.
    pub scored: u64,
    /// Read back and not decodable, dead-lettered with the reason.
    pub undecodable: u64,
    /// Read back a second time (as after a rebalance) and not judged again.
    pub duplicates: u64,
    /// Breaches: readings over their threshold.
    pub anomalies: u64,
    /// Episodes opened.
    pub episodes: u64,
    /// Records written to Kafka about verdicts: breaches, episodes, scores.
    pub published: u64,
    /// MQTT messages on topics that no source takes: passed on to subscribers, not readings.
    pub unmapped: u64,
}

/// The write-ahead log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogView {
    /// Bytes it takes up.
    pub bytes: u64,
    /// Bytes it may take up.
    pub max_bytes: u64,
    /// Readings in it that Kafka does not have.
    pub waiting: u64,
    /// When the oldest of them was received.
    pub oldest: Option<Millis>,
    /// How long syncing takes of late, milliseconds.
    pub sync_ms: f32,
}

/// The state of one stretch of the path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PipelineView {
    /// Totals since the start.
    pub counts: Counts,
    /// Rates per second over the last seconds: received, produced, consumed, scored, published.
    pub rates: [f32; 5],
    /// Received per second of late, oldest first, one point a second.
    pub received_series: Vec<f32>,
    /// What a message must have reached before it is acknowledged: `disk`, `kafka` or `memory`.
    pub ack: String,
    /// The write-ahead log, with `disk`.
    pub log: Option<LogView>,
    /// Kafka consumer lag in records, if known.
    pub lag: Option<u64>,
    /// Publish → screen, milliseconds: p50 and p99 over the last minute.
    pub latency_ms: Option<(f32, f32)>,
    /// Where devices connect: one line each (`mqtt 127.0.0.1:1883`).
    pub mqtt: Vec<String>,
    /// MQTT clients connected.
    pub clients: u64,
    /// `embedded (in memory) 127.0.0.1:40123` or the bootstrap servers.
    pub kafka: String,
    /// Whether Kafka is embedded.
    pub kafka_embedded: bool,
    /// Topic of the raw readings and its partitions.
    pub topic: String,
    /// Partitions of `topic` this process reads, and all.
    pub partitions: (usize, usize),
    /// The model's name, its backend (`tract`) and the mean batch size of late.
    pub model: String,
    /// See `model`.
    pub backend: String,
    /// See `model`.
    pub mean_batch: f32,
    /// Threshold of the score and how it was set.
    pub threshold: String,
    /// The challenger, if there is one.
    pub shadow: Option<ShadowView>,
    /// Resident memory of the process, bytes.
    pub memory: u64,
    /// Since when it runs.
    pub started: Millis,
    /// Warnings and errors of the last minutes, newest first.
    pub warnings: Vec<Warning>,
    /// Whether the whole path is up; if not, the word for what is not (`Kafka away for 12 s`).
    pub trouble: Option<String>,
}

/// A warning that an operator should see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Warning {
    /// When it was last said.
    pub time: Millis,
    /// One harmless line.
    pub text: String,
    /// How often it was said lately.
    pub times: u32,
}

/// How many cars are how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateCounts {
    /// In [`CarState`]'s order of declaration.
    pub of: [usize; 7],
}

impl StateCounts {
    /// Cars in that state.
    pub fn get(&self, state: CarState) -> usize {
        self.of[state as usize]
    }

    /// Cars that need somebody now: critical and warning.
    pub fn needing_you(&self) -> usize {
        self.get(CarState::Critical) + self.get(CarState::Warning)
    }
}

/// The sensors a schema has, for showing them.
pub type SchemaView = Vec<crate::telemetry::Sensor>;

/// What can be seen, at one moment; answer to one [`Query`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was taken.
    pub taken: Millis,
    /// Where the readings come from: `demo fleet`, `mqtt`, a broker's URL.
    pub source: String,
    /// Cars known.
    pub cars: usize,
    /// Cars that pass the filter.
    pub matching: usize,
    /// How the cars are.
    pub states: StateCounts,
    /// The window of the fleet: rows `fleet_offset..`.
    pub fleet: Vec<FleetRow>,
    /// First row's position in the order.
    pub fleet_offset: usize,
    /// The row of [`FleetQuery::locate`], if it passes the filter.
    pub located: Option<usize>,
    /// The open car; `None` if not asked for or not known.
    pub car: Option<Box<CarView>>,
    /// The window of the episodes.
    pub episodes: Vec<Episode>,
    /// First episode's position in the order.
    pub episodes_offset: usize,
    /// Episodes that pass the filter.
    pub episodes_matching: usize,
    /// Seconds one point of the fleet's sparklines spans.
    pub seconds_per_point: f32,
    /// The path.
    pub pipeline: PipelineView,
    /// The schemas in use, shared: sensors by position.
    pub schema: Vec<Arc<SchemaView>>,
    /// The faults that `Break` takes, when the fleet is simulated: (id, label for people).
    pub faults: Arc<[(String, String)]>,
    /// What the last command came to, newest last, at most 8: (sequence number, sentence).
    pub replies: Vec<(u64, String)>,
    /// The query this answers (its `fleet.sort` and windows are what is shown).
    pub query: Query,
}

/// What can be asked of the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Marks the car's open episode as seen.
    Acknowledge {
        /// The car.
        car: CarName,
    },
    /// Opens no episode for the car for that long.
    Mute {
        /// The car.
        car: CarName,
        /// For how long.
        duration: Duration,
    },
    /// Ends a mute.
    Unmute {
        /// The car.
        car: CarName,
    },
    /// Takes the car's present behaviour as its normal one.
    Rebaseline {
        /// The car.
        car: CarName,
    },
    /// Gives a simulated car a fault (an id of [`Snapshot::faults`]).
    Break {
        /// The car.
        car: CarName,
        /// An id of [`Snapshot::faults`].
        fault: String,
    },
    /// Repairs a simulated car.
    Repair {
        /// The car.
        car: CarName,
    },
}

/// A console's end of the engine. Cheap to clone; no call blocks.
#[derive(Debug, Clone)]
pub struct Handle {
    /// What this console wants to see. The engine looks at the newest only.
    pub queries: tokio::sync::watch::Sender<Query>,
    /// The newest snapshot; changes when there is another.
    pub snapshots: tokio::sync::watch::Receiver<Arc<Snapshot>>,
    /// Commands; full means the engine is not keeping up: say so and drop the key press.
    pub commands: tokio::sync::mpsc::Sender<Command>,
}
