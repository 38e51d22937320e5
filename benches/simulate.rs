//! What the load generator costs: a reading made, and a reading made and written as a device would send it.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dashlight::simulate::link::{Link, LinkOptions, Qos};
use dashlight::simulate::{Fleet, FleetOptions, sensor};
use dashlight::telemetry::{Schema, encode_json};

fn simulate(c: &mut Criterion) {
    let options = FleetOptions { cars: 1_000, rate: 5.0, ..FleetOptions::default() };
    let Ok(mut fleet) = Fleet::new(&options) else { return };
    let schema = Schema::car_sensors();
    let mut row = [0.0; sensor::COUNT];
    let mut group = c.benchmark_group("simulate");
    group.throughput(Throughput::Elements(1));
    let (mut car, mut time) = (0, 0);
    let mut turn = move || {
        car = (car + 1) % 1_000;
        time += 1;
        (car, time)
    };
    group.bench_function("reading", |b| {
        b.iter(|| {
            let (car, time) = turn();
            black_box(fleet.step(car, time, &mut row))
        });
    });
    let options =
        || LinkOptions { address: String::new(), client_id: String::new(), login: None, qos: Qos::AtLeastOnce };
    let link = || Link::new(options());
    let mut outbox = link();
    group.bench_function("reading_as_publish", |b| {
        b.iter(|| {
            let (car, time) = turn();
            fleet.step(car, time, &mut row);
            if !outbox.has_room() {
                outbox = link();
            }
            outbox.publish(b"vehicles/sensor/data/electric-vehicle-00001", |out| {
                encode_json(&schema, &row, time, None, out);
            });
        });
    });
    group.finish();
}

criterion_group!(benches, simulate);
criterion_main!(benches);
