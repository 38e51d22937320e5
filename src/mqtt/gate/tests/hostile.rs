//! What a client may try: its own connection ends, everybody else is served.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// That others are served: one that was there before, and one that comes now.
struct Witness(Raw);

impl Witness {
    fn new(bench: &Bench) -> Self {
        let mut subscriber = bench.client5("witness");
        subscriber.subscribe("witness/#", 1);
        subscriber.subscribe("#", 0);
        Witness(subscriber)
    }

    fn is_served(&mut self, bench: &Bench) {
        let mut publisher = bench.client("passer-by");
        publisher.publish("witness/1", "still here", 1, 1, 0);
        assert_eq!(publisher.packet(), [0x40, 2, 0, 1]);
        while self.0.heard().1 != "still here" {}
        publisher.send(&[0xe0, 0]);
        publisher.closed();
        assert_eq!(bench.gate.counts().restarts, 0);
    }
}

#[test]
fn what_brings_rumqttds_router_down_does_nothing_here() {
    let bench = bench();
    let mut witness = Witness::new(&bench);
    // A topic that begins with a non-ASCII character, while somebody is subscribed.
    bench.client("non-ascii").publish("温度/1", "x", 0, 0, 0);
    witness.is_served(&bench);
    // A client id with wildcards, twice.
    for _ in 0..2 {
        bench.client("bad+id").publish("t", "x", 0, 0, 0);
    }
    witness.is_served(&bench);
    // Properties on their way to a 3.1.1 subscriber.
    let mut three = bench.client("three");
    three.subscribe("props", 0);
    bench.client5("five").send(&frame(0x30, &[&text("props")[..], &[2, 1, 1], b"x"].concat()));
    assert_eq!(three.heard().1, "x");
    witness.is_served(&bench);
    // What only a server may send.
    for packet in [&[0x20, 3, 0, 0, 0][..], &[0xb0, 3, 0, 1, 0], &[0x90, 4, 0, 1, 0, 0], &[0xd0, 0]] {
        let mut five = bench.client5("server-like");
        five.send(packet);
        assert_eq!(five.disconnected(), 0x82);
        let mut three = bench.client("server-like");
        three.send(&packet[..2 + usize::from(packet[1])]);
        assert!(three.closed().is_empty());
    }
    witness.is_served(&bench);
    // The last member of a shared group leaves with a persistent session and unacknowledged messages; one client with a
    // plain and a shared subscription to one filter; two groups of one name on two filters.
    let (mut member, _) = bench.client5_with("member", true, &SESSION_FOR_EVER);
    for filter in ["$share/g/s", "$share/g/other", "s"] {
        member.subscribe(filter, 1);
    }
    bench.gate.publish("s", "unacknowledged", false).unwrap();
    member.heard();
    member.vanish();
    witness.is_served(&bench);
    let (mut member, connack) = bench.client5_with("member", false, &[]);
    assert_eq!((connack[2], member.heard().1.as_str()), (1, "unacknowledged"));
    // Acknowledgements out of order and of nothing.
    member.send(&[0x40, 2, 0x7f, 1, 0x70, 2, 0x7f, 2, 0x50, 2, 0x7f, 3]);
    assert_eq!(member.packet(), [0x62, 4, 0x7f, 3, 0x92, 0]);
    witness.is_served(&bench);
}

#[test]
fn beyond_the_connections_allowed_clients_are_told_so_and_served_once_there_is_room() {
    let bench = bench_with(|options| options.max_connections = 2);
    let mut one = bench.client("one");
    let two = bench.client5("two");
    for _ in 0..5 {
        let mut three = bench.dial();
        three.send(&connect("three", true, 0));
        assert_eq!(three.closed(), [[0x20, 2, 0, 3]], "server unavailable");
        let mut five = bench.dial();
        five.send(&connect5("five", true, 0, &[]));
        assert_eq!(five.packet()[..4], [0x20, 3, 0, 0x97], "quota exceeded");
    }
    // Whoever takes over its own connection needs no further place.
    let mut again = bench.client("one");
    assert!(one.closed().is_empty());
    again.publish("t", "x", 1, 1, 0);
    assert_eq!(again.packet(), [0x40, 2, 0, 1]);
    two.vanish();
    until("a place is free", || bench.gate.inner.sockets.load(Ordering::Relaxed) < 2);
    bench.client("three");
    assert_eq!(bench.gate.counts().refused, 10);
}

#[test]
fn a_packet_larger_than_allowed_ends_its_connection_before_it_is_read() {
    let bench = bench_with(|options| options.max_packet = 1_000);
    let mut five = bench.client5("five");
    five.send(&[0x30, 0xff, 0xff, 0xff, 0x7f]);
    assert_eq!(five.disconnected(), 0x95);
    let mut three = bench.client("three");
    three.send(&frame(0x30, &[&text("t")[..], &[b'x'; 1_000]].concat()));
    assert!(three.closed().is_empty());
    let mut fits = bench.client("fits");
    fits.send(&frame(0x30, &[&text("t")[..], &[b'x'; 990]].concat()));
    until("one that fits is taken", || bench.intake.taken() == 1);
}

#[test]
fn large_packets_are_taken_a_few_at_a_time_and_one_that_never_ends_does_not_stop_the_others() {
    let bench = bench_with(|options| {
        (options.max_packet, options.large_packet_bytes) = (4 << 20, 8 << 20);
        options.stall = Duration::from_secs(1);
    });
    let mut stuck: Vec<Raw> = (0..2).map(|n| bench.client5(&format!("stuck{n}"))).collect();
    for client in &mut stuck {
        // Announces four megabytes and sends one.
        client.send(&[0x30, 0xf0, 0xff, 0xff, 0x01, 0, 1, b't', 0]);
        client.send(&vec![b'x'; 1 << 20]);
    }
    let senders: Vec<_> = (0..4)
        .map(|n| {
            let mut client = bench.client(&format!("large{n}"));
            std::thread::spawn(move || {
                client.publish("t", &"x".repeat(4_000_000), 1, 1, 0);
                assert_eq!(client.packet(), [0x40, 2, 0, 1]);
            })
        })
        .collect();
    for sender in senders {
        sender.join().unwrap();
    }
    for mut client in stuck {
        assert_eq!(client.disconnected(), 0x80);
    }
    assert_eq!(bench.intake.taken(), 4);
}

#[test]
fn whoever_does_not_connect_in_time_is_let_go() {
    let bench = bench_with(|options| options.handshake = Duration::from_millis(300));
    let mut silent = bench.dial();
    let mut slow = bench.dial();
    slow.send(&connect("slow", true, 0)[..8]);
    let mut other = bench.dial();
    other.send(b"GET / HTTP/1.1\r\n\r\n");
    for client in [&mut silent, &mut slow, &mut other] {
        assert!(client.closed().is_empty());
    }
    let mut publisher = bench.dial();
    publisher.publish("t", "x", 0, 0, 0);
    assert!(publisher.closed().is_empty(), "first comes CONNECT");
    assert_eq!((bench.intake.taken(), bench.gate.counts().refused), (0, 4));
    bench.client("served");
}

#[test]
fn versions_and_methods_the_gate_does_not_speak_are_refused_with_their_code() {
    let bench = bench();
    let refusal = |packet: &[u8]| {
        let mut client = bench.dial();
        client.send(packet);
        client.closed().concat()
    };
    assert_eq!(refusal(b"\x10\x0c\x00\x04MQTT\x03\x02\x00\x00\x00\x00"), [0x20, 2, 0, 1]);
    assert_eq!(refusal(b"\x10\x0c\x00\x04MQTT\x07\x02\x00\x00\x00\x00"), [0x20, 3, 0, 0x84, 0]);
    assert_eq!(refusal(&connect5("a", true, 0, &[21, 0, 1, b'x'])), [0x20, 3, 0, 0x8c, 0]);
    assert_eq!(refusal(&connect(&"x".repeat(2_000), true, 0)), [0x20, 2, 0, 2]);
    assert!(refusal(b"\x10\x0c\x00\x04HTTP\x04\x02\x00\x00\x00\x00").is_empty());
}

#[test]
fn more_messages_than_receive_maximum_end_an_mqtt_5_connection() {
    let bench = bench_with(|options| options.receive_maximum = 3);
    let mut client = bench.client5("five");
    for id in 1..=4 {
        client.publish("t", "x", 2, id, 0);
    }
    assert_eq!(client.disconnected(), 0x93, "none was released");
}

#[test]
fn a_topic_alias_of_nothing_or_beyond_the_bound_ends_the_connection() {
    let bench = bench_with(|options| options.alias_maximum = 2);
    for (alias, reason) in [(1u8, 0x82), (3, 0x94), (0, 0x94)] {
        let mut client = bench.client5("five");
        client.send(&[0x30, 6, 0, 0, 3, 35, 0, alias]);
        assert_eq!(client.disconnected(), reason, "alias {alias}");
    }
}

#[test]
fn subscriptions_are_bounded_in_number_depth_and_length() {
    let bench = bench_with(|options| options.max_subscriptions = 5);
    let mut client = bench.client5("greedy");
    for n in 0..5 {
        assert_eq!(client.subscribe(&format!("t/{n}"), 0), 0);
    }
    assert_eq!(client.subscribe("t/5", 0), 0x97);
    assert_eq!(client.subscribe("t/1", 1), 1, "one it has may be changed");
    assert_eq!(client.subscribe(&"/".repeat(60_000), 0), 0x8f);
    assert_eq!(client.subscribe(&"x".repeat(60_000), 0), 0x97);
    // A topic may be as deep and long as the standard allows.
    client.publish(&"/".repeat(65_000), "x", 1, 1, 0);
    assert_eq!(client.packet(), [0x40, 2, 0, 1]);
}

#[test]
fn retained_messages_are_bounded() {
    let bench = bench_with(|options| (options.max_retained, options.max_retained_bytes) = (2, 1_000));
    for topic in ["a", "b", "c"] {
        bench.gate.publish(topic, "x", true).unwrap();
    }
    bench.gate.publish("a", "y".repeat(2_000), true).unwrap();
    let mut client = bench.client("client");
    client.subscribe("#", 0);
    assert_eq!(client.heard().0, "b");
    assert!(client.is_quiet());
    assert_eq!(bench.gate.counts().undelivered, 2);
}

/// An intake with a bug: some topics make it panic.
struct Buggy(TestIntake);

impl Intake for Buggy {
    fn offer(&self, message: Message, receipt: Receipt) -> Result<(), (Message, Receipt)> {
        assert!(message.topic != "bug", "the bug");
        self.0.offer(message, receipt)
    }

    fn room(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.0.room()
    }
}

#[test]
fn a_bug_ends_the_connection_that_meets_it_and_leaves_nothing_behind() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let intake = TestIntake::default();
    let options = GateOptions::listening_on("127.0.0.1:0").unwrap();
    let gate = Gate::start(options, Arc::new(Buggy(intake.clone())), runtime.handle()).unwrap();
    let bench = Bench { gate, intake, runtime };
    let mut witness = Witness::new(&bench);
    let mut client = bench.dial();
    client.send(&connect_with_will("unlucky", 0, "bug", "x", false));
    client.packet();
    client.publish("bug", "x", 1, 1, 0);
    assert!(client.closed().is_empty());
    until("its place is free", || bench.gate.clients() == 1);
    witness.is_served(&bench);
}

#[test]
fn random_bytes_end_their_connection_and_no_others() {
    let bench = bench();
    let mut witness = Witness::new(&bench);
    let packets = prop::collection::vec(
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(first, body)| frame(first, &body)),
        0..6,
    );
    let noise = prop::collection::vec(any::<u8>(), 0..300);
    let attack = (0u8..3, prop_oneof![packets.prop_map(|packets| packets.concat()), noise]);
    let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&attack, |(greeting, bytes)| {
            let mut client = match greeting {
                0 => bench.dial(),
                1 => bench.client("noisy"),
                _ => bench.client5("noisy"),
            };
            // The gate may close while this is written; then the rest is not.
            let _ = client.socket.write_all(&bytes);
            let _ = client.socket.shutdown(Shutdown::Write);
            client.closed();
            Ok(())
        })
        .unwrap();
    witness.is_served(&bench);
    until("none is left behind", || bench.gate.clients() == 1);
}

#[test]
fn a_packet_that_trickles_in_byte_by_byte_is_taken() {
    let bench = bench();
    let mut client = bench.dial();
    for byte in connect("slow", true, 0) {
        client.send(&[byte]);
    }
    assert_eq!(client.packet(), [0x20, 2, 0, 0]);
    for byte in frame(0x32, &[&text("t")[..], &[0, 1], b"x"].concat()) {
        client.send(&[byte]);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(client.packet(), [0x40, 2, 0, 1]);
}

#[test]
fn packets_sent_right_behind_connect_are_taken() {
    let bench = bench();
    let mut client = bench.dial();
    let publish = frame(0x32, &[&text("t")[..], &[0, 1], b"x"].concat());
    client.send(&[connect("eager", true, 0), publish, vec![0xc0, 0]].concat());
    assert_eq!(client.packet(), [0x20, 2, 0, 0]);
    let mut answers = [client.packet(), client.packet()];
    answers.sort();
    assert_eq!(answers, [vec![0x40, 2, 0, 1], vec![0xd0, 0]]);
}

#[test]
fn a_hundred_thousand_topics_leave_nothing_behind() {
    let bench = bench();
    let mut client = bench.client("many");
    for n in 0..100_000u32 {
        client.publish(&format!("topic/{n}/{:x}", n.wrapping_mul(2_654_435_761)), "x", 0, 0, 0);
        // Retained ones too, beyond what is retained in all.
        if n % 5 == 0 {
            client.publish(&format!("kept/{n}"), "x", 0, 0, 1);
        }
    }
    until("all are taken", || bench.intake.taken() >= 120_000);
    assert_eq!((bench.gate.subscriptions(), bench.gate.sessions()), (0, 1));
    assert_eq!(bench.gate.counts().undelivered, 10_000, "beyond the bound nothing is retained");
    let mut late = bench.client("late");
    late.subscribe("kept/#", 0);
    for _ in 0..10_000 {
        late.heard();
    }
    assert!(late.is_quiet(), "ten thousand are retained, and no more");
    client.publish("t", "x", 1, 1, 0);
    assert_eq!(client.packet(), [0x40, 2, 0, 1]);
}

#[test]
fn clients_that_fight_for_one_id_push_each_other_off_and_nobody_else() {
    let bench = bench();
    let mut witness = Witness::new(&bench);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..100u16 {
                    let mut fighter = bench.dial();
                    fighter.send(&connect("coveted", n % 2 == 0, 0));
                    if fighter.try_packet().is_some() {
                        // Whoever was pushed off meanwhile cannot write.
                        let _ = fighter.socket.write_all(&frame(0x32, &[&text("t")[..], &[0, 1], b"x"].concat()));
                    }
                }
            });
        }
    });
    witness.is_served(&bench);
    until("one is left of them at the most", || bench.gate.clients() <= 2);
    assert!(bench.gate.sessions() <= 3);
    let mut last = bench.client("coveted");
    assert!(last.is_quiet());
}

#[test]
fn a_client_that_never_ends_a_packet_is_silent_and_let_go_as_such() {
    let bench = bench();
    let mut slow = bench.dial();
    slow.send(&connect("slow", true, 1));
    slow.packet();
    // The beginning of a message, and then nothing: a keep-alive of one second, and half of it more.
    slow.send(&[0x30, 100, 0, 1, b't']);
    let begun = Instant::now();
    assert!(slow.closed().is_empty());
    assert!(begun.elapsed() >= Duration::from_millis(1_000), "{:?}", begun.elapsed());
    // And one that is gone without a word: its end of the line is still open, but nobody is there.
    let mut gone = bench.dial();
    gone.send(&connect_with_will("gone", 1, "will", "lost", false));
    gone.packet();
    until("its will is published", || bench.intake.topics().contains(&"will".to_owned()));
    assert_eq!(bench.gate.clients(), 0);
}
