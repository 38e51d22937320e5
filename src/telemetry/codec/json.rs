//! JSON objects of sensors, read in one pass straight into the row.
//!
//! Written by hand because it is the hottest loop of the path: a general parser reads every name into a string and
//! every number into a double before anybody asks for them, and its generic code is compiled with our crate, thus in
//! the dev profile hardly optimised. It is strict JSON all the same: a property test holds it against `serde_json`.

use std::borrow::Cow;

use super::number::column;
use super::scan::Scanner;
use super::{Car, Codec, CodecError, DecodeError, Decoded, Schema, not_a_number, quoted, too_large};
use crate::telemetry::time;
use crate::text::harmless;

/// The fields that are no sensors.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    car: Option<Box<str>>,
    time: Option<Box<str>>,
    /// Whether the sensors' names stand in JSON as they are, with nothing to escape.
    plain_names: bool,
}

impl Fields {
    /// Fields for these settings, refused if a name has two meanings.
    pub fn new(schema: &Schema, car: &Car, time: &str) -> Result<Self, CodecError> {
        let car = match car {
            Car::Topic => None,
            Car::Field(name) => Some(name.as_str().into()),
            Car::Event => {
                return Err(CodecError::NoSuchPlace {
                    car: "event",
                    codec: "json",
                    instead: "write \"topic\" or \"field:NAME\"",
                });
            }
        };
        let time: Option<Box<str>> = (!time.is_empty()).then(|| time.into());
        if let (Some(car), Some(time)) = (&car, &time)
            && car == time
        {
            return Err(CodecError::Taken(time.to_string(), "the car", "the time"));
        }
        for (field, meaning) in [(&car, "the car"), (&time, "the time")] {
            if let Some(field) = field
                && schema.sensors().iter().any(|sensor| sensor.name.as_str() == &**field)
            {
                return Err(CodecError::Taken(field.to_string(), meaning, "a sensor"));
            }
        }
        let plain = |name: &str| name.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\');
        let plain_names = schema.sensors().iter().all(|sensor| plain(&sensor.name));
        Ok(Fields { car, time, plain_names })
    }
}

/// Decodes one object; `row` is all gaps at the start.
pub(super) fn decode<'a>(
    text: &'a str,
    schema: &Schema,
    fields: &Fields,
    row: &mut [f32],
) -> Result<Decoded<'a>, DecodeError> {
    let mut scan = Scanner::new(text);
    let mut decoded = Decoded::default();
    scan.blanks();
    match scan.peek() {
        None => return Err(DecodeError::Empty),
        Some(b'{') => scan.at += 1,
        Some(_) => {
            scan.skip_value(0)?;
            scan.end()?;
            return Err(DecodeError::NotAnObject);
        }
    }
    scan.blanks();
    if scan.peek() == Some(b'}') {
        scan.at += 1;
        scan.end()?;
        return no_car(fields).map_or(Ok(decoded), Err);
    }

    // Most devices write the sensors in the schema's order, so each name is first compared with the one that is due.
    let mut due = 0;
    let (mut car_seen, mut time_seen) = (false, false);
    loop {
        let position = match scan.due_name(schema, fields, due) {
            Some(position) => Some(position),
            None => {
                let name = scan.string()?;
                if fields.time.as_deref() == Some(&*name) {
                    scan.colon()?;
                    if std::mem::replace(&mut time_seen, true) {
                        return Err(DecodeError::Twice("the time".into()));
                    }
                    decoded.time_ms = scan.time()?;
                    None
                } else if fields.car.as_deref() == Some(&*name) {
                    scan.colon()?;
                    if std::mem::replace(&mut car_seen, true) {
                        return Err(DecodeError::Twice("the car".into()));
                    }
                    decoded.car = scan.car()?;
                    None
                } else {
                    scan.colon()?;
                    let position = schema.position(&name);
                    if position.is_none() {
                        scan.skip_value(1)?;
                    }
                    position
                }
            }
        };
        if let Some(position) = position {
            due = position + 1;
            scan.sensor(schema, position, row)?;
        }
        scan.blanks();
        match scan.next() {
            Some(b',') => scan.blanks(),
            Some(b'}') => break,
            _ => return Err(scan.wrong_before("expected , or }")),
        }
    }
    scan.end()?;
    if decoded.car.is_none()
        && let Some(error) = no_car(fields)
    {
        return Err(error);
    }
    Ok(decoded)
}

/// The error of an object without its car, if it should have one.
fn no_car(fields: &Fields) -> Option<DecodeError> {
    let name = fields.car.as_deref()?;
    Some(DecodeError::NoCar(format!("the field {} is missing, null or empty", quoted(name))))
}

impl<'a> Scanner<'a> {
    /// Passes the name of sensor `due` and its colon, if that is what stands here.
    #[inline]
    fn due_name(&mut self, schema: &Schema, fields: &Fields, due: usize) -> Option<usize> {
        if !fields.plain_names {
            return None;
        }
        let name = schema.sensors().get(due)?.name.as_bytes();
        let rest = self.bytes.get(self.at..)?.strip_prefix(b"\"")?;
        // A colon at once: with blanks before it, the long way round is right too.
        let rest = rest.strip_prefix(name)?.strip_prefix(b"\":")?;
        self.at = self.bytes.len() - rest.len();
        self.blanks();
        Some(due)
    }

    /// The value of a sensor, into its place.
    fn sensor(&mut self, schema: &Schema, position: usize, row: &mut [f32]) -> Result<(), DecodeError> {
        let Some(place) = row.get_mut(position) else {
            return self.skip_value(1);
        };
        let taken = !place.is_nan();
        let (value, text) = match self.peek() {
            Some(b'-' | b'0'..=b'9') => {
                let number = self.number()?;
                (number.to_f32(), Cow::Borrowed(number.text))
            }
            Some(b'"') => {
                let text = self.string()?;
                match column(text.trim_ascii()) {
                    Some(value) => (value, text),
                    None => return Err(not_a_number(schema, position, format!("the text {}", quoted(&text)))),
                }
            }
            Some(b'n') => {
                self.literal("null")?;
                (f32::NAN, Cow::Borrowed("null"))
            }
            Some(b't') => {
                self.literal("true")?;
                (1.0, Cow::Borrowed("true"))
            }
            Some(b'f') => {
                self.literal("false")?;
                (0.0, Cow::Borrowed("false"))
            }
            Some(bracket @ (b'{' | b'[')) => {
                self.skip_value(1)?;
                let found = if bracket == b'{' { "an object" } else { "an array" };
                return Err(not_a_number(schema, position, found.into()));
            }
            _ => return Err(self.wrong("expected a value")),
        };
        if value.is_infinite() {
            return Err(too_large(schema, position, &text));
        }
        if taken {
            return Err(DecodeError::Twice(format!("sensor {}", super::sensor_name(schema, position))));
        }
        *place = value;
        Ok(())
    }

    /// The value of the time's field; `null` is none.
    fn time(&mut self) -> Result<Option<i64>, DecodeError> {
        let found = match self.peek() {
            Some(b'-' | b'0'..=b'9') => {
                let number = self.number()?.text;
                match time::parse(number) {
                    Some(time) => return Ok(Some(time)),
                    None => harmless(number, Codec::QUOTED).into_owned(),
                }
            }
            Some(b'"') => {
                let text = self.string()?;
                match time::parse(&text) {
                    Some(time) => return Ok(Some(time)),
                    None => quoted(&text),
                }
            }
            Some(b'n') => return self.literal("null").map(|()| None),
            _ => self.other_value()?.into(),
        };
        Err(DecodeError::NotATime(found))
    }

    /// The value of the car's field; `null` and the empty string are none.
    fn car(&mut self) -> Result<Option<Cow<'a, str>>, DecodeError> {
        match self.peek() {
            Some(b'"') => {
                let text = self.string()?;
                Ok((!text.is_empty()).then_some(text))
            }
            Some(b'-' | b'0'..=b'9') => Ok(Some(Cow::Borrowed(self.number()?.text))),
            Some(b'n') => self.literal("null").map(|()| None),
            _ => Err(DecodeError::NoCar(format!("its field is {}, not a name", self.other_value()?))),
        }
    }

    /// Passes a value that is of no use here, and says what it is.
    fn other_value(&mut self) -> Result<&'static str, DecodeError> {
        let what = match self.peek() {
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            _ => "true or false",
        };
        self.skip_value(1)?;
        Ok(what)
    }
}
