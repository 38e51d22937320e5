//! The models in the binary, made from this repository alone (see `models/README.md` for the commands).

/// A model's two files.
#[derive(Debug, Clone, Copy)]
pub struct BuiltIn {
    /// Its name.
    pub name: &'static str,
    /// The ONNX file.
    pub onnx: &'static [u8],
    /// The manifest.
    pub manifest: &'static str,
}

const MODELS: &[BuiltIn] = &[
    BuiltIn {
        name: "car-sensors",
        onnx: include_bytes!("../../models/car-sensors.onnx"),
        manifest: include_str!("../../models/car-sensors.toml"),
    },
    BuiltIn {
        name: "engine-cycle",
        onnx: include_bytes!("../../models/engine-cycle.onnx"),
        manifest: include_str!("../../models/engine-cycle.toml"),
    },
];

/// The built-in model of that name.
pub fn find(name: &str) -> Option<&'static BuiltIn> {
    MODELS.iter().find(|model| model.name == name)
}

/// Names of all built-in models.
pub fn names() -> Vec<&'static str> {
    MODELS.iter().map(|model| model.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{Calibration, Detector};
    use crate::model::Model;
    use crate::telemetry::Schema;

    #[test]
    fn each_loads_expects_and_can_be_judged() {
        for name in names() {
            let mut model = Model::load(name).unwrap();
            assert_eq!((model.name(), model.assumed()), (name, &[][..]));
            let calibration = model.manifest().calibration::<Calibration>().unwrap().unwrap();
            Detector::new(&calibration, model.schema()).unwrap();
            let usual: Vec<f32> = model.manifest().sensors.iter().map(|sensor| sensor.centre).collect();
            let mut expected = Vec::new();
            model.expected(&usual, &mut expected).unwrap();
            for (sensor, (expected, usual)) in model.manifest().sensors.iter().zip(expected.iter().zip(&usual)) {
                let away = (expected - usual).abs() / sensor.scale;
                assert!(away < 3.0, "{name}: {} is expected {away} scales from usual", sensor.name);
            }
        }
    }

    #[test]
    fn the_cars_model_knows_the_cars_sensors() {
        assert_eq!(Model::load("car-sensors").unwrap().schema().sensors(), Schema::car_sensors().sensors());
    }
}
