//! A lane's cars out to a file and back, and how it catches up with where it was.

use std::collections::hash_map::Entry as MapEntry;

use super::{Lane, Open, Out, Place};
use crate::detect::CarState;
use crate::engine::keep::{Builder, Entry, Mark, Snapshot, layout};
use crate::kafka::Record;

/// Where kept things come from, and where reading begins.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// The partition.
    pub partition: i32,
    /// The log that is being read: see [`crate::engine::keep::Header::log`].
    pub log: u64,
    /// Where it is read from, if that was said because of what was kept.
    pub from: Option<i64>,
    /// The verdicts on all readings before this offset are written.
    pub delivered: Option<i64>,
}

/// What came back.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Cars.
    pub cars: usize,
    /// Open episodes among them.
    pub open: usize,
    /// Whether only episodes and mutes came back, because another model or version wrote the states.
    pub afresh: bool,
}

/// A partition that is being read from before where it was.
#[derive(Debug)]
pub struct CatchUp {
    /// Reading began here.
    from: i64,
    /// Verdicts on readings before this are written already.
    delivered: i64,
    /// Read up to here.
    reached: i64,
    /// Marks that were made further on.
    marks: Vec<Mark>,
}

impl Lane {
    /// Tells models and calibrations apart whose cars' states are not interchangeable.
    pub fn basis(&self) -> u64 {
        self.scorer.basis
    }

    /// Whether a partition is still being read again from before where it was.
    pub fn is_catching_up(&self, partition: i32) -> bool {
        self.catching_up.contains_key(&partition)
    }

    /// Adds car `n` to a file, if its readings come from that partition.
    pub fn capture(&self, n: u32, partition: i32, file: &mut Builder) {
        let at = n as usize;
        let (Some(place), Some(state), Some(car)) =
            (self.places.get(at), self.states.get(at), self.shard.cars().get(at))
        else {
            return;
        };
        if place.partition != partition {
            return;
        }
        let entry = Entry {
            key: &car.key,
            next: place.next,
            last_received: car.last_received,
            readings: car.readings,
            episodes: car.episodes,
            since: self.open.get(&n).map(|open| open.since),
            muted_until: car.muted_until,
            kept: state.kept(),
            state: &[],
        };
        file.car(entry, state);
    }

    /// Takes up what was kept of a partition's cars, and the marks made since.
    pub fn restore(&mut self, origin: &Origin, snapshot: Option<&Snapshot>, marks: Vec<Mark>) -> Restored {
        let mut restored = Restored::default();
        // Of a log that is gone, offsets mean nothing.
        let lasting = snapshot.filter(|snapshot| snapshot.header.log == origin.log).map(|s| s.header.offset);
        if let Some(snapshot) = snapshot {
            restored.afresh = (snapshot.header.basis, snapshot.header.layout) != (self.scorer.basis, layout());
            for entry in snapshot.cars() {
                self.restore_car(origin, &entry, lasting.is_some(), restored.afresh, &mut restored);
            }
        }
        let mut later = Vec::new();
        for mark in marks {
            let known = self.shard.car(mark.key.as_ref()).ok();
            let Some((n, new)) = known else { continue };
            if new {
                // Nothing but the mark is known of it.
                self.states.push(self.scorer.car(&self.shard.cars()[n as usize].name));
                self.places.push(Place { partition: origin.partition, next: i64::MIN });
            }
            let next = if lasting.is_some() { self.places[n as usize].next } else { i64::MIN };
            if !mark.is_news_to(origin.log, next) {
                continue;
            }
            match origin.from {
                Some(from) if mark.log == origin.log && mark.offset > from => later.push(mark),
                _ => self.make(n, &mark.mark, mark.time, &mut |_, _| {}),
            }
        }
        if let Some(from) = origin.from.or(lasting) {
            let delivered = origin.delivered.unwrap_or(from);
            self.catching_up.insert(origin.partition, CatchUp { from, delivered, reached: i64::MIN, marks: later });
        }
        restored
    }

    fn restore_car(&mut self, origin: &Origin, entry: &Entry<'_>, lasting: bool, afresh: bool, into: &mut Restored) {
        let Ok((n, true)) = self.shard.car(entry.key) else { return };
        let name = self.shard.cars()[n as usize].name.clone();
        let own = (!afresh).then(|| postcard::from_bytes::<CarState>(entry.state).ok()).flatten();
        let state = own.unwrap_or_else(|| {
            let mut state = self.scorer.car(&name);
            state.resume(&entry.kept);
            state
        });
        let next = if lasting { entry.next } else { i64::MIN };
        self.places.push(Place { partition: origin.partition, next });
        self.states.push(state);
        into.cars += 1;
        let car = self.shard.car_mut(n);
        car.last_received = entry.last_received;
        car.last_time = entry.kept.last_ms.unwrap_or(i64::MIN);
        car.readings = entry.readings;
        car.episodes = entry.episodes;
        car.muted_until = entry.muted_until;
        let Some(episode) = self.episode_of(n) else { return };
        if episode.end.is_none() {
            into.open += 1;
            self.shard.car_mut(n).blamed = episode.blames.first().map(|blame| blame.sensor);
            self.open.insert(n, Open { since: entry.since.unwrap_or(entry.last_received), episode });
        } else {
            self.keep_closed(n, episode);
        }
    }

    /// Notes how far a partition is that is being read again.
    pub(super) fn follow_log(&mut self, record: &Record<'_>) {
        let MapEntry::Occupied(mut entry) = self.catching_up.entry(record.partition) else { return };
        let place = entry.get_mut();
        if place.reached == i64::MIN && record.offset < place.from {
            // Not the log that we knew: a topic of the same name, made anew.
            tracing::warn!(
                "{}/{} begins before offset {}: it was made anew, and what was kept of its cars' places in it is of no use",
                self.topic,
                record.partition,
                place.from
            );
            self.places.iter_mut().filter(|p| p.partition == record.partition).for_each(|p| p.next = i64::MIN);
            (place.from, place.delivered) = (record.offset, record.offset);
            place.marks.iter_mut().for_each(|mark| mark.offset = record.offset);
        }
        place.reached = record.offset.saturating_add(1);
    }

    /// Whether verdicts on this reading were written before the restart.
    pub(super) fn is_again(&self, partition: i32, offset: i64) -> bool {
        !self.catching_up.is_empty() && self.catching_up.get(&partition).is_some_and(|place| offset < place.delivered)
    }

    /// Makes the marks whose places were reached, and ends the catching up of partitions that are where they were.
    pub(super) fn catch_up(&mut self, out: &mut Out<'_>) {
        let mut due: Vec<(bool, Mark)> = Vec::new();
        self.catching_up.retain(|_, place| {
            let (reached, delivered) = (place.reached, place.delivered);
            place.marks.retain(|mark| {
                let now = mark.offset <= reached;
                if now {
                    due.push((mark.offset < delivered, mark.clone()));
                }
                !now
            });
            reached < delivered || !place.marks.is_empty()
        });
        for (written, mark) in due {
            let Ok((n, false)) = self.shard.car(mark.key.as_ref()) else { continue };
            // A mark from behind what was committed may have no record yet; at worst it gets a second one that says the same.
            if written {
                self.make(n, &mark.mark, mark.time, &mut |_, _| {});
            } else {
                self.make(n, &mark.mark, mark.time, out);
            }
        }
    }
}

#[cfg(test)]
#[path = "keep_tests.rs"]
mod tests;
