//! Connecting, leaving, coming back: sessions, take-overs, wills, keep-alive.

use super::*;

#[test]
fn a_client_without_a_name_gets_one_where_it_may_have_one() {
    let bench = bench();
    let mut three = bench.dial();
    three.send(&connect("", true, 0));
    assert_eq!(three.packet(), [0x20, 2, 0, 0]);
    let mut three = bench.dial();
    three.send(&connect("", false, 0));
    assert_eq!(three.closed(), [[0x20, 2, 0, 2]], "identifier rejected");
    let (_five, connack) = bench.client5_with("", false, &[]);
    let five::Packet::ConnAck(ack) = five::Packet::read(&mut BytesMut::from(&connack[..]), None).unwrap() else {
        panic!()
    };
    assert!(ack.properties.unwrap().assigned_client_identifier.is_some_and(|name| name.len() > 10));
}

#[test]
fn mqtt_5_clients_are_told_the_gates_bounds() {
    let bench = bench_with(|options| {
        (options.receive_maximum, options.max_packet, options.max_keep_alive) = (77, 1_000, Some(9));
    });
    let (_client, connack) = bench.client5_with("c", true, &[]);
    let five::Packet::ConnAck(ack) = five::Packet::read(&mut BytesMut::from(&connack[..]), None).unwrap() else {
        panic!()
    };
    let told = ack.properties.unwrap();
    assert_eq!((told.receive_max, told.max_packet_size, told.server_keep_alive), (Some(77), Some(1_000), Some(9)));
}

#[test]
fn a_second_connection_takes_the_client_id_over_and_the_first_is_told() {
    let bench = bench();
    let mut first = bench.client5("car");
    let mut three = bench.client("car");
    assert_eq!(first.disconnected(), 0x8e);
    let mut second = bench.client5("car");
    assert!(three.closed().is_empty());
    second.publish("t", "x", 1, 1, 0);
    assert_eq!(second.packet(), [0x40, 2, 0, 1]);
    until("one is left", || bench.gate.clients() == 1);
}

#[test]
fn a_client_id_with_wildcards_and_slashes_may_come_again_and_again() {
    let bench = bench();
    for id in ["bad+id", "#", "a/b", "$x", "温度", "bad+id", "bad+id"] {
        let mut client = bench.client(id);
        client.subscribe("t", 1);
        client.publish("t", id, 1, 1, 0);
        client.packet();
    }
    assert_eq!(bench.intake.taken(), 7);
}

#[test]
fn a_persistent_session_keeps_subscriptions_and_messages_for_its_client() {
    let bench = bench();
    for v5 in [false, true] {
        let come = |bench: &Bench, clean: bool| {
            let mut client = bench.dial();
            client.v5 = v5;
            client.send(&if v5 {
                connect5("keeper", clean, 0, &SESSION_FOR_EVER)
            } else {
                connect("keeper", clean, 0)
            });
            let present = client.packet()[2];
            (client, present)
        };
        let (mut client, present) = come(&bench, false);
        assert_eq!(present, 0);
        client.subscribe("t", 1);
        client.vanish();
        until("it is away", || bench.gate.clients() == 0);
        let mut publisher = bench.client("publisher");
        publisher.publish("t", "dropped", 0, 0, 0);
        publisher.publish("t", "first", 1, 1, 0);
        publisher.publish("t", "second", 2, 2, 0);
        publisher.packet();
        publisher.packet();
        let (mut client, present) = come(&bench, false);
        assert_eq!(present, 1);
        assert_eq!(client.heard().1, "first");
        assert_eq!(client.heard().1, "second");
        client.vanish();
        // Not acknowledged: sent again, marked.
        let (mut client, _) = come(&bench, false);
        let (_, payload, first, id) = client.message();
        assert_eq!((payload.as_str(), first), ("first", 0x3a));
        client.send(&[0x40, 2, 0, id as u8]);
        let (_, payload, _, id) = client.message();
        assert_eq!(payload, "second");
        client.send(&[0x40, 2, 0, id as u8]);
        // A clean session ends it.
        let (mut client, present) = come(&bench, true);
        assert_eq!(present, 0);
        bench.gate.publish("t", "x", false).unwrap();
        assert!(client.is_quiet());
        client.send(&if v5 { vec![0xe0, 7, 0, 5, 17, 0, 0, 0, 0] } else { vec![0xe0, 0] });
        client.closed();
    }
}

#[test]
fn an_mqtt_5_session_ends_when_its_time_is_over() {
    let bench = bench();
    let (client, _) = bench.client5_with("short", true, &[17, 0, 0, 0, 1]);
    client.vanish();
    until("it is away", || bench.gate.clients() == 0);
    let (client, connack) = bench.client5_with("short", false, &[17, 0, 0, 0, 1]);
    assert_eq!(connack[2], 1, "within a second it is there");
    client.vanish();
    until("its time is over", || bench.gate.sessions() == 0);
    let (mut client, connack) = bench.client5_with("short", false, &[]);
    assert_eq!(connack[2], 0);
    client.send(&[0xe0, 7, 0, 5, 17, 0, 0, 0, 9]);
    assert_eq!(client.disconnected(), 0x82, "what ends with the connection cannot be prolonged at its end");
}

#[test]
fn of_sessions_beyond_the_bound_the_one_away_longest_is_forgotten() {
    let bench = bench_with(|options| (options.max_sessions, options.max_connections) = (3, 3));
    for n in 0..6 {
        let (client, _) = bench.client5_with(&format!("c{n}"), true, &SESSION_FOR_EVER);
        client.vanish();
        until("it is away", || bench.gate.clients() == 0);
        until("there are no more than three", || bench.gate.sessions() <= 3);
    }
    let present = |n: usize| bench.client5_with(&format!("c{n}"), false, &SESSION_FOR_EVER).1[2];
    assert_eq!(present(5), 1);
    assert_eq!(present(0), 0);
}

#[test]
fn a_message_of_qos_2_is_taken_once_however_often_it_is_sent() {
    let bench = bench();
    bench.intake.desk.lock().hold = true;
    let come = |clean| {
        let mut client = bench.dial();
        client.send(&connect("exact", clean, 0));
        client.packet();
        client
    };
    let mut client = come(false);
    client.publish("t", "one", 2, 7, 0);
    until("it is taken", || bench.intake.taken() == 1);
    // The connection breaks before it is kept; the client comes back and sends it again.
    client.vanish();
    let mut client = come(false);
    client.publish("t", "one", 2, 7, 8);
    assert!(client.is_quiet());
    bench.intake.receipt(0).kept();
    assert_eq!(client.packet(), [0x50, 2, 0, 7]);
    client.publish("t", "one", 2, 7, 8);
    assert_eq!(client.packet(), [0x50, 2, 0, 7], "again, although nothing is taken");
    client.vanish();
    let mut client = come(false);
    client.send(&[0x62, 2, 0, 7]);
    assert_eq!(client.packet(), [0x70, 2, 0, 7]);
    assert_eq!(bench.intake.payloads(), ["one"]);
    client.publish("t", "two", 2, 7, 0);
    until("the id is free again", || bench.intake.taken() == 2);
}

#[test]
fn a_will_is_published_when_a_connection_ends_without_a_word_and_not_after_a_goodbye() {
    let bench = bench();
    let mut witness = bench.client("witness");
    witness.subscribe("last/#", 1);
    let with_will = |id: &str, keep_alive| {
        let mut client = bench.dial();
        client.send(&connect_with_will(id, keep_alive, &format!("last/{id}"), "farewell", true));
        assert_eq!(client.packet(), [0x20, 2, 0, 0]);
        client
    };
    let mut polite = with_will("polite", 0);
    polite.send(&[0xe0, 0]);
    polite.closed();
    with_will("gone", 0).vanish();
    assert_eq!(witness.heard(), ("last/gone".into(), "farewell".into()));
    let mut rude = with_will("rude", 0);
    rude.send(&[0x36, 5, 0, 1, b'a', 0, 1]);
    assert_eq!(witness.heard().0, "last/rude");
    let silent = with_will("silent", 1);
    let start = Instant::now();
    assert_eq!(witness.heard().0, "last/silent");
    assert!(start.elapsed() >= Duration::from_millis(1_400), "one and a half times the keep-alive");
    drop(silent);
    let replaced = with_will("replaced", 0);
    let _new = bench.client("replaced");
    assert_eq!(witness.heard().0, "last/replaced");
    drop(replaced);
    assert_eq!(bench.intake.topics(), ["last/gone", "last/rude", "last/silent", "last/replaced"], "like any message");
    let mut late = bench.client("late");
    late.subscribe("last/gone", 0);
    assert_eq!(late.message().2, 0x31, "retained, as it asked");
}

/// An MQTT 5 CONNECT with a will on `last` that waits `delay` seconds; the session stays `expiry` seconds.
fn connect_with_delayed_will(id: &str, clean: bool, delay: u8, expiry: u8) -> Vec<u8> {
    let head = [&text("MQTT")[..], &[5, 4 | u8::from(clean) << 1, 0, 0, 5, 17, 0, 0, 0, expiry], &text(id)].concat();
    frame(0x10, &[&head[..], &[5, 24, 0, 0, 0, delay], &text("last"), &text(id)].concat())
}

#[test]
fn a_delayed_will_waits_for_its_time_or_the_sessions_end_and_is_dropped_if_the_client_returns() {
    let bench = bench();
    let mut witness = bench.client("witness");
    witness.subscribe("last", 0);
    let come = |id: &str, delay, expiry| {
        let mut client = bench.dial();
        client.v5 = true;
        client.send(&connect_with_delayed_will(id, false, delay, expiry));
        client.packet();
        client
    };
    let start = Instant::now();
    come("returns", 1, 200).vanish();
    come("waits", 1, 200).vanish();
    come("ends", 200, 1).vanish();
    until("all are away", || bench.gate.clients() == 1);
    let _back = come("returns", 0, 0);
    let mut heard = [witness.heard().1, witness.heard().1];
    heard.sort_unstable();
    assert_eq!(heard, ["ends", "waits"]);
    assert!(start.elapsed() >= Duration::from_secs(1));
    come("at once", 200, 0).vanish();
    assert_eq!(witness.heard().1, "at once", "the session ended with the connection");
    // DISCONNECT with will: published although it is a goodbye.
    let mut client = come("wanted", 0, 0);
    client.send(&[0xe0, 1, 4]);
    assert_eq!(witness.heard().1, "wanted");
}

#[test]
fn a_client_that_falls_silent_is_disconnected_and_one_that_pings_or_asked_for_none_is_not() {
    let bench = bench();
    let mut silent = bench.dial();
    silent.v5 = true;
    silent.send(&connect5("silent", true, 1, &[]));
    silent.packet();
    let mut eternal = bench.client("eternal");
    let mut pinging = bench.dial();
    pinging.send(&connect("pinging", true, 1));
    pinging.packet();
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(600));
        assert!(pinging.is_quiet());
    }
    assert_eq!(silent.disconnected(), 0x8d);
    assert!(eternal.is_quiet());
}

#[test]
fn the_gate_can_shorten_the_keep_alive_of_mqtt_5_clients_and_holds_them_to_it() {
    let bench = bench_with(|options| options.max_keep_alive = Some(1));
    let mut client = bench.client5("client");
    assert_eq!(client.disconnected(), 0x8d, "it had asked for none");
}
