//! How a challenger compares with the live model.

use serde::{Deserialize, Serialize};

/// A challenger beside the live model: the same readings, judged by both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShadowView {
    /// The challenger's name.
    pub model: String,
    /// Its threshold and how it was set.
    pub threshold: String,
    /// Readings judged by both.
    pub readings: u64,
    /// Of these, breaches to both.
    pub both: u64,
    /// What the live model made of them.
    pub live: ShadowSide,
    /// What the challenger made of them.
    pub shadow: ShadowSide,
}

/// What one of two models made of the same readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ShadowSide {
    /// Breaches.
    pub breaches: u64,
    /// Episodes opened.
    pub episodes: u64,
    /// Episodes open now.
    pub open: usize,
    /// Microseconds a reading, model and detection.
    pub cost_us: f32,
}

impl ShadowView {
    /// Part of the readings on which both say the same, 0 to 1.
    pub fn agreement(&self) -> f32 {
        let different = (self.live.breaches + self.shadow.breaches).saturating_sub(2 * self.both);
        1.0 - different as f32 / self.readings.max(1) as f32
    }
}
