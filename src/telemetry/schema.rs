//! The sensors of a kind of reading: names, units, usual ranges, and the spellings by which one is recognised.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One sensor of a schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sensor {
    /// Its name in files, JSON and manifests: `tire_pressure_1_1`.
    pub name: String,
    /// Its name for people, short: `tyre front left`.
    pub label: String,
    /// Unit of its values, empty if it has none.
    pub unit: String,
    /// Usual range of its values, in that unit; a value outside is bad data, not an anomaly.
    pub range: (f32, f32),
    /// How many decimals are worth showing.
    pub decimals: u8,
}

impl Sensor {
    /// A sensor of which no more is known than its name.
    pub fn named(name: impl Into<String>) -> Self {
        let name = name.into();
        Sensor {
            label: name.replace('_', " "),
            name,
            unit: String::new(),
            range: (f32::NEG_INFINITY, f32::INFINITY),
            decimals: 2,
        }
    }
}

/// Why a list of sensors is no schema.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SchemaError {
    /// Nothing to measure.
    #[error("a schema needs at least one sensor")]
    Empty,
    /// More sensors than dashlight takes.
    #[error("{0} sensors: a reading may have at most {max}", max = Schema::MAX_SENSORS)]
    TooMany(usize),
    /// Two sensors that no reading could tell apart.
    #[error("sensors {0:?} and {1:?} are one name once case and separators are set aside: rename one")]
    Ambiguous(String, String),
}

/// The sensors of a kind of reading, in the order of the model's columns.
#[derive(Debug, Clone)]
pub struct Schema {
    name: String,
    sensors: Vec<Sensor>,
    /// Exact names and folded ones, to the sensor's position.
    positions: FxHashMap<Box<str>, u16>,
}

impl Schema {
    /// The most sensors one reading may have.
    pub const MAX_SENSORS: usize = 4096;
    /// Longest field name that is compared in its folded form.
    const MAX_FOLDED: usize = 96;

    /// A schema of these sensors, in this order.
    pub fn new(name: impl Into<String>, sensors: Vec<Sensor>) -> Result<Self, SchemaError> {
        if sensors.is_empty() {
            return Err(SchemaError::Empty);
        }
        if sensors.len() > Self::MAX_SENSORS {
            return Err(SchemaError::TooMany(sensors.len()));
        }
        let mut positions = FxHashMap::default();
        for (n, sensor) in sensors.iter().enumerate() {
            let folded: Box<str> = fold(&sensor.name).collect::<String>().into();
            if let Some(&other) = positions.get(&folded) {
                let other: &Sensor = &sensors[usize::from(other)];
                return Err(SchemaError::Ambiguous(other.name.clone(), sensor.name.clone()));
            }
            positions.insert(folded, n as u16);
        }
        for (n, sensor) in sensors.iter().enumerate() {
            positions.insert(sensor.name.as_str().into(), n as u16);
        }
        Ok(Schema { name: name.into(), sensors, positions })
    }

    /// A schema of `count` sensors that have numbers for names, `v001` and on: what a delimited payload carries.
    pub fn numbered(name: impl Into<String>, count: usize) -> Result<Self, SchemaError> {
        Schema::new(name, (1..=count).map(|n| Sensor::named(format!("v{n:03}"))).collect())
    }

    /// The 18 sensors of the electric car that the built-in model knows.
    pub fn car_sensors() -> Self {
        let sensors = CAR_SENSORS
            .iter()
            .map(|&(name, label, unit, low, high, decimals)| Sensor {
                name: name.into(),
                label: label.into(),
                unit: unit.into(),
                range: (low, high),
                decimals,
            })
            .collect();
        Schema::new("car-sensors", sensors)
            .unwrap_or_else(|error| unreachable!("the built-in table is a schema (tested): {error}"))
    }

    /// The schema's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The sensors, in order.
    pub fn sensors(&self) -> &[Sensor] {
        &self.sensors
    }

    /// How many sensors there are.
    pub fn width(&self) -> usize {
        self.sensors.len()
    }

    /// The sensor that `field` spells: its name, or the same letters and digits in other case and with other separators
    /// (`tire_pressure_1_1`, `tire_pressure_11` and `TIRE_PRESSURE11` are one sensor). Does not allocate.
    pub fn position(&self, field: &str) -> Option<usize> {
        if let Some(&n) = self.positions.get(field) {
            return Some(usize::from(n));
        }
        if field.len() > Self::MAX_FOLDED {
            return None;
        }
        let mut folded = [0u8; Self::MAX_FOLDED];
        let mut length = 0;
        for c in fold(field) {
            // Folding only drops or lower-cases ASCII, so it never grows; other characters keep their bytes.
            length += c.encode_utf8(&mut folded[length..]).len();
        }
        let folded = std::str::from_utf8(&folded[..length]).ok()?;
        self.positions.get(folded).map(|&n| usize::from(n))
    }
}

fn fold(name: &str) -> impl Iterator<Item = char> + '_ {
    name.chars().filter(|c| !c.is_ascii() || c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase())
}

type Row = (&'static str, &'static str, &'static str, f32, f32, u8);

/// name, label, unit, low, high, decimals. Axle 1 is the front, wheel 1 the left. Ranges hold every value of the original demo's
/// recurrences too (a battery that latches below zero apart).
const CAR_SENSORS: [Row; 18] = [
    ("coolant_temp", "coolant", "°C", -40.0, 150.0, 1),
    ("intake_air_temp", "intake air", "°C", -40.0, 120.0, 1),
    ("intake_air_flow_speed", "intake air flow", "m/s", 0.0, 250.0, 1),
    ("battery_percentage", "battery", "", 0.0, 1.0, 3),
    ("battery_voltage", "battery voltage", "V", 100.0, 300.0, 1),
    ("current_draw", "current draw", "A", -200.0, 400.0, 1),
    ("speed", "speed", "m/s", 0.0, 70.0, 1),
    ("engine_vibration_amplitude", "engine vibration", "mV", 0.0, 12_000.0, 1),
    ("throttle_pos", "throttle", "", 0.0, 1.0, 3),
    ("tire_pressure_1_1", "tyre front left", "psi", 0.0, 60.0, 1),
    ("tire_pressure_1_2", "tyre front right", "psi", 0.0, 60.0, 1),
    ("tire_pressure_2_1", "tyre rear left", "psi", 0.0, 60.0, 1),
    ("tire_pressure_2_2", "tyre rear right", "psi", 0.0, 60.0, 1),
    ("accelerometer_1_1_value", "accelerometer FL", "m/s²", -20.0, 20.0, 2),
    ("accelerometer_1_2_value", "accelerometer FR", "m/s²", -20.0, 20.0, 2),
    ("accelerometer_2_1_value", "accelerometer RL", "m/s²", -20.0, 20.0, 2),
    ("accelerometer_2_2_value", "accelerometer RR", "m/s²", -20.0, 20.0, 2),
    ("control_unit_firmware", "firmware", "", 0.0, 10_000.0, 0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_car_has_eighteen_sensors() {
        assert_eq!(Schema::car_sensors().width(), 18);
    }

    #[test]
    fn three_spellings_are_one_sensor() {
        let schema = Schema::car_sensors();
        for field in ["tire_pressure_1_1", "tire_pressure_11", "TIRE_PRESSURE11", "tirePressure11", "TIRE-PRESSURE.1.1"]
        {
            assert_eq!(schema.position(field), Some(9), "{field}");
        }
        assert_eq!(schema.position("tire_pressure_3_3"), None);
        assert_eq!(schema.position(""), None);
        assert_eq!(schema.position(&"x".repeat(10_000)), None);
    }

    #[test]
    fn names_that_fold_to_one_are_refused() {
        let sensors = vec![Sensor::named("a_1_12"), Sensor::named("a_11_2")];
        assert_eq!(Schema::new("s", sensors).unwrap_err(), SchemaError::Ambiguous("a_1_12".into(), "a_11_2".into()));
    }

    #[test]
    fn numbered_sensors_are_found_by_number() {
        let schema = Schema::numbered("cycle", 210).unwrap();
        assert_eq!(schema.position("v001"), Some(0));
        assert_eq!(schema.position("V210"), Some(209));
    }
}
