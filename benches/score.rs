//! How many readings a second one session of the built-in model takes, by the size of the batch.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dashlight::model::Model;

fn score(criterion: &mut Criterion) {
    let mut model =
        Model::load("car-sensors").unwrap_or_else(|error| unreachable!("the built-in model loads: {error}"));
    let usual: Vec<f32> = model.manifest().sensors.iter().map(|sensor| sensor.centre + sensor.scale).collect();
    let mut group = criterion.benchmark_group("score");
    for rows in [1usize, 64, 1024] {
        let values = usual.repeat(rows);
        let mut expected = Vec::new();
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(format!("{rows} readings"), |bencher| {
            bencher.iter(|| {
                if let Err(error) = model.expected(black_box(&values), &mut expected) {
                    unreachable!("usual readings are taken: {error}");
                }
                black_box(&expected);
            });
        });
    }
    group.finish();
    criterion.bench_function("load", |bencher| bencher.iter(|| Model::load("car-sensors").is_ok()));
}

criterion_group!(benches, score);
criterion_main!(benches);
