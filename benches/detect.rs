//! What it costs to judge a reading of 18 sensors, with a model's expectations and the linear companion of three lags.
//!
//! `cargo bench --bench detect`; with `--profile dev` as the newcomer's build runs it.

// A bench that cannot be set up has nothing better to do.
#![allow(clippy::expect_used)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dashlight::detect::{Calibration, CarState, Detector, Options, Reading, Scratch, calibrate};
use dashlight::telemetry::Schema;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

const SENSORS: usize = 18;

/// Readings whose sensors are all different mixtures of a few hidden ones.
fn readings(seed: u64, count: usize) -> Vec<[f32; SENSORS]> {
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let mut hidden = [0.0f32; 5];
    (0..count)
        .map(|_| {
            hidden.iter_mut().for_each(|h| *h = 0.9 * *h + random.random_range(-0.02f32..0.02));
            std::array::from_fn(|i| {
                0.5 + hidden[i % 5] + 0.5 * hidden[(i * 3) % 5] + random.random_range(-0.01f32..0.01)
            })
        })
        .collect()
}

fn learned(schema: &Schema) -> Calibration {
    let expected = [0.5; SENSORS];
    calibrate::<()>(schema, &[], &Options::default(), |part, each| {
        for (n, values) in readings(part as u64, 20_000).iter().enumerate() {
            each(Reading { car: 0, time_ms: n as i64 * 1000, values, expected: &expected });
        }
        Ok(())
    })
    .expect("readings that vary")
}

fn observe(c: &mut Criterion) {
    let schema = Schema::numbered("bench", SENSORS).expect("a schema");
    let detector = Detector::new(&learned(&schema), &schema).expect("a calibration");
    let expected = [0.5; SENSORS];
    let rows = readings(7, 4096);
    let mut group = c.benchmark_group("detect");

    group.throughput(Throughput::Elements(rows.len() as u64));
    group.bench_function("one car", |b| {
        let (mut state, mut scratch, mut time_ms) = (detector.car(None), Scratch::default(), 0);
        b.iter(|| {
            for row in &rows {
                time_ms += 1000;
                black_box(detector.observe(&mut state, time_ms, row, &expected, &mut scratch));
            }
        });
    });
    // States of a whole fleet do not fit into the processor's caches.
    group.bench_function("10,000 cars in turn", |b| {
        let mut states: Vec<CarState> = (0..10_000).map(|_| detector.car(None)).collect();
        let (mut scratch, mut time_ms, mut car) = (Scratch::default(), 0, 0);
        b.iter(|| {
            for row in &rows {
                car = (car + 1) % states.len();
                time_ms += i64::from(car == 0) * 1000;
                black_box(detector.observe(&mut states[car], time_ms, row, &expected, &mut scratch));
            }
        });
    });
    // Four of five readings at 5 Hz come before their turn.
    group.bench_function("one car at 5 Hz", |b| {
        let (mut state, mut scratch, mut time_ms) = (detector.car(None), Scratch::default(), 0);
        b.iter(|| {
            for row in &rows {
                time_ms += 200;
                black_box(detector.observe(&mut state, time_ms, row, &expected, &mut scratch));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, observe);
criterion_main!(benches);
