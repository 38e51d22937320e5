//! Whom to blame: the sensors that add most to the residuals of all sources, each with what was expected of it.

use super::super::detector::Scratch;
use super::super::episode::worst;
use super::super::state::CarState;
use super::Judge;

/// A difference smaller than this, in standard deviations of the sensor, is nothing that anybody would act on.
const MATERIAL: f32 = 0.02;

impl Judge {
    /// Names the sensors to blame, by what they add to the residuals of all sources. A difference too small to matter to anybody is
    /// not blamed, as long as another one is at least a quarter as strange.
    pub(super) fn attribute(&self, own: &[f32], values: &[f32], scratch: &mut Scratch) {
        let s = self.sensors;
        self.weigh(own, scratch);
        let Scratch { guilt, blames, residual, .. } = scratch;
        let widen = widen(self.learned.smoothing);
        // How far a sensor is from what the source expects that finds it strangest: in raw units, and in multiples of the usual.
        let strangest = |i: usize| {
            let (mut most, mut off, mut sigma) = (0.0, 0.0, 0.0);
            for ((source, z), own) in self.sources.iter().zip(residual.chunks_exact(s)).zip(own.chunks_exact(3 * s)) {
                let (z, e) = (z[i], own[i] * widen.sqrt());
                let larger = if z.abs() > e.abs() { z } else { e };
                if source.per_scale[i] > 0.0 && larger.abs() > most {
                    most = larger.abs();
                    sigma = larger;
                    off = (larger / own[2 * s + i] + own[s + i]) / source.per_scale[i] * self.learned.deviation[i];
                }
            }
            (off, sigma)
        };
        let matters = |i: usize| strangest(i).0.abs() >= MATERIAL * self.learned.deviation[i];
        let worst_of_all = guilt.iter().fold(0.0f32, |most, &g| most.max(g));
        let worst_that_matters = (0..s).filter(|&i| matters(i)).fold(0.0f32, |most, i| most.max(guilt[i]));
        if worst_that_matters >= worst_of_all / 16.0 {
            (0..s).filter(|&i| !matters(i)).for_each(|i| guilt[i] = 0.0);
        }
        worst(guilt, blames, |i| {
            let (off, sigma) = strangest(i);
            (values[i], values[i] - off, sigma)
        });
    }

    /// How much each sensor adds to the residuals of all sources, now and smoothed; into `scratch.guilt`.
    fn weigh(&self, own: &[f32], scratch: &mut Scratch) {
        let s = self.sensors;
        let widen = widen(self.learned.smoothing);
        let Scratch { guilt, residual, .. } = scratch;
        guilt.clear();
        guilt.resize(s, 0.0);
        for (z, own) in residual.chunks_exact(s).zip(own.chunks_exact(3 * s)) {
            for ((sum, z), e) in guilt.iter_mut().zip(z).zip(own) {
                *sum += z * z + widen * e * e;
            }
        }
    }

    /// As an operator's blame is weighed, of a reading that need not be a breach; into `scratch.guilt`.
    pub fn guilt(&self, state: &CarState, scratch: &mut Scratch) {
        self.weigh(&state.planes[self.lag_rows * self.sensors..], scratch);
    }
}

/// How much narrower a moving average of independent residuals is than they are: its variance is λ/(2−λ) of theirs (Roberts 1959).
fn widen(smoothing: f32) -> f32 {
    (2.0 - smoothing) / smoothing
}
