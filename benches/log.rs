//! Through the embedded log and back in one process: produced, stored by the cluster, consumed, acknowledged.
//!
//! `cargo bench --bench log`; with `--profile dev` as the newcomer's build runs it.

// A bench that cannot be set up has nothing better to do.
#![allow(clippy::expect_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dashlight::config;
use dashlight::kafka::{Cluster, Consumer, MQTT_TOPIC, Outgoing, Producer, RECEIVED_MS};

const RECORDS: usize = 100_000;

/// Sends `RECORDS` of 500 bytes with the headers of a reading, reads them all back, and waits for every report.
fn through(cluster: &Cluster, consumer: &mut Consumer) -> Duration {
    let delivered = Arc::new(AtomicUsize::new(0));
    let producer = Producer::open(cluster, {
        let delivered = delivered.clone();
        move |_: usize, fate| {
            if fate.is_ok() {
                delivered.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .expect("a producer");
    let (payload, start) = ([b'x'; 500], Barrier::new(2));
    let keys: Vec<_> = (0..1000).map(|car| format!("electric-vehicle-{car:05}")).collect();
    let took = std::thread::scope(|scope| {
        scope.spawn(|| {
            start.wait();
            let headers: &[(&str, &[u8])] =
                &[(MQTT_TOPIC, b"vehicles/sensor/data/electric-vehicle-00001"), (RECEIVED_MS, b"1567606196000")];
            for n in 0..RECORDS {
                let key = Some(keys[n % keys.len()].as_bytes());
                let out = Outgoing { topic: "car-sensor", key, payload: &payload, headers };
                while producer.try_send(out, n).is_err() {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        });
        start.wait();
        let (began, mut consumed) = (Instant::now(), 0);
        while consumed < RECORDS {
            let polled = consumer
                .poll(1000, Duration::from_millis(20), |record| consumed += usize::from(!record.payload.is_empty()));
            assert_eq!(polled.skipped, 0, "the embedded log dropped something");
            consumer.stored();
        }
        began.elapsed()
    });
    assert_eq!((producer.flush(Duration::from_secs(10)), delivered.load(Ordering::Relaxed)), (0, RECORDS));
    took
}

fn embedded(criterion: &mut Criterion) {
    let cluster = Cluster::open(&config::Kafka::default()).expect("a cluster");
    cluster.ensure_topic("car-sensor").expect("a topic");
    let mut consumer = Consumer::open(&cluster, "bench", &["car-sensor"]).expect("a consumer");
    let mut group = criterion.benchmark_group("embedded log, 500 bytes");
    group.throughput(Throughput::Elements(RECORDS as u64)).sample_size(10);
    group.bench_function("produce and consume", |bencher| {
        bencher.iter_custom(|times| (0..times).map(|_| through(&cluster, &mut consumer)).sum());
    });
    group.finish();
}

criterion_group!(benches, embedded);
criterion_main!(benches);
