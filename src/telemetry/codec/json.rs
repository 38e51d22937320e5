//! JSON objects of sensors, read in one pass straight into the row.
//!
//! Written by hand because it is the hottest loop of the path: a general parser reads every name into a string and
//! every number into a double before anybody asks for them, and its generic code is compiled with our crate, thus in
//! the dev profile hardly optimised. It is strict JSON all the same: a property test holds it against `serde_json`.

use std::borrow::Cow;

use super::number::{Number, column};
use super::{Car, Codec, CodecError, DecodeError, Decoded, Schema, not_a_number, quoted, too_large};
use crate::telemetry::time;
use crate::text::harmless;

/// Objects and arrays in one another, the outermost included: as many as fit in the bits of a `u64`, so that skipping
/// one needs no stack.
pub(super) const MAX_DEPTH: usize = 64;

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
    let mut scan = Scanner { text, bytes: text.as_bytes(), at: 0 };
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

/// A place in the text. What it has passed is well-formed.
struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.at += 1;
        byte
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    fn wrong(&self, what: &'static str) -> DecodeError {
        DecodeError::NotJson { what, at: self.at.min(self.bytes.len()) }
    }

    /// The byte just taken is wrong.
    fn wrong_before(&self, what: &'static str) -> DecodeError {
        DecodeError::NotJson { what, at: (self.at - 1).min(self.bytes.len()) }
    }

    fn end(&mut self) -> Result<(), DecodeError> {
        self.blanks();
        if self.at < self.bytes.len() { Err(self.wrong("expected nothing more")) } else { Ok(()) }
    }

    fn colon(&mut self) -> Result<(), DecodeError> {
        self.blanks();
        if self.next() != Some(b':') {
            return Err(self.wrong_before("expected :"));
        }
        self.blanks();
        Ok(())
    }

    /// Text between two places that are character boundaries, because an ASCII byte stands at each.
    fn slice(&self, from: usize, to: usize) -> &'a str {
        self.text.get(from..to).unwrap_or_default()
    }

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

    /// The string that begins here.
    fn string(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        if self.next() != Some(b'"') {
            return Err(self.wrong_before("expected a string"));
        }
        let start = self.at;
        let escapes = self.rest_of_string()?;
        let raw = self.slice(start, self.at - 1);
        if escapes { self.unescaped(raw, start).map(Cow::Owned) } else { Ok(Cow::Borrowed(raw)) }
    }

    /// Passes the rest of a string and its closing quote; whether there was a backslash in it.
    fn rest_of_string(&mut self) -> Result<bool, DecodeError> {
        let mut escapes = false;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            self.at += rest.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20).unwrap_or(rest.len());
            match self.next() {
                Some(b'"') => return Ok(escapes),
                Some(b'\\') => {
                    escapes = true;
                    match self.next() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
                        Some(b'u') => {
                            let digits = self.bytes.get(self.at..self.at + 4);
                            if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                                return Err(self.wrong("expected four hexadecimal digits"));
                            }
                            self.at += 4;
                        }
                        _ => return Err(self.wrong_before("expected an escape")),
                    }
                }
                Some(_) => return Err(self.wrong_before("a control character in a string")),
                None => return Err(self.wrong_before("expected the end of a string")),
            }
        }
    }

    /// A string's text, given what stands between its quotes.
    fn unescaped(&self, raw: &str, start: usize) -> Result<String, DecodeError> {
        let lone = DecodeError::NotJson { what: "half of a surrogate pair in a string", at: start };
        let mut out = String::with_capacity(raw.len());
        let mut rest = raw;
        while let Some((plain, escape)) = rest.split_once('\\') {
            out.push_str(plain);
            let (c, taken) = match escape.as_bytes().first() {
                Some(b'b') => ('\u{8}', 1),
                Some(b'f') => ('\u{c}', 1),
                Some(b'n') => ('\n', 1),
                Some(b'r') => ('\r', 1),
                Some(b't') => ('\t', 1),
                Some(b'u') => match code_unit(escape, 1) {
                    Some(high @ 0xd800..0xdc00) if escape.get(5..7) == Some("\\u") => match code_unit(escape, 7) {
                        Some(low @ 0xdc00..0xe000) => {
                            let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                            (char::from_u32(code).ok_or(lone.clone())?, 11)
                        }
                        _ => return Err(lone),
                    },
                    Some(unit) => (char::from_u32(unit).ok_or(lone.clone())?, 5),
                    None => return Err(lone),
                },
                Some(&other) => (char::from(other), 1),
                None => return Err(lone),
            };
            out.push(c);
            rest = escape.get(taken..).unwrap_or_default();
        }
        out.push_str(rest);
        Ok(out)
    }

    /// The number that begins here, by JSON's grammar.
    fn number(&mut self) -> Result<Number<'a>, DecodeError> {
        let start = self.at;
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let mut digits = 0u64;
        let whole = self.digits(&mut digits);
        let leading_zero = whole > 1 && self.bytes.get(self.at - whole) == Some(&b'0');
        if whole == 0 || leading_zero {
            return Err(self.wrong("expected a number"));
        }
        let mut decimals = 0;
        if self.peek() == Some(b'.') {
            self.at += 1;
            decimals = self.digits(&mut digits);
            if decimals == 0 {
                return Err(self.wrong("expected a digit"));
            }
        }
        let exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if exponent {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            if self.digits(&mut 0) == 0 {
                return Err(self.wrong("expected a digit"));
            }
        }
        let text = self.slice(start, self.at);
        Ok(Number { text, negative, digits, count: whole + decimals, decimals, exponent })
    }

    /// Passes digits and adds them to `value` (which wraps: whoever uses it looks at the count); how many there were.
    #[inline]
    fn digits(&mut self, value: &mut u64) -> usize {
        let start = self.at;
        while let Some(&byte) = self.bytes.get(self.at) {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            *value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
            self.at += 1;
        }
        self.at - start
    }

    fn literal(&mut self, word: &'static str) -> Result<(), DecodeError> {
        if !self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            return Err(self.wrong("expected a value"));
        }
        self.at += word.len();
        Ok(())
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

    /// Passes a value of any kind, at this depth, in one loop and without a stack: one bit for each open bracket says
    /// whether it is an object's.
    fn skip_value(&mut self, depth: usize) -> Result<(), DecodeError> {
        let (mut objects, mut open) = (0u64, 0usize);
        loop {
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    if depth + open >= MAX_DEPTH {
                        return Err(DecodeError::TooDeep);
                    }
                    self.at += 1;
                    open += 1;
                    objects = objects << 1 | u64::from(bracket == b'{');
                    self.blanks();
                    match self.peek() {
                        // Empty: closed below, as after a value.
                        Some(b'}') if bracket == b'{' => {}
                        Some(b']') if bracket == b'[' => {}
                        _ => {
                            if bracket == b'{' {
                                self.skip_name()?;
                            }
                            continue;
                        }
                    }
                }
                Some(b'"') => {
                    self.at += 1;
                    self.rest_of_string()?;
                }
                Some(b'-' | b'0'..=b'9') => {
                    self.number()?;
                }
                Some(b't') => self.literal("true")?,
                Some(b'f') => self.literal("false")?,
                Some(b'n') => self.literal("null")?,
                _ => return Err(self.wrong("expected a value")),
            }
            // After a value: close what ends here, until another value must follow.
            loop {
                if open == 0 {
                    return Ok(());
                }
                self.blanks();
                let in_object = objects & 1 == 1;
                match self.next() {
                    Some(b',') => {
                        self.blanks();
                        if in_object {
                            self.skip_name()?;
                        }
                        break;
                    }
                    Some(b'}') if in_object => {}
                    Some(b']') if !in_object => {}
                    _ => return Err(self.wrong_before("expected , or a closing bracket")),
                }
                open -= 1;
                objects >>= 1;
            }
        }
    }

    fn skip_name(&mut self) -> Result<(), DecodeError> {
        if self.next() != Some(b'"') {
            return Err(self.wrong_before("expected a string"));
        }
        self.rest_of_string()?;
        self.colon()
    }
}

/// The UTF-16 code unit that four hexadecimal digits at `at` spell.
fn code_unit(text: &str, at: usize) -> Option<u32> {
    u32::from_str_radix(text.get(at..at + 4)?, 16).ok()
}
