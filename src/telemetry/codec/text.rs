//! The codecs whose values have no names: delimited (`EVENTID,v1#v2#…`, the KSQL demo's) and csv (`v1,v2,…`).

use std::borrow::Cow;

use super::number::column;
use super::{DecodeError, Decoded, Schema, not_a_number, quoted, too_large};

/// `EVENTID,v1#v2#…`: blanks around id and values don't count, and neither does one separator after the last value.
pub(super) fn delimited<'a>(
    text: &'a str,
    schema: &Schema,
    event_is_car: bool,
    row: &mut [f32],
) -> Result<Decoded<'a>, DecodeError> {
    let text = filled(text)?;
    let Some((event, values)) = text.split_once(',') else {
        return Err(DecodeError::NoCar("a delimited reading is EVENTID,v1#v2#…, and no comma is in it".into()));
    };
    decoded(event_is_car.then_some(event), values, '#', schema, row)
}

/// `v1,v2,…`, or `EVENTID,v1,v2,…` if the event is the car: one line, blanks around values don't count.
pub(super) fn csv<'a>(
    text: &'a str,
    schema: &Schema,
    event_is_car: bool,
    row: &mut [f32],
) -> Result<Decoded<'a>, DecodeError> {
    let text = filled(text)?;
    let (event, values) = match event_is_car {
        true => text.split_once(',').map_or((Some(text), ""), |(event, values)| (Some(event), values)),
        false => (None, text),
    };
    decoded(event, values, ',', schema, row)
}

fn filled(text: &str) -> Result<&str, DecodeError> {
    match text.trim_ascii() {
        "" => Err(DecodeError::Empty),
        text => Ok(text),
    }
}

/// Takes the values into the row; `event` is the car, if it is to be.
fn decoded<'a>(
    event: Option<&'a str>,
    values: &str,
    separator: char,
    schema: &Schema,
    row: &mut [f32],
) -> Result<Decoded<'a>, DecodeError> {
    columns(values, separator, schema, row)?;
    let car = match event.map(str::trim_ascii) {
        Some("") => return Err(DecodeError::NoCar("the event id is empty".into())),
        Some(event) => Some(Cow::Borrowed(event)),
        None => None,
    };
    Ok(Decoded { car, time_ms: None })
}

fn columns(values: &str, separator: char, schema: &Schema, row: &mut [f32]) -> Result<(), DecodeError> {
    let (mut found, mut last) = (0, "");
    for (position, value) in values.split(separator).enumerate() {
        found += 1;
        let value = value.trim_ascii();
        last = value;
        let Some(place) = row.get_mut(position) else {
            continue; // Only counted: the sentence says how many there are.
        };
        if value.is_empty() {
            continue;
        }
        *place = column(value).ok_or_else(|| not_a_number(schema, position, quoted(value)))?;
        if place.is_infinite() {
            return Err(too_large(schema, position, value));
        }
    }
    let one_separator_more = separator == '#' && last.is_empty() && found == row.len() + 1;
    if found != row.len() && !one_separator_more {
        return Err(DecodeError::WrongCount { expected: row.len(), found });
    }
    Ok(())
}
