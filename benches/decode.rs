//! Payload to row and back, one reading at a time: the hottest loop of the path.
//!
//! `cargo bench --bench decode`; with `--profile dev` as the newcomer's build runs it.

// A bench that cannot be set up has nothing better to do.
#![allow(clippy::expect_used)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dashlight::config;
use dashlight::telemetry::codec::{Car, Codec, encode_delimited, encode_json};
use dashlight::telemetry::{Schema, Sensor};

/// A reading of the original demo's fleet.
const READING: [f32; 18] = [
    39.395103,
    34.53991,
    123.317406,
    0.82654595,
    246.12367,
    0.6586535,
    24.934872,
    2493.487,
    0.034893095,
    32.0,
    31.0,
    34.0,
    34.0,
    0.5295712,
    0.9600553,
    0.88389874,
    0.043890715,
    2000.0,
];

fn json(criterion: &mut Criterion) {
    let schema = Arc::new(Schema::car_sensors());
    let codec = Codec::new(config::Codec::Json, schema.clone(), Car::Topic, "time").expect("a codec");
    let mut payload = Vec::new();
    encode_json(&schema, &READING, 1_567_606_196_000, None, &mut payload);
    // The same fields in the opposite order, and padded with blanks and fields nobody asked for.
    let mut fields: Vec<_> = std::str::from_utf8(&payload).expect("text").trim_matches(['{', '}']).split(',').collect();
    fields.reverse();
    let shuffled = format!("{{{}, \"vendor\": {{\"id\": [1, 2]}} }}", fields.join(", ").replace("\":", "\": "));
    // What a gateway in another language sends: other spellings, so that no name is found as it stands.
    let spelled = std::str::from_utf8(&payload).expect("text").to_uppercase().replace("TIME", "time");

    let mut row = [0f32; 18];
    let mut group = criterion.benchmark_group(format!("json of {} bytes", payload.len()));
    group.throughput(Throughput::Elements(1));
    for (name, payload) in [
        ("decode", payload.as_slice()),
        ("decode, any order", shuffled.as_bytes()),
        ("decode, other spellings", spelled.as_bytes()),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| codec.decode(black_box(payload), black_box(&mut row)).map(|decoded| decoded.time_ms));
        });
    }
    let mut out = Vec::with_capacity(1024);
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode_json(&schema, black_box(&READING), 1_567_606_196_000, None, &mut out);
            out.len()
        });
    });
    group.finish();
}

fn delimited(criterion: &mut Criterion) {
    let sensors = (0..210).map(|n| Sensor::named(format!("v{n}"))).collect();
    let schema = Arc::new(Schema::new("engine-cycle", sensors).expect("a schema"));
    let codec = Codec::new(config::Codec::Delimited, schema, Car::Event, "").expect("a codec");
    let values: Vec<f32> = (0..210).map(|n| 2.1 + n as f32 / 100.0).collect();
    let (mut payload, mut row) = (Vec::new(), vec![0f32; 210]);
    encode_delimited("99999", &values, &mut payload);
    let mut group = criterion.benchmark_group("delimited, 210 values");
    group.throughput(Throughput::Elements(1));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| codec.decode(black_box(&payload), black_box(&mut row)).map(|decoded| decoded.time_ms));
    });
    group.finish();
}

criterion_group!(benches, json, delimited);
criterion_main!(benches);
