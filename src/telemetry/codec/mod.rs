//! Payloads to readings and back: what a device writes, straight into a row of sensors.
//!
//! Owns the grammar of each [`Codec`] and the sentence that says why a payload is no reading. Whatever a payload
//! holds, decoding it neither panics, nor recurses, nor takes more than time linear in its length; a well-formed
//! one is decoded without allocating. Never guesses: what could mean two things is refused with the reason.
//!
//! | codec | a reading is | its car | its time |
//! |---|---|---|---|
//! | JSON | an object of sensor names, in any spelling [`Schema::position`] knows | a field, if so configured | a field |
//! | delimited | `EVENTID,v1#v2#…`, as many values as the schema has sensors | the event id, if so configured | – |
//! | csv | `v1,v2,…`; with the car as event, `EVENTID,v1,v2,…` | the first column, if so configured | – |
//!
//! **Values.** A number as JSON writes it (delimited and csv also take `+1`, `.5` and `5.`). A number in a JSON
//! string (`"39.4"`) is that number, for gateways that stringify; `true` and `false` are 1 and 0. `null`, a missing
//! field and an empty column are gaps (NaN). The texts `NaN` and `Infinity`, numbers too large for an `f32`, the same
//! sensor twice, and a reading without a single sensor are refused.
//!
//! **Time.** A number counts seconds, milliseconds, microseconds or nanoseconds since the Unix epoch, by its
//! magnitude; a string holds such a number or RFC 3339 (see [`super::time::parse`]).

mod encode;
mod json;
mod number;
mod scan;
mod text;

use std::borrow::Cow;
use std::sync::Arc;

use thiserror::Error;

use super::Schema;
use crate::config;
use crate::text::harmless;

pub use encode::{encode_delimited, encode_json};

/// How the payloads of one source are written, and of which sensors.
#[derive(Debug, Clone)]
pub struct Codec {
    schema: Arc<Schema>,
    car: Car,
    grammar: Grammar,
}

/// A further way of writing (Avro's comes with Confluent's wire format) is a further variant here.
#[derive(Debug, Clone)]
enum Grammar {
    Json(json::Fields),
    Delimited,
    Csv,
}

/// Where the name of a reading's car stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Car {
    /// In the MQTT topic (its last level), so not in the payload.
    Topic,
    /// In this field of a JSON object: a string or a number.
    Field(String),
    /// It is the event id, with which a delimited payload begins (and a csv one, if so configured).
    Event,
}

impl std::str::FromStr for Car {
    type Err = CodecError;

    /// `topic`, `field:NAME` or `event`, as in a source's `car`.
    fn from_str(text: &str) -> Result<Self, CodecError> {
        match text.split_once(':') {
            None if text == "topic" => Ok(Car::Topic),
            None if text == "event" => Ok(Car::Event),
            Some(("field", name)) if !name.is_empty() => Ok(Car::Field(name.into())),
            _ => Err(CodecError::UnknownCar(text.into())),
        }
    }
}

/// Why a source's settings make no codec. One sentence, to be shown after the source's name.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CodecError {
    /// Not a place where a car's name can stand.
    #[error("car = {0:?}: write \"topic\", \"field:NAME\" or \"event\"")]
    UnknownCar(String),
    /// A place that this codec hasn't got.
    #[error("car = {car:?} does not go with codec = {codec:?}: {instead}")]
    NoSuchPlace {
        /// The setting.
        car: &'static str,
        /// The codec.
        codec: &'static str,
        /// The way out.
        instead: &'static str,
    },
    /// One field for two things.
    #[error("the field {0:?} can't be both {1} and {2}: give one another name")]
    Taken(String, &'static str, &'static str),
}

/// What a payload says beside its sensors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decoded<'a> {
    /// The car, if the payload is where it stands; never empty. It is a stranger's text: see [`crate::text`].
    pub car: Option<Cow<'a, str>>,
    /// Event time in milliseconds since the Unix epoch, if the payload has one.
    pub time_ms: Option<i64>,
}

/// Why a payload is no reading. The sentence is short, harmless and fit for a dead letter.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// Nothing at all, or only blanks.
    #[error("the payload is empty")]
    Empty,
    /// Bytes that are no text.
    #[error("the payload is not text: byte {0} is not UTF-8")]
    NotText(usize),
    /// Not JSON.
    #[error("the payload is not JSON: {what} at byte {at}")]
    NotJson {
        /// What was wrong or missing.
        what: &'static str,
        /// Where, counted from 0.
        at: usize,
    },
    /// JSON, but not an object.
    #[error("the payload is JSON, but not an object of sensors")]
    NotAnObject,
    /// Objects in objects without end.
    #[error("the payload nests deeper than {} levels", scan::MAX_DEPTH)]
    TooDeep,
    /// A sensor's value that is no number.
    #[error("sensor {sensor} is {found}, not a number")]
    NotANumber {
        /// The sensor.
        sensor: String,
        /// What stands there, cut short.
        found: String,
    },
    /// A number that no `f32` holds.
    #[error("sensor {sensor} is {found}, larger than a reading can hold")]
    TooLarge {
        /// The sensor.
        sensor: String,
        /// What stands there, cut short.
        found: String,
    },
    /// Two values for one thing.
    #[error("{0} stands there twice")]
    Twice(String),
    /// Not as many values as sensors.
    #[error("{found} values where {expected} were expected")]
    WrongCount {
        /// Sensors of the schema.
        expected: usize,
        /// Values in the payload.
        found: usize,
    },
    /// Nothing to score.
    #[error("no sensor of {0} is in it")]
    NoSensor(String),
    /// No car where it should stand.
    #[error("no car: {0}")]
    NoCar(String),
    /// A time that is none.
    #[error("the time {0} is neither a number since the epoch nor RFC 3339")]
    NotATime(String),
}

impl Codec {
    /// Longest piece of a stranger's text that an error repeats, in characters.
    const QUOTED: usize = 40;

    /// A codec for readings of `schema`. `time` is the JSON field with the event time, empty for none.
    pub fn new(how: config::Codec, schema: Arc<Schema>, car: Car, time: &str) -> Result<Self, CodecError> {
        let grammar = match how {
            config::Codec::Json => Grammar::Json(json::Fields::new(&schema, &car, time)?),
            config::Codec::Delimited => Grammar::Delimited,
            config::Codec::Csv => Grammar::Csv,
        };
        if let (Grammar::Delimited | Grammar::Csv, Car::Field(_)) = (&grammar, &car) {
            let codec = if matches!(grammar, Grammar::Csv) { "csv" } else { "delimited" };
            return Err(CodecError::NoSuchPlace {
                car: "field:…",
                codec,
                instead: "its values have no names, so write \"topic\" or \"event\"",
            });
        }
        Ok(Codec { schema, car, grammar })
    }

    /// The codec that a source of the configuration asks for, for readings of `schema`.
    pub fn of_source(source: &config::Source, schema: Arc<Schema>) -> Result<Self, CodecError> {
        Codec::new(source.codec, schema, source.car.parse()?, &source.time)
    }

    /// The sensors that [`Codec::decode`] fills in.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Where the car's name stands; unless it is [`Car::Topic`], every [`Decoded`] has one.
    pub fn car(&self) -> &Car {
        &self.car
    }

    /// Decodes a payload into `row`, which has one place for each sensor of the schema; gaps become NaN. After an
    /// error the row's content is of no meaning.
    pub fn decode<'a>(&self, payload: &'a [u8], row: &mut [f32]) -> Result<Decoded<'a>, DecodeError> {
        debug_assert_eq!(row.len(), self.schema.width(), "a row of another schema");
        row.fill(f32::NAN);
        let text = match std::str::from_utf8(payload) {
            Ok(text) => text,
            Err(error) => return Err(DecodeError::NotText(error.valid_up_to())),
        };
        let decoded = match &self.grammar {
            Grammar::Json(fields) => json::decode(text, &self.schema, fields, row)?,
            Grammar::Delimited => text::delimited(text, &self.schema, self.car == Car::Event, row)?,
            Grammar::Csv => text::csv(text, &self.schema, self.car == Car::Event, row)?,
        };
        if row.iter().all(|value| value.is_nan()) {
            return Err(DecodeError::NoSensor(self.schema.name().to_owned()));
        }
        Ok(decoded)
    }
}

/// A stranger's text as an error repeats it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", harmless(text, Codec::QUOTED))
}

/// The value `text` of a sensor, refused.
fn not_a_number(schema: &Schema, position: usize, found: String) -> DecodeError {
    DecodeError::NotANumber { sensor: sensor_name(schema, position), found }
}

/// The number `text` of a sensor, too large.
fn too_large(schema: &Schema, position: usize, text: &str) -> DecodeError {
    DecodeError::TooLarge { sensor: sensor_name(schema, position), found: harmless(text, Codec::QUOTED).into_owned() }
}

fn sensor_name(schema: &Schema, position: usize) -> String {
    // A model's manifest names sensors, and a manifest may be a stranger's too.
    schema.sensors().get(position).map_or_else(String::new, |sensor| harmless(&sensor.name, 64).into_owned())
}

#[cfg(test)]
mod tests;
