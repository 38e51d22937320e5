//! The codec against rumqttc's, in both directions; against packets the standard forbids; and against noise.

use bytes::BytesMut;
use proptest::prelude::*;
use rumqttc::mqttbytes::v4 as four;
use rumqttc::v5::mqttbytes as five_types;
use rumqttc::v5::mqttbytes::v5 as five;

use super::super::{AckKind, ConnAck, Outgoing, framing, write};
use super::*;
use crate::mqtt::wire::Framing;

fn read(version: Version, bytes: &[u8]) -> Result<Packet, Fault> {
    match framing(bytes, usize::MAX)? {
        Framing::Whole { length, header } => packet(version, Bytes::copy_from_slice(&bytes[..length]), header),
        _ => Err(Fault::malformed("not whole")),
    }
}

fn connect(bytes: &[u8]) -> Result<Connect, ConnectFault> {
    let Ok(Framing::Whole { header, .. }) = framing(bytes, usize::MAX) else { panic!("not whole") };
    Connect::read(bytes, header)
}

fn written5(packet: &five::Packet) -> BytesMut {
    let mut out = BytesMut::new();
    packet.write(&mut out, None).unwrap();
    out
}

fn written4(packet: &four::Packet) -> BytesMut {
    let mut out = BytesMut::new();
    packet.write(&mut out, usize::MAX).unwrap();
    out
}

fn topic() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9/$ 温é-]{1,30}"
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(("[a-z]{0,5}", "[a-z]{0,5}"), 0..3)
}

proptest! {
    #[test]
    fn a_publish_of_rumqttcs_reads_as_it_was_meant_in_3_1_1(
        topic in topic(), payload in prop::collection::vec(any::<u8>(), 0..300), qos in 0u8..3, id in 1u16.., retain: bool, dup: bool,
    ) {
        let mut theirs = four::Publish::new(topic.clone(), rumqttc::mqttbytes::qos(qos).unwrap(), payload.clone());
        (theirs.pkid, theirs.retain, theirs.dup) = (if qos == 0 { 0 } else { id }, retain, dup && qos > 0);
        let ours = Publish {
            topic: topic.into(), payload: payload.into(), qos, dup: dup && qos > 0, retain,
            id: if qos == 0 { 0 } else { id }, alias: None, expiry: None, properties: Bytes::new(),
        };
        prop_assert_eq!(read(Version::V311, &written4(&four::Packet::Publish(theirs))), Ok(Packet::Publish(ours)));
    }

    #[test]
    fn a_publish_of_rumqttcs_reads_as_it_was_meant_in_5_and_what_is_passed_on_keeps_its_properties(
        topic in topic(), payload in prop::collection::vec(any::<u8>(), 0..300), qos in 0u8..3, id in 1u16..,
        alias in prop::option::of(1u16..), expiry in prop::option::of(any::<u32>()), user in pairs(),
        content in prop::option::of("[a-z]{0,9}"), response in prop::option::of("[a-z/]{1,9}"),
        correlation in prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), format in prop::option::of(0u8..2),
        subscription in prop::option::of(1u32..268_435_455),
    ) {
        let id = if qos == 0 { 0 } else { id };
        let mut theirs = five::Publish::new(topic.clone(), five_types::qos(qos).unwrap(), payload.clone(), Some(five::PublishProperties {
            payload_format_indicator: format, message_expiry_interval: expiry, topic_alias: alias, response_topic: response,
            correlation_data: correlation.map(Into::into), user_properties: user, subscription_identifiers: vec![], content_type: content,
        }));
        theirs.pkid = id;
        let Ok(Packet::Publish(ours)) = read(Version::V5, &written5(&five::Packet::Publish(theirs.clone()))) else { panic!() };
        prop_assert_eq!((&ours.topic[..], &ours.payload[..], ours.qos, ours.id), (topic.as_bytes(), &payload[..], qos, id));
        prop_assert_eq!((ours.alias, ours.expiry), (alias, expiry));

        // On its way to a subscriber: the same, but alias, expiry and identifier are ours.
        let forwarded = super::super::forwardable(&ours.properties);
        let subscriptions: Vec<u32> = subscription.into_iter().collect();
        let outgoing = Outgoing {
            topic: &ours.topic, payload: &ours.payload, qos, dup: false, retain: false, packet: id, alias: Some(7), expiry: Some(9),
            subscriptions: &subscriptions, properties: &forwarded,
        };
        let mut out = BytesMut::new();
        prop_assert!(write::publish(&mut out, Version::V5, &outgoing, usize::MAX));
        let five::Packet::Publish(back) = five::Packet::read(&mut out, None).unwrap() else { panic!() };
        let properties = theirs.properties.as_mut().unwrap();
        (properties.topic_alias, properties.message_expiry_interval) = (Some(7), Some(9));
        properties.subscription_identifiers = subscription.into_iter().map(|n| n as usize).collect();
        prop_assert_eq!(&back, &theirs);

        // And to one that speaks 3.1.1.
        let mut out = BytesMut::new();
        prop_assert!(write::publish(&mut out, Version::V311, &outgoing, usize::MAX));
        let four::Packet::Publish(back) = four::Packet::read(&mut out, usize::MAX).unwrap() else { panic!() };
        prop_assert_eq!((back.topic.as_bytes(), &back.payload[..], back.pkid), (topic.as_bytes(), &payload[..], id));
    }

    #[test]
    fn connect_and_will_and_login_of_rumqttcs_read_as_they_were_meant(
        client in "[a-z]{0,20}", keep_alive: u16, clean: bool, login in prop::option::of(("[a-z]{1,8}", "[a-z]{1,8}")),
        will in prop::option::of((topic(), prop::collection::vec(any::<u8>(), 0..50), 0u8..3, any::<bool>(), any::<u32>(), pairs())),
        expiry in prop::option::of(any::<u32>()), receive in prop::option::of(1u16..), alias in prop::option::of(any::<u16>()),
    ) {
        let properties = five::ConnectProperties {
            session_expiry_interval: expiry, receive_maximum: receive, topic_alias_max: alias, ..five::ConnectProperties::new()
        };
        let theirs = five::Connect { keep_alive, client_id: client.clone(), clean_start: clean, properties: Some(properties) };
        let last_will = will.clone().map(|(topic, message, qos, retain, delay, user)| five::LastWill {
            topic: topic.into(), message: message.into(), qos: five_types::qos(qos).unwrap(), retain,
            properties: Some(five::LastWillProperties {
                delay_interval: Some(delay), payload_format_indicator: None, message_expiry_interval: Some(3), content_type: None,
                response_topic: None, correlation_data: None, user_properties: user,
            }),
        });
        let their_login = login.clone().map(|(user, password)| five::Login::new(user, password));
        let ours = connect(&written5(&five::Packet::Connect(theirs, last_will, their_login))).unwrap();
        prop_assert_eq!((ours.version, &ours.client, ours.keep_alive, ours.clean), (Version::V5, &client, keep_alive, clean));
        prop_assert_eq!((ours.session_expiry, ours.receive_maximum, ours.alias_maximum),
            (expiry.unwrap_or(0), receive.unwrap_or(u16::MAX), alias.unwrap_or(0)));
        prop_assert_eq!((ours.user, ours.password), login.clone().map(|(u, p)| (u, Bytes::from(p))).unzip());
        let read_will = ours.will.map(|will| (will.message.topic, will.message.payload, will.message.qos, will.message.retain, will.delay));
        prop_assert_eq!(read_will, will.clone().map(|(t, m, q, r, d, _)| (Bytes::from(t), Bytes::from(m), q, r, d)));

        let mut theirs = four::Connect::new(client.clone());
        (theirs.keep_alive, theirs.clean_session) = (keep_alive, clean);
        theirs.last_will = will.clone().map(|(topic, message, qos, retain, ..)|
            four::LastWill::new(topic, message, rumqttc::mqttbytes::qos(qos).unwrap(), retain));
        if let Some((user, password)) = &login {
            theirs.set_login(user, password);
        }
        let ours = connect(&written4(&four::Packet::Connect(theirs))).unwrap();
        prop_assert_eq!((ours.version, ours.client, ours.keep_alive, ours.clean), (Version::V311, client, keep_alive, clean));
        prop_assert_eq!(ours.session_expiry, if clean { 0 } else { u32::MAX });
        prop_assert_eq!(ours.will.is_some(), will.is_some());
        prop_assert_eq!(ours.password.is_some(), login.is_some());
    }

    #[test]
    fn subscriptions_of_rumqttcs_read_as_they_were_meant(
        filters in prop::collection::vec(("[a-z/+#]{1,12}", 0u8..3, any::<bool>(), any::<bool>(), 0u8..3), 1..5), id in 1u16..,
        identifier in prop::option::of(1usize..268_435_455),
    ) {
        let theirs = filters.iter().map(|(path, qos, nolocal, preserve, rule)| five::Filter {
            path: path.clone(), qos: five_types::qos(*qos).unwrap(), nolocal: *nolocal, preserve_retain: *preserve,
            retain_forward_rule: match rule {
                0 => five::RetainForwardRule::OnEverySubscribe,
                1 => five::RetainForwardRule::OnNewSubscribe,
                _ => five::RetainForwardRule::Never,
            },
        });
        let properties = identifier.map(|id| five::SubscribeProperties { id: Some(id), user_properties: vec![] });
        let mut theirs = five::Subscribe::new_many(theirs, properties);
        theirs.pkid = id;
        let ours = filters.iter().map(|(path, qos, no_local, retain_as_published, retain_handling)| Filter {
            path: path.clone(), qos: *qos, no_local: *no_local, retain_as_published: *retain_as_published, retain_handling: *retain_handling,
        }).collect();
        let identifier = identifier.map(|id| id as u32);
        prop_assert_eq!(read(Version::V5, &written5(&five::Packet::Subscribe(theirs))),
            Ok(Packet::Subscribe(Subscribe { id, identifier, filters: ours })));

        let mut theirs = four::Unsubscribe::new(filters[0].0.clone());
        theirs.pkid = id;
        prop_assert_eq!(read(Version::V311, &written4(&four::Packet::Unsubscribe(theirs))),
            Ok(Packet::Unsubscribe(Unsubscribe { id, filters: vec![filters[0].0.clone()] })));
    }

    #[test]
    fn what_the_gate_answers_is_read_by_rumqttc(id in 1u16.., present: bool, codes in prop::collection::vec(0u8..3, 1..5)) {
        let reasons: Vec<Reason> = codes.iter().copied().map(Reason).collect();
        let (mut four, mut five) = (BytesMut::new(), BytesMut::new());
        let more = ConnAck { session_present: present, session_expiry: Some(7), receive_maximum: Some(8), maximum_packet: Some(9),
            alias_maximum: Some(10), assigned_client: Some("you"), keep_alive: Some(11), reason_string: Some("so") };
        for (version, out) in [(Version::V311, &mut four), (Version::V5, &mut five)] {
            write::connack(out, version, Reason::SUCCESS, &more);
            for kind in [AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubComp] {
                write::ack(out, version, kind, id, Reason::SUCCESS);
            }
            write::suback(out, version, id, &reasons);
            write::unsuback(out, version, id, &[Reason::SUCCESS, Reason::NO_SUBSCRIPTION_EXISTED]);
            write::pingresp(out);
            write::disconnect(out, version, Reason::SESSION_TAKEN_OVER);
        }
        let mut read = Vec::new();
        while !four.is_empty() {
            read.push(four::Packet::read(&mut four, usize::MAX).unwrap());
        }
        prop_assert_eq!(read.len(), 8, "no DISCONNECT in 3.1.1: {:?}", read);
        prop_assert!(matches!(&read[0], four::Packet::ConnAck(ack) if ack.session_present == present));
        prop_assert!(matches!(&read[1], four::Packet::PubAck(ack) if ack.pkid == id));
        prop_assert!(matches!(&read[5], four::Packet::SubAck(ack) if ack.return_codes.len() == codes.len()));
        let mut read = Vec::new();
        while !five.is_empty() {
            read.push(five::Packet::read(&mut five, None).unwrap());
        }
        prop_assert_eq!(read.len(), 9);
        let five::Packet::ConnAck(ack) = &read[0] else { panic!() };
        let properties = ack.properties.as_ref().unwrap();
        prop_assert_eq!((properties.session_expiry_interval, properties.receive_max, properties.max_packet_size), (Some(7), Some(8), Some(9)));
        prop_assert_eq!((properties.topic_alias_max, properties.server_keep_alive), (Some(10), Some(11)));
        prop_assert_eq!((properties.assigned_client_identifier.as_deref(), properties.reason_string.as_deref()), (Some("you"), Some("so")));
        prop_assert!(matches!(&read[2], five::Packet::PubRec(ack) if ack.pkid == id));
        prop_assert!(matches!(&read[8], five::Packet::Disconnect(bye) if bye.reason_code == five::DisconnectReasonCode::SessionTakenOver));
    }

    #[test]
    fn a_packet_is_framed_the_same_however_its_bytes_trickle_in(payload in 0usize..40_000) {
        let mut out = BytesMut::new();
        let message = Outgoing { topic: b"t", payload: &vec![7; payload], qos: 0, dup: false, retain: false, packet: 0, alias: None,
            expiry: None, subscriptions: &[], properties: &[] };
        write::publish(&mut out, Version::V311, &message, usize::MAX);
        let Ok(Framing::Whole { length, .. }) = framing(&out, usize::MAX) else { panic!() };
        prop_assert_eq!(length, out.len());
        for cut in [0, 1, 2, 3, 4, out.len() / 2, out.len() - 1] {
            let cut = cut.min(out.len() - 1);
            match framing(&out[..cut], usize::MAX).unwrap() {
                Framing::Partial(known) => prop_assert_eq!(known, length),
                Framing::Unknown => prop_assert!(cut < 5),
                whole => prop_assert!(false, "{:?} of {} bytes", whole, cut),
            }
        }
        prop_assert_eq!(framing(&out, length - 1).unwrap_err().reason, Reason::PACKET_TOO_LARGE);
        prop_assert!(!write::publish(&mut BytesMut::new(), Version::V311, &message, length - 1));
    }

    #[test]
    fn noise_is_refused_or_read_but_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), v5: bool) {
        let version = if v5 { Version::V5 } else { Version::V311 };
        let _ = read(version, &bytes);
        let _ = Connect::read(&bytes, 2);
        // With a length that fits, so that the noise gets past the framing.
        let mut framed = vec![bytes.first().copied().unwrap_or(0x30), bytes.len().min(127) as u8];
        framed.extend(&bytes[..bytes.len().min(127)]);
        let _ = read(version, &framed);
        framed[0] = 0x10;
        let _ = Connect::read(&framed, 2);
    }

    #[test]
    fn a_good_packet_with_one_byte_changed_never_panics(at in any::<prop::sample::Index>(), byte: u8, user in pairs()) {
        let mut publish = five::Publish::new("a/b", five_types::QoS::AtLeastOnce, "payload", Some(five::PublishProperties {
            payload_format_indicator: Some(1), message_expiry_interval: Some(1), topic_alias: Some(1), response_topic: Some("r".into()),
            correlation_data: Some("c".into()), user_properties: user, subscription_identifiers: vec![], content_type: Some("t".into()),
        }));
        publish.pkid = 1;
        let mut bytes = written5(&five::Packet::Publish(publish));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(Packet::Publish(publish)) = read(Version::V5, &bytes) {
            super::super::forwardable(&publish.properties);
        }
    }
}

#[test]
fn what_the_standard_forbids_is_refused_with_its_reason() {
    let five = |bytes: &[u8]| read(Version::V5, bytes).map_err(|fault| fault.reason);
    let four = |bytes: &[u8]| read(Version::V311, bytes).map_err(|fault| fault.reason);
    let (malformed, protocol) = (Err(Reason::MALFORMED), Err(Reason::PROTOCOL_ERROR));
    // PUBLISH
    assert_eq!(four(b"\x36\x05\x00\x01a\x00\x01"), malformed, "QoS 3");
    assert_eq!(four(b"\x38\x03\x00\x01a"), malformed, "DUP at QoS 0");
    assert_eq!(four(b"\x32\x05\x00\x01a\x00\x00"), protocol, "packet id 0");
    assert_eq!(four(b"\x30\x02\x00\x00"), protocol, "no topic");
    assert_eq!(four(b"\x30\x03\x00\x01+"), Err(Reason::TOPIC_INVALID), "a wildcard");
    assert_eq!(four(b"\x30\x03\x00\x01\x00"), malformed, "U+0000");
    assert_eq!(four(b"\x30\x03\x00\x01\xff"), malformed, "not UTF-8");
    assert_eq!(four(b"\x30\x03\x00\x09a"), malformed, "a topic longer than its packet");
    assert_eq!(four(b"\x30\x00"), malformed, "nothing at all");
    assert_eq!(five(b"\x30\x07\x00\x01a\x03\x23\x00\x00"), Err(Reason::TOPIC_ALIAS_INVALID), "alias 0");
    assert_eq!(five(b"\x30\x0a\x00\x01a\x06\x23\x00\x01\x23\x00\x01"), protocol, "an alias twice");
    assert_eq!(five(b"\x30\x06\x00\x01a\x02\x0b\x01"), protocol, "a subscription identifier from a client");
    assert_eq!(five(b"\x30\x06\x00\x01a\x02\x01\x02"), protocol, "a payload format of 2");
    assert_eq!(five(b"\x30\x05\x00\x01a\x01\x7f"), malformed, "no such property");
    assert_eq!(five(b"\x30\x05\x00\x01a\x09\x01"), malformed, "properties longer than the packet");
    // What only a server sends, and what nobody does
    for first in [0x20, 0x90, 0xb0, 0xd0] {
        assert_eq!(five(&[first, 3, 0, 1, 0]), protocol, "{first:x}");
        assert_eq!(four(&[first, 3, 0, 1, 0]), protocol, "{first:x}");
    }
    assert_eq!(four(b"\x00\x00"), malformed);
    assert_eq!(four(b"\xf0\x00"), malformed);
    assert_eq!(five(b"\xf0\x00"), protocol, "AUTH");
    assert_eq!(five(b"\x10\x00"), protocol, "a second CONNECT");
    // The rest
    assert_eq!(four(b"\xc1\x00"), malformed, "reserved bits");
    assert_eq!(four(b"\x80\x06\x00\x01\x00\x01a\x00"), malformed, "SUBSCRIBE without its bit");
    assert_eq!(four(b"\x82\x02\x00\x01"), protocol, "SUBSCRIBE to nothing");
    assert_eq!(four(b"\x82\x06\x00\x01\x00\x01a\x03"), protocol, "SUBSCRIBE at QoS 3");
    assert_eq!(four(b"\x82\x06\x00\x01\x00\x01a\x04"), protocol, "No Local in 3.1.1");
    assert_eq!(five(b"\x82\x07\x00\x01\x00\x00\x01a\x30"), protocol, "retain handling 3");
    assert_eq!(five(b"\x82\x08\x00\x01\x02\x0b\x00\x00\x01a\x00"), protocol, "subscription identifier 0");
    assert_eq!(four(b"\x40\x03\x00\x01\x00"), malformed, "bytes left over");
    assert_eq!(four(b"\x40\x01\x00"), malformed, "half a packet id");
    // And what it allows
    assert_eq!(five(b"\xe0\x00"), Ok(Packet::Disconnect(Disconnect { reason: Reason::SUCCESS, session_expiry: None })));
    assert_eq!(five(b"\x40\x02\x00\x01"), Ok(Packet::PubAck(Ack { id: 1, reason: Reason::SUCCESS })));
    assert_eq!(five(b"\x40\x03\x00\x01\x10"), Ok(Packet::PubAck(Ack { id: 1, reason: Reason(0x10) })));
    assert_eq!(five(b"\xc0\x00"), Ok(Packet::PingReq));
}

#[test]
fn a_connect_that_cannot_be_served_says_in_which_dialect_to_refuse_it() {
    let refused = |bytes: &[u8]| connect(bytes).map_err(|fault| (fault.version, fault.fault.reason)).unwrap_err();
    assert_eq!(
        refused(b"\x10\x0c\x00\x04MQTT\x06\x02\x00\x00\x00\x00"),
        (Some(Version::V5), Reason::UNSUPPORTED_VERSION)
    );
    assert_eq!(
        refused(b"\x10\x0c\x00\x04MQTT\x02\x02\x00\x00\x00\x00"),
        (Some(Version::V311), Reason::UNSUPPORTED_VERSION)
    );
    assert_eq!(refused(b"\x10\x0c\x00\x04MOTT\x04\x02\x00\x00\x00\x00"), (None, Reason::PROTOCOL_ERROR));
    assert_eq!(refused(b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x00\x00\x00"), (Some(Version::V311), Reason::MALFORMED));
    assert_eq!(refused(b"\x10\x0c\x00\x04MQTT\x04\x42\x00\x00\x00\x00"), (Some(Version::V311), Reason::MALFORMED));
    assert_eq!(refused(b"\x10\x0c\x00\x04MQTT\x04\x22\x00\x00\x00\x00"), (Some(Version::V311), Reason::MALFORMED));
    assert_eq!(
        refused(b"\x10\x10\x00\x04MQTT\x05\x02\x00\x00\x03\x21\x00\x00\x00\x00"),
        (Some(Version::V5), Reason::PROTOCOL_ERROR)
    );
    let old = connect(b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x00\x00\x01a").unwrap();
    assert_eq!((old.version, old.client.as_str()), (Version::V311, "a"));
}

/// What must hold for any bytes, shared with the fuzz target.
#[path = "../../../fuzz/exercise.rs"]
mod exercise;

/// The inputs kept for the fuzz target: one or more of each packet, and what was found since.
fn corpus() -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn the_fuzzers_corpus_is_read_without_a_fault_of_ours() {
    let corpus = corpus();
    assert!(corpus.len() >= 15);
    corpus.iter().for_each(|input| exercise::exercise(input));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn packets_that_were_tampered_with_are_read_without_a_fault_of_ours(
        input in prop::sample::select(corpus()),
        other in prop::sample::select(corpus()),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = input;
        for (at, byte, how) in edits {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte & 7),
                2 => bytes.insert(at, byte),
                _ => {
                    // The tail of another packet in the place of its own.
                    bytes.truncate(at.max(1));
                    bytes.extend_from_slice(&other[cut.index(other.len())..]);
                }
            }
        }
        exercise::exercise(&bytes);
    }
}
