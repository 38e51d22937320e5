//! How long readings take from the gate to the screen: a histogram over the last minute or two.

use hdrhistogram::Histogram;

use super::view::Millis;

/// Readings slower than this count as this slow.
const LONGEST_MS: u64 = 3_600_000;
/// A half of the window.
const HALF_MS: Millis = 30_000;

/// Two half-minutes of delays in milliseconds: the one being filled and the one before.
#[derive(Debug)]
pub struct Latency {
    filling: Histogram<u64>,
    full: Histogram<u64>,
    since: Millis,
}

impl Latency {
    /// Nothing seen yet.
    pub fn new(now: Millis) -> Self {
        // 1 ms to an hour with two digits: constants that hdrhistogram accepts (tested), a few kB.
        let empty = || Histogram::new_with_bounds(1, LONGEST_MS, 2).unwrap_or_else(|_| unreachable!());
        Latency { filling: empty(), full: empty(), since: now }
    }

    /// Records that `count` readings received at `received` are visible at `now`.
    pub fn record(&mut self, received: Millis, now: Millis, count: u64) {
        if now - self.since > HALF_MS {
            std::mem::swap(&mut self.filling, &mut self.full);
            self.filling.reset();
            self.since = now;
        }
        let delay = now.saturating_sub(received).clamp(0, LONGEST_MS as Millis) as u64;
        self.filling.saturating_record_n(delay.max(1), count);
    }

    /// The median and the 99th percentile in milliseconds; `None` before the first reading.
    pub fn p50_p99(&self) -> Option<(f32, f32)> {
        let mut both = self.full.clone();
        both.add(&self.filling).ok()?;
        (!both.is_empty()).then(|| (both.value_at_quantile(0.5) as f32, both.value_at_quantile(0.99) as f32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentiles_are_of_the_last_minute() {
        let mut latency = Latency::new(0);
        assert_eq!(latency.p50_p99(), None);
        latency.record(0, 5_000, 10);
        for now in [31_000, 62_000, 93_000] {
            latency.record(now - 40, now, 100);
        }
        assert_eq!(latency.p50_p99(), Some((40.0, 40.0)), "the slow start is forgotten");
    }

    #[test]
    fn clocks_that_run_backwards_count_as_no_delay() {
        let mut latency = Latency::new(0);
        latency.record(1_000, 0, 1);
        latency.record(i64::MIN, i64::MAX, 1);
        assert!(latency.p50_p99().is_some());
    }
}
