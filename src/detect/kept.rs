//! What of a car's state outlives its model and this version of dashlight, and how to tell whether the rest may be read back.
//!
//! A [`CarState`] can be written as it is and read back by the same version for the same calibration. Where either is another
//! now, [`Kept`] has what an operator would miss: the episode and the mute.

use serde::{Deserialize, Serialize};

use super::calibration::Calibration;
use super::episode::{Episode, severity};
use super::state::CarState;

/// The part of a [`CarState`] that means the same to every model and version.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Kept {
    /// Time of the newest reading; `None` before the first.
    pub last_ms: Option<i64>,
    /// No episode opens before that (event) time.
    pub muted_until_ms: Option<i64>,
    /// The open episode, else the one that closed last.
    pub episode: Option<KeptEpisode>,
}

/// An episode without its blames, which are positions in one model's list of sensors. Fields as in [`Episode`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // said once, in Episode
pub struct KeptEpisode {
    pub onset_ms: i64,
    pub last_ms: i64,
    pub peak_ms: i64,
    pub peak: f32,
    pub open: bool,
    pub acknowledged: bool,
    pub breaches: u32,
}

impl CarState {
    /// What of it means the same to every model.
    pub fn kept(&self) -> Kept {
        let episode = self.episode().map(|known| KeptEpisode {
            onset_ms: known.onset_ms,
            last_ms: known.last_ms,
            peak_ms: known.peak_ms,
            peak: known.peak,
            open: known.open,
            acknowledged: known.acknowledged,
            breaches: known.breaches,
        });
        Kept { last_ms: self.last_ms(), muted_until_ms: self.muted_until_ms, episode }
    }

    /// Goes on, in a state that has seen nothing yet, from what was kept of another.
    pub fn resume(&mut self, kept: &Kept) {
        if let Some(last_ms) = kept.last_ms {
            self.last_ms = last_ms;
        }
        self.muted_until_ms = kept.muted_until_ms;
        self.episode = kept.episode.as_ref().map(|known| {
            let mut episode = Episode::opened(known.onset_ms, known.last_ms, known.breaches);
            episode.peak_ms = known.peak_ms;
            episode.peak = known.peak;
            episode.severity = severity(known.peak);
            episode.open = known.open;
            episode.acknowledged = known.acknowledged;
            Box::new(episode)
        });
    }

    /// A small state in which nothing is left out: how it is written shows how all are.
    pub fn specimen() -> CarState {
        let mut state = CarState::new(1, 1, 1);
        state.muted_until_ms = Some(0);
        state.episode = Some(Box::new(Episode::opened(0, 0, 0)));
        state
    }
}

impl Calibration {
    /// Tells calibrations apart whose cars' states are not interchangeable: all of it but the thresholds and the rule that joins
    /// breaches into episodes, which no state depends on.
    pub fn basis(&self) -> u32 {
        let mut basis = self.clone();
        match &mut basis {
            Calibration::Mse { threshold } => *threshold = 1.0,
            Calibration::Residuals(learned) => {
                learned.target = 0.0;
                (learned.breaches, learned.window, learned.quiet) = (0, 0, 0);
                learned.immaterial.clear();
                learned.together = 0.0;
                for source in &mut learned.sources {
                    source.tail.clear();
                    (source.joint, source.sensor) = (0.0, 0.0);
                }
            }
        }
        let mut crc = flate2::Crc::new();
        // Finite numbers under fixed names: writing them into memory cannot fail.
        crc.update(&serde_json::to_vec(&basis).unwrap_or_default());
        crc.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{Detector, Scratch};
    use crate::telemetry::Schema;

    #[test]
    fn an_open_episode_and_a_mute_go_on_in_a_state_of_another_model() {
        let schema = Schema::numbered("s", 2).unwrap();
        let detector = Detector::new(&Calibration::mse(1.0), &schema).unwrap();
        let mut state = detector.car(None);
        detector.observe(&mut state, 1_000, &[9.0, 0.0], &[0.0, 0.0], &mut Scratch::default());
        state.acknowledge();
        state.mute(5_000);
        let mut other = CarState::new(3, 2, 1);
        other.resume(&state.kept());
        let (was, is) = (state.open_episode().unwrap(), other.open_episode().unwrap());
        assert_eq!((is.onset_ms, is.severity, is.acknowledged), (was.onset_ms, was.severity, true));
        assert_eq!(is.blames(), [], "sensors may be others");
        assert_eq!((other.last_ms(), other.muted_until_ms()), (Some(1_000), Some(5_000)));
    }

    #[test]
    fn a_threshold_changes_no_basis_and_a_scale_does() {
        let model = crate::model::Model::load("car-sensors").unwrap();
        let learned: Calibration = model.manifest().calibration().unwrap().unwrap();
        let changed = |change: &dyn Fn(&mut crate::detect::Residuals)| {
            let mut other = learned.clone();
            if let Calibration::Residuals(other) = &mut other {
                change(other);
            }
            other.basis()
        };
        assert_eq!(changed(&|other| other.sources[0].joint *= 2.0), learned.basis());
        assert_ne!(changed(&|other| other.sources[0].scale[0] *= 2.0), learned.basis());
        assert_ne!(changed(&|other| other.mean[3] += 1.0), learned.basis());
        assert_ne!(Calibration::mse(3.0).basis(), learned.basis());
        assert_eq!(Calibration::mse(3.0).basis(), Calibration::mse(4.0).basis());
    }
}
