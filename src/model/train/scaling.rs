//! From a sensor's own units to standardised ones, so that no outlier and no unit weighs more than another.

use crate::telemetry::Recording;

/// How far from its usual value, in standardised units, a value still counts; beyond, it counts as this far. One sensor gone wild
/// then cannot drown the others.
pub const REACH: f32 = 8.0;

/// Values of a sensor that its scale is taken from; more would change nothing.
const SAMPLE: usize = 100_000;

/// How one sensor is standardised: `(value − centre) / scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// The sensor's median.
    pub centre: f32,
    /// About one standard deviation of its usual values, above zero.
    pub scale: f32,
    /// Whether the sensor varies at all.
    pub varies: bool,
}

impl Scaling {
    /// The scale is the widest of what two ranges say of a normal distribution's σ: the middle half (1.349 σ), and all but half a
    /// percent at each end (5.152 σ), for a sensor that rests most of the time; and of one that moves in less than one percent of
    /// its readings, their standard deviation.
    pub fn of(values: &mut Vec<f32>) -> Scaling {
        values.retain(|value| value.is_finite());
        values.sort_unstable_by(f32::total_cmp);
        if values.is_empty() {
            return Scaling { centre: 0.0, scale: 1.0, varies: false };
        }
        let quantile = |part: f64| values[((values.len() - 1) as f64 * part).round() as usize];
        let centre = quantile(0.5);
        let (low, high) = (quantile(0.005), quantile(0.995));
        let mut scale = ((quantile(0.75) - quantile(0.25)) / 1.349).max((high - low) / 5.152);
        if scale <= 0.0 {
            let square: f64 = values.iter().map(|&value| f64::from(value - centre).powi(2)).sum();
            scale = (square / values.len() as f64).sqrt() as f32;
        }
        // A difference in the last digit of a large number is rounding, not variation.
        let smallest = low.abs().max(high.abs()) * 1e-6;
        let varies = scale.is_finite() && scale > smallest && scale > f32::MIN_POSITIVE / f32::EPSILON;
        Scaling { centre, scale: if varies { scale } else { 1.0 }, varies }
    }

    /// The scaling of each sensor of a recording.
    pub fn all(recording: &Recording) -> Vec<Scaling> {
        let step = recording.len().div_ceil(SAMPLE).max(1);
        let mut column = Vec::new();
        (0..recording.width())
            .map(|sensor| {
                column.clear();
                column.extend(recording.rows().step_by(step).map(|row| row[sensor]));
                let scaling = Scaling::of(&mut column);
                if scaling.varies || step == 1 {
                    return scaling;
                }
                // It may have moved between the readings looked at.
                column.clear();
                column.extend(recording.rows().map(|row| row[sensor]));
                Scaling::of(&mut column)
            })
            .collect()
    }

    /// A value in standardised units, within [`REACH`]; 0 for a gap and for a sensor that does not vary.
    pub fn standardise(&self, value: f32) -> f32 {
        if !self.varies || !value.is_finite() {
            return 0.0;
        }
        // As the graph does it: a multiplication, which rounds otherwise than a division.
        ((value - self.centre) * (1.0 / self.scale)).clamp(-REACH, REACH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outliers_and_gaps_do_not_widen_a_scale() {
        let mut values: Vec<f32> = (0..1000).map(|n| (n % 100) as f32).collect();
        values.extend([1e9, -1e9, f32::NAN]);
        let scaling = Scaling::of(&mut values);
        assert!(scaling.varies && (scaling.centre - 49.5).abs() <= 1.0 && scaling.scale < 50.0, "{scaling:?}");
        assert_eq!(scaling.standardise(1e9), REACH);
        assert_eq!(scaling.standardise(f32::NAN), 0.0);
    }

    #[test]
    fn a_sensor_that_rests_most_of_the_time_still_has_a_scale() {
        let mut mostly_zero: Vec<f32> = (0..1000).map(|n| if n % 20 == 0 { 100.0 } else { 0.0 }).collect();
        let scaling = Scaling::of(&mut mostly_zero);
        assert!(scaling.varies && scaling.centre == 0.0 && scaling.scale > 10.0, "{scaling:?}");
        let mut once: Vec<f32> = vec![2000.0; 1000];
        once[500] = 1000.0;
        assert!(Scaling::of(&mut once).varies);
    }

    #[test]
    fn a_constant_and_an_absent_sensor_do_not_vary() {
        assert_eq!(Scaling::of(&mut vec![7.0; 50]), Scaling { centre: 7.0, scale: 1.0, varies: false });
        assert!(!Scaling::of(&mut vec![f32::NAN; 50]).varies);
        assert!(!Scaling::of(&mut vec![1e30, 1e30 * (1.0 + f32::EPSILON)]).varies);
    }
}
