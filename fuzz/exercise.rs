//! What must hold of the MQTT codec for any bytes: it reads packets or says what is wrong, never panics, never reads beyond a
//! packet, and a message it took is written for subscribers so that it reads back as the same. Used by the fuzz target and,
//! on the kept corpus and on packets that were tampered with, by `cargo test`.

use bytes::{Bytes, BytesMut};

use crate::mqtt::topic;
use crate::mqtt::wire::{self, Connect, Framing, Outgoing, Packet, Publish, Version};

/// Largest packet, as a gate would be told.
const MAX: usize = 1 << 20;

/// The first byte chooses the dialect and whether a connection begins; the rest is what a client sends.
pub fn exercise(bytes: &[u8]) {
    let Some((&choice, mut rest)) = bytes.split_first() else { return };
    let mut version = if choice & 1 == 0 { Version::V311 } else { Version::V5 };
    if choice & 2 != 0 {
        let Ok(Framing::Whole { length, header }) = wire::framing(rest, MAX) else { return };
        assert!(header < 6 && header <= length && length <= rest.len());
        match Connect::read(&rest[..length], header) {
            Err(_) => return,
            Ok(connect) => {
                version = connect.version;
                assert!(topic::name(connect.will.as_ref().map_or(b"t", |will| &will.message.topic)).is_ok());
            }
        }
        rest = &rest[length..];
    }
    while let Ok(Framing::Whole { length, header }) = wire::framing(rest, MAX) {
        assert!(header < 6 && header <= length && length <= rest.len());
        match wire::packet(version, Bytes::copy_from_slice(&rest[..length]), header) {
            Err(fault) => assert!(fault.reason.0 >= 0x80 && !fault.why.is_empty()),
            Ok(Packet::Publish(publish)) => passed_on(&publish),
            Ok(_) => {}
        }
        rest = &rest[length..];
    }
}

/// A message taken from one client is legal for every other.
fn passed_on(publish: &Publish) {
    assert!(publish.qos <= 2 && (publish.qos == 0) == (publish.id == 0) && publish.alias != Some(0));
    if publish.topic.is_empty() {
        assert!(publish.alias.is_some());
        return;
    }
    assert!(topic::name(&publish.topic).is_ok());
    let properties = wire::forwardable(&publish.properties);
    for version in [Version::V311, Version::V5] {
        let mut out = BytesMut::new();
        let outgoing = Outgoing {
            topic: &publish.topic,
            payload: &publish.payload,
            qos: publish.qos,
            dup: publish.dup,
            retain: publish.retain,
            packet: publish.id,
            alias: None,
            expiry: publish.expiry,
            subscriptions: &[],
            properties: &properties,
        };
        // Without its properties it is no longer than it came, and with them a few bytes.
        assert!(wire::publish(&mut out, version, &outgoing, MAX + 64));
        let Ok(Framing::Whole { length, header }) = wire::framing(&out, usize::MAX) else { panic!("not whole") };
        assert_eq!(length, out.len());
        let Ok(Packet::Publish(again)) = wire::packet(version, out.freeze(), header) else { panic!("not a message") };
        assert_eq!((&again.topic, &again.payload), (&publish.topic, &publish.payload));
        assert_eq!((again.qos, again.id, again.retain), (publish.qos, publish.id, publish.retain));
        if version == Version::V5 {
            assert_eq!((again.expiry, wire::forwardable(&again.properties)), (publish.expiry, properties.clone()));
        }
    }
}
