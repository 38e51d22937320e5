//! A link and a fleet against a broker of few words, which acknowledges or breaks off as it is told.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::link::{Link, LinkError, LinkOptions, Qos};
use super::live::{self, Live, LiveOptions};
use super::{FleetOptions, faults};
use crate::telemetry::Schema;

/// A PUBLISH as it arrived.
#[derive(Debug, Clone, PartialEq)]
struct Published {
    connection: usize,
    duplicate: bool,
    id: u16,
    topic: String,
    payload: Vec<u8>,
}

/// How a connection is treated.
#[derive(Debug, Clone, Copy)]
struct Manners {
    /// Acknowledges so many publishes.
    acknowledges: usize,
    /// Breaks off after so many publishes.
    breaks_after: usize,
    /// Says it knows the session.
    session: bool,
}

const GOOD: Manners = Manners { acknowledges: usize::MAX, breaks_after: usize::MAX, session: false };

#[derive(Clone)]
struct Broker {
    address: String,
    heard: Arc<Mutex<Vec<Published>>>,
    /// Packets other than PUBLISH, by type and id.
    others: Arc<Mutex<Vec<(usize, u8, u16)>>>,
}

impl Broker {
    /// The nth connection has the nth manners, those beyond the last good ones.
    fn start(manners: &[Manners]) -> Broker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let broker = Broker {
            address: listener.local_addr().unwrap().to_string(),
            heard: Arc::default(),
            others: Arc::default(),
        };
        let (this, manners) = (broker.clone(), manners.to_vec());
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { return };
                let this = this.clone();
                let manners = manners.get(connection).copied().unwrap_or(GOOD);
                // A connection that ends ends its thread.
                std::thread::spawn(move || this.serve(stream, connection, manners));
            }
        });
        broker
    }

    fn serve(&self, mut stream: TcpStream, connection: usize, manners: Manners) -> std::io::Result<()> {
        let mut count = 0;
        loop {
            let (first, body) = read_packet(&mut stream)?;
            match first >> 4 {
                1 => stream.write_all(&[0x20, 2, u8::from(manners.session), 0])?,
                3 => {
                    let published = parse_publish(connection, first, &body);
                    let (id, qos) = (published.id, first >> 1 & 3);
                    self.heard.lock().unwrap().push(published);
                    count += 1;
                    if count <= manners.acknowledges && qos > 0 {
                        let [high, low] = id.to_be_bytes();
                        stream.write_all(&[if qos == 1 { 0x40 } else { 0x50 }, 2, high, low])?;
                    }
                    if count == manners.breaks_after {
                        return Ok(());
                    }
                }
                kind => {
                    let id = if body.len() >= 2 { u16::from_be_bytes([body[0], body[1]]) } else { 0 };
                    self.others.lock().unwrap().push((connection, kind, id));
                    match kind {
                        6 => stream.write_all(&[0x70, 2, body[0], body[1]])?,
                        14 => return Ok(()),
                        _ => {}
                    }
                }
            }
        }
    }

    fn heard(&self) -> Vec<Published> {
        self.heard.lock().unwrap().clone()
    }
}

fn read_packet(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    let first = byte[0];
    let (mut length, mut shift) = (0usize, 0);
    loop {
        stream.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((first, body))
}

fn parse_publish(connection: usize, first: u8, body: &[u8]) -> Published {
    let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
    let topic = String::from_utf8(body[2..2 + length].to_vec()).unwrap();
    let rest = &body[2 + length..];
    let (id, payload) = match first >> 1 & 3 {
        0 => (0, rest),
        _ => (u16::from_be_bytes([rest[0], rest[1]]), &rest[2..]),
    };
    Published { connection, duplicate: first & 8 != 0, id, topic, payload: payload.to_vec() }
}

fn link(broker: &Broker, qos: Qos) -> Link {
    Link::new(LinkOptions { address: broker.address.clone(), client_id: "a".into(), login: None, qos })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn patience() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn say(link: &mut Link, numbers: std::ops::Range<u8>) {
    for n in numbers {
        link.publish(b"t", |payload| payload.push(n));
    }
}

#[test]
fn what_was_not_acknowledged_when_the_connection_broke_is_sent_again_as_a_duplicate() {
    let broker = Broker::start(&[Manners { acknowledges: 2, breaks_after: 5, session: false }]);
    runtime().block_on(async {
        let mut link = link(&broker, Qos::AtLeastOnce);
        say(&mut link, 0..5);
        link.drive(patience(), |link| link.breaks() == 1).await;
        say(&mut link, 5..8);
        let (link, settled) = link.close(patience()).await;
        assert!(settled);
        assert_eq!((link.published(), link.acknowledged()), (8, 8));
    });
    let again: Vec<(u8, u16, bool)> = broker
        .heard()
        .iter()
        .filter(|heard| heard.connection == 1)
        .map(|heard| (heard.payload[0], heard.id, heard.duplicate))
        .collect();
    assert_eq!(
        again,
        [(2, 3, true), (3, 4, true), (4, 5, true), (5, 6, false), (6, 7, false), (7, 8, false)],
        "in order, under their ids, and only what had been sent is marked"
    );
}

#[test]
fn exactly_once_takes_up_a_release_where_it_broke_off() {
    let broker = Broker::start(&[
        Manners { acknowledges: 1, breaks_after: 3, session: false },
        Manners { session: true, ..GOOD },
    ]);
    runtime().block_on(async {
        let mut link = link(&broker, Qos::ExactlyOnce);
        say(&mut link, 0..3);
        let (link, settled) = link.close(patience()).await;
        assert!(settled);
        assert_eq!((link.published(), link.acknowledged()), (3, 3));
    });
    let heard = broker.heard();
    let second: Vec<u8> = heard.iter().filter(|heard| heard.connection == 1).map(|heard| heard.payload[0]).collect();
    assert!(second == [1, 2] || second == [0, 1, 2], "one that is received and one that is not: {second:?}");
    let releases = broker.others.lock().unwrap().iter().filter(|(_, kind, _)| *kind == 6).count();
    assert!(releases >= 3, "each is released");
}

#[test]
fn without_acknowledgements_there_is_no_more_room_and_nothing_is_dropped() {
    let broker = Broker::start(&[Manners { acknowledges: 0, ..GOOD }]);
    runtime().block_on(async {
        let mut link = link(&broker, Qos::AtLeastOnce);
        let mut said = 0;
        while link.has_room() {
            say(&mut link, 0..1);
            said += 1;
        }
        assert_eq!(said, 2_000);
        let end = patience();
        while broker.heard.lock().unwrap().len() < 2_000 && Instant::now() < end {
            link.drive(Instant::now() + Duration::from_millis(5), |_| false).await;
        }
        assert!(!link.has_room());
        let (link, settled) = link.close(Instant::now()).await;
        assert!(!settled);
        assert_eq!((link.published(), link.acknowledged()), (2_000, 0));
    });
}

#[test]
fn at_most_once_everything_is_written_before_goodbye() {
    let broker = Broker::start(&[]);
    runtime().block_on(async {
        let mut link = link(&broker, Qos::AtMostOnce);
        for _ in 0..40 {
            say(&mut link, 0..250);
            link.drive(patience(), Link::has_room).await;
        }
        assert!(link.close(patience()).await.1);
    });
    // The broker hears the goodbye after everything else.
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while broker.others.lock().unwrap().is_empty() && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(broker.heard().len(), 10_000);
}

#[test]
fn nobody_there_and_a_refusal_are_said_in_a_sentence() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let refuser = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = refuser.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = refuser.accept().unwrap();
        read_packet(&mut stream).unwrap();
        stream.write_all(&[0x20, 2, 0, 5]).unwrap();
    });
    runtime().block_on(async {
        let to = |address: &str| {
            Link::new(LinkOptions {
                address: address.into(),
                client_id: "a".into(),
                login: None,
                qos: Qos::AtLeastOnce,
            })
        };
        let error = to(&nobody).connect().await.unwrap_err();
        assert!(matches!(error, LinkError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains(&nobody), "{error}");
        let error = to(&address).connect().await.unwrap_err();
        assert!(error.to_string().contains("not authorised"), "{error}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn every_length_of_topic_and_payload_arrives(sizes in prop::collection::vec((1usize..300, 0usize..40_000), 1..12), qos in 0u8..3) {
        let broker = Broker::start(&[]);
        let said: Vec<(String, Vec<u8>)> = sizes
            .iter()
            .enumerate()
            .map(|(n, &(topic, payload))| ("t".repeat(topic), vec![n as u8; payload]))
            .collect();
        runtime().block_on(async {
            let mut link = link(&broker, Qos::level(qos).unwrap());
            for (topic, payload) in &said {
                link.publish(topic.as_bytes(), |out| out.extend_from_slice(payload));
            }
            assert!(link.close(patience()).await.1);
        });
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while broker.heard().len() < said.len() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        let heard: Vec<(String, Vec<u8>)> =
            broker.heard().into_iter().map(|heard| (heard.topic, heard.payload)).collect();
        prop_assert_eq!(heard, said);
    }
}

fn fleet(cars: usize, rate: f64, seconds: Option<u64>) -> FleetOptions {
    FleetOptions { cars, rate, faults: 0.0, duration: seconds.map(Duration::from_secs), ..FleetOptions::default() }
}

fn publish(
    broker: &Broker,
    fleet: FleetOptions,
    connections: Option<usize>,
    runtime: &tokio::runtime::Runtime,
) -> Live {
    let address = broker.address.clone();
    live::start(LiveOptions { address, login: None, fleet, connections, qos: Qos::AtLeastOnce }, runtime.handle())
        .unwrap()
}

fn field(payload: &[u8], name: &str) -> f64 {
    let value: serde_json::Value = serde_json::from_slice(payload).unwrap();
    value[name].as_f64().unwrap_or_else(|| panic!("no {name} in {value}"))
}

#[test]
fn every_car_publishes_each_of_its_readings_once_with_all_its_sensors() {
    let broker = Broker::start(&[]);
    let runtime = runtime();
    let live = publish(&broker, fleet(7, 20.0, Some(1)), Some(3), &runtime);
    assert_eq!((live.cars(), live.connections()), (7, 3));
    let outcome = runtime.block_on(live.finished());
    assert!(outcome.settled);
    assert_eq!((outcome.published, outcome.acknowledged), (140, 140));
    let mut by_topic: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for heard in broker.heard() {
        for sensor in Schema::car_sensors().sensors() {
            field(&heard.payload, &sensor.name);
        }
        by_topic.entry(heard.topic).or_default().push(field(&heard.payload, "time"));
    }
    assert_eq!(by_topic.len(), 7);
    assert!(by_topic.contains_key("vehicles/sensor/data/electric-vehicle-00007"));
    for (topic, times) in by_topic {
        assert_eq!(times.len(), 20, "{topic}");
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{topic}");
        assert!(times[0] > 1.6e12, "milliseconds of today");
    }
}

#[test]
fn a_car_has_a_connection_of_its_own_up_to_a_hundred() {
    let broker = Broker::start(&[]);
    let runtime = runtime();
    assert_eq!(publish(&broker, fleet(5, 1.0, None), None, &runtime).connections(), 5);
    assert_eq!(publish(&broker, fleet(250, 1.0, None), None, &runtime).connections(), 100);
}

#[test]
fn a_car_broken_while_it_publishes_says_so_in_its_readings_until_it_is_repaired() {
    let broker = Broker::start(&[]);
    let runtime = runtime();
    let live = publish(&broker, fleet(4, 50.0, None), None, &runtime);
    let car = "electric-vehicle-00003";
    assert!(live.fault_of(car).is_none());
    live.break_car(car, "battery_cell").unwrap();
    assert_eq!(live.fault_of(car).map(|kind| kind.id), Some("battery_cell"));
    let volts = || {
        let heard = broker.heard();
        let mine = heard.iter().rev().find(|heard| heard.topic.ends_with(car));
        mine.map_or(f64::NAN, |heard| field(&heard.payload, "battery_voltage"))
    };
    let wait = |what: &str, is_so: &dyn Fn() -> bool| {
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(std::time::Instant::now() < end, "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait("a reading with the fault", &|| volts().is_finite());
    let broken = volts();
    live.repair(car).unwrap();
    wait("the car is well", &|| live.fault_of(car).is_none());
    wait("its voltage is back", &|| volts() > broken + 3.0);
    assert!(live.break_car(car, "brakes").unwrap_err().to_string().contains("brakes"));
    assert!(live.break_car("electric-vehicle-00005", faults()[0].id).unwrap_err().to_string().contains("00005"));
    let outcome = runtime.block_on(live.stop(Duration::from_secs(60)));
    assert!(outcome.settled);
    assert_eq!(outcome.published, outcome.acknowledged);
    assert_eq!(broker.heard().len() as u64, outcome.published);
}

#[test]
fn a_broker_that_breaks_off_again_and_again_still_gets_every_reading() {
    let rude = Manners { acknowledges: 10, breaks_after: 15, session: false };
    let broker = Broker::start(&[rude; 6]);
    let runtime = runtime();
    let live = publish(&broker, fleet(1, 200.0, Some(1)), None, &runtime);
    let outcome = runtime.block_on(live.finished());
    assert_eq!((outcome.published, outcome.acknowledged, outcome.settled), (200, 200, true));
    let distinct: std::collections::BTreeSet<u16> = broker.heard().iter().map(|heard| heard.id).collect();
    assert_eq!(distinct.len(), 200);
}

#[test]
fn a_receiver_that_takes_nothing_puts_the_timetable_off_and_nothing_is_dropped() {
    let broker = Broker::start(&[Manners { acknowledges: 0, ..GOOD }]);
    let runtime = runtime();
    let live = publish(&broker, fleet(1, 1000.0, None), None, &runtime);
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while live.behind() < Duration::from_millis(1_500) && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(live.behind() >= Duration::from_millis(1_500), "{:?}", live.behind());
    let outcome = runtime.block_on(live.stop(Duration::ZERO));
    assert_eq!((outcome.published, outcome.acknowledged, outcome.settled), (2_000, 0, false));
}
