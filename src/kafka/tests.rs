//! The embedded cluster, in process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::config;

type Fates = Arc<Mutex<Vec<(usize, Result<(), DeliveryError>)>>>;

fn cluster() -> Cluster {
    Cluster::open(&config::Kafka { partitions: 4, ..config::Kafka::default() }).unwrap()
}

fn producer(cluster: &Cluster) -> (Producer<usize>, Fates) {
    let fates = Fates::default();
    let producer = Producer::open(cluster, {
        let fates = fates.clone();
        move |token, fate| fates.lock().push((token, fate))
    });
    (producer.unwrap(), fates)
}

fn out<'a>(topic: &'a str, key: &'a str, payload: &'a [u8]) -> Outgoing<'a> {
    Outgoing { topic, key: Some(key.as_bytes()), payload, headers: &[] }
}

/// Polls until `done`, for a minute at the most.
fn poll_until(consumer: &mut Consumer, mut each: impl FnMut(Record<'_>), mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "waited for a minute");
        assert_eq!(consumer.poll(1000, Duration::from_millis(50), &mut each).skipped, 0, "nothing is lost");
        consumer.stored();
    }
}

#[test]
fn what_is_produced_comes_back_byte_for_byte_with_key_and_headers() {
    let cluster = cluster();
    assert!(cluster.is_embedded() && cluster.bootstrap().starts_with("127.0.0.1:"), "{}", cluster.bootstrap());
    assert_eq!(cluster.health(), Health::Up);
    assert_eq!(cluster.ensure_topic("car-sensor"), Ok(4));
    assert_eq!(cluster.ensure_topic("car-sensor"), Ok(4), "asked again");
    let mut consumer = Consumer::open(&cluster, "g", &["car-sensor"]).unwrap();
    let (producer, fates) = producer(&cluster);
    let payload = [0, 255, b'{', 10, 0];
    let headers: &[(&str, &[u8])] = &[(MQTT_TOPIC, b"vehicles/1"), (RECEIVED_MS, b"1567606196000"), ("x", b"\xff")];
    producer.try_send(Outgoing { headers, ..out("car-sensor", "car1", &payload) }, 7).unwrap();

    let mut seen = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    while seen.is_empty() && Instant::now() < deadline {
        consumer.poll(10, Duration::from_millis(100), |record| {
            seen.push((
                record.topic.to_owned(),
                record.key.map(<[u8]>::to_vec),
                record.payload.to_vec(),
                record.partition,
            ));
            assert_eq!((record.mqtt_topic, record.received_ms), (Some(&b"vehicles/1"[..]), 1_567_606_196_000));
        });
    }
    let partition = partition_of(b"car1", 4);
    assert_eq!(seen, [("car-sensor".to_owned(), Some(b"car1".to_vec()), payload.to_vec(), partition)]);
    assert_eq!(producer.flush(Duration::from_secs(10)), 0);
    assert_eq!(*fates.lock(), [(7, Ok(()))]);
    assert_eq!(consumer.partitions(), (4, 4));
}

#[test]
fn a_consumer_that_pauses_loses_nothing_and_the_producer_sees_full() {
    let cluster = cluster();
    cluster.ensure_topic("t").unwrap();
    let mut consumer = Consumer::open(&cluster, "g", &["t"]).unwrap();
    let (producer, fates) = producer(&cluster);
    let payload = vec![7; 1000];
    // Three times what the partitions keep: without credit, most of it would be gone.
    let total = 3 * 4 * 5 * 1024;
    let (mut sent, mut received, mut full) = (0, BTreeMap::new(), 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    while sent < total {
        assert!(Instant::now() < deadline, "{sent} sent");
        match producer.try_send(out("t", &format!("car{}", sent % 97), &payload), sent) {
            Ok(()) => sent += 1,
            Err((token, error)) => {
                assert_eq!((token, error), (sent, SendError::Full));
                full += 1;
                // The consumer was paused until here, and takes no more than it must.
                let polled = consumer.poll(500, Duration::from_millis(20), |record| {
                    let offsets = received.entry(record.partition).or_insert(0);
                    assert_eq!(record.offset, *offsets, "in order, none missing");
                    *offsets += 1;
                });
                assert_eq!(polled.skipped, 0);
                consumer.stored();
            }
        }
    }
    assert!(full > 0, "the producer was never held back");
    let read = |received: &BTreeMap<i32, i64>| received.values().sum::<i64>() as usize;
    while read(&received) < total {
        assert!(Instant::now() < deadline, "{received:?}");
        let polled = consumer.poll(1000, Duration::from_millis(50), |record| {
            *received.entry(record.partition).or_insert(0) += 1;
        });
        assert_eq!(polled.skipped, 0);
        consumer.stored();
    }
    assert_eq!((read(&received), producer.flush(Duration::from_secs(10))), (total, 0));
    assert!(fates.lock().iter().all(|(_, fate)| fate.is_ok()));
    assert_eq!(fates.lock().len(), total);
}

#[test]
fn a_second_consumer_goes_on_where_the_first_had_stored() {
    let cluster = cluster();
    cluster.ensure_topic("t").unwrap();
    let (producer, _) = producer(&cluster);
    let mut first = Consumer::open(&cluster, "g", &["t"]).unwrap();
    for n in 0..30 {
        producer.try_send(out("t", "one key", n.to_string().as_bytes()), n).unwrap();
    }
    let read = |consumer: &mut Consumer, want: usize| {
        let mut seen = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(30);
        while seen.len() < want && Instant::now() < deadline {
            consumer.poll(want - seen.len(), Duration::from_millis(50), |record| {
                seen.push(std::str::from_utf8(record.payload).unwrap().parse::<usize>().unwrap());
            });
        }
        seen
    };
    assert_eq!(read(&mut first, 10), (0..10).collect::<Vec<_>>());
    first.stored();
    assert_eq!(read(&mut first, 10), (10..20).collect::<Vec<_>>());
    drop(first); // Ten handed out and not stored.
    let mut second = Consumer::open(&cluster, "g", &["t"]).unwrap();
    assert_eq!(read(&mut second, 20), (10..30).collect::<Vec<_>>());
}

#[test]
fn two_consumers_of_one_process_share_the_partitions() {
    let cluster = cluster();
    cluster.ensure_topic("t").unwrap();
    let mut seen = Vec::new();
    for n in 0..2 {
        let mut consumer = Consumer::open_share(&cluster, "g", &["t"], Share { n, of: 2 }).unwrap();
        let polled = consumer.poll(1, Duration::ZERO, |_| {});
        assert_eq!(consumer.partitions(), (2, 4));
        seen.extend(polled.assigned.into_iter().map(|assigned| assigned.partition));
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3]);
}

#[test]
fn a_record_too_large_is_refused_with_its_token() {
    let cluster = cluster();
    cluster.ensure_topic("t").unwrap();
    let (producer, _) = producer(&cluster);
    let (token, error) = producer.try_send(out("t", "k", &vec![0; 2_000_000]), 3).unwrap_err();
    assert_eq!(token, 3);
    assert!(matches!(error, SendError::TooLarge { bytes: 2_000_000, .. }), "{error}");
    producer.try_send(out("t", "k", &vec![0; 1_000_000]), 4).unwrap();
    assert_eq!(producer.flush(Duration::from_secs(10)), 0);
}

#[test]
fn kafka_going_down_and_coming_back_loses_nothing() {
    let cluster = cluster();
    cluster.ensure_topic("t").unwrap();
    let mut consumer = Consumer::open(&cluster, "g", &["t"]).unwrap();
    let (producer, fates) = producer(&cluster);
    let mut seen = vec![false; 3000];
    let send = |range: std::ops::Range<usize>| {
        for n in range {
            producer.try_send(out("t", &format!("car{n}"), n.to_string().as_bytes()), n).unwrap();
        }
    };
    send(0..1000);
    cluster.mock().broker_down(1).unwrap();
    send(1000..2000);
    let deadline = Instant::now() + Duration::from_secs(30);
    while cluster.health() == Health::Up {
        assert!(Instant::now() < deadline, "it is noticed that Kafka is away");
        consumer.poll(1, Duration::from_millis(50), |_| panic!("nothing was stored, nothing was read"));
    }
    cluster.mock().broker_up(1).unwrap();
    send(2000..3000);
    let all = std::cell::RefCell::new(&mut seen);
    poll_until(
        &mut consumer,
        |record| all.borrow_mut()[std::str::from_utf8(record.payload).unwrap().parse::<usize>().unwrap()] = true,
        || all.borrow().iter().all(|&seen| seen),
    );
    assert_eq!(producer.flush(Duration::from_secs(30)), 0);
    let fates = fates.lock();
    assert_eq!((fates.len(), fates.iter().filter(|(_, fate)| fate.is_err()).count()), (3000, 0));
    assert_eq!(cluster.health(), Health::Up);
}

#[test]
fn what_the_broker_refuses_for_a_moment_is_sent_again() {
    let cluster = cluster();
    cluster.ensure_topic("t").unwrap();
    let (producer, fates) = producer(&cluster);
    let errors = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
    ];
    cluster.mock().request_errors(RDKafkaApiKey::Produce, &errors);
    producer.try_send(out("t", "k", b"v"), 1).unwrap();
    assert_eq!(producer.flush(Duration::from_secs(30)), 0);
    assert_eq!(*fates.lock(), [(1, Ok(()))]);
}

#[test]
fn what_the_broker_refuses_for_good_is_told_with_its_token() {
    for (error, fate) in [
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, DeliveryError::TooLarge),
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, DeliveryError::NotAuthorised),
    ] {
        let cluster = cluster();
        cluster.ensure_topic("t").unwrap();
        let (producer, fates) = producer(&cluster);
        cluster.mock().request_errors(RDKafkaApiKey::Produce, &[error]);
        producer.try_send(out("t", "k", b"v"), 1).unwrap();
        assert_eq!(producer.flush(Duration::from_secs(30)), 0);
        assert_eq!(*fates.lock(), [(1, Err(fate))]);
    }
}

#[test]
fn a_producer_that_is_dropped_hands_every_token_back() {
    let cluster = cluster();
    cluster.ensure_topic("t").unwrap();
    let (producer, fates) = producer(&cluster);
    cluster.mock().broker_down(1).unwrap();
    for n in 0..100 {
        producer.try_send(out("t", "k", b"v"), n).unwrap();
    }
    drop(producer);
    let fates = fates.lock();
    assert_eq!(fates.len(), 100);
    assert!(fates.iter().all(|(_, fate)| *fate == Err(DeliveryError::Closed)), "{:?}", fates.first());
}

#[test]
fn a_kafka_that_never_answers_is_a_state_and_no_error() {
    // A port that nobody listens on: bound, and let go.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let kafka = config::Kafka { bootstrap: format!("127.0.0.1:{port}"), ..config::Kafka::default() };
    let cluster = Cluster::open(&kafka).unwrap();
    let (producer, fates) = producer(&cluster);
    let mut consumer = Consumer::open(&cluster, "g", &["t"]).unwrap();
    let error = cluster.ensure_topic("t").unwrap_err();
    assert!(error.is_retriable(), "{error}");
    assert!(error.to_string().starts_with(&format!("Kafka at 127.0.0.1:{port} does not answer: ")), "{error}");
    assert_eq!(
        producer.try_send(out("t", "k", b"v"), 5).unwrap_err(),
        (5, SendError::Full),
        "not before the topic is there"
    );
    assert_eq!(consumer.poll(10, Duration::from_millis(10), |_| {}).records, 0);
    let Health::Away { reason, .. } = cluster.health() else { panic!("nobody is there") };
    assert!(reason.contains("Connection refused"), "{reason}");
    assert!(fates.lock().is_empty());
    let started = Instant::now();
    drop((producer, consumer, cluster));
    assert!(started.elapsed() < Duration::from_secs(10), "leaving does not wait for Kafka");
}

#[test]
fn properties_are_checked_and_secrets_stay_secret() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    let open = |key: &str, value: &str| {
        let properties = [(key.to_owned(), value.to_owned())].into_iter().collect();
        Cluster::open(&config::Kafka { bootstrap: "127.0.0.1:1".into(), properties, ..config::Kafka::default() })
    };
    let refusal = |key: &str, value: &str| open(key, value).unwrap_err().to_string();
    assert_eq!(
        refusal("acks", "1"),
        "kafka.properties: \"acks\": is always all: what is acknowledged is on every replica in sync"
    );
    assert_eq!(
        refusal("no.such.thing", "1"),
        "kafka.properties: \"no.such.thing\": No such configuration property: \"no.such.thing\""
    );
    assert!(refusal("security.protocol", "carrier-pigeon").contains("carrier-pigeon"));
    let from_file = format!("file:{}", file.display());
    assert!(!refusal("security.protocol", &from_file).contains("hunter2"));
    let unset = refusal("sasl.password", "env:DASHLIGHT_NO_SUCH_VARIABLE");
    assert!(unset.contains("DASHLIGHT_NO_SUCH_VARIABLE is not set"), "{unset}");
    let cluster = open("sasl.password", &from_file).unwrap();
    assert!(!format!("{cluster:?}").contains("hunter2"));
}

#[test]
fn this_build_speaks_tls_and_sasl() {
    let features = rdkafka::ClientConfig::new().create_native_config().unwrap().get("builtin.features").unwrap();
    for feature in ["ssl", "sasl_plain", "sasl_scram", "gzip", "lz4", "snappy"] {
        assert!(features.split(',').any(|has| has == feature), "{feature} is not in {features}");
    }
}
