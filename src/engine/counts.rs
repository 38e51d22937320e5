//! What went where since the start: one set of counters, written on the path, read by whoever shows them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::view::Counts;

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// The live side of [`Counts`]; each field is explained there.
        #[derive(Debug, Default)]
        pub struct Counters { $(
            #[allow(missing_docs)] // said once, in Counts
            pub $name: AtomicU64,
        )* }

        impl Counters {
            /// The counts now. Upstream counters are read last, so that a message on its way never shows as scored before
            /// it was received.
            pub fn read(&self) -> Counts {
                let mut counts = Counts::default();
                $( counts.$name = self.$name.load(Relaxed); )*
                counts
            }
        }
    };
}

counters!(
    published,
    episodes,
    anomalies,
    duplicates,
    undecodable,
    scored,
    consumed,
    lost,
    refused,
    produced,
    unmapped,
    received,
    recovered,
);

/// Adds to a counter.
pub fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

/// Rates per second over the last seconds, from totals read now and then.
#[derive(Debug)]
pub struct Rates<const N: usize> {
    /// Oldest first; at most [`Rates::SECONDS`] and one.
    samples: std::collections::VecDeque<(std::time::Instant, [u64; N])>,
    /// The first counter's increase in each whole second, oldest first.
    seconds: std::collections::VecDeque<f32>,
}

impl<const N: usize> Rates<N> {
    const SECONDS: usize = 4;
    const SERIES: usize = 120;

    /// Starts counting at `now` from these totals.
    pub fn new(now: std::time::Instant, totals: [u64; N]) -> Self {
        Rates { samples: [(now, totals)].into(), seconds: std::collections::VecDeque::new() }
    }

    /// Takes the totals as they are at `now`; keeps one sample a second.
    pub fn observe(&mut self, now: std::time::Instant, totals: [u64; N]) {
        let Some(&(last, before)) = self.samples.back() else { return };
        let elapsed = now.saturating_duration_since(last).as_secs_f32();
        if elapsed < 1.0 {
            return;
        }
        self.seconds.push_back(totals[0].saturating_sub(before[0]) as f32 / elapsed);
        self.samples.push_back((now, totals));
        while self.samples.len() > Self::SECONDS + 1 {
            self.samples.pop_front();
        }
        while self.seconds.len() > Self::SERIES {
            self.seconds.pop_front();
        }
    }

    /// Increase per second of each counter over the last seconds.
    pub fn per_second(&self) -> [f32; N] {
        let (Some(&(from, first)), Some(&(to, last))) = (self.samples.front(), self.samples.back()) else {
            return [0.0; N];
        };
        let elapsed = to.saturating_duration_since(from).as_secs_f32();
        std::array::from_fn(|n| if elapsed > 0.0 { last[n].saturating_sub(first[n]) as f32 / elapsed } else { 0.0 })
    }

    /// The first counter's rate in each second of late, oldest first.
    pub fn series(&self) -> Vec<f32> {
        self.seconds.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_rate_is_the_increase_over_the_last_seconds() {
        let start = Instant::now();
        let mut rates = Rates::new(start, [0, 0]);
        for second in 1..=10 {
            rates.observe(start + Duration::from_secs(second), [second * 100, second * 7]);
        }
        assert_eq!(rates.per_second(), [100.0, 7.0]);
        assert_eq!(rates.series(), [100.0; 10]);
    }

    #[test]
    fn before_the_first_second_there_is_no_rate() {
        let start = Instant::now();
        let mut rates = Rates::new(start, [5]);
        rates.observe(start + Duration::from_millis(10), [50]);
        assert_eq!(rates.per_second(), [0.0]);
    }
}
