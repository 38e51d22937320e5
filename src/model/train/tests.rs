//! Tests of [`super`]: what is learned, what is refused, and that the written graph computes what was learned.

use std::path::Path;

use super::*;
use crate::model::Model;
use crate::telemetry::{Recorder, Sensor};

fn schema(names: &[&str]) -> Schema {
    Schema::new("small", names.iter().map(|&name| Sensor::named(name)).collect()).unwrap()
}

fn options(epochs: u32) -> Options {
    Options { name: "small".into(), seed: 5, epochs, hidden: Vec::new() }
}

/// Twelve cars whose sensors are: a wave, twice the wave, the wave's square, and what `extra` says.
fn waves(rows: usize, extra: impl Fn(usize, usize) -> f32) -> (Recording, Recording) {
    let mut rng = Pcg64::seed_from_u64(9);
    let mut recorder = Recorder::new(4, usize::MAX, 0);
    for n in 0..rows {
        for car in 0..12 {
            let wave = network::tanh(2.0 * unit(&mut rng) - 1.0) * 10.0;
            let mut row = [wave, 100.0 + 2.0 * wave, wave * wave / 10.0, extra(car, n)];
            if n % 17 == car {
                row[n % 3] = f32::NAN;
            }
            recorder.push(&format!("car{car}"), n as i64 * 1000, &row);
        }
    }
    recorder.finish().hold_out(1)
}

fn train(readings: &(Recording, Recording), options: &Options) -> Result<Learned, TrainError> {
    learn(&schema(&["wave", "double", "square", "extra"]), &readings.0, &readings.1, options, |_| true)
}

fn load(learned: &Learned) -> Model {
    Model::from_parts(Path::new("small"), &learned.onnx, Some(&learned.manifest.write().unwrap())).unwrap()
}

#[test]
fn what_belongs_together_is_expected_and_what_does_not_stands_out() {
    let readings = waves(300, |car, _| car as f32);
    let learned = train(&readings, &options(60)).unwrap();
    let provenance = learned.manifest.provenance.as_ref().unwrap();
    assert!(provenance.held_out_loss < 0.15, "{provenance:?}");
    let mut model = load(&learned);
    let mut expected = Vec::new();
    model.expected(&[5.0, 110.0, 2.5, 3.0, 5.0, 90.0, 2.5, 3.0, f32::NAN, 110.0, 2.5, 3.0], &mut expected).unwrap();
    assert!((expected[1] - 110.0).abs() < 3.0, "normal: {expected:?}");
    assert!((expected[5] - 90.0).abs() > 5.0, "a sensor against the others is not believed: {expected:?}");
    assert!((expected[8] - 5.0).abs() < 4.0, "a gap is filled from the others: {expected:?}");
}

#[test]
fn same_seed_and_readings_make_the_same_bytes_and_another_seed_others() {
    let readings = waves(60, |car, n| (car + n) as f32);
    let once = train(&readings, &options(3)).unwrap();
    let again = train(&readings, &options(3)).unwrap();
    assert_eq!(once, again);
    assert_eq!(once.manifest.write().unwrap(), again.manifest.write().unwrap());
    let other = train(&readings, &Options { seed: 6, ..options(3) }).unwrap();
    assert_ne!(once.onnx, other.onnx);
}

#[test]
fn the_graph_computes_what_the_network_learned() {
    let readings = waves(60, |_, n| 1e4 + n as f32);
    let rows: Vec<&[f32]> = readings.0.rows().collect();
    let scaling = Scaling::all(&readings.0);
    let mut rng = Pcg64::seed_from_u64(2);
    let network = Network::new(&sizes(4, &[]), &mut rng);
    let bytes = onnx::write("x", &network, &scaling);
    let mut model = Model::from_parts(Path::new("x"), &bytes, None).unwrap();
    let mut expected = Vec::new();
    for row in rows.iter().filter(|row| row.iter().all(|value| value.is_finite())) {
        model.expected(row, &mut expected).unwrap();
        let standard: Vec<f32> = row.iter().zip(&scaling).map(|(&value, s)| s.standardise(value)).collect();
        let mut trace = Trace::default();
        network.forward(&standard, 1, &mut trace);
        for ((graph, host), s) in expected.iter().zip(trace.output()).zip(&scaling) {
            let host = host * s.scale + s.centre;
            assert!((graph - host).abs() <= 1e-4 * s.scale.max(s.centre.abs() * 1e-2), "{graph} and {host}");
        }
    }
}

#[test]
fn a_constant_and_an_absent_sensor_are_left_alone() {
    for (value, centre) in [(42.0, 42.0), (f32::NAN, 0.0)] {
        let learned = train(&waves(60, |_, _| value), &options(5)).unwrap();
        assert_eq!(learned.constant, ["extra"]);
        let mut expected = Vec::new();
        load(&learned).expected(&[5.0, 110.0, 2.5, 1e6], &mut expected).unwrap();
        assert_eq!(expected[3], centre);
        assert!(expected.iter().all(|value| value.is_finite()), "{expected:?}");
    }
}

#[test]
fn what_cannot_be_learned_is_refused() {
    assert_eq!(train(&waves(2, |_, _| 1.0), &options(1)).unwrap_err(), TrainError::TooFew(24));
    let mut recorder = Recorder::new(4, usize::MAX, 0);
    for n in 0..100 {
        recorder.push("c", n, &[1.0, 2.0, f32::NAN, 3.0]);
    }
    assert_eq!(train(&recorder.finish().hold_out(0), &options(1)).unwrap_err(), TrainError::NothingVaries(80));
}

#[test]
fn one_sensor_is_enough_and_stopping_keeps_the_best() {
    let mut recorder = Recorder::new(1, usize::MAX, 0);
    for n in 0..400 {
        recorder.push("c", n, &[network::tanh((n % 40) as f32 / 10.0 - 2.0)]);
    }
    let (readings, held_out) = recorder.finish().hold_out(0);
    let mut asked = 0;
    let learned = learn(&schema(&["a"]), &readings, &held_out, &options(50), |progress| {
        asked += 1;
        progress.epoch < 5
    })
    .unwrap();
    assert!(asked >= 5 && learned.manifest.provenance.as_ref().unwrap().epochs <= 5);
    let mut expected = Vec::new();
    load(&learned).expected(&[0.5; 7], &mut expected).unwrap();
    assert_eq!(expected.len(), 7);
}
