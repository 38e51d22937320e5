//! What detection remembers of one car: compact, plain data, kept over restarts.

use serde::{Deserialize, Serialize};

use super::episode::{Change, Decision, Episode, SensorBlame};
use super::quality::{Quality, Run, SensorQuality};

/// The most sources of expectation a detector has.
pub(super) const MAX_SOURCES: usize = 3;

/// So many readings in a row, in order and older than the newest by more than `CLOCK_MS`, mean that the clock was set back.
const CLOCK_READINGS: u16 = 16;
const CLOCK_MS: i64 = 3_600_000;

/// Part of the threshold below which an open episode's breaches end.
pub(super) const RELEASE: f32 = 0.8;

/// What is remembered of one car. Made by [`super::Detector::car`], changed by [`super::Detector::observe`] and by an
/// operator's marks. Holds no gaps or infinities, so that every format can carry it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CarState {
    /// Time of the newest reading, and of the newest that was judged; `i64::MIN` before the first.
    pub(super) last_ms: i64,
    pub(super) judged_ms: i64,
    /// Tells a reading delivered twice from another one of the same millisecond.
    pub(super) fingerprint: u64,
    /// Readings judged so far.
    pub(super) judged: u32,
    /// Readings in a row that were older than the newest, and the time of the latest of them.
    pub(super) late: u16,
    pub(super) late_ms: i64,
    /// Judged readings left until a re-baseline is done.
    pub(super) relearn: u16,
    /// Judged readings since the latest breach.
    pub(super) quiet: u16,
    /// Which of the last 32 judged readings were breaches, newest in bit 0.
    pub(super) breaches: u32,
    /// Time of the first breach of those that may become an episode.
    pub(super) first_breach_ms: i64,
    /// How many earlier readings are known without a gap in time.
    pub(super) lags: u8,
    /// Smoothed mean squared standardised residual of each source.
    pub(super) joint: [f32; MAX_SOURCES],
    /// The same, of late: bounded and slower.
    pub(super) memory: [f32; MAX_SOURCES],
    pub(super) score: f32,
    pub(super) muted_until_ms: Option<i64>,
    /// `[rows, S]`: the standardised readings before this one, newest first; then for each source the smoothed residual, the
    /// car's own bias and its gain (the reciprocal of its spread).
    pub(super) planes: Box<[f32]>,
    pub(super) runs: Box<[Run]>,
    /// The open episode, else the latest. Boxed: most cars have none.
    pub(super) episode: Option<Box<Episode>>,
}

impl CarState {
    pub(super) fn new(sensors: usize, lag_rows: usize, sources: usize) -> Self {
        let mut planes = vec![0.0; sensors * (lag_rows + 3 * sources)].into_boxed_slice();
        for source in 0..sources {
            let gains = sensors * (lag_rows + 3 * source + 2);
            planes[gains..gains + sensors].fill(1.0);
        }
        CarState {
            last_ms: i64::MIN,
            judged_ms: i64::MIN,
            fingerprint: 0,
            judged: 0,
            late: 0,
            late_ms: i64::MIN,
            relearn: 0,
            quiet: u16::MAX,
            breaches: 0,
            first_breach_ms: i64::MIN,
            lags: 0,
            joint: [1.0; MAX_SOURCES],
            memory: [1.0; MAX_SOURCES],
            score: 0.0,
            muted_until_ms: None,
            planes,
            runs: vec![Run::default(); sensors].into_boxed_slice(),
            episode: None,
        }
    }

    /// Time of the newest reading; `None` before the first.
    pub fn last_ms(&self) -> Option<i64> {
        (self.last_ms != i64::MIN).then_some(self.last_ms)
    }

    /// The latest score, in multiples of the threshold.
    pub fn score(&self) -> f32 {
        self.score
    }

    /// The open episode.
    pub fn open_episode(&self) -> Option<&Episode> {
        self.episode().filter(|episode| episode.open)
    }

    /// The open episode, else the one that closed last.
    pub fn episode(&self) -> Option<&Episode> {
        self.episode.as_deref()
    }

    /// The verdict on a sensor's data, and for how many judged readings it has stood.
    pub fn quality(&self, sensor: usize) -> (SensorQuality, u16) {
        self.runs.get(sensor).map_or_else(Default::default, |run| (run.quality, run.standing))
    }

    /// Marks the open episode as seen by an operator. Whether there was one.
    pub fn acknowledge(&mut self) -> bool {
        match self.episode.as_deref_mut().filter(|episode| episode.open) {
            Some(episode) => {
                episode.acknowledged = true;
                true
            }
            None => false,
        }
    }

    /// Opens no episode before that (event) time. An open one goes on.
    pub fn mute(&mut self, until_ms: i64) {
        self.muted_until_ms = Some(until_ms);
    }

    /// Ends a mute.
    pub fn unmute(&mut self) {
        self.muted_until_ms = None;
    }

    /// Until when (event time) it is muted, if it was and the newest reading is older.
    pub fn muted_until_ms(&self) -> Option<i64> {
        self.muted_until_ms.filter(|&until| self.last_ms < until)
    }

    /// Takes the car's present behaviour as its normal one: over the next `judged` readings its own bias follows, and no
    /// episode opens. Closes an open episode, which it hands back.
    pub fn rebaseline(&mut self, judged: u16) -> Option<Episode> {
        self.relearn = judged.max(1);
        self.breaches = 0;
        let episode = self.episode.as_deref_mut().filter(|episode| episode.open)?;
        episode.open = false;
        Some(episode.clone())
    }

    /// Readings left until a re-baseline is done; 0: none is under way.
    pub fn relearning(&self) -> u16 {
        self.relearn
    }

    /// Bytes it holds, on the heap too.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.planes)
            + size_of_val(&*self.runs)
            + self.episode.as_deref().map_or(0, size_of_val)
    }

    pub(super) fn fits(&self, sensors: usize, lag_rows: usize, sources: usize) -> bool {
        self.runs.len() == sensors && self.planes.len() == sensors * (lag_rows + 3 * sources)
    }

    /// Takes over the shape of `fresh` (another model took this car on) and keeps what does not depend on the model.
    pub(super) fn refit(&mut self, fresh: CarState) {
        let old = std::mem::replace(self, fresh);
        self.last_ms = old.last_ms;
        self.fingerprint = old.fingerprint;
        self.muted_until_ms = old.muted_until_ms;
        self.episode = old.episode;
        // What an episode blames are positions in a schema that may be another now.
        if let Some(episode) = self.episode.as_deref_mut() {
            episode.blames = 0;
        }
    }

    /// Whether a reading is news; if so it is the newest from now on.
    pub(super) fn is_new(&mut self, time_ms: i64, fingerprint: u64) -> bool {
        let known = self.last_ms != i64::MIN;
        if known && (time_ms < self.last_ms || (time_ms == self.last_ms && fingerprint == self.fingerprint)) {
            if time_ms >= self.last_ms.saturating_sub(CLOCK_MS) {
                self.late = 0;
                return false;
            }
            // A device whose clock ran ahead and was set right must not be silent until the wrong time comes true.
            self.late = if time_ms > self.late_ms { self.late.saturating_add(1) } else { 1 };
            self.late_ms = time_ms;
            if self.late < CLOCK_READINGS {
                return false;
            }
            self.lags = 0;
            self.judged_ms = i64::MIN;
        }
        self.late = 0;
        self.last_ms = time_ms;
        self.fingerprint = fingerprint;
        true
    }

    pub(super) fn worst_quality(&self) -> Quality {
        Quality::of(self.runs.iter().map(|run| run.quality))
    }

    /// Whether a score is a breach: at the threshold, and while an episode is open already a little below it, so that one
    /// that hovers there is one episode and not many (Schmitt's trigger).
    pub(super) fn is_breach(&self, score: f32) -> bool {
        score >= if self.open_episode().is_some() { RELEASE } else { 1.0 }
    }

    /// Joins breaches into episodes; `score` is the reading's, finite.
    pub(super) fn decide(
        &mut self,
        score: f32,
        breach: bool,
        time_ms: i64,
        rule: Decision,
        blames: &[SensorBlame],
    ) -> Change {
        self.score = score;
        let breach_bit = u32::from(breach);
        self.breaches = (self.breaches << 1) | breach_bit;
        self.quiet = if breach { 0 } else { self.quiet.saturating_add(1) };
        let window = u32::MAX >> (32 - rule.window.clamp(1, 32));
        let in_window = (self.breaches & window).count_ones();
        if breach && in_window == 1 {
            self.first_breach_ms = time_ms;
        }
        if let Some(episode) = self.episode.as_deref_mut().filter(|episode| episode.open) {
            if breach {
                episode.breaches = episode.breaches.saturating_add(1);
                episode.last_ms = time_ms;
                if score > episode.peak {
                    episode.rise(score, time_ms, blames);
                    return Change::Updated;
                }
            } else if self.quiet >= rule.quiet {
                episode.open = false;
                return Change::Closed;
            }
            return Change::None;
        }
        let muted = self.muted_until_ms.is_some_and(|until| time_ms < until);
        if !breach || in_window < rule.breaches || muted || self.relearn > 0 {
            return Change::None;
        }
        let mut episode = Episode::opened(self.first_breach_ms, time_ms, in_window);
        episode.rise(score, time_ms, blames);
        self.episode = Some(Box::new(episode));
        Change::Opened
    }
}
