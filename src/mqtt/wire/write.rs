//! Packets a server sends.

use bytes::{BufMut, BytesMut};

use super::properties::id;
use super::{Reason, Version};

/// What a CONNACK says beside success or failure, in MQTT 5.
#[derive(Debug, Clone, Default)]
pub struct ConnAck<'a> {
    /// The session was there before.
    pub session_present: bool,
    /// Seconds the session is kept, if not what was asked for.
    pub session_expiry: Option<u32>,
    /// Messages of QoS 1 and 2 the gate takes before it acknowledges one.
    pub receive_maximum: Option<u16>,
    /// Largest packet the gate takes, in bytes.
    pub maximum_packet: Option<u32>,
    /// Topic aliases the gate takes.
    pub alias_maximum: Option<u16>,
    /// The client's name, if the gate gave it.
    pub assigned_client: Option<&'a str>,
    /// The keep-alive to use, if not what was asked for.
    pub keep_alive: Option<u16>,
    /// For people.
    pub reason_string: Option<&'a str>,
}

/// CONNACK. In 3.1.1 a reason without a return code writes nothing.
pub fn connack(out: &mut BytesMut, version: Version, reason: Reason, more: &ConnAck<'_>) {
    if version == Version::V311 {
        if let Some(code) = reason.v311() {
            out.put_slice(&[0x20, 2, u8::from(more.session_present && code == 0), code]);
        }
        return;
    }
    let mut properties = BytesMut::new();
    if let Some(seconds) = more.session_expiry {
        properties.put_u8(id::SESSION_EXPIRY);
        properties.put_u32(seconds);
    }
    if let Some(maximum) = more.receive_maximum {
        properties.put_u8(id::RECEIVE_MAXIMUM);
        properties.put_u16(maximum);
    }
    if let Some(maximum) = more.maximum_packet {
        properties.put_u8(id::MAXIMUM_PACKET);
        properties.put_u32(maximum);
    }
    if let Some(maximum) = more.alias_maximum {
        properties.put_u8(id::TOPIC_ALIAS_MAXIMUM);
        properties.put_u16(maximum);
    }
    if let Some(client) = more.assigned_client {
        properties.put_u8(id::ASSIGNED_CLIENT_ID);
        data(&mut properties, client.as_bytes());
    }
    if let Some(seconds) = more.keep_alive {
        properties.put_u8(id::SERVER_KEEP_ALIVE);
        properties.put_u16(seconds);
    }
    if let Some(text) = more.reason_string {
        properties.put_u8(id::REASON_STRING);
        data(&mut properties, text.as_bytes());
    }
    out.put_u8(0x20);
    variable(out, 2 + variable_length(properties.len()) + properties.len());
    out.put_slice(&[u8::from(more.session_present && reason == Reason::SUCCESS), reason.0]);
    variable(out, properties.len());
    out.put_slice(&properties);
}

/// Which acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckKind {
    /// PUBACK.
    PubAck,
    /// PUBREC.
    PubRec,
    /// PUBREL.
    PubRel,
    /// PUBCOMP.
    PubComp,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
pub fn ack(out: &mut BytesMut, version: Version, kind: AckKind, packet: u16, reason: Reason) {
    let first = match kind {
        AckKind::PubAck => 0x40,
        AckKind::PubRec => 0x50,
        AckKind::PubRel => 0x62,
        AckKind::PubComp => 0x70,
    };
    let [high, low] = packet.to_be_bytes();
    if version == Version::V311 || reason == Reason::SUCCESS {
        out.put_slice(&[first, 2, high, low]);
    } else {
        // The empty property block could be left out, but not every client library knows that.
        out.put_slice(&[first, 4, high, low, reason.0, 0]);
    }
}

/// SUBACK: one code a filter.
pub fn suback(out: &mut BytesMut, version: Version, packet: u16, codes: &[Reason]) {
    let properties = usize::from(version == Version::V5);
    out.put_u8(0x90);
    variable(out, 2 + properties + codes.len());
    out.put_u16(packet);
    out.put_bytes(0, properties);
    // 3.1.1 knows but one failure.
    let worst = if version == Version::V5 { u8::MAX } else { Reason::UNSPECIFIED.0 };
    out.extend(codes.iter().map(|code| code.0.min(worst)));
}

/// UNSUBACK: in MQTT 5 one code a filter.
pub fn unsuback(out: &mut BytesMut, version: Version, packet: u16, codes: &[Reason]) {
    out.put_u8(0xb0);
    if version == Version::V311 {
        variable(out, 2);
        out.put_u16(packet);
        return;
    }
    variable(out, 3 + codes.len());
    out.put_u16(packet);
    out.put_u8(0);
    out.extend(codes.iter().map(|code| code.0));
}

/// PINGRESP.
pub fn pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xd0, 0]);
}

/// DISCONNECT, which in 3.1.1 a server does not send: writes nothing there.
pub fn disconnect(out: &mut BytesMut, version: Version, reason: Reason) {
    if version == Version::V5 {
        // As above: without the empty property block rumqttc would not find the reason.
        out.put_slice(&[0xe0, 2, reason.0, 0]);
    }
}

/// A PUBLISH to a subscriber.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Topic; empty where an alias that the client knows stands for it.
    pub topic: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
    /// 0, 1 or 2.
    pub qos: u8,
    /// Sent before.
    pub dup: bool,
    /// Retained.
    pub retain: bool,
    /// Not 0 above QoS 0.
    pub packet: u16,
    /// Topic alias.
    pub alias: Option<u16>,
    /// Seconds left.
    pub expiry: Option<u32>,
    /// Subscription identifiers.
    pub subscriptions: &'a [u32],
    /// The publisher's properties (see [`super::forwardable`]), left out in 3.1.1.
    pub properties: &'a [u8],
}

/// Writes a PUBLISH unless it would be larger than `max` bytes; answers whether it did.
pub fn publish(out: &mut BytesMut, version: Version, message: &Outgoing<'_>, max: usize) -> bool {
    let packet_id = if message.qos == 0 { 0 } else { 2 };
    let mut length = 2 + message.topic.len() + packet_id + message.payload.len();
    let mut properties = 0;
    if version == Version::V5 {
        properties = message.properties.len()
            + message.alias.map_or(0, |_| 3)
            + message.expiry.map_or(0, |_| 5)
            + message.subscriptions.iter().map(|&n| 1 + variable_length(n as usize)).sum::<usize>();
        length += variable_length(properties) + properties;
    }
    if 1 + variable_length(length) + length > max || length > 268_435_455 {
        return false;
    }
    out.reserve(5 + length);
    out.put_u8(0x30 | u8::from(message.dup) << 3 | message.qos << 1 | u8::from(message.retain));
    variable(out, length);
    data(out, message.topic);
    if message.qos != 0 {
        out.put_u16(message.packet);
    }
    if version == Version::V5 {
        variable(out, properties);
        if let Some(alias) = message.alias {
            out.put_u8(id::TOPIC_ALIAS);
            out.put_u16(alias);
        }
        if let Some(seconds) = message.expiry {
            out.put_u8(id::MESSAGE_EXPIRY);
            out.put_u32(seconds);
        }
        for &subscription in message.subscriptions {
            out.put_u8(id::SUBSCRIPTION_ID);
            variable(out, subscription as usize);
        }
        out.put_slice(message.properties);
    }
    out.put_slice(message.payload);
    true
}

/// Bytes with their length before them. The callers' strings come from packets or are short: they fit 16 bits.
fn data(out: &mut BytesMut, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(usize::from(u16::MAX))];
    out.put_u16(bytes.len() as u16);
    out.put_slice(bytes);
}

fn variable(out: &mut BytesMut, mut number: usize) {
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            out.put_u8(byte);
            return;
        }
        out.put_u8(byte | 0x80);
    }
}

fn variable_length(number: usize) -> usize {
    match number {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}
