//! Positions of the car's sensors in [`Schema::car_sensors`](crate::telemetry::Schema::car_sensors), by name.

#![allow(missing_docs)] // the names say it

pub const COOLANT: usize = 0;
pub const INTAKE_TEMP: usize = 1;
pub const INTAKE_FLOW: usize = 2;
pub const BATTERY: usize = 3;
pub const VOLTAGE: usize = 4;
pub const CURRENT: usize = 5;
pub const SPEED: usize = 6;
pub const VIBRATION: usize = 7;
pub const THROTTLE: usize = 8;
/// The first of four: front left, front right, rear left, rear right.
pub const TYRES: usize = 9;
/// The first of four, in the tyres' order.
pub const ACCELEROMETERS: usize = 13;
pub const FIRMWARE: usize = 17;
/// How many there are.
pub const COUNT: usize = 18;

/// One reading of a car, by these positions; a gap is NaN.
pub type Row = [f32; COUNT];

/// What a sensor's converter resolves: readings are multiples of one over this. Real sensors have such steps, and they
/// keep files and messages short.
pub(crate) const STEPS_PER_UNIT: Row = [
    100.0, 100.0, 100.0, 10_000.0, 100.0, 100.0, 100.0, 10.0, 1_000.0, 100.0, 100.0, 100.0, 100.0, 1_000.0, 1_000.0,
    1_000.0, 1_000.0, 1.0,
];

/// `row` as the converters give it.
pub(crate) fn quantise(row: &mut Row) {
    for (value, steps) in row.iter_mut().zip(STEPS_PER_UNIT) {
        // A cast, not `round`: that would be a call for each value where the processor's own is not assumed.
        let scaled = *value * steps;
        *value = (scaled + if scaled < 0.0 { -0.5 } else { 0.5 }) as i32 as f32 / steps;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Schema;

    #[test]
    fn the_positions_are_the_schemas() {
        let schema = Schema::car_sensors();
        let at = |name: &str| schema.position(name).unwrap();
        assert_eq!(schema.width(), COUNT);
        assert_eq!(at("coolant_temp"), COOLANT);
        assert_eq!(at("intake_air_temp"), INTAKE_TEMP);
        assert_eq!(at("intake_air_flow_speed"), INTAKE_FLOW);
        assert_eq!(at("battery_percentage"), BATTERY);
        assert_eq!(at("battery_voltage"), VOLTAGE);
        assert_eq!(at("current_draw"), CURRENT);
        assert_eq!(at("speed"), SPEED);
        assert_eq!(at("engine_vibration_amplitude"), VIBRATION);
        assert_eq!(at("throttle_pos"), THROTTLE);
        assert_eq!(at("tire_pressure_1_1"), TYRES);
        assert_eq!(at("tire_pressure_2_2"), TYRES + 3);
        assert_eq!(at("accelerometer_1_1_value"), ACCELEROMETERS);
        assert_eq!(at("accelerometer_2_2_value"), ACCELEROMETERS + 3);
        assert_eq!(at("control_unit_firmware"), FIRMWARE);
    }

    #[test]
    fn quantised_values_are_within_half_a_step() {
        let mut row: Row = std::array::from_fn(|n| n as f32 * 1.234_567 - 7.0);
        let before = row;
        quantise(&mut row);
        for n in 0..COUNT {
            assert!((row[n] - before[n]).abs() <= 0.5 / STEPS_PER_UNIT[n] + 1e-5, "{n}");
        }
    }
}
