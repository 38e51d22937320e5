//! What one address and one client may take: connections, and messages and bytes a second.

use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::time::Instant;

/// Where somebody comes from, as far as it can be told apart: an IPv4 address, or the /64 of an IPv6 address, which is what
/// one subscriber has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin(IpAddr);

impl Origin {
    /// Of a peer's address.
    pub fn of(address: IpAddr) -> Origin {
        Origin(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
            v4 => v4,
        })
    }
}

/// Sockets open by origin. Touched when a connection begins or ends.
#[derive(Debug, Default)]
pub struct Origins(Mutex<FxHashMap<Origin, usize>>);

impl Origins {
    /// Counts one more; answers how many there were.
    pub fn enter(&self, origin: Origin) -> usize {
        let mut counts = self.0.lock();
        let count = counts.entry(origin).or_default();
        *count += 1;
        *count - 1
    }

    /// Counts one less.
    pub fn leave(&self, origin: Origin) {
        let mut counts = self.0.lock();
        if let Some(count) = counts.get_mut(&origin) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&origin);
            }
        }
    }
}

/// What a connection may send a second; 0 is as much as it can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Messages.
    pub messages: usize,
    /// Bytes.
    pub bytes: usize,
}

/// How fast one connection is read: what it may send in a second it may send at once, and then at its rate. Who sends more is
/// not read for a while, and TCP holds it back.
#[derive(Debug)]
pub struct Pace {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Pace {
    /// With a second's worth to begin with.
    pub fn new(rates: Rates) -> Pace {
        let now = Instant::now();
        Pace { messages: Bucket::new(rates.messages, now), bytes: Bucket::new(rates.bytes, now) }
    }

    /// Takes a message, if one is left.
    pub fn may_publish(&mut self) -> bool {
        let Some(bucket) = &mut self.messages else { return true };
        if bucket.left < 1.0 {
            bucket.earn(Instant::now());
        }
        let may = bucket.left >= 1.0;
        bucket.left -= f64::from(u8::from(may));
        may
    }

    /// Takes bytes that were read; more than are left are owed.
    pub fn read(&mut self, bytes: usize, now: Instant) {
        // Before they are spent: time in which nothing came is worth a second at most.
        for bucket in [&mut self.messages, &mut self.bytes].into_iter().flatten() {
            bucket.earn(now);
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.left -= bytes as f64;
        }
    }

    /// Until when nothing more is to be read; `None`: it may be read.
    pub fn until(&mut self) -> Option<Instant> {
        let waits = [(&mut self.messages, 1.0), (&mut self.bytes, 0.0)];
        waits.into_iter().filter_map(|(bucket, needed)| bucket.as_mut()?.wait(needed)).max()
    }
}

/// What is left of an allowance that fills up again; below zero it is owed.
#[derive(Debug)]
struct Bucket {
    left: f64,
    per_second: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_second: usize, now: Instant) -> Option<Bucket> {
        let per_second = per_second as f64;
        (per_second > 0.0).then_some(Bucket { left: per_second, per_second, at: now })
    }

    fn earn(&mut self, now: Instant) {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.left = (self.left + earned).min(self.per_second);
        self.at = now;
    }

    /// When as much as is needed will be there, if it is not there now. The clock is asked only then.
    fn wait(&mut self, needed: f64) -> Option<Instant> {
        if self.left >= needed {
            return None;
        }
        self.earn(Instant::now());
        let missing = (needed - self.left) / self.per_second;
        // No debt is so large that its end could not be told: what is read at once is bounded, and a rate is 1 or more.
        (missing > 0.0).then(|| self.at + Duration::try_from_secs_f64(missing).unwrap_or_default())
    }
}

/// Wrong passwords by origin: after some of them an origin's next ones are not looked at for a while, so that guessing costs
/// the gate nothing. Bounded: when too many origins are known, all is forgiven.
#[derive(Debug, Default)]
pub struct Failures(Mutex<FxHashMap<Origin, Bucket>>);

impl Failures {
    /// Origins known at most.
    const KNOWN: usize = 10_000;
    /// Wrong passwords an origin may send at once.
    const ALLOWED: f64 = 20.0;
    /// And a second from then on.
    const PER_SECOND: f64 = 0.5;

    /// Whether this origin has sent too many.
    pub fn too_many(&self, origin: Origin, now: Instant) -> bool {
        let mut known = self.0.lock();
        let Some(bucket) = known.get_mut(&origin) else { return false };
        let earned = now.saturating_duration_since(bucket.at).as_secs_f64() * Self::PER_SECOND;
        bucket.left + earned < 1.0
    }

    /// One more.
    pub fn note(&self, origin: Origin, now: Instant) {
        let mut known = self.0.lock();
        if known.len() >= Self::KNOWN && !known.contains_key(&origin) {
            known.clear();
        }
        let bucket =
            known.entry(origin).or_insert(Bucket { left: Self::ALLOWED, per_second: Self::PER_SECOND, at: now });
        let earned = now.saturating_duration_since(bucket.at).as_secs_f64() * Self::PER_SECOND;
        bucket.left = (bucket.left + earned).min(Self::ALLOWED) - 1.0;
        bucket.at = now;
    }

    /// Forgets those who have long been good.
    pub fn tidy(&self, now: Instant) {
        let since = |bucket: &Bucket| now.saturating_duration_since(bucket.at).as_secs_f64() * Self::PER_SECOND;
        self.0.lock().retain(|_, bucket| bucket.left + since(bucket) < Self::ALLOWED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    /// As if time had passed.
    fn pass(pace: &mut Pace, time: Duration) {
        for bucket in [&mut pace.messages, &mut pace.bytes].into_iter().flatten() {
            bucket.at -= time;
        }
    }

    /// Seconds to wait.
    fn wait(pace: &mut Pace) -> f64 {
        pace.until().map_or(0.0, |until| (until - Instant::now()).as_secs_f64())
    }

    #[test]
    fn a_second_of_each_is_free_and_what_is_beyond_is_waited_for() {
        let mut pace = Pace::new(Rates { messages: 10, bytes: 1_000 });
        for _ in 0..10 {
            assert!(pace.may_publish());
        }
        assert!(!pace.may_publish());
        assert!((wait(&mut pace) - 0.1).abs() < 0.05, "the next of ten a second");
        pass(&mut pace, Duration::from_millis(500));
        assert_eq!((0..20).filter(|_| pace.may_publish()).count(), 5);
        pace.read(3_000, Instant::now());
        assert!((wait(&mut pace) - 2.0).abs() < 0.05, "the longer of both");
        pass(&mut pace, Duration::from_secs(100));
        assert_eq!(wait(&mut pace), 0.0);
        pace.read(0, Instant::now());
        assert_eq!((0..20).filter(|_| pace.may_publish()).count(), 10, "what was not used is not saved up");
    }

    #[test]
    fn without_rates_there_is_no_wait() {
        let mut pace = Pace::new(Rates::default());
        pace.read(usize::MAX, Instant::now());
        assert!(pace.may_publish() && pace.until().is_none());
    }

    #[test]
    fn an_origin_is_an_address_or_the_network_of_an_ipv6_subscriber() {
        let origin = |text: &str| Origin::of(text.parse().unwrap());
        assert_ne!(origin("10.0.0.1"), origin("10.0.0.2"));
        assert_eq!(origin("::ffff:10.0.0.1"), origin("10.0.0.1"));
        assert_eq!(origin("2001:db8:1:2::1"), origin("2001:db8:1:2:ffff::9"));
        assert_ne!(origin("2001:db8:1:2::1"), origin("2001:db8:1:3::1"));
        let origins = Origins::default();
        assert_eq!(
            [origins.enter(origin("::1")), origins.enter(origin("::2")), origins.enter(origin("10.0.0.1"))],
            [0, 1, 0]
        );
        origins.leave(origin("::1"));
        origins.leave(origin("::1"));
        assert_eq!(origins.0.lock().len(), 1, "nothing is kept of those who are gone");
    }

    #[test]
    fn an_origin_with_many_wrong_passwords_waits_and_is_forgiven() {
        let (failures, start) = (Failures::default(), Instant::now());
        let (one, other) = (Origin::of([10, 0, 0, 1].into()), Origin::of([10, 0, 0, 2].into()));
        for _ in 0..20 {
            assert!(!failures.too_many(one, start));
            failures.note(one, start);
        }
        assert!(failures.too_many(one, start) && !failures.too_many(other, start));
        assert!(!failures.too_many(one, after(start, 2.0)), "one more after two seconds");
        failures.note(one, after(start, 2.0));
        assert!(failures.too_many(one, after(start, 2.0)));
        failures.tidy(after(start, 100.0));
        assert!(failures.0.lock().is_empty());
        for n in 0..=Failures::KNOWN as u32 {
            failures.note(Origin(IpAddr::V4(n.into())), start);
        }
        assert!(failures.0.lock().len() <= Failures::KNOWN);
    }
}
