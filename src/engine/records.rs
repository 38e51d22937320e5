//! What dashlight writes to Kafka and, headless, to stdout: one JSON object each, described in `docs/records.md`.
//!
//! Times are milliseconds since the Unix epoch; a value that is not known (a gap) is `null`.

use serde::Serialize;

use super::view::{Blame, Counts, Episode, ShadowView};
use crate::telemetry::Schema;
use crate::text::harmless_bytes;

/// How much of an undecodable payload a dead letter keeps.
pub const DEAD_LETTER_BYTES: usize = 64 * 1024;

/// A sensor held responsible.
#[derive(Debug, Clone, Serialize)]
pub struct BlamedSensor<'a> {
    sensor: &'a str,
    value: f32,
    expected: f32,
    unit: &'a str,
    direction: &'static str,
    sigma: f32,
    share: f32,
}

impl<'a> BlamedSensor<'a> {
    fn new(blame: &Blame, schema: &'a Schema) -> Self {
        let (sensor, unit) =
            schema.sensors().get(usize::from(blame.sensor)).map_or(("", ""), |sensor| (&*sensor.name, &*sensor.unit));
        let direction = if blame.sigma < 0.0 { "low" } else { "high" };
        let Blame { value, expected, sigma, share, .. } = *blame;
        BlamedSensor { sensor, value, expected, unit, direction, sigma, share }
    }
}

/// The sensors to blame, worst first.
pub fn blamed<'a>(blames: &[Blame], schema: &'a Schema) -> Vec<BlamedSensor<'a>> {
    blames.iter().map(|blame| BlamedSensor::new(blame, schema)).collect()
}

/// The identity of the reading a record is about: where it stands in Kafka. The same reading has the same id, always.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Origin<'a> {
    /// Kafka topic of the raw reading.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
}

/// A reading's score: on `anomaly-detection` for every reading, on `anomaly-detection-breaches` for those over the threshold.
#[derive(Debug, Serialize)]
pub struct ScoreRecord<'a> {
    /// The car.
    pub car: &'a str,
    /// Event time.
    pub time: i64,
    /// In the model's own units.
    pub score: f64,
    /// In the same units.
    pub threshold: f64,
    /// Whether `score` is over `threshold`.
    pub breach: bool,
    /// 0–100.
    pub severity: u8,
    /// Name of the model.
    pub model: &'a str,
    /// The sensors to blame; only for breaches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sensors: Vec<BlamedSensor<'a>>,
    /// The reading.
    #[serde(flatten)]
    pub origin: Origin<'a>,
}

/// What happened to an episode: on `anomaly-episodes`, and headless on stdout.
#[derive(Debug, Serialize)]
pub struct EpisodeRecord<'a> {
    event: &'static str,
    id: &'a str,
    car: &'a str,
    time: i64,
    onset: i64,
    end: Option<i64>,
    peak: i64,
    severity: u8,
    breaches: u32,
    acknowledged: bool,
    sensor: &'a str,
    sensors: Vec<BlamedSensor<'a>>,
    model: &'a str,
}

impl<'a> EpisodeRecord<'a> {
    /// What `event` (`episode_opened`, `episode_updated`, `episode_closed`, `episode_acknowledged`) did to `episode` at `time`.
    pub fn new(event: &'static str, time: i64, episode: &'a Episode, schema: &'a Schema, model: &'a str) -> Self {
        let sensors = blamed(&episode.blames, schema);
        EpisodeRecord {
            event,
            id: &episode.id,
            car: &episode.car,
            time,
            onset: episode.onset,
            end: episode.end,
            peak: episode.peak,
            severity: episode.severity,
            breaches: episode.breaches,
            acknowledged: episode.acknowledged,
            sensor: sensors.first().map_or("", |blamed| blamed.sensor),
            sensors,
            model,
        }
    }
}

/// An operator's mark on a car, on `anomaly-episodes`.
#[derive(Debug, Serialize)]
pub struct MarkRecord<'a> {
    /// `car_muted`, `car_unmuted`, `car_rebaselined`.
    pub event: &'static str,
    /// The car.
    pub car: &'a str,
    /// When it was made.
    pub time: i64,
    /// Until when, if it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

/// A message that is no reading, on `dead-letters`.
#[derive(Debug, Serialize)]
pub struct DeadLetter<'a> {
    /// One sentence.
    pub reason: &'a str,
    /// When that was found.
    pub time: i64,
    /// The MQTT topic it came on, harmless.
    pub mqtt_topic: String,
    /// Where it stands in Kafka, if it got there.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin<'a>>,
    /// Size of the whole payload.
    pub bytes: usize,
    /// The payload's beginning, as harmless text; the record's own headers carry nothing more.
    pub payload: String,
    /// Whether `payload` is all of it.
    pub complete: bool,
}

impl<'a> DeadLetter<'a> {
    /// A dead letter of this payload, cut to [`DEAD_LETTER_BYTES`].
    pub fn new(reason: &'a str, time: i64, mqtt_topic: &[u8], origin: Option<Origin<'a>>, payload: &[u8]) -> Self {
        let kept = &payload[..payload.len().min(DEAD_LETTER_BYTES)];
        DeadLetter {
            reason,
            time,
            mqtt_topic: harmless_bytes(mqtt_topic, 512),
            origin,
            bytes: payload.len(),
            payload: harmless_bytes(kept, DEAD_LETTER_BYTES),
            complete: kept.len() == payload.len(),
        }
    }
}

/// The last line of a headless run.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// `summary`.
    pub event: &'static str,
    /// Totals since the start.
    #[serde(flatten)]
    pub counts: Counts,
    /// Cars seen.
    pub cars: usize,
    /// How long it ran.
    pub seconds: f64,
    /// Readings scored per second, over that time.
    pub scored_per_second: f64,
    /// Gate to verdict, milliseconds, over the last minute.
    pub latency_p50_ms: Option<f32>,
    /// Gate to verdict, milliseconds, over the last minute.
    pub latency_p99_ms: Option<f32>,
    /// The most memory the process had resident, MiB, if the system tells.
    pub peak_memory_mib: Option<u64>,
    /// Readings in the write-ahead log that Kafka does not have; they go there with the next run.
    pub in_log: u64,
    /// Events that could not be written because nobody read stdout.
    pub events_dropped: u64,
    /// How the challenger compares, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowView>,
}

/// A record as one line of JSON.
pub fn json(record: &impl Serialize) -> Vec<u8> {
    // These types hold no maps with odd keys and no failing serialisers: writing them into memory cannot fail.
    serde_json::to_vec(record).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_names_its_worst_sensor() {
        let schema = Schema::car_sensors();
        let blame = Blame { sensor: 7, value: 3740.2, expected: 2493.4, sigma: 9.8, share: 0.91 };
        let episode = Episode {
            id: "e".into(),
            car: "car1".into(),
            onset: 1,
            end: None,
            peak: 2,
            severity: 87,
            blames: vec![blame, Blame { sensor: 6, value: f32::NAN, expected: 1.0, sigma: -3.0, share: 0.06 }],
            acknowledged: false,
            breaches: 3,
            schema: 0,
        };
        let line = json(&EpisodeRecord::new("episode_opened", 3, &episode, &schema, "car-sensors"));
        let object: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(object["event"], "episode_opened");
        assert_eq!(object["sensor"], "engine_vibration_amplitude");
        assert_eq!(object["sensors"][0]["direction"], "high");
        assert_eq!(object["sensors"][1]["direction"], "low");
        assert!(object["sensors"][1]["value"].is_null(), "a gap is null");
    }

    #[test]
    fn a_dead_letter_is_cut_and_harmless() {
        let payload = vec![0x1b; DEAD_LETTER_BYTES + 1];
        let letter = DeadLetter::new("not JSON", 0, b"a/\x07", None, &payload);
        assert_eq!((letter.bytes, letter.complete), (DEAD_LETTER_BYTES + 1, false));
        assert_eq!(letter.mqtt_topic, "a/\\u{7}");
        assert!(!letter.payload.contains('\x1b'));
    }
}
