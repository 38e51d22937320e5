//! What the fleet promises, over its parts.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::sensor::{
    ACCELEROMETERS, BATTERY, COOLANT, COUNT, CURRENT, FIRMWARE, INTAKE_FLOW, INTAKE_TEMP, Row, SPEED, THROTTLE, TYRES,
    VIBRATION, VOLTAGE,
};
use super::*;
use crate::telemetry::Schema;

/// Standard deviation of each sensor's own noise, generously.
const NOISE: Row =
    [0.25, 0.2, 0.5, 0.0008, 0.3, 0.6, 0.08, 25.0, 0.003, 0.12, 0.12, 0.12, 0.12, 0.12, 0.12, 0.12, 0.12, 1.0];

fn fleet(options: FleetOptions) -> Fleet {
    Fleet::new(&options).unwrap()
}

fn healthy(cars: usize, rate: f64, seed: u64) -> Fleet {
    fleet(FleetOptions { cars, rate, seed, faults: 0.0, ..FleetOptions::default() })
}

/// `count` readings of one car.
fn readings(fleet: &mut Fleet, car: usize, count: usize) -> Vec<Row> {
    let mut row = [0.0; COUNT];
    (0..count)
        .map(|n| {
            fleet.step(car, n as i64, &mut row);
            row
        })
        .collect()
}

fn bits(rows: &[Row]) -> Vec<u32> {
    rows.iter().flatten().map(|value| value.to_bits()).collect()
}

#[test]
fn the_same_seed_is_the_same_fleet_and_another_is_another() {
    let options = |seed| FleetOptions { seed, faults: 20.0, ..FleetOptions::default() };
    let of = |seed| bits(&readings(&mut fleet(options(seed)), 3, 2_000));
    assert_eq!(of(5), of(5));
    assert_ne!(of(5), of(6));
}

#[test]
fn a_car_is_the_same_however_many_there_are_and_whoever_owns_it() {
    let options = |cars| FleetOptions { cars, faults: 20.0, ..FleetOptions::default() };
    let alone = bits(&readings(&mut fleet(options(8)), 7, 1_000));
    assert_eq!(alone, bits(&readings(&mut fleet(options(100)), 7, 1_000)));
    let mut parts = fleet(options(100)).split(6);
    assert_eq!(parts[1].number(1), 7);
    assert_eq!(alone, bits(&readings(&mut parts[1], 1, 1_000)));
}

#[test]
fn parts_of_a_split_fleet_are_all_of_it() {
    let parts = healthy(10, 1.0, 1).split(4);
    let mut numbers: Vec<usize> = parts.iter().flat_map(|part| (0..part.len()).map(|car| part.number(car))).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..10).collect::<Vec<_>>());
    assert_eq!(healthy(3, 1.0, 1).split(8).len(), 3, "no part is empty");
}

#[test]
fn readings_are_these_on_every_platform() {
    // FNV-1a over the readings' bits. A change of the simulation changes it: then models made from it are to be made anew.
    let hash = |faithful| {
        let mut fleet = fleet(FleetOptions { cars: 4, faults: 30.0, faithful, ..FleetOptions::default() });
        let mut row = [0.0; COUNT];
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for n in 0..1_200 {
            for car in 0..4 {
                fleet.step(car, n, &mut row);
                for value in row {
                    // One NaN is as good as another.
                    let bits = if value.is_nan() { 0x7fc0_0000 } else { value.to_bits() };
                    hash =
                        bits.to_le_bytes().iter().fold(hash, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
                }
            }
        }
        hash
    };
    assert_eq!((hash(false), hash(true)), (GOLDEN, GOLDEN_FAITHFUL));
}

const GOLDEN: u64 = 2_675_719_668_291_458_012;
const GOLDEN_FAITHFUL: u64 = 12_698_908_840_399_197_484;

#[test]
fn at_least_ninety_nine_readings_in_a_hundred_are_normal_by_default() {
    let mut fleet = fleet(FleetOptions { cars: 150, rate: 0.1, labels: true, ..FleetOptions::default() });
    let (mut abnormal, mut all) = (0u32, 0u32);
    let mut row = [0.0; COUNT];
    for n in 0..8 * 360 {
        for car in 0..150 {
            abnormal += u32::from(!fleet.step(car, n, &mut row).is_empty());
            all += 1;
        }
    }
    assert!(abnormal * 100 <= all, "{abnormal} of {all}");
    assert!(fleet.finish().len() > 50, "and there are faults");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn healthy_values_are_within_the_schemas_ranges(seed: u64, rate in 0.05f64..20.0) {
        let schema = Schema::car_sensors();
        let mut fleet = healthy(4, rate, seed);
        for car in 0..4 {
            for (n, row) in readings(&mut fleet, car, 1_500).iter().enumerate() {
                for (sensor, value) in schema.sensors().iter().zip(row) {
                    prop_assert!(
                        (sensor.range.0..=sensor.range.1).contains(value),
                        "seed {seed}, car {car}, reading {n}: {} is {value}", sensor.name
                    );
                }
                prop_assert!(row[FIRMWARE] == 1000.0 || row[FIRMWARE] == 2000.0);
            }
        }
    }

    #[test]
    fn no_options_make_it_panic(cars in 1usize..4, rate in -1.0f64..2000.0, faults in -1.0f64..5000.0, seed: u64) {
        if let Ok(mut fleet) = Fleet::new(&FleetOptions { cars, rate, faults, seed, labels: true, ..FleetOptions::default() }) {
            readings(&mut fleet, cars - 1, 50);
            fleet.finish();
        }
    }
}

#[test]
fn every_fault_moves_the_sensors_it_names_clear_of_their_noise_and_no_others() {
    for kind in faults() {
        let cars = 12;
        let mut fleet = fleet(FleetOptions {
            cars,
            only_fault: Some(kind.id.into()),
            duration: Some(Duration::from_secs(3600)),
            labels: true,
            ..FleetOptions::default()
        });
        let (mut well, mut row) = ([0.0; COUNT], [0.0; COUNT]);
        // Per car and sensor: how often it was moved, and by how many of its noises.
        let mut moved: BTreeMap<(usize, usize), (u32, f32)> = BTreeMap::new();
        let mut active = vec![0u32; cars];
        for n in 0..3600 {
            for (car, active) in active.iter_mut().enumerate() {
                let faults = fleet.step_beside(car, n, &mut well, &mut row);
                if faults.is_empty() {
                    assert_eq!(row, well, "{}: a car without a fault reads as a healthy one", kind.id);
                    continue;
                }
                assert_eq!(faults.ids().collect::<Vec<_>>(), [kind.id]);
                *active += 1;
                for at in 0..COUNT {
                    if row[at].is_nan() || row[at] != well[at] {
                        let by = if row[at].is_nan() { 100.0 } else { (row[at] - well[at]).abs() / NOISE[at] };
                        let entry = moved.entry((car, at)).or_default();
                        *entry = (entry.0 + 1, entry.1 + by.min(100.0));
                    }
                }
            }
        }
        let labels = fleet.finish();
        assert!(labels.len() >= cars - 2, "{}: {} of {cars} cars had it", kind.id, labels.len());
        let mut clear = 0;
        for label in &labels {
            let named: Vec<usize> = (0..COUNT).filter(|at| label.sensors & (1 << at) != 0).collect();
            assert!(named.iter().all(|at| kind.sensors.contains(at)), "{}: {named:?}", kind.id);
            for at in 0..COUNT {
                let (_, by) = moved.get(&(label.car, at)).copied().unwrap_or_default();
                let mean = by / active[label.car] as f32;
                if named.contains(&at) {
                    // A stuck sensor may be stuck near the truth for a while; a loose one is often well.
                    clear += usize::from(mean > 5.0);
                } else {
                    assert_eq!(mean, 0.0, "{} moved sensor {at} of car {}", kind.id, label.car);
                }
            }
        }
        assert!(clear * 10 >= labels.len() * 9, "{}: clear of noise in {clear} of {} cars", kind.id, labels.len());
    }
}

#[test]
fn a_gradual_fault_grows_and_an_abrupt_one_is_there_at_once() {
    let lost = |id: &str, at: usize| {
        let mut fleet = fleet(FleetOptions {
            cars: 1,
            only_fault: Some(id.into()),
            duration: Some(Duration::from_secs(3600)),
            ..FleetOptions::default()
        });
        let (mut well, mut row) = ([0.0; COUNT], [0.0; COUNT]);
        let mut lost = Vec::new();
        for n in 0..3600 {
            if !fleet.step_beside(0, n, &mut well, &mut row).is_empty() {
                lost.push(well[at] - row[at]);
            }
        }
        lost
    };
    let tyre = lost("tire_1_1", TYRES);
    assert!(tyre[..30].windows(2).all(|pair| pair[1] > pair[0] - 0.011), "{:?}", &tyre[..30]);
    assert!(tyre[0] < 0.5 && tyre[100] > 4.0, "{} then {}", tyre[0], tyre[100]);
    let cell = lost("battery_cell", VOLTAGE);
    assert!(cell[0] > 5.0, "{}", cell[0]);
}

#[test]
fn a_broken_car_shows_it_within_seconds_and_a_repaired_one_recovers() {
    for kind in faults() {
        let mut fleet = healthy(5, 1.0, 11);
        let (mut well, mut row) = ([0.0; COUNT], [0.0; COUNT]);
        let mut step = |fleet: &mut Fleet, n: i64| {
            let faults = fleet.step_beside(2, n, &mut well, &mut row);
            (faults, (0..COUNT).any(|at| row[at].is_nan() || (row[at] - well[at]).abs() > 3.0 * NOISE[at]))
        };
        fleet.break_car(2, kind.id).unwrap();
        assert_eq!(fleet.faults_of(2).ids().collect::<Vec<_>>(), [kind.id], "known before it shows");
        // A stuck sensor is wrong only once the truth has moved on.
        let within = if kind.id == "sensor_stuck" { 200 } else { 30 };
        let shown = (0..within).find(|&n| step(&mut fleet, n).1);
        let Some(shown) = shown else { panic!("{} does not show within {within} s", kind.id) };
        for n in shown + 1..600 {
            assert!(!step(&mut fleet, n).0.is_empty(), "{} is there until it is repaired", kind.id);
        }
        assert!(fleet.repair(2).unwrap());
        for n in 600..720 {
            step(&mut fleet, n);
        }
        for n in 720..800 {
            let (faults, off) = step(&mut fleet, n);
            assert!(faults.is_empty() && !off, "{} is over", kind.id);
        }
        assert!(!fleet.repair(2).unwrap(), "nothing left to repair");
    }
}

#[test]
fn a_parked_car_sets_off_when_its_fault_shows_only_in_motion() {
    let mut fleet = healthy(100, 1.0, 1);
    let mut row = [0.0; COUNT];
    let stands = |fleet: &mut Fleet, car: usize, row: &mut Row| {
        (0..60).all(|n| {
            fleet.step(car, n, row);
            row[SPEED] == 0.0
        })
    };
    let parked = (0..100).find(|&car| stands(&mut fleet, car, &mut row)).unwrap();
    fleet.break_car(parked, "drive_shaft").unwrap();
    let mut row = [0.0; COUNT];
    assert!((0..20).any(|n| {
        fleet.step(parked, n, &mut row);
        row[SPEED] > 3.0
    }));
}

#[test]
fn labels_are_what_the_rows_say() {
    let cars = 20;
    let mut fleet = fleet(FleetOptions { cars, faults: 12.0, labels: true, ..FleetOptions::default() });
    let mut row = [0.0; COUNT];
    let mut said: BTreeMap<(usize, i64), Faults> = BTreeMap::new();
    let mut labels = Vec::new();
    for n in 0..5_400 {
        for car in 0..cars {
            let faults = fleet.step(car, 1_000 + n * 1_000, &mut row);
            if !faults.is_empty() {
                said.insert((car, 1_000 + n * 1_000), faults);
            }
        }
        labels.extend(fleet.take_labels());
    }
    labels.extend(fleet.finish());
    assert!(labels.len() > 100);
    let mut explained = 0;
    for label in &labels {
        assert!(label.onset <= label.end && label.severity > 0.0 && label.severity <= 1.0);
        let within = said.range((label.car, label.onset)..=(label.car, label.end));
        assert!(within.clone().all(|(_, faults)| faults.0 == 1 << label.kind));
        assert_eq!(within.count() as i64, (label.end - label.onset) / 1_000 + 1, "no gaps");
        explained += (label.end - label.onset) / 1_000 + 1;
    }
    assert_eq!(explained, said.len() as i64, "no reading with a fault is without a label, and none has two");
}

#[test]
fn with_only_one_fault_each_car_has_exactly_that_one() {
    for (name, faithful) in [("tire", false), ("sensor_drift", false), ("overheating", true), ("shock", true)] {
        let mut fleet = fleet(FleetOptions {
            cars: 30,
            rate: 0.1,
            only_fault: Some(name.into()),
            faithful,
            duration: Some(Duration::from_secs(4_000)),
            labels: true,
            ..FleetOptions::default()
        });
        for car in 0..30 {
            let mut row = [0.0; COUNT];
            for n in 0..400 {
                fleet.step(car, n, &mut row);
            }
        }
        let labels = fleet.finish();
        let mut cars: Vec<usize> = labels.iter().map(|label| label.car).collect();
        cars.sort_unstable();
        cars.dedup();
        assert_eq!(cars.len(), labels.len(), "{name}: none has two");
        assert!(cars.len() >= 28, "{name}: {} of 30", cars.len());
        assert!(labels.iter().all(|label| KINDS[label.kind].id.starts_with(name) && label.onset >= 100));
        if faithful {
            assert!(labels.iter().all(|label| label.end == 399), "the original's failures last");
        }
    }
}

#[test]
fn a_car_read_ten_times_as_seldom_takes_the_same_way() {
    let mut often = healthy(6, 1.0, 9);
    let mut seldom = healthy(6, 0.1, 9);
    for car in 0..6 {
        let often: Vec<Row> = readings(&mut often, car, 6_000).into_iter().skip(9).step_by(10).collect();
        let seldom = readings(&mut seldom, car, 600);
        for (a, b) in often.iter().zip(&seldom) {
            // The way is one; only the sensors' noise is another, and it is bounded.
            for at in [COOLANT, INTAKE_TEMP, BATTERY, VOLTAGE, CURRENT, SPEED, THROTTLE] {
                assert!((a[at] - b[at]).abs() <= 7.0 * NOISE[at], "sensor {at}: {} and {}", a[at], b[at]);
            }
        }
    }
}

#[test]
fn means_do_not_depend_on_the_rate() {
    let mean = |rate: f64| {
        let cars = 60;
        let mut fleet = healthy(cars, rate, 4);
        let mut sums = [0.0f64; COUNT];
        let count = (2_400.0 * rate) as usize;
        for car in 0..cars {
            for row in readings(&mut fleet, car, count) {
                for (sum, value) in sums.iter_mut().zip(row) {
                    *sum += f64::from(value) / (count * cars) as f64;
                }
            }
        }
        sums
    };
    let (fast, slow) = (mean(5.0), mean(0.5));
    for at in [COOLANT, INTAKE_TEMP, INTAKE_FLOW, VOLTAGE, SPEED, VIBRATION, TYRES, ACCELEROMETERS, ACCELEROMETERS + 3]
    {
        assert!((fast[at] / slow[at] - 1.0).abs() < 0.12, "sensor {at}: {} and {}", fast[at], slow[at]);
    }
}

#[test]
fn the_faithful_fleet_follows_the_originals_recurrences() {
    let mut fleet = fleet(FleetOptions { cars: 60, faithful: true, labels: true, ..FleetOptions::default() });
    let (mut before, mut row) = ([0.0; COUNT], [0.0; COUNT]);
    let mut failure_free = 0;
    for car in 0..60 {
        for n in 0..100 {
            let failed = fleet.step(car, n, &mut row);
            let has = |id: &str| failed.ids().any(|failed| failed == id);
            failure_free += usize::from(failed.is_empty());
            check_relations(&row);
            assert_eq!(row[VIBRATION] > 120.0 * row[SPEED], has("drive_shaft"));
            assert_eq!(row[FIRMWARE] == 1000.0, has("firmware"));
            assert_eq!(row[TYRES] < 25.0, has("tire_1_1"));
            if n > 0 {
                let current = row[CURRENT] * if has("overheating") { 0.5 } else { 0.1 };
                assert!((row[COOLANT] - before[COOLANT] - 0.008 * before[SPEED] - current).abs() < 1e-3 * row[COOLANT]);
                assert!((row[BATTERY] - before[BATTERY] + 0.008 * before[SPEED]).abs() < 1e-4);
                let speed = 0.8 * before[SPEED] + 0.2 * row[THROTTLE] * 38.889;
                assert!((row[SPEED] - speed).abs() < 1e-3);
                for still in [INTAKE_TEMP, INTAKE_FLOW, VOLTAGE, THROTTLE] {
                    assert_eq!(row[still], before[still]);
                }
            }
            before = row;
        }
    }
    // 8 % in the original's file.
    assert!((240..840).contains(&failure_free), "{failure_free} of 6000");
    assert!(fleet.finish().iter().all(|label| label.end == 99), "failures latch");
}

/// What holds of each reading of the original demo, by itself.
fn check_relations(row: &Row) {
    let ratio = row[VIBRATION] / row[SPEED];
    assert!((ratio - 100.0).abs() < 0.1 || (ratio - 150.0).abs() < 0.1, "vibration is {ratio} times the speed");
    assert!((row[CURRENT] - row[THROTTLE] * ((260.0 - row[VOLTAGE]).abs() + 5.0)).abs() < 1e-3);
    for wheel in 0..4 {
        let (tyre, shake) = (row[TYRES + wheel], row[ACCELEROMETERS + wheel]);
        assert!((20.0..=24.0).contains(&tyre) || (30.0..=34.0).contains(&tyre), "tyre {tyre}");
        assert!((0.0..=1.0).contains(&shake) || (2.0..=4.0).contains(&shake) || (5.0..=7.0).contains(&shake));
    }
}

#[test]
fn the_originals_own_readings_hold_the_same_relations() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/cars/car-sensor-data.csv");
    if !std::path::Path::new(file).exists() {
        eprintln!("skipped: {file} is not there");
        return;
    }
    let mut input = crate::telemetry::file::FileReader::open(file).unwrap();
    input.bind(&Schema::car_sensors()).unwrap();
    let mut row = [0.0; COUNT];
    let mut read = 0;
    while input.next_into(&mut row).unwrap().is_some() {
        check_relations(&row);
        read += 1;
    }
    assert_eq!(read, 10_000);
}

#[test]
fn names_and_numbers_of_cars_are_inverse() {
    for number in [0, 41, 99_998, 99_999, 123_456] {
        assert_eq!(car_number(&car_name(number)), Some(number));
    }
    assert_eq!(car_name(0), "electric-vehicle-00001");
    for wrong in
        ["", "electric-vehicle-", "electric-vehicle-00000", "electric-vehicle-1", "electric-vehicle-+0001", "car1"]
    {
        assert_eq!(car_number(wrong), None, "{wrong}");
    }
}

#[test]
fn ids_are_unique_and_what_cannot_be_is_refused_in_a_sentence() {
    let mut ids: Vec<&str> = KINDS.iter().map(|kind| kind.id).collect();
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(!faults().iter().any(|kind| kind.class == FaultClass::Context));

    let refused = |options: FleetOptions| Fleet::new(&options).unwrap_err().to_string();
    let usual = FleetOptions::default;
    assert!(refused(FleetOptions { cars: 0, ..usual() }).contains("1 to 1000000"));
    assert!(refused(FleetOptions { rate: f64::NAN, ..usual() }).contains("NaN Hz"));
    assert!(refused(FleetOptions { faults: -1.0, ..usual() }).contains("-1 faults"));
    let one = |name: &str, faithful| FleetOptions {
        only_fault: Some(name.into()),
        faithful,
        duration: Some(Duration::from_secs(10)),
        ..usual()
    };
    assert!(refused(one("brakes", false)).contains("drive_shaft"), "it lists what there is");
    assert!(refused(one("tir", false)).contains("\"tir\""), "half a word is no name");
    assert!(refused(one("sensor_stuck", true)).contains("original"));
    assert!(refused(FleetOptions { only_fault: Some("tire".into()), ..usual() }).contains("how long"));
    assert_eq!(healthy(2, 1.0, 1).break_car(2, "tire_1_1"), Err(FleetError::Car("electric-vehicle-00003".into())));
}
