//! Episodes: breaches joined into one thing an operator handles.

use serde::{Deserialize, Serialize};

/// How many sensors an episode blames at the most.
pub const MAX_BLAMES: usize = 5;

/// A sensor held responsible, and how far it is from what is expected of it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct SensorBlame {
    /// Position in the schema.
    pub sensor: u16,
    /// Its value.
    pub value: f32,
    /// What is expected of it.
    pub expected: f32,
    /// Signed, in multiples of the usual size of its residual; above zero is too high.
    pub sigma: f32,
    /// Its part of the blame, 0 to 1.
    pub share: f32,
}

/// What a reading did to its car's episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Change {
    /// Nothing that anybody must hear of.
    #[default]
    None,
    /// One was opened.
    Opened,
    /// The open one has a new peak.
    Updated,
    /// The open one was closed.
    Closed,
}

/// An episode as its car's state remembers it: the open one, or the one that closed last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// Time of the first breach.
    pub onset_ms: i64,
    /// Time of the latest breach.
    pub last_ms: i64,
    /// Time of the worst reading.
    pub peak_ms: i64,
    /// Score of the worst reading, in multiples of the threshold.
    pub peak: f32,
    /// Severity 0–100 at the peak.
    pub severity: u8,
    /// Whether it is open.
    pub open: bool,
    /// Whether an operator acknowledged it.
    pub acknowledged: bool,
    /// Breaches in it.
    pub breaches: u32,
    /// How many of `blamed` count.
    pub(super) blames: u8,
    pub(super) blamed: [SensorBlame; MAX_BLAMES],
}

impl Episode {
    pub(super) fn opened(onset_ms: i64, now_ms: i64, breaches: u32) -> Self {
        Episode {
            onset_ms,
            last_ms: now_ms,
            peak_ms: now_ms,
            peak: 0.0,
            severity: 0,
            open: true,
            acknowledged: false,
            breaches,
            blames: 0,
            blamed: Default::default(),
        }
    }

    /// Takes a reading worse than all before as the peak.
    pub(super) fn rise(&mut self, score: f32, time_ms: i64, blames: &[SensorBlame]) {
        self.peak = score;
        self.peak_ms = time_ms;
        self.severity = severity(score);
        self.blames = blames.len().min(MAX_BLAMES) as u8;
        self.blamed.iter_mut().zip(blames).for_each(|(mine, blame)| *mine = *blame);
    }

    /// The sensors to blame, worst first, values as at the peak.
    pub fn blames(&self) -> &[SensorBlame] {
        &self.blamed[..usize::from(self.blames).min(MAX_BLAMES)]
    }

    /// Time of the last breach; `None` while open.
    pub fn end_ms(&self) -> Option<i64> {
        (!self.open).then_some(self.last_ms)
    }
}

/// When breaches become an episode, and when it ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decision {
    /// So many breaches among the last `window` judged readings open it,
    pub breaches: u32,
    /// at most 32,
    pub window: u32,
    /// and so many judged readings without a breach close it.
    pub quiet: u16,
}

/// Fills `blames` with the sensors of most `guilt`, worst first; `of` says (value, expected, sigma) of one.
pub(super) fn worst(guilt: &[f32], blames: &mut Vec<SensorBlame>, of: impl Fn(usize) -> (f32, f32, f32)) {
    blames.clear();
    let total: f64 = guilt.iter().map(|&g| f64::from(g)).sum();
    for (sensor, &weight) in guilt.iter().enumerate() {
        let share = if total > 0.0 { (f64::from(weight) / total) as f32 } else { 0.0 };
        let place = blames.iter().position(|other| other.share < share).unwrap_or(blames.len());
        if share > 0.0 && place < MAX_BLAMES {
            blames.truncate(MAX_BLAMES - 1);
            let (value, expected, sigma) = of(sensor);
            blames.insert(place, SensorBlame { sensor: sensor as u16, value, expected, sigma, share });
        }
    }
    // A tenth of the worst one's blame is noise, not a lead.
    let least = blames.first().map_or(0.0, |first| first.share / 10.0);
    blames.retain(|blame| blame.share >= least);
}

/// The name of a car's episode: the same readings give the same name, whichever process judges them and however often.
pub fn episode_id(car: &str, onset_ms: i64) -> String {
    format!("{car}@{onset_ms}")
}

/// Severity 0–100 of a score: 40 at the threshold, 60 at twice, 80 at four times it, 100 from eight times on.
/// Scores are multiples of the threshold, so severities compare across cars.
pub fn severity(score: f32) -> u8 {
    if score.is_nan() || score <= 0.0 {
        return 0;
    }
    let severity = if score < 1.0 { 40.0 * score } else { 40.0 + 20.0 * score.log2() };
    severity.clamp(0.0, 100.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn severity_says_how_many_times_over_the_threshold() {
        let of = [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 1e30, f32::INFINITY, -1.0, f32::NAN].map(severity);
        assert_eq!(of, [0, 20, 40, 60, 80, 100, 100, 100, 0, 0]);
    }

    proptest! {
        #[test]
        fn a_higher_score_is_never_less_severe(a in 0f32..100.0, b in 0f32..100.0) {
            prop_assert!((a <= b) <= (severity(a) <= severity(b)));
        }
    }
}
