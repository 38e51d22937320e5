//! What one worker does with readings, and what a snapshot costs: decode, score, detect, remember; rank, sort, a window of rows.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dashlight::config::{Scores, Source};
use dashlight::engine::lane::Lane;
use dashlight::engine::models::Scorer;
use dashlight::engine::order::{Candidate, Order, Place};
use dashlight::engine::present::{self, Look};
use dashlight::engine::view::{FleetQuery, FleetSort};
use dashlight::fleet::{Judged, Shard};
use dashlight::kafka::Record;
use dashlight::telemetry::Schema;
use dashlight::telemetry::codec::{Codec, encode_json};

const NOW: i64 = 1_700_000_000_000;
const BATCH: usize = 256;

/// A lane of the built-in model with its own calibration.
fn lane() -> Lane {
    let scorer = Scorer::load("car-sensors", None).unwrap();
    let codec = Codec::of_source(&Source::default(), scorer.schema().clone()).unwrap();
    Lane::new(0, "car-sensor".into(), codec.into(), scorer, Scores::Breaches, 200_000)
}

/// The payload of a car at rest.
fn payload(schema: &Schema, time: i64) -> Vec<u8> {
    let row: Vec<f32> = schema.sensors().iter().map(|sensor| (sensor.range.0 + sensor.range.1) / 2.0).collect();
    let mut payload = Vec::new();
    encode_json(schema, &row, time, None, &mut payload);
    payload
}

/// One reading of each car, `round` seconds after [`NOW`].
fn drive(lane: &mut Lane, keys: &[String], round: i64) {
    let time = NOW + round * 1000;
    let payload = payload(lane.shard().schema(), time);
    for keys in keys.chunks(BATCH) {
        for key in keys {
            let record = Record {
                topic: "car-sensor",
                partition: 0,
                offset: round,
                key: Some(key.as_bytes()),
                payload: &payload,
                mqtt_topic: None,
                received_ms: time,
            };
            lane.decode(&record).unwrap();
        }
        lane.judge(time, &mut |_, _| ()).unwrap();
    }
}

fn keys(cars: usize) -> Vec<String> {
    (0..cars).map(|car| format!("electric-vehicle-{car:06}")).collect()
}

fn readings(c: &mut Criterion) {
    let mut group = c.benchmark_group("reading to verdict");
    for cars in [100, 10_000] {
        let (mut lane, keys, mut round) = (lane(), keys(cars), 0);
        group.throughput(Throughput::Elements(cars as u64));
        group.bench_function(BenchmarkId::new("cars", cars), |b| {
            b.iter(|| {
                round += 1;
                drive(&mut lane, &keys, round);
            });
        });
    }
    group.finish();
}

fn fleet_update(c: &mut Criterion) {
    let schema = Arc::new(Schema::car_sensors());
    let mut shard = Shard::new(schema.clone(), 10_000);
    let cars: Vec<u32> = keys(10_000).iter().map(|key| shard.car(key.as_bytes()).unwrap().0).collect();
    let row = vec![1.0; schema.width()];
    let raw = payload(&schema, NOW);
    let mut time = NOW;
    let mut group = c.benchmark_group("fleet update");
    group.throughput(Throughput::Elements(cars.len() as u64));
    group.bench_function("10,000 cars", |b| {
        b.iter(|| {
            time += 1000;
            for &car in &cars {
                let judged = Judged {
                    time,
                    received: time,
                    values: &row,
                    expected: &row,
                    sigmas: &row,
                    score: 0.5,
                    severity: 20,
                    breach: false,
                    raw: &raw,
                };
                shard.remember(car, judged);
            }
        });
    });
    group.finish();
}

fn snapshot(c: &mut Criterion) {
    let mut group = c.benchmark_group("snapshot");
    for cars in [100, 10_000, 100_000] {
        let mut lane = lane();
        let keys = keys(cars);
        for round in 0..3 {
            drive(&mut lane, &keys, round);
        }
        let look = Look { now: NOW + 5_000, stale_after: 30_000 };
        let query = FleetQuery::default();
        let mut order = Order::default();
        group.bench_function(BenchmarkId::new("rank and sort", cars), |b| {
            b.iter(|| {
                let candidates = lane.shard().cars().iter().enumerate().map(|(number, car)| {
                    let number = number as u32;
                    Candidate {
                        rank: present::rank(&lane, number, FleetSort::Severity, look),
                        name: car.name.clone(),
                        place: Place { worker: 0, lane: 0, car: number },
                    }
                });
                order.sort(&query, candidates.collect(), cars, Instant::now());
            });
        });
        group.bench_function(BenchmarkId::new("states and 50 rows", cars), |b| {
            b.iter(|| {
                let busy = (0..cars as u32).filter(|&car| present::state(&lane, car, look).is_open()).count();
                let (_, places) = order.window(cars / 2, 50);
                let rows: Vec<_> = places.map(|place| present::fleet_row(&lane, place.car, 60, look)).collect();
                black_box((busy, rows))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, readings, fleet_update, snapshot);
criterion_main!(benches);
