//! Detection as a whole, on a small synthetic fleet: three sensors that hang together, each car with its own offset.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::*;
use crate::telemetry::{Schema, Sensor};

pub(super) const S: usize = 4;

pub(super) fn schema() -> Schema {
    let mut sensors: Vec<Sensor> = ["load", "heat", "pressure", "version"].map(Sensor::named).into();
    sensors[2].range = (0.0, 100.0);
    Schema::new("test", sensors).unwrap()
}

/// One car: load wanders, heat follows it, pressure is its own, version never changes.
pub(super) struct Car {
    random: Pcg64Mcg,
    load: f32,
    heat: f32,
    offset: f32,
    pub time_ms: i64,
}

impl Car {
    pub fn new(seed: u64) -> Self {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let offset = random.random_range(-0.5..0.5);
        Car { random, load: 0.0, heat: 40.0, offset, time_ms: 1_000_000 }
    }

    pub fn next(&mut self) -> [f32; S] {
        let noise = |random: &mut Pcg64Mcg| (0..6).map(|_| random.random_range(-0.5f32..0.5)).sum::<f32>();
        self.load = 0.95 * self.load + noise(&mut self.random);
        self.heat += 0.1 * (40.0 + 5.0 * self.load - self.heat) + 0.1 * noise(&mut self.random);
        self.time_ms += 1000;
        [self.load, self.heat, 50.0 + self.offset + noise(&mut self.random), 7.0]
    }
}

/// What a perfect model of the mean expects.
pub(super) const EXPECTED: [f32; S] = [0.0, 40.0, 50.0, 7.0];

pub(super) fn learned() -> Calibration {
    let options = Options { target: 0.2, ..Options::default() };
    calibrate::<()>(&schema(), &[], &options, |part, each| {
        let (seeds, readings) = if part == Part::Training { (0..20, 500) } else { (100..120, 2000) };
        for (n, seed) in seeds.enumerate() {
            let mut car = Car::new(seed);
            for _ in 0..readings {
                let values = car.next();
                each(Reading { car: n as u32, time_ms: car.time_ms, values: &values, expected: &EXPECTED });
            }
        }
        Ok(())
    })
    .unwrap()
}

#[test]
fn healthy_cars_stay_quiet_and_a_broken_one_is_found_within_ten_readings_and_its_sensor_blamed() {
    let detector = Detector::new(&learned(), &schema()).unwrap();
    let mut scratch = Scratch::default();
    let mut false_episodes = 0;
    for seed in 200..230 {
        let (mut car, mut state) = (Car::new(seed), detector.car(None));
        for _ in 0..3000 {
            let values = car.next();
            let verdict = detector.observe(&mut state, car.time_ms, &values, &EXPECTED, &mut scratch);
            false_episodes += u32::from(verdict.change == Change::Opened);
        }
        for n in 0.. {
            assert!(n < 10, "car {seed} is broken for {n} readings and nobody noticed");
            let mut values = car.next();
            values[2] -= 8.0;
            let verdict = detector.observe(&mut state, car.time_ms, &values, &EXPECTED, &mut scratch);
            if verdict.change == Change::Opened || state.open_episode().is_some() {
                break;
            }
        }
        let episode = state.open_episode().unwrap();
        assert_eq!(episode.blames()[0].sensor, 2, "{episode:?}");
        assert!(episode.blames()[0].sigma < 0.0, "it is too low: {episode:?}");
    }
    assert!(false_episodes <= 3, "{false_episodes} false episodes in about one car-day");
}
