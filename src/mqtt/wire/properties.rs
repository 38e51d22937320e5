//! The properties of MQTT 5 packets: checked, looked at, and otherwise left as they are.

use bytes::{BufMut, Bytes, BytesMut};

use super::Fault;
use super::reader::Reader;

/// Property identifiers (MQTT 5.0 section 2.2.2.2).
pub mod id {
    pub const PAYLOAD_FORMAT: u8 = 1;
    pub const MESSAGE_EXPIRY: u8 = 2;
    pub const CONTENT_TYPE: u8 = 3;
    pub const RESPONSE_TOPIC: u8 = 8;
    pub const CORRELATION_DATA: u8 = 9;
    pub const SUBSCRIPTION_ID: u8 = 11;
    pub const SESSION_EXPIRY: u8 = 17;
    pub const ASSIGNED_CLIENT_ID: u8 = 18;
    pub const SERVER_KEEP_ALIVE: u8 = 19;
    pub const AUTHENTICATION_METHOD: u8 = 21;
    pub const AUTHENTICATION_DATA: u8 = 22;
    pub const PROBLEM_INFORMATION: u8 = 23;
    pub const WILL_DELAY: u8 = 24;
    pub const RESPONSE_INFORMATION: u8 = 25;
    pub const REASON_STRING: u8 = 31;
    pub const RECEIVE_MAXIMUM: u8 = 33;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 34;
    pub const TOPIC_ALIAS: u8 = 35;
    pub const USER_PROPERTY: u8 = 38;
    pub const MAXIMUM_PACKET: u8 = 39;
}

use id::*;

/// A property's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    Number(u32),
    Text(&'a str),
    Data(&'a [u8]),
    Pair,
}

impl Value<'_> {
    pub fn number(self) -> u32 {
        if let Value::Number(n) = self { n } else { 0 }
    }
}

/// A set of property identifiers.
#[derive(Debug, Clone, Copy)]
pub struct Allowed(u64);

impl Allowed {
    pub const fn of(ids: &[u8]) -> Allowed {
        let (mut set, mut n) = (0, 0);
        while n < ids.len() {
            set |= 1 << ids[n];
            n += 1;
        }
        Allowed(set)
    }
}

pub const ACK: Allowed = Allowed::of(&[REASON_STRING, USER_PROPERTY]);
pub const CONNECT: Allowed = Allowed::of(&[
    SESSION_EXPIRY,
    RECEIVE_MAXIMUM,
    MAXIMUM_PACKET,
    TOPIC_ALIAS_MAXIMUM,
    RESPONSE_INFORMATION,
    PROBLEM_INFORMATION,
    USER_PROPERTY,
    AUTHENTICATION_METHOD,
    AUTHENTICATION_DATA,
]);
pub const WILL: Allowed = Allowed::of(&[
    WILL_DELAY,
    PAYLOAD_FORMAT,
    MESSAGE_EXPIRY,
    CONTENT_TYPE,
    RESPONSE_TOPIC,
    CORRELATION_DATA,
    USER_PROPERTY,
]);
pub const PUBLISH: Allowed = Allowed::of(&[
    PAYLOAD_FORMAT,
    MESSAGE_EXPIRY,
    TOPIC_ALIAS,
    RESPONSE_TOPIC,
    CORRELATION_DATA,
    USER_PROPERTY,
    CONTENT_TYPE,
]);
pub const SUBSCRIBE: Allowed = Allowed::of(&[SUBSCRIPTION_ID, USER_PROPERTY]);
pub const UNSUBSCRIBE: Allowed = Allowed::of(&[USER_PROPERTY]);
pub const DISCONNECT: Allowed = Allowed::of(&[SESSION_EXPIRY, REASON_STRING, USER_PROPERTY]);
/// What is passed on to subscribers as it came.
const FORWARDED: Allowed =
    Allowed::of(&[PAYLOAD_FORMAT, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA, USER_PROPERTY]);

/// Reads a property block: its length, then each property, which must be allowed, well-formed and, but for user
/// properties, there once. Hands each to `each`; answers where the block's contents lie in the reader's bytes.
pub fn block(
    reader: &mut Reader<'_>,
    allowed: Allowed,
    mut each: impl FnMut(u8, Value<'_>) -> Result<(), Fault>,
) -> Result<std::ops::Range<usize>, Fault> {
    let length = reader.variable()? as usize;
    let start = reader.position();
    let mut inner = Reader::new(reader.take(length)?);
    let mut seen = 0u64;
    while !inner.is_empty() {
        let (id, value) = property(&mut inner)?;
        let bit = 1u64 << id;
        if allowed.0 & bit == 0 {
            return Err(Fault::protocol("a property does not belong in this packet"));
        }
        if seen & bit != 0 && id != USER_PROPERTY {
            return Err(Fault::protocol("a property is there twice"));
        }
        seen |= bit;
        each(id, value)?;
    }
    Ok(start..start + length)
}

fn property<'a>(reader: &mut Reader<'a>) -> Result<(u8, Value<'a>), Fault> {
    let id = reader.u8()?;
    let value = match id {
        PAYLOAD_FORMAT | PROBLEM_INFORMATION | RESPONSE_INFORMATION => {
            let flag = reader.u8()?;
            if flag > 1 {
                return Err(Fault::protocol("a property that is 0 or 1 is neither"));
            }
            Value::Number(u32::from(flag))
        }
        SERVER_KEEP_ALIVE | RECEIVE_MAXIMUM | TOPIC_ALIAS_MAXIMUM | TOPIC_ALIAS => {
            let number = reader.u16()?;
            if number == 0 && id == RECEIVE_MAXIMUM {
                return Err(Fault::protocol("Receive Maximum is 0"));
            }
            if number == 0 && id == TOPIC_ALIAS {
                return Err(Fault::new(super::Reason::TOPIC_ALIAS_INVALID, "topic alias 0"));
            }
            Value::Number(u32::from(number))
        }
        MESSAGE_EXPIRY | SESSION_EXPIRY | WILL_DELAY | MAXIMUM_PACKET => {
            let number = reader.u32()?;
            if number == 0 && id == MAXIMUM_PACKET {
                return Err(Fault::protocol("Maximum Packet Size is 0"));
            }
            Value::Number(number)
        }
        SUBSCRIPTION_ID => match reader.variable()? {
            0 => return Err(Fault::protocol("subscription identifier 0")),
            number => Value::Number(number),
        },
        CONTENT_TYPE | RESPONSE_TOPIC | ASSIGNED_CLIENT_ID | AUTHENTICATION_METHOD | REASON_STRING => {
            let text = reader.text()?;
            if id == RESPONSE_TOPIC && (text.is_empty() || text.contains(['+', '#'])) {
                return Err(Fault::protocol("the response topic is no topic name"));
            }
            Value::Text(text)
        }
        CORRELATION_DATA | AUTHENTICATION_DATA => Value::Data(reader.data()?),
        USER_PROPERTY => {
            reader.text()?;
            reader.text()?;
            Value::Pair
        }
        _ => return Err(Fault::malformed("no such property")),
    };
    Ok((id, value))
}

/// Of a checked property block of a PUBLISH or a will, what is passed on to subscribers, byte for byte and in order: all
/// but the topic alias, the expiry and the will's delay, which are the server's to set.
pub fn forwardable(raw: &[u8]) -> Bytes {
    let mut reader = Reader::new(raw);
    let mut out = BytesMut::new();
    while !reader.is_empty() {
        let from = reader.position();
        // The block was checked when it was read; were it not, passing on nothing is right.
        let Ok((id, _)) = property(&mut reader) else { return Bytes::new() };
        if FORWARDED.0 & (1 << id) != 0 {
            out.put_slice(&raw[from..reader.position()]);
        }
    }
    out.freeze()
}
