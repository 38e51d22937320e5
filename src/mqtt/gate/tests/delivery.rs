//! What subscribers get.

use super::*;

#[test]
fn subscribers_of_either_version_get_what_publishers_of_either_send() {
    let bench = bench();
    let (mut three, mut five) = (bench.client("three"), bench.client5("five"));
    assert_eq!((three.subscribe("car/+/speed", 1), five.subscribe("car/#", 2)), (1, 2));
    let mut publisher = bench.client5("publisher");
    publisher.publish("car/1/speed", "88", 2, 1, 0);
    let (topic, payload, first, _) = three.message();
    assert_eq!((topic.as_str(), payload.as_str(), first), ("car/1/speed", "88", 0x32), "at the lesser QoS");
    let (topic, payload, first, _) = five.message();
    assert_eq!((topic.as_str(), payload.as_str(), first), ("car/1/speed", "88", 0x34));
    let mut publisher = bench.client("publisher3");
    publisher.publish("car", "on", 0, 0, 0);
    assert_eq!(five.heard(), ("car".into(), "on".into()), "`#` matches the parent level");
    publisher.publish("truck", "on", 0, 0, 0);
    until("it is taken", || bench.intake.taken() == 3);
    assert!(three.is_quiet() && five.is_quiet());
}

#[test]
fn topics_with_any_first_character_reach_subscribers() {
    let bench = bench();
    let mut subscriber = bench.client("subscriber");
    for filter in ["温度/+", "/+", "$mine/#", "é"] {
        subscriber.subscribe(filter, 0);
    }
    let mut publisher = bench.client("publisher");
    for topic in ["温度/1", "/x", "$mine/1", "é"] {
        publisher.publish(topic, "here", 0, 0, 0);
        assert_eq!(subscriber.heard(), (topic.into(), "here".into()));
    }
    assert_eq!(bench.intake.topics(), ["温度/1", "/x", "é"], "a server's topics are nobody's readings");
}

#[test]
fn wildcards_do_not_match_a_servers_topics() {
    let bench = bench();
    let mut subscriber = bench.client("subscriber");
    subscriber.subscribe("#", 0);
    subscriber.subscribe("+/x", 0);
    bench.client("publisher").publish("$SYS/x", "hidden", 0, 0, 0);
    bench.gate.publish("seen", "x", false).unwrap();
    assert_eq!(subscriber.heard().0, "seen");
}

#[test]
fn properties_are_passed_on_to_mqtt_5_and_left_out_for_3_1_1() {
    let bench = bench();
    let (mut three, mut five) = (bench.client("three"), bench.client5("five"));
    three.subscribe("t", 0);
    five.subscribe("t", 0);
    let mut publisher = bench.client5("publisher");
    // Topic alias 1, expiry 100 s, content type, a user property.
    let properties = [&b"\x23\x00\x01\x02\x00\x00\x00\x64\x03\x00\x04text\x26"[..], &text("a"), &text("b")].concat();
    let body = [&text("t")[..], &[properties.len() as u8], &properties, b"hello"].concat();
    publisher.send(&frame(0x30, &body));
    assert_eq!(three.packet(), frame(0x30, &[&text("t")[..], b"hello"].concat()));
    let packet = five.packet();
    let five::Packet::Publish(publish) = five::Packet::read(&mut BytesMut::from(&packet[..]), None).unwrap() else {
        panic!()
    };
    let properties = publish.properties.unwrap();
    assert_eq!(properties.content_type.as_deref(), Some("text"));
    assert_eq!(properties.user_properties, [("a".to_owned(), "b".to_owned())]);
    assert_eq!(properties.topic_alias, None);
    assert!(matches!(properties.message_expiry_interval, Some(98..=100)), "{properties:?}");
    // The alias stands for the topic from now on.
    publisher.send(&frame(0x30, &[&text("")[..], b"\x03\x23\x00\x01again"].concat()));
    assert_eq!(three.heard(), ("t".into(), "again".into()));
    until("both are taken", || bench.intake.topics() == ["t", "t"]);
}

#[test]
fn a_client_that_takes_aliases_is_told_a_topic_once() {
    let bench = bench();
    let (mut subscriber, _) = bench.client5_with("subscriber", true, &[34, 0, 1]);
    subscriber.subscribe("#", 0);
    for topic in ["first", "first", "second"] {
        bench.gate.publish(topic, "x", false).unwrap();
    }
    assert_eq!(subscriber.packet(), frame(0x30, &[&text("first")[..], &[3, 35, 0, 1], b"x"].concat()));
    assert_eq!(subscriber.packet(), frame(0x30, &[&text("")[..], &[3, 35, 0, 1], b"x"].concat()));
    assert_eq!(subscriber.packet(), frame(0x30, &[&text("second")[..], &[0], b"x"].concat()));
}

#[test]
fn overlapping_filters_bring_one_message_with_all_identifiers_and_the_best_qos() {
    let bench = bench();
    let mut client = bench.client5("client");
    for (filter, identifier, qos) in [("a/#", 5, 0), ("a/b", 6, 2), ("+/b", 7, 1)] {
        client.send(&frame(0x82, &[&[0, 1, 2, 11, identifier][..], &text(filter), &[qos]].concat()));
        client.packet();
    }
    bench.client("publisher").publish("a/b", "x", 2, 1, 0);
    // Read by hand: rumqttc loses every second identifier.
    let packet = client.packet();
    let mut identifiers: Vec<u8> = packet[10..16].chunks(2).map(|property| property[1]).collect();
    identifiers.sort_unstable();
    assert_eq!((packet[0], packet[9], packet.len()), (0x34, 6, 17), "{packet:x?}");
    assert_eq!(identifiers, [5, 6, 7]);
    assert!(client.is_quiet());
}

#[test]
fn a_retained_message_reaches_later_subscribers_until_it_is_deleted_by_an_empty_one() {
    let bench = bench();
    let mut publisher = bench.client("publisher");
    publisher.publish("car/1", "old", 1, 1, 1);
    publisher.publish("car/1", "new", 1, 2, 1);
    publisher.publish("car/2", "two", 1, 3, 1);
    publisher.publish("car/2", "", 1, 4, 0);
    for _ in 0..4 {
        publisher.packet();
    }
    let mut subscriber = bench.client("subscriber");
    subscriber.subscribe("car/1", 0);
    let (_, payload, first, _) = subscriber.message();
    assert_eq!((payload.as_str(), first & 1), ("new", 1), "marked as retained");
    publisher.publish("car/1", "live", 1, 5, 1);
    let (_, payload, first, _) = subscriber.message();
    assert_eq!((payload.as_str(), first & 1), ("live", 0), "not to those who were there");
    let mut another = bench.client("another");
    another.subscribe("car/2", 0);
    assert_eq!(another.heard().1, "two", "an empty message deletes only if it is itself retained");
    publisher.publish("car/2", "", 1, 6, 1);
    until("all are taken", || bench.intake.taken() == 6);
    let mut late = bench.client("late");
    late.subscribe("car/2", 0);
    assert!(late.is_quiet());
}

#[test]
fn retain_handling_no_local_and_retain_as_published_are_honoured() {
    let bench = bench();
    let mut client = bench.client5("client");
    bench.gate.publish("t", "kept", true).unwrap();
    client.subscribe("t", 2 << 4);
    assert!(client.is_quiet(), "never");
    client.subscribe("t", 1 << 4);
    assert!(client.is_quiet(), "not a new subscription");
    client.subscribe("t", 0);
    assert_eq!(client.heard().1, "kept", "on every subscription");
    client.subscribe("t", 1 << 2 | 1 << 3 | 2 << 4);
    client.publish("t", "own", 0, 0, 0);
    assert!(client.is_quiet(), "not its own");
    bench.gate.publish("t", "others", true).unwrap();
    assert_eq!(client.message().2, 0x31, "the publisher's retain flag");
}

#[test]
fn each_message_reaches_one_member_of_a_shared_subscription() {
    let bench = bench();
    let mut members = [bench.client5("one"), bench.client5("two"), bench.client("three")];
    for member in &mut members {
        member.subscribe("$share/crew/car/+", 0);
    }
    let mut alone = bench.client("alone");
    alone.subscribe("car/#", 0);
    for n in 0..9 {
        bench.gate.publish(&format!("car/{n}"), format!("{n}"), false).unwrap();
    }
    let mut heard: Vec<String> = members.iter_mut().flat_map(|member| [0; 3].map(|_| member.heard().1)).collect();
    heard.sort_unstable();
    assert_eq!(heard, ["0", "1", "2", "3", "4", "5", "6", "7", "8"]);
    assert!((0..9).all(|n| alone.heard().1 == n.to_string()), "beside all of them");
    // Whoever leaves is passed over.
    let [mut one, two, three] = members;
    two.vanish();
    three.vanish();
    until("two are gone", || bench.gate.clients() == 2);
    for n in 0..3 {
        bench.gate.publish("car/x", format!("{n}"), false).unwrap();
        assert_eq!(one.heard().1, n.to_string());
    }
}

#[test]
fn an_unsubscribed_filter_brings_nothing_more_and_every_unsubscribe_is_answered() {
    let bench = bench();
    let mut client = bench.client5("client");
    client.subscribe("a", 0);
    client.send(&frame(0xa2, &[&[0, 9, 0][..], &text("a"), &text("never"), &text("#/bad")].concat()));
    assert_eq!(client.packet(), [0xb0, 6, 0, 9, 0, 0x00, 0x11, 0x8f]);
    bench.gate.publish("a", "x", false).unwrap();
    assert!(client.is_quiet());
    let mut three = bench.client("three");
    three.send(&frame(0xa2, &[&[0, 9][..], &text("never")].concat()));
    assert_eq!(three.packet(), [0xb0, 2, 0, 9]);
}

#[test]
fn an_illegal_filter_is_refused_and_the_others_of_its_packet_are_not() {
    let bench = bench();
    let mut five = bench.client5("five");
    let filters = [&text("a/#/b")[..], &[0], &text("ok"), &[1], &text("$share/g"), &[0]].concat();
    five.send(&frame(0x82, &[&[0, 9, 0][..], &filters].concat()));
    assert_eq!(five.packet(), [0x90, 6, 0, 9, 0, 0x8f, 1, 0x8f]);
    let mut three = bench.client("three");
    three.send(&frame(0x82, &[&[0, 9][..], &filters].concat()));
    assert_eq!(three.packet(), [0x90, 5, 0, 9, 0x80, 1, 0x80]);
}

#[test]
fn a_message_that_is_too_large_for_a_subscriber_is_left_out_for_it() {
    let bench = bench();
    let (mut small, _) = bench.client5_with("small", true, &[39, 0, 0, 0, 30]);
    small.subscribe("t", 0);
    bench.gate.publish("t", "x".repeat(100), false).unwrap();
    bench.gate.publish("t", "fits", false).unwrap();
    assert_eq!(small.heard().1, "fits");
}

#[test]
fn no_more_messages_are_out_than_the_subscriber_takes() {
    let bench = bench();
    let (mut client, _) = bench.client5_with("client", true, &[33, 0, 2]);
    client.subscribe("t", 1);
    for n in 0..3 {
        bench.gate.publish("t", format!("{n}"), false).unwrap();
    }
    let first = client.message().3;
    let second = client.message().3;
    assert!(client.is_quiet(), "a third has to wait");
    client.send(&[0x40, 2, 0, second as u8]);
    assert_eq!(client.heard().1, "2", "acknowledged in another order");
    client.send(&[0x40, 2, 0, first as u8]);
}

#[test]
fn a_subscriber_that_does_not_read_holds_nobody_up_and_its_queue_is_bounded() {
    let bench = bench_with(|options| options.max_queued = 100);
    let mut slow = bench.client("slow");
    slow.subscribe("#", 0);
    let mut publisher = bench.client("publisher");
    let payload = "x".repeat(10_000);
    // Far more than its socket and its queue hold, while it reads nothing.
    for id in 1..=4_000 {
        publisher.publish("t", &payload, 1, id, 0);
        assert_eq!(publisher.packet()[0], 0x40);
    }
    let counts = bench.gate.counts();
    assert!(counts.undelivered > 0 && counts.undelivered + counts.forwarded == 4_000, "{counts:?}");
    assert_eq!(slow.heard().1, payload, "it still gets what was queued");
}

#[test]
fn messages_come_in_the_order_they_were_published() {
    let bench = bench();
    let mut subscriber = bench.client("subscriber");
    subscriber.subscribe("t", 1);
    let mut publisher = bench.client("publisher");
    let sender = std::thread::spawn(move || {
        for id in 1..=2_000u16 {
            publisher.publish("t", &id.to_string(), 1, id, 0);
        }
        for _ in 1..=2_000 {
            publisher.packet();
        }
    });
    for n in 1..=2_000 {
        let (_, payload, _, id) = subscriber.message();
        assert_eq!(payload, n.to_string());
        subscriber.send(&[0x40, 2, (id >> 8) as u8, id as u8]);
    }
    sender.join().unwrap();
}

#[test]
fn what_was_queued_in_one_burst_is_delivered_without_a_further_push() {
    let bench = bench();
    let mut slow = bench.client("slow");
    slow.subscribe("t", 0);
    let payload = "x".repeat(20_000);
    for n in 0..500 {
        bench.gate.publish("t", format!("{n} {payload}"), false).unwrap();
    }
    for n in 0..500 {
        assert!(slow.heard().1.starts_with(&format!("{n} ")));
    }
}
