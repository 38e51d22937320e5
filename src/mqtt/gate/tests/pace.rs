//! What one client and one address may take of the gate.

use super::*;

#[test]
fn who_publishes_more_than_its_rate_is_read_slower_and_loses_nothing() {
    let bench = bench_with(|options| options.rates.messages = 100);
    let mut fast = bench.client("fast");
    let begun = Instant::now();
    for id in 1..=150 {
        fast.publish("t", "x", 1, id, 0);
    }
    for id in 1..=150u16 {
        assert_eq!(fast.packet()[2..], id.to_be_bytes());
    }
    // A hundred at once, fifty at a hundred a second.
    assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());
    assert!(bench.gate.counts().throttled >= 1);
    assert!(fast.is_quiet(), "it is still served");
    // Others are not held back.
    let mut other = bench.client("other");
    let begun = Instant::now();
    other.publish("t", "x", 1, 1, 0);
    assert_eq!(other.packet(), [0x40, 2, 0, 1]);
    assert!(begun.elapsed() < Duration::from_millis(450));
}

#[test]
fn bytes_are_held_to_their_rate_too() {
    let bench = bench_with(|options| options.rates.bytes = 200_000);
    let mut heavy = bench.client("heavy");
    let begun = Instant::now();
    for id in 1..=60 {
        heavy.publish("t", &"x".repeat(10_000), 1, id, 0);
    }
    for id in 1..=60u16 {
        assert_eq!(heavy.packet()[2..], id.to_be_bytes());
    }
    // A second's worth is free, and what is read at once beyond it is owed.
    assert!(begun.elapsed() >= Duration::from_millis(1_000), "{:?} for 600 kB at 200 kB/s", begun.elapsed());
    assert!(bench.gate.counts().throttled >= 1 && bench.intake.taken() == 60);
}

#[test]
fn a_client_that_is_held_back_is_not_taken_for_silent() {
    let bench = bench_with(|options| options.rates.messages = 2);
    let mut client = bench.dial();
    client.send(&connect("slow", true, 1));
    client.packet();
    for id in 1..=8 {
        client.publish("t", "x", 1, id, 0);
    }
    // Three seconds at two a second, with a keep-alive of one.
    for id in 1..=8u16 {
        assert_eq!(client.packet()[2..], id.to_be_bytes());
    }
}

#[test]
fn one_address_can_not_take_every_place() {
    let bench = bench_with(|options| options.max_connections_per_address = 3);
    let three: Vec<Raw> = (0..3).map(|n| bench.client(&format!("c{n}"))).collect();
    let mut fourth = bench.dial();
    fourth.send(&connect("fourth", true, 0));
    assert_eq!(fourth.closed(), [[0x20, 2, 0, 3]], "server unavailable");
    // Who takes over its own connection needs no further place.
    let mut again = bench.client("c0");
    assert!(again.is_quiet());
    // Far beyond, not even that is said.
    let lobby: Vec<Raw> = (0..20).map(|_| bench.dial()).collect();
    until("most are let go at once", || bench.gate.counts().crowded >= 10);
    drop((three, lobby, again));
    until("there is room again", || bench.gate.inner.sockets.load(Ordering::Relaxed) == 0);
    bench.client("c4");
    assert!(bench.gate.counts().crowded <= 30);
}
