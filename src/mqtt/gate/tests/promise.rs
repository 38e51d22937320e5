//! Acknowledged means kept; not read while there is no room; an orderly stop.

use super::*;

#[test]
fn a_message_of_each_qos_and_version_is_taken_and_acknowledged_as_the_standard_says() {
    let bench = bench();
    for v5 in [false, true] {
        let mut client = if v5 { bench.client5("car") } else { bench.client("car") };
        client.publish("a/0", "zero", 0, 0, 0);
        client.publish("a/1", "one", 1, 11, 0);
        assert_eq!(client.packet(), [0x40, 2, 0, 11]);
        client.publish("a/2", "two", 2, 12, 0);
        assert_eq!(client.packet(), [0x50, 2, 0, 12]);
        client.send(&[0x62, 2, 0, 12]);
        assert_eq!(client.packet(), [0x70, 2, 0, 12]);
        client.send(&[0xe0, 0]);
        assert!(client.closed().is_empty());
    }
    assert_eq!(bench.intake.payloads(), ["zero", "one", "two", "zero", "one", "two"]);
    assert_eq!(bench.intake.topics()[..3], ["a/0", "a/1", "a/2"]);
    assert_eq!(bench.gate.counts().messages, 6);
}

#[test]
fn nothing_is_acknowledged_before_it_is_kept_and_then_in_the_order_of_arrival() {
    let bench = bench();
    bench.intake.desk.lock().hold = true;
    let mut client = bench.client("car");
    client.publish("t", "1", 1, 1, 0);
    client.publish("t", "2", 2, 2, 0);
    client.publish("t", "3", 1, 3, 0);
    until("all three are taken", || bench.intake.taken() == 3);
    bench.intake.receipt(2).kept();
    bench.intake.receipt(1).kept();
    assert!(client.is_quiet(), "the first is not kept yet");
    bench.intake.receipt(0).kept();
    assert_eq!(client.packet(), [0x40, 2, 0, 1]);
    assert_eq!(client.packet(), [0x50, 2, 0, 2]);
    assert_eq!(client.packet(), [0x40, 2, 0, 3]);
}

#[test]
fn a_message_that_is_not_kept_is_not_acknowledged_and_its_connection_ends() {
    let bench = bench();
    bench.intake.desk.lock().hold = true;
    for v5 in [false, true] {
        let mut client = if v5 { bench.client5("car") } else { bench.client("car") };
        client.publish("t", "1", 1, 1, 0);
        client.publish("t", "2", 1, 2, 0);
        client.publish("t", "3", 1, 3, 0);
        until("all three are taken", || bench.intake.desk.lock().receipts.len() == 3);
        let (first, second, third) = (bench.intake.receipt(0), bench.intake.receipt(0), bench.intake.receipt(0));
        third.kept();
        drop(second);
        first.kept();
        assert_eq!(client.packet(), [0x40, 2, 0, 1], "what was kept before it");
        if v5 {
            assert_eq!(client.disconnected(), 0x80);
        } else {
            assert!(client.closed().is_empty());
        }
    }
    until("it is counted", || bench.gate.counts().lost == 2);
}

#[test]
fn while_the_intake_has_no_room_the_socket_is_not_read_and_nothing_is_lost() {
    let bench = bench();
    bench.intake.make_room(Some(10));
    let mut client = bench.client("car");
    let other = bench.client("other");
    // Far more than the socket's buffers hold: the writer must come to a halt.
    let payload = "x".repeat(1000);
    let sender = std::thread::spawn(move || {
        for n in 0..20_000u32 {
            client.publish("t", &format!("{n} {payload}"), 0, 0, 0);
        }
        client
    });
    until("ten are taken", || bench.intake.taken() == 10);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!sender.is_finished(), "TCP holds the sender back");
    assert_eq!(bench.intake.taken(), 10);
    assert!(bench.gate.counts().bytes_in < 1_000_000, "little is buffered: {}", bench.gate.counts().bytes_in);
    bench.intake.make_room(Some(500));
    until("room for more is used", || bench.intake.taken() == 510);
    bench.intake.make_room(None);
    sender.join().unwrap();
    until("all are taken", || bench.intake.taken() == 20_000);
    let numbers = bench.intake.payloads().into_iter().map(|p| p.split(' ').next().unwrap().parse::<u32>().unwrap());
    assert!(numbers.eq(0..20_000), "in order, none twice");
    drop(other);
}

#[test]
fn a_connection_held_back_outlives_its_keep_alive() {
    let bench = bench();
    bench.intake.make_room(Some(0));
    let mut client = bench.dial();
    client.send(&connect("car", true, 1));
    client.packet();
    client.publish("t", "1", 1, 1, 0);
    std::thread::sleep(Duration::from_millis(2_500));
    bench.intake.make_room(None);
    assert_eq!(client.packet(), [0x40, 2, 0, 1]);
}

#[test]
fn in_3_1_1_no_more_than_the_window_waits_for_its_fate() {
    let bench = bench_with(|options| options.receive_maximum = 8);
    bench.intake.desk.lock().hold = true;
    let mut client = bench.client("car");
    for id in 1..=20 {
        client.publish("t", "x", 1, id, 0);
    }
    until("the window is full", || bench.intake.taken() == 8);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(bench.intake.taken(), 8);
    for id in 1..=20u8 {
        until("the next is taken", || !bench.intake.desk.lock().receipts.is_empty());
        bench.intake.receipt(0).kept();
        assert_eq!(client.packet(), [0x40, 2, 0, id]);
    }
    assert_eq!(bench.intake.taken(), 20);
}

#[test]
fn a_stop_waits_for_what_is_outstanding_acknowledges_it_and_says_goodbye() {
    let bench = bench();
    bench.intake.desk.lock().hold = true;
    let mut five = bench.client5("five");
    let mut three = bench.client("three");
    five.publish("t", "5", 1, 5, 0);
    three.publish("t", "3", 1, 3, 0);
    until("both are taken", || bench.intake.taken() == 2);
    let Bench { gate, intake, runtime } = bench;
    let address = gate.addresses()[0];
    let keeper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        intake.receipt(0).kept();
        intake.receipt(0).kept();
    });
    assert!(runtime.block_on(gate.stop(Duration::from_secs(20))), "all was settled");
    keeper.join().unwrap();
    assert_eq!(five.packet(), [0x40, 2, 0, 5]);
    assert_eq!(five.disconnected(), 0x8b);
    assert_eq!(three.closed(), [[0x40, 2, 0, 3]]);
    until("the port is closed", || TcpStream::connect(address).is_err());
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let bench = bench();
    bench.intake.desk.lock().hold = true;
    let mut client = bench.client5("car");
    client.publish("t", "1", 1, 1, 0);
    until("it is taken", || bench.intake.taken() == 1);
    assert!(!bench.runtime.block_on(bench.gate.stop(Duration::from_millis(200))), "one was outstanding");
    assert_eq!(client.disconnected(), 0x8b, "and not acknowledged");
}

#[test]
fn a_gate_that_is_dropped_frees_its_port_and_itself() {
    let Bench { gate, runtime, .. } = bench();
    let (address, inner): (_, Weak<Inner>) = (gate.addresses()[0], Arc::downgrade(&gate.inner));
    drop(gate);
    until("the port is closed", || TcpStream::connect(address).is_err());
    until("nothing holds it", || inner.strong_count() == 0);
    drop(runtime);
}

#[test]
fn a_taken_port_moves_to_the_next_free_one_and_an_impossible_address_is_said() {
    let bench = bench();
    let taken = bench.gate.addresses()[0];
    let options = GateOptions { listen: vec![taken], ..GateOptions::default() };
    let second = Gate::start(options.clone(), Arc::new(bench.intake.clone()), bench.runtime.handle()).unwrap();
    let got = second.addresses()[0];
    assert!(got.port() > taken.port() && got.port() <= taken.port() + 20);
    assert_eq!(second.moved(), [(taken, got)]);

    let none = GateOptions { further_ports: 0, ..options };
    let error = Gate::start(none, Arc::new(bench.intake.clone()), bench.runtime.handle()).map(|_| ()).unwrap_err();
    assert!(matches!(error, MqttError::Taken { .. }) && error.to_string().contains(&taken.port().to_string()));
    // TEST-NET-1 is nobody's address.
    let foreign = GateOptions::listening_on("192.0.2.1:0").unwrap();
    let error = Gate::start(foreign, Arc::new(bench.intake.clone()), bench.runtime.handle()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("192.0.2.1"), "{error}");
}

#[test]
fn listen_addresses_are_read_with_clear_errors() {
    let listen = |text: &str| GateOptions::listening_on(text).map(|options| options.listen[0].to_string());
    assert_eq!(listen("127.0.0.1:1883").unwrap(), "127.0.0.1:1883");
    assert_eq!(listen("[::1]:1884").unwrap(), "[::1]:1884");
    assert_eq!(listen(":1885").unwrap(), "0.0.0.0:1885");
    for bad in ["127.0.0.1", "127.0.0.1:mqtt", "127.0.0.1:70000", "", "no.such.host.invalid:1"] {
        let error = listen(bad).unwrap_err().to_string();
        assert!(error.contains(&format!("`{bad}`")), "{error}");
    }
}
