//! Operators' marks on cars: what each does, now and when it is made again after a restart.

use super::{Lane, Out, Verdict};
use crate::engine::keep::What;
use crate::engine::records::{EpisodeRecord, MarkRecord, json};
use crate::engine::view::{Command, Millis};

/// Readings from which a re-baseline learns.
const REBASELINE_READINGS: u16 = 300;

/// What came of a command.
#[derive(Debug)]
pub struct Marked {
    /// A sentence for the operator.
    pub reply: String,
    /// What is to be kept over a restart, if the command changed anything.
    pub keep: Option<Keep>,
}

/// A mark as it is kept.
#[derive(Debug)]
pub struct Keep {
    /// The car's key.
    pub key: Box<[u8]>,
    /// The partition its readings come from.
    pub partition: i32,
    /// The offset behind its newest reading.
    pub next: i64,
    /// What was asked.
    pub what: What,
}

impl Lane {
    /// Does what an operator asks of a car; `None` if the car is not here.
    pub fn mark(&mut self, command: &Command, now: Millis, out: &mut Out<'_>) -> Option<Marked> {
        let (Command::Acknowledge { car: name }
        | Command::Mute { car: name, .. }
        | Command::Unmute { car: name }
        | Command::Rebaseline { car: name }) = command
        else {
            return None;
        };
        let n = self.shard.named(name)?;
        let (what, reply) = match command {
            Command::Acknowledge { .. } if !self.open.contains_key(&n) => {
                return Some(Marked { reply: format!("{name} has no open episode"), keep: None });
            }
            Command::Acknowledge { .. } => (What::Acknowledged, format!("{name} acknowledged")),
            Command::Mute { duration, .. } => {
                let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
                // The detector's time is what readings say, which in a replay is not now.
                let until_event = self.shard.cars()[n as usize].last_time.saturating_add(millis);
                let what = What::Muted { until: now.saturating_add(millis), until_event };
                (what, format!("{name} muted for {}", humantime::format_duration(*duration)))
            }
            Command::Unmute { .. } => (What::Unmuted, format!("{name} no longer muted")),
            _ => (What::Rebaselined, format!("{name}: what it does now is taken as normal")),
        };
        self.make(n, &what, now, out);
        let place = self.places[n as usize];
        let key = self.shard.cars()[n as usize].key.clone();
        Some(Marked { reply, keep: Some(Keep { key, partition: place.partition, next: place.next, what }) })
    }

    /// Makes a mark on car `n`, given at `time`.
    pub(super) fn make(&mut self, n: u32, what: &What, time: Millis, out: &mut Out<'_>) {
        let state = &mut self.states[n as usize];
        let (event, until) = match what {
            What::Acknowledged => {
                let Some(open) = self.open.get_mut(&n) else { return };
                state.acknowledge();
                open.episode.acknowledged = true;
                let (schema, model) = (self.shard.schema(), self.scorer.name());
                let record = EpisodeRecord::new("episode_acknowledged", time, &open.episode, schema, model);
                let car = &self.shard.cars()[n as usize];
                return out(&car.key, Verdict::Episode(json(&record)));
            }
            What::Muted { until, until_event } => {
                self.shard.car_mut(n).muted_until = Some(*until);
                state.mute(*until_event);
                ("car_muted", Some(*until))
            }
            What::Unmuted => {
                self.shard.car_mut(n).muted_until = None;
                state.unmute();
                ("car_unmuted", None)
            }
            What::Rebaselined => {
                if state.rebaseline(REBASELINE_READINGS).is_some() {
                    self.close(n, time, out);
                }
                ("car_rebaselined", None)
            }
        };
        let car = &self.shard.cars()[n as usize];
        out(&car.key, Verdict::Episode(json(&MarkRecord { event, car: &car.name, time, until })));
    }
}
