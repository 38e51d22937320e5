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
    learned_by(&schema())
}

fn learned_by(schema: &Schema) -> Calibration {
    let options = Options { target: 0.2, ..Options::default() };
    calibrate::<()>(schema, &[], &options, |part, each| {
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

/// Judges `readings` of one car from the beginning.
fn judged(detector: &Detector, readings: &[(i64, [f32; S])]) -> (CarState, Vec<Verdict>) {
    let (mut state, mut scratch) = (detector.car(None), Scratch::default());
    let verdicts = readings
        .iter()
        .map(|(time_ms, values)| detector.observe(&mut state, *time_ms, values, &EXPECTED, &mut scratch))
        .collect();
    (state, verdicts)
}

fn healthy(seed: u64, count: usize) -> Vec<(i64, [f32; S])> {
    let mut car = Car::new(seed);
    (0..count).map(|_| (car.next(), car.time_ms)).map(|(values, time_ms)| (time_ms, values)).collect()
}

/// Healthy for 100 readings, then with a pressure much too low for 30, then healthy again.
fn broken_for_a_while(seed: u64) -> Vec<(i64, [f32; S])> {
    let mut readings = healthy(seed, 300);
    readings[100..130].iter_mut().for_each(|(_, values)| values[2] -= 20.0);
    readings
}

fn detector() -> &'static Detector {
    static DETECTOR: std::sync::OnceLock<Detector> = std::sync::OnceLock::new();
    DETECTOR.get_or_init(|| Detector::new(&learned(), &schema()).unwrap())
}

#[test]
fn a_fault_is_one_episode_with_onset_peak_end_and_the_sensor_to_blame() {
    let readings = broken_for_a_while(1);
    let (state, verdicts) = judged(detector(), &readings);
    let count = |change| verdicts.iter().filter(|verdict| verdict.change == change).count();
    assert_eq!((count(Change::Opened), count(Change::Closed)), (1, 1));
    let episode = state.episode().unwrap();
    assert_eq!(episode.onset_ms, readings[100].0, "it began with the fault");
    assert!(episode.end_ms().is_some_and(|end| end >= readings[129].0 && end < readings[165].0), "{episode:?}");
    assert!((readings[100].0..=readings[132].0).contains(&episode.peak_ms));
    assert!(episode.severity >= 60 && episode.breaches >= 25, "{episode:?}");
    let blame = episode.blames()[0];
    assert_eq!(blame.sensor, 2);
    assert!(blame.sigma < -5.0 && blame.expected > blame.value + 5.0 && blame.share > 0.5, "{blame:?}");
    assert_eq!(episode_id("car-7", episode.onset_ms), format!("car-7@{}", readings[100].0));
}

/// A calibration of two sensors, the first of which is known very exactly: its usual residual is two thousandths of its deviation.
fn exact() -> Detector {
    let source =
        Source { kind: SourceKind::Model, scale: vec![2e-3, 1.0], tail: vec![1.0; 2], joint: 2.0, sensor: 2.0 };
    let learned = Residuals {
        interval_ms: 1000,
        target: 0.02,
        breaches: 1,
        window: 1,
        quiet: 10,
        smoothing: 0.3,
        mean: vec![0.0; 2],
        deviation: vec![100.0, 1.0],
        immaterial: Vec::new(),
        stuck_after: vec![0; 2],
        unranged: Vec::new(),
        together: f32::MAX,
        linear: None,
        sources: vec![source],
        cars: Default::default(),
    };
    Detector::new(&Calibration::Residuals(Box::new(learned)), &Schema::numbered("two", 2).unwrap()).unwrap()
}

#[test]
fn a_difference_too_small_to_matter_is_not_blamed_while_there_is_one_that_matters() {
    let blamed = |values: [f32; 2]| {
        let detector = exact();
        let (mut state, mut scratch) = (detector.car(None), Scratch::default());
        assert_eq!(detector.observe(&mut state, 1000, &values, &[0.0; 2], &mut scratch).change, Change::Opened);
        scratch.blames().iter().map(|blame| blame.sensor).collect::<Vec<_>>()
    };
    assert_eq!(blamed([1.5, 8.0]), [1], "seven sigmas of the first are one and a half percent of what it does all day");
    assert_eq!(blamed([1.5, 0.0]), [0], "but it is blamed if it is all there is");
    assert_eq!(blamed([2.5, 8.0]), [0, 1], "and if the difference is one that matters");
}

#[test]
fn readings_delivered_twice_or_late_change_nothing() {
    let readings = broken_for_a_while(2);
    let (once, verdicts) = judged(detector(), &readings);
    let mut often = Vec::new();
    for n in 0..readings.len() {
        often.push(readings[n]);
        often.push(readings[n]);
        often.extend_from_slice(&readings[n.saturating_sub(3)..n]);
    }
    let (again, all) = judged(detector(), &often);
    assert_eq!(once, again);
    let fresh: Vec<Verdict> = all.into_iter().filter(|verdict| !verdict.repeated).collect();
    assert_eq!(fresh, verdicts);
}

#[test]
fn readings_that_come_faster_than_learned_are_judged_at_the_pace_learned() {
    let slow = broken_for_a_while(3);
    let fast: Vec<_> =
        slow.iter().flat_map(|&(time_ms, values)| (0..5).map(move |n| (time_ms + 200 * n, values))).collect();
    let (slow, fast) = (judged(detector(), &slow).0, judged(detector(), &fast).0);
    assert_eq!(slow.judged, fast.judged);
    assert_eq!(slow.episode().unwrap().onset_ms, fast.episode().unwrap().onset_ms);
}

#[test]
fn readings_that_come_too_slowly_for_the_companion_are_judged_by_the_model_alone() {
    let slow: Vec<_> = broken_for_a_while(4).into_iter().map(|(time_ms, values)| (time_ms * 20, values)).collect();
    let (state, verdicts) = judged(detector(), &slow);
    assert_eq!(verdicts.iter().filter(|verdict| verdict.change == Change::Opened).count(), 1);
    assert_eq!(state.episode().unwrap().blames()[0].sensor, 2);
}

#[test]
fn a_clock_that_was_set_back_is_believed_after_some_readings() {
    let mut readings = healthy(5, 20);
    readings.iter_mut().for_each(|(time_ms, _)| *time_ms += 10_000_000_000);
    readings.extend(healthy(6, 100));
    let (state, verdicts) = judged(detector(), &readings);
    assert_eq!(verdicts.iter().filter(|verdict| verdict.repeated).count(), 15);
    assert_eq!(state.last_ms(), Some(readings[119].0));
}

#[test]
fn a_missing_sensor_is_bad_data_and_no_anomaly_and_spoils_no_other() {
    let mut readings = healthy(7, 200);
    readings[50..].iter_mut().for_each(|(_, values)| values[1] = f32::NAN);
    let (state, verdicts) = judged(detector(), &readings);
    assert!(verdicts.iter().all(|verdict| verdict.change == Change::None && verdict.score.is_finite()));
    assert_eq!(verdicts[199].quality, Quality { worst: SensorQuality::Missing, bad: 1 });
    assert_eq!(state.quality(1).0, SensorQuality::Missing);
    // And another sensor's fault is still found.
    let mut readings = broken_for_a_while(7);
    readings[50..].iter_mut().for_each(|(_, values)| values[1] = f32::NAN);
    let (state, _) = judged(detector(), &readings);
    assert_eq!(state.episode().unwrap().blames()[0].sensor, 2);
}

#[test]
fn a_value_out_of_its_range_is_bad_data_whatever_its_size() {
    for value in [-1.0, 100.5, 1e38, f32::INFINITY, f32::NEG_INFINITY] {
        let mut readings = healthy(8, 100);
        readings[50..].iter_mut().for_each(|(_, values)| values[2] = value);
        let (_, verdicts) = judged(detector(), &readings);
        assert_eq!(verdicts[99].quality.worst, SensorQuality::OutOfRange, "{value}");
        assert!(verdicts.iter().all(|verdict| verdict.change == Change::None), "{value}");
    }
}

#[test]
fn a_range_that_training_contradicts_is_no_range() {
    let narrow = {
        let mut sensors = schema().sensors().to_vec();
        sensors[1].range = (0.0, 40.0);
        Schema::new("test", sensors).unwrap()
    };
    let Calibration::Residuals(learned) = learned_by(&narrow) else { unreachable!() };
    assert_eq!(learned.unranged, [1], "heat is about 40 all the time");
    let detector = Detector::new(&Calibration::Residuals(learned), &narrow).unwrap();
    let (_, verdicts) = judged(&detector, &healthy(18, 100));
    assert!(verdicts.iter().all(|verdict| verdict.quality.bad == 0));
}

#[test]
fn a_sensor_that_keeps_a_value_longer_than_ever_is_stuck() {
    let mut readings = healthy(9, 200);
    let at = readings[50].1[2];
    readings[50..].iter_mut().for_each(|(_, values)| values[2] = at);
    let (state, _) = judged(detector(), &readings);
    assert_eq!(state.quality(2).0, SensorQuality::Stuck);
    assert_eq!(state.quality(3).0, SensorQuality::Good, "a version stands still by nature");
}

#[test]
fn hostile_values_stay_bounded_and_a_healthy_car_recovers_from_them() {
    let mut readings = healthy(10, 400);
    for (n, value) in [f32::MAX, f32::MIN, 1e38, f32::INFINITY, f32::NAN, -0.0, 1e-45].into_iter().enumerate() {
        readings[100 + n].1 = [value; S];
    }
    let (state, verdicts) = judged(detector(), &readings);
    assert!(verdicts.iter().all(|verdict| verdict.score.is_finite() && verdict.score >= 0.0));
    assert!(state.planes.iter().all(|number| number.is_finite()));
    assert!(verdicts[399].score < 1.0 && state.open_episode().is_none(), "{:?}", verdicts[399]);
}

#[test]
fn a_mute_opens_no_episode_and_an_unmute_does_at_once() {
    let readings = broken_for_a_while(11);
    let (mut state, mut scratch) = (detector().car(None), Scratch::default());
    state.mute(readings[120].0);
    let mut opened = Vec::new();
    for (time_ms, values) in &readings {
        if detector().observe(&mut state, *time_ms, values, &EXPECTED, &mut scratch).change == Change::Opened {
            opened.push(*time_ms);
        }
    }
    assert_eq!(opened, [readings[120].0], "it is opened as the mute ends");
}

#[test]
fn an_acknowledged_episode_says_so_until_it_closes() {
    let readings = broken_for_a_while(12);
    let (mut state, _) = judged(detector(), &readings[..115]);
    assert!(state.acknowledge());
    assert!(state.open_episode().unwrap().acknowledged);
    let (mut quiet, _) = judged(detector(), &readings[..90]);
    assert!(!quiet.acknowledge(), "there is nothing to acknowledge");
}

#[test]
fn after_a_rebaseline_the_present_behaviour_is_the_normal_one() {
    let mut readings = healthy(13, 600);
    readings[100..].iter_mut().for_each(|(_, values)| values[2] -= 12.0);
    let (mut state, mut scratch) = (detector().car(None), Scratch::default());
    let mut opened_after = 0;
    for (n, (time_ms, values)) in readings.iter().enumerate() {
        let change = detector().observe(&mut state, *time_ms, values, &EXPECTED, &mut scratch).change;
        if n == 150 {
            let closed = state.rebaseline(60).unwrap();
            assert!(!closed.open && closed.onset_ms == readings[100].0);
        }
        opened_after += u32::from(n > 150 && change == Change::Opened);
    }
    assert_eq!(opened_after, 0);
    assert_eq!(state.relearning(), 0);
}

#[test]
fn a_state_survives_json_in_the_midst_of_an_episode_and_goes_on_as_if_nothing_had_been() {
    let readings = broken_for_a_while(14);
    let (whole, _) = judged(detector(), &readings);
    let (half, _) = judged(detector(), &readings[..110]);
    let text = serde_json::to_string(&half).unwrap();
    let mut restored: CarState = serde_json::from_str(&text).unwrap();
    assert_eq!(restored, half);
    let mut scratch = Scratch::default();
    for (time_ms, values) in &readings[105..] {
        detector().observe(&mut restored, *time_ms, values, &EXPECTED, &mut scratch);
    }
    assert_eq!(restored, whole);
}

#[test]
fn a_state_of_another_model_starts_anew_but_keeps_its_time_and_its_episode() {
    let readings = broken_for_a_while(15);
    let (mut state, _) = judged(detector(), &readings[..120]);
    let other = Detector::new(&Calibration::mse(3.0), &schema()).unwrap();
    let mut scratch = Scratch::default();
    assert!(other.observe(&mut state, readings[110].0, &readings[110].1, &EXPECTED, &mut scratch).repeated);
    other.observe(&mut state, readings[120].0, &readings[120].1, &EXPECTED, &mut scratch);
    assert!(state.open_episode().is_some());
}

#[test]
fn a_calibration_survives_toml_and_json_to_the_bit() {
    let learned = learned();
    let text = toml::to_string(&learned).unwrap();
    assert_eq!(toml::from_str::<Calibration>(&text).unwrap(), learned);
    let text = serde_json::to_string(&learned).unwrap();
    assert_eq!(serde_json::from_str::<Calibration>(&text).unwrap(), learned);
}

#[test]
fn a_calibration_of_another_width_is_refused_by_name() {
    let error = Detector::new(&learned(), &Schema::numbered("x", 5).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "calibration: `mean` has 4 numbers, 5 are needed: train the model again");
    let error = Detector::new(&Calibration::mse(f64::NAN), &schema()).unwrap_err();
    assert_eq!(error.to_string(), "calibration: `threshold` is NaN: it must be a number above 0");
}

#[test]
fn without_calibration_the_score_is_the_mean_squared_error_over_the_threshold() {
    let detector = Detector::new(&Calibration::mse(2.0), &schema()).unwrap();
    let (mut state, mut scratch) = (detector.car(None), Scratch::default());
    let verdict = detector.observe(&mut state, 1, &[2.0, 40.0, 50.0, 7.0], &EXPECTED, &mut scratch);
    assert_eq!((verdict.score, verdict.breach), (0.5, false));
    let verdict = detector.observe(&mut state, 2, &[4.0, 40.0, f32::NAN, 7.0], &EXPECTED, &mut scratch);
    assert!((verdict.score - 16.0 / 3.0 / 2.0).abs() < 1e-6, "a gap counts for nothing");
    assert_eq!((verdict.breach, verdict.flag, verdict.change), (true, true, Change::Opened));
    assert_eq!(scratch.blames()[0].sensor, 0);
    let verdict = detector.observe(&mut state, 3, &[0.0, 40.0, 50.0, 7.0], &EXPECTED, &mut scratch);
    assert_eq!((verdict.breach, verdict.change), (false, Change::Closed));
}

#[test]
fn a_threshold_of_ones_own_scales_the_score() {
    let readings = broken_for_a_while(16);
    let twice = detector().clone().with_threshold(2.0).unwrap();
    let peak = |detector: &Detector| judged(detector, &readings).0.episode().map(|episode| episode.peak).unwrap();
    let (one, two) = (peak(detector()), peak(&twice));
    assert!((one / two - 2.0).abs() < 0.05, "{one} against {two}");
    assert!(detector().clone().with_threshold(0.0).is_err());
}

#[test]
fn units_do_not_matter() {
    // The same readings in other units give the same scores: kilopascals for bar, Fahrenheit for Celsius.
    let convert = |v: &[f32; S]| [v[0] * 1000.0, v[1] * 1.8 + 32.0, v[2] * 0.01 - 3.0, v[3]];
    let schema = Schema::new("test", ["load", "heat", "pressure", "version"].map(Sensor::named).into()).unwrap();
    let learn = |convert: &dyn Fn(&[f32; S]) -> [f32; S]| {
        calibrate::<()>(&schema, &[], &Options { target: 0.2, ..Options::default() }, |part, each| {
            let seeds = if part == Part::Training { 0..10 } else { 100..110 };
            for seed in seeds {
                let expected = convert(&EXPECTED);
                for (time_ms, values) in healthy(seed, 500) {
                    each(Reading { car: seed as u32, time_ms, values: &convert(&values), expected: &expected });
                }
            }
            Ok(())
        })
        .unwrap()
    };
    let plain = Detector::new(&learn(&|v| *v), &schema).unwrap();
    let other = Detector::new(&learn(&convert), &schema).unwrap();
    let (mut a, mut b, mut scratch) = (plain.car(None), other.car(None), Scratch::default());
    for (time_ms, values) in broken_for_a_while(17) {
        let one = plain.observe(&mut a, time_ms, &values, &EXPECTED, &mut scratch).score;
        let two = other.observe(&mut b, time_ms, &convert(&values), &convert(&EXPECTED), &mut scratch).score;
        assert!((one - two).abs() < 0.05 * one.max(0.2), "{one} against {two}");
    }
}

#[test]
fn a_car_of_eighteen_sensors_is_remembered_in_about_a_kilobyte() {
    let state = CarState::new(18, 3, 3);
    assert!(state.bytes() <= 1250, "{} bytes", state.bytes());
}
