//! Packets a client may send, read strictly.

use bytes::{Buf, Bytes};

use super::properties::{self, Value, id};
use super::reader::Reader;
use super::{Fault, Reason, Version};
use crate::mqtt::topic::{self, TopicError};

/// A packet from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// CONNECT: the first packet, and no other.
    Connect(Box<Connect>),
    /// PUBLISH.
    Publish(Publish),
    /// PUBACK: a subscriber has a message of QoS 1.
    PubAck(Ack),
    /// PUBREC: a subscriber has a message of QoS 2.
    PubRec(Ack),
    /// PUBREL: a publisher lets go of a packet id.
    PubRel(Ack),
    /// PUBCOMP: a subscriber lets go of a packet id.
    PubComp(Ack),
    /// SUBSCRIBE.
    Subscribe(Subscribe),
    /// UNSUBSCRIBE.
    Unsubscribe(Unsubscribe),
    /// PINGREQ.
    PingReq,
    /// DISCONNECT.
    Disconnect(Disconnect),
}

/// CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// Which dialect this connection speaks.
    pub version: Version,
    /// Begin with a new session (clean session in 3.1.1).
    pub clean: bool,
    /// Seconds; 0 is none.
    pub keep_alive: u16,
    /// May be empty: the server assigns one.
    pub client: String,
    /// User name.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Bytes>,
    /// What to publish when the connection ends without a word.
    pub will: Option<Will>,
    /// Seconds the session outlives the connection; `u32::MAX` is for ever. In 3.1.1: 0 if clean, else for ever.
    pub session_expiry: u32,
    /// Messages of QoS 1 and 2 it takes before acknowledging.
    pub receive_maximum: u16,
    /// Largest packet it takes, in bytes.
    pub maximum_packet: Option<u32>,
    /// Topic aliases it takes.
    pub alias_maximum: u16,
    /// Whether it wants the extended authentication that the gate does not offer.
    pub extended_authentication: bool,
}

/// A will: the message a client leaves for the case that its connection ends without a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// The message; packet id 0, no alias.
    pub message: Publish,
    /// Seconds between the connection's end and its publication.
    pub delay: u32,
}

/// PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// A legal topic name; empty only with an alias.
    pub topic: Bytes,
    /// The payload, a slice of the read buffer.
    pub payload: Bytes,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Sent before.
    pub dup: bool,
    /// To be kept for future subscribers.
    pub retain: bool,
    /// 0 at QoS 0.
    pub id: u16,
    /// Topic alias, never 0.
    pub alias: Option<u16>,
    /// Seconds after which it is of no use.
    pub expiry: Option<u32>,
    /// The property block's contents as they came, checked; see [`super::forwardable`].
    pub properties: Bytes,
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Packet id.
    pub id: u16,
    /// Success in 3.1.1.
    pub reason: Reason,
}

/// SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Packet id.
    pub id: u16,
    /// MQTT 5's subscription identifier.
    pub identifier: Option<u32>,
    /// At least one. Not checked to be legal filters: an illegal one is answered with its own code.
    pub filters: Vec<Filter>,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The filter as sent.
    pub path: String,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Not the client's own messages.
    pub no_local: bool,
    /// Keep the publisher's retain flag.
    pub retain_as_published: bool,
    /// Retained messages: 0 always, 1 only for a new subscription, 2 never.
    pub retain_handling: u8,
}

/// UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Packet id.
    pub id: u16,
    /// At least one.
    pub filters: Vec<String>,
}

/// DISCONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect {
    /// Why; success in 3.1.1.
    pub reason: Reason,
    /// Changes the session's expiry.
    pub session_expiry: Option<u32>,
}

/// Why a first packet was not a usable CONNECT, and in which dialect it can be said, if in any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectFault {
    /// The dialect, if it got as far as naming one.
    pub version: Option<Version>,
    /// What is wrong.
    pub fault: Fault,
}

/// Reads one whole packet, its fixed header of `header` bytes included.
///
/// # Errors
/// A [`Fault`] for whatever the standard forbids a client.
pub fn packet(version: Version, mut whole: Bytes, header: usize) -> Result<Packet, Fault> {
    let first = whole.first().copied().unwrap_or(0);
    let flags = first & 0x0f;
    whole.advance(header.min(whole.len()));
    let reserved = match first >> 4 {
        3 => return publish(version, whole, flags).map(Packet::Publish),
        6 | 8 | 10 => 0b0010,
        _ => 0,
    };
    if flags != reserved {
        return Err(Fault::malformed("reserved bits of the fixed header are set"));
    }
    let mut reader = Reader::new(&whole);
    let packet = match first >> 4 {
        4 => Packet::PubAck(ack(version, &mut reader)?),
        5 => Packet::PubRec(ack(version, &mut reader)?),
        6 => Packet::PubRel(ack(version, &mut reader)?),
        7 => Packet::PubComp(ack(version, &mut reader)?),
        8 => Packet::Subscribe(subscribe(version, &mut reader)?),
        10 => Packet::Unsubscribe(unsubscribe(version, &mut reader)?),
        12 => Packet::PingReq,
        14 => Packet::Disconnect(disconnect(version, &mut reader)?),
        1 => return Err(Fault::protocol("a second CONNECT")),
        15 if version == Version::V5 => return Err(Fault::protocol("AUTH without extended authentication")),
        0 | 15 => return Err(Fault::malformed("no such packet type")),
        _ => return Err(Fault::protocol("a packet that only a server may send")),
    };
    if !reader.is_empty() {
        return Err(Fault::malformed("bytes are left over at the packet's end"));
    }
    Ok(packet)
}

impl Connect {
    /// Reads the first packet of a connection, its fixed header of `header` bytes included.
    ///
    /// # Errors
    /// What is wrong, and in which dialect to say so.
    pub fn read(whole: &[u8], header: usize) -> Result<Connect, ConnectFault> {
        let mut version = None;
        Connect::read_inner(whole, header, &mut version).map_err(|fault| ConnectFault { version, fault })
    }

    fn read_inner(whole: &[u8], header: usize, version: &mut Option<Version>) -> Result<Connect, Fault> {
        if whole.first() != Some(&0x10) {
            return Err(Fault::protocol("the first packet is not CONNECT"));
        }
        let mut reader = Reader::new(whole.get(header..).unwrap_or_default());
        let name = reader.data()?;
        let level = reader.u8()?;
        let dialect = match (name, level) {
            (b"MQTT", 5) => Version::V5,
            (b"MQTT", 4) | (b"MQIsdp", 3) => Version::V311,
            (b"MQTT" | b"MQIsdp", _) => {
                *version = Some(if level > 5 { Version::V5 } else { Version::V311 });
                return Err(Fault::new(Reason::UNSUPPORTED_VERSION, "a version of MQTT other than 3.1, 3.1.1 and 5"));
            }
            _ => return Err(Fault::protocol("the protocol is not MQTT")),
        };
        *version = Some(dialect);
        let flags = reader.u8()?;
        let has = |bit: u8| flags & bit != 0;
        if has(0x01) {
            return Err(Fault::malformed("the reserved bit of the CONNECT flags is set"));
        }
        let will_qos = (flags >> 3) & 3;
        if will_qos == 3 || !has(0x04) && (will_qos != 0 || has(0x20)) {
            return Err(Fault::malformed("the will's flags contradict each other"));
        }
        if dialect == Version::V311 && has(0x40) && !has(0x80) {
            return Err(Fault::malformed("a password without a user name"));
        }
        let clean = has(0x02);
        let keep_alive = reader.u16()?;
        let mut connect = Connect {
            version: dialect,
            clean,
            keep_alive,
            client: String::new(),
            user: None,
            password: None,
            will: None,
            session_expiry: if dialect == Version::V311 && !clean { u32::MAX } else { 0 },
            receive_maximum: u16::MAX,
            maximum_packet: None,
            alias_maximum: 0,
            extended_authentication: false,
        };
        if dialect == Version::V5 {
            let mut data_without_method = false;
            properties::block(&mut reader, properties::CONNECT, |property, value| {
                match property {
                    id::SESSION_EXPIRY => connect.session_expiry = value.number(),
                    id::RECEIVE_MAXIMUM => connect.receive_maximum = value.number() as u16,
                    id::MAXIMUM_PACKET => connect.maximum_packet = Some(value.number()),
                    id::TOPIC_ALIAS_MAXIMUM => connect.alias_maximum = value.number() as u16,
                    id::AUTHENTICATION_METHOD => connect.extended_authentication = true,
                    id::AUTHENTICATION_DATA => data_without_method = true,
                    _ => {}
                }
                Ok(())
            })?;
            if data_without_method && !connect.extended_authentication {
                return Err(Fault::protocol("authentication data without a method"));
            }
        }
        connect.client = reader.text()?.to_owned();
        if has(0x04) {
            connect.will = Some(will(dialect, &mut reader, will_qos, has(0x20))?);
        }
        if has(0x80) {
            connect.user = Some(reader.text()?.to_owned());
        }
        if has(0x40) {
            connect.password = Some(Bytes::copy_from_slice(reader.data()?));
        }
        if !reader.is_empty() {
            return Err(Fault::malformed("bytes are left over at the packet's end"));
        }
        Ok(connect)
    }
}

fn will(version: Version, reader: &mut Reader<'_>, qos: u8, retain: bool) -> Result<Will, Fault> {
    let (mut delay, mut expiry, mut raw) = (0, None, &[][..]);
    if version == Version::V5 {
        let bytes = reader.bytes();
        let range = properties::block(reader, properties::WILL, |property, value| {
            match property {
                id::WILL_DELAY => delay = value.number(),
                id::MESSAGE_EXPIRY => expiry = Some(value.number()),
                _ => {}
            }
            Ok(())
        })?;
        raw = &bytes[range];
    }
    let topic = reader.data()?;
    topic::name(topic).map_err(topic_fault)?;
    let payload = reader.data()?;
    let message = Publish {
        topic: Bytes::copy_from_slice(topic),
        payload: Bytes::copy_from_slice(payload),
        qos,
        dup: false,
        retain,
        id: 0,
        alias: None,
        expiry,
        properties: Bytes::copy_from_slice(raw),
    };
    Ok(Will { message, delay })
}

fn publish(version: Version, mut whole: Bytes, flags: u8) -> Result<Publish, Fault> {
    let qos = (flags >> 1) & 3;
    let dup = flags & 8 != 0;
    if qos == 3 {
        return Err(Fault::malformed("QoS 3"));
    }
    if dup && qos == 0 {
        return Err(Fault::malformed("DUP at QoS 0"));
    }
    let mut reader = Reader::new(&whole);
    let topic_length = reader.data()?.len();
    let id = if qos == 0 { 0 } else { reader.id()? };
    let (mut alias, mut expiry, mut range) = (None, None, 0..0);
    if version == Version::V5 {
        range = properties::block(&mut reader, properties::PUBLISH, |property, value| {
            match property {
                id::TOPIC_ALIAS => alias = Some(value.number() as u16),
                id::MESSAGE_EXPIRY => expiry = Some(value.number()),
                _ => {}
            }
            Ok(())
        })?;
    }
    let payload_at = reader.position();
    let properties = if range.is_empty() { Bytes::new() } else { whole.slice(range) };
    whole.advance(2);
    let topic = whole.split_to(topic_length);
    whole.advance(payload_at - 2 - topic_length);
    if !topic.is_empty() || alias.is_none() {
        topic::name(&topic).map_err(topic_fault)?;
    }
    Ok(Publish { topic, payload: whole, qos, dup, retain: flags & 1 != 0, id, alias, expiry, properties })
}

fn topic_fault(error: TopicError) -> Fault {
    match error {
        TopicError::NotText | TopicError::Nul => Fault::malformed("the topic is not text MQTT allows"),
        TopicError::Empty => Fault::protocol("the topic is empty"),
        _ => Fault::new(Reason::TOPIC_INVALID, "the topic is not one to publish on"),
    }
}

fn ack(version: Version, reader: &mut Reader<'_>) -> Result<Ack, Fault> {
    let id = reader.id()?;
    let mut reason = Reason::SUCCESS;
    if version == Version::V5 && !reader.is_empty() {
        reason = Reason(reader.u8()?);
        if !reader.is_empty() {
            properties::block(reader, properties::ACK, |_, _| Ok(()))?;
        }
    }
    Ok(Ack { id, reason })
}

fn subscribe(version: Version, reader: &mut Reader<'_>) -> Result<Subscribe, Fault> {
    let id = reader.id()?;
    let mut identifier = None;
    if version == Version::V5 {
        properties::block(reader, properties::SUBSCRIBE, |property, value| {
            if let (id::SUBSCRIPTION_ID, Value::Number(number)) = (property, value) {
                identifier = Some(number);
            }
            Ok(())
        })?;
    }
    let mut filters = Vec::new();
    while !reader.is_empty() {
        let path = reader.text()?.to_owned();
        let options = reader.u8()?;
        let retain_handling = (options >> 4) & 3;
        let reserved = if version == Version::V5 { 0xc0 } else { 0xfc };
        if options & reserved != 0 || options & 3 == 3 || retain_handling == 3 {
            return Err(Fault::protocol("a subscription's options are not ones the standard knows"));
        }
        let no_local = options & 4 != 0;
        if no_local && path.starts_with("$share/") {
            return Err(Fault::protocol("No Local on a shared subscription"));
        }
        let filter =
            Filter { path, qos: options & 3, no_local, retain_as_published: options & 8 != 0, retain_handling };
        filters.push(filter);
    }
    if filters.is_empty() {
        return Err(Fault::protocol("SUBSCRIBE without a filter"));
    }
    Ok(Subscribe { id, identifier, filters })
}

fn unsubscribe(version: Version, reader: &mut Reader<'_>) -> Result<Unsubscribe, Fault> {
    let id = reader.id()?;
    if version == Version::V5 {
        properties::block(reader, properties::UNSUBSCRIBE, |_, _| Ok(()))?;
    }
    let mut filters = Vec::new();
    while !reader.is_empty() {
        filters.push(reader.text()?.to_owned());
    }
    if filters.is_empty() {
        return Err(Fault::protocol("UNSUBSCRIBE without a filter"));
    }
    Ok(Unsubscribe { id, filters })
}

fn disconnect(version: Version, reader: &mut Reader<'_>) -> Result<Disconnect, Fault> {
    let mut disconnect = Disconnect { reason: Reason::SUCCESS, session_expiry: None };
    if version == Version::V5 && !reader.is_empty() {
        disconnect.reason = Reason(reader.u8()?);
        if !reader.is_empty() {
            properties::block(reader, properties::DISCONNECT, |property, value| {
                if property == id::SESSION_EXPIRY {
                    disconnect.session_expiry = Some(value.number());
                }
                Ok(())
            })?;
        }
    }
    Ok(disconnect)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
