//! The order in which one console sees the fleet: which car stands where. Kept between snapshots, so that rows stand still
//! while an operator looks at them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::view::FleetQuery;

/// Shortest time between two sortings while the query stays the same.
const RESORT: Duration = Duration::from_secs(2);
/// The same while new cars keep appearing.
const RESORT_GROWING: Duration = Duration::from_millis(250);

/// Where a car is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The worker that owns it.
    pub worker: usize,
    /// The lane there.
    pub lane: usize,
    /// Its number in the lane.
    pub car: u32,
}

/// A car to be put in order.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Higher comes first.
    pub rank: u64,
    /// Decides between equals.
    pub name: Arc<str>,
    /// Where it is kept.
    pub place: Place,
}

/// The order.
#[derive(Debug, Default)]
pub struct Order {
    sorted: Vec<Candidate>,
    by: Option<FleetQuery>,
    at: Option<Instant>,
    cars: usize,
}

impl Order {
    /// Whether it is time to sort again for `query`, with `cars` cars known.
    pub fn is_due(&self, query: &FleetQuery, cars: usize, now: Instant) -> bool {
        let (Some(by), Some(at)) = (&self.by, self.at) else { return true };
        if by.sort != query.sort || by.filter != query.filter {
            return true;
        }
        if query.hold_order {
            return false;
        }
        now.duration_since(at) >= if cars == self.cars { RESORT } else { RESORT_GROWING }
    }

    /// Puts the candidates in order.
    pub fn sort(&mut self, query: &FleetQuery, mut candidates: Vec<Candidate>, cars: usize, now: Instant) {
        candidates.sort_unstable_by(|a, b| b.rank.cmp(&a.rank).then_with(|| a.name.cmp(&b.name)));
        self.sorted = candidates;
        self.by = Some(query.clone());
        self.at = Some(now);
        self.cars = cars;
    }

    /// Cars in the order.
    pub fn cars(&self) -> usize {
        self.sorted.len()
    }

    /// The window's first row and its places; a window past the end is moved back.
    pub fn window(&self, offset: usize, limit: usize) -> (usize, impl Iterator<Item = Place>) {
        let offset = offset.min(self.sorted.len().saturating_sub(limit));
        (offset, self.sorted.iter().skip(offset).take(limit).map(|candidate| candidate.place))
    }

    /// The row of the car with this name.
    pub fn locate(&self, name: &str) -> Option<usize> {
        self.sorted.iter().position(|candidate| &*candidate.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::view::FleetSort;

    fn candidate(rank: u64, name: &str) -> Candidate {
        Candidate { rank, name: name.into(), place: Place { worker: 0, lane: 0, car: rank as u32 } }
    }

    #[test]
    fn worst_come_first_and_equals_by_name() {
        let mut order = Order::default();
        order.sort(
            &FleetQuery::default(),
            vec![candidate(1, "b"), candidate(9, "z"), candidate(1, "a")],
            3,
            Instant::now(),
        );
        assert_eq!(["z", "a", "b"].map(|name| order.locate(name)), [Some(0), Some(1), Some(2)]);
        assert_eq!(order.locate("q"), None);
    }

    #[test]
    fn a_window_past_the_end_is_moved_back() {
        let mut order = Order::default();
        order.sort(&FleetQuery::default(), (0..10).map(|n| candidate(n, "c")).collect(), 10, Instant::now());
        assert_eq!(order.window(99, 4).0, 6);
        assert_eq!(order.window(99, 400).0, 0);
        assert_eq!(order.window(2, 3).1.count(), 3);
    }

    #[test]
    fn rows_stand_still_for_two_seconds_and_while_a_key_is_held() {
        let (mut order, query, start) = (Order::default(), FleetQuery::default(), Instant::now());
        assert!(order.is_due(&query, 0, start));
        order.sort(&query, Vec::new(), 5, start);
        assert!(!order.is_due(&query, 5, start + Duration::from_millis(1_900)));
        assert!(order.is_due(&query, 5, start + RESORT));
        assert!(order.is_due(&query, 6, start + RESORT_GROWING), "new cars are let in sooner");
        let held = FleetQuery { hold_order: true, ..query.clone() };
        assert!(!order.is_due(&held, 6, start + RESORT * 10));
        let by_name = FleetQuery { sort: FleetSort::Name, ..held };
        assert!(order.is_due(&by_name, 5, start), "another order is another order");
    }
}
