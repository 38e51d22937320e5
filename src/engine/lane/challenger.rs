//! A challenger: another model that judges the same readings beside the live one, so that the two can be compared before one takes the
//! other's place. It publishes nothing.

use std::time::{Duration, Instant};

use super::Lane;
use crate::detect::{CarState, Change, Verdict};
use crate::engine::models::Scorer;
use crate::engine::view::{ShadowSide, ShadowView};
use crate::fleet::Shard;
use crate::model::ModelError;
use crate::telemetry::Batch;

/// The challenger of a lane.
pub struct Challenger {
    scorer: Scorer,
    /// By car, like the lane's.
    states: Vec<CarState>,
    /// Of the batch under way: which of its readings the live model calls breaches.
    live: Vec<bool>,
    readings: u64,
    both: u64,
    ours: Side,
    theirs: Side,
}

/// What one of the two made of it.
#[derive(Debug, Default)]
struct Side {
    breaches: u64,
    episodes: u64,
    time: Duration,
}

impl Side {
    fn count(&mut self, verdict: &Verdict) {
        self.breaches += u64::from(verdict.breach);
        self.episodes += u64::from(verdict.change == Change::Opened);
    }

    fn view(&self, readings: u64, open: usize) -> ShadowSide {
        let cost_us = self.time.as_secs_f64() * 1e6 / readings.max(1) as f64;
        ShadowSide { breaches: self.breaches, episodes: self.episodes, open, cost_us: cost_us as f32 }
    }
}

impl Challenger {
    fn new(scorer: Scorer) -> Self {
        let (ours, theirs) = (Side::default(), Side::default());
        Challenger { scorer, states: Vec::new(), live: Vec::new(), readings: 0, both: 0, ours, theirs }
    }

    /// Hears what the live model made of the next reading of the batch, and how long it took.
    pub(super) fn hear(&mut self, verdict: &Verdict, took: Duration) {
        self.live.push(verdict.breach);
        self.theirs.count(verdict);
        self.theirs.time += took;
    }

    /// Judges the batch itself; `took` is what the live model took to look at it.
    pub(super) fn judge(&mut self, batch: &Batch, shard: &Shard, took: Duration) -> Result<(), ModelError> {
        self.theirs.time += took;
        for car in &shard.cars()[self.states.len().min(shard.cars().len())..] {
            self.states.push(self.scorer.car(&car.name));
        }
        let began = Instant::now();
        self.scorer.run(batch)?;
        for n in 0..batch.len() {
            let Some(state) = self.states.get_mut(batch.meta(n).car as usize) else { continue };
            let verdict = self.scorer.judge(batch, n, state);
            self.ours.count(&verdict);
            self.both += u64::from(verdict.breach && self.live.get(n).copied().unwrap_or_default());
        }
        self.ours.time += began.elapsed();
        self.readings += batch.len() as u64;
        self.live.clear();
        Ok(())
    }

    /// Lets go of cars that the lane has let go of.
    pub(super) fn retain(&mut self, kept: impl Fn(u32) -> bool) {
        let mut n = 0..;
        self.states.retain(|_| n.next().is_some_and(&kept));
    }
}

impl Lane {
    /// Has another model judge the same readings from now on. Refused, with a sentence, if it takes other sensors.
    pub fn challenge(&mut self, scorer: Scorer) -> Result<(), String> {
        self.takes_same_sensors(&scorer)?;
        self.challenger = Some(Challenger::new(scorer));
        Ok(())
    }

    /// How the challenger compares, if there is one.
    pub fn comparison(&self) -> Option<ShadowView> {
        let challenger = self.challenger.as_ref()?;
        let open = challenger.states.iter().filter(|state| state.open_episode().is_some()).count();
        let Challenger { readings, both, ours, theirs, scorer, .. } = challenger;
        Some(ShadowView {
            model: scorer.name().to_owned(),
            threshold: scorer.words.clone(),
            readings: *readings,
            both: *both,
            live: theirs.view(*readings, self.open.len()),
            shadow: ours.view(*readings, open),
        })
    }

    /// Replaces the model that judges. Answers whether cars' states could be kept; if not, only their episodes and mutes are.
    /// Refused, with a sentence, if it takes other sensors. Not while readings wait.
    pub fn take_up(&mut self, scorer: Scorer) -> Result<bool, String> {
        debug_assert!(self.batch.is_empty(), "readings are judged by the model they were decoded for");
        self.takes_same_sensors(&scorer)?;
        let keeps = scorer.basis == self.scorer.basis;
        if !keeps {
            for (state, car) in self.states.iter_mut().zip(self.shard.cars()) {
                let kept = state.kept();
                *state = scorer.car(&car.name);
                state.resume(&kept);
            }
        }
        let schema = scorer.schema().clone();
        self.labels = super::labels(&schema);
        self.shard.set_schema(schema);
        self.scorer = scorer;
        // What it was compared with is gone.
        self.challenger = self.challenger.take().map(|challenger| Challenger::new(challenger.scorer));
        Ok(keeps)
    }

    fn takes_same_sensors(&self, scorer: &Scorer) -> Result<(), String> {
        let names = |schema: &crate::telemetry::Schema| -> Vec<String> {
            schema.sensors().iter().map(|sensor| sensor.name.clone()).collect()
        };
        let (ours, theirs) = (names(self.shard.schema()), names(scorer.schema()));
        if ours == theirs {
            return Ok(());
        }
        let different = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs);
        let how = match different {
            Some((ours, theirs)) if ours.len() < 60 && theirs.len() < 60 => {
                format!("{theirs:?} in the place of {ours:?}")
            }
            _ => format!("{} sensors, not {}", theirs.len(), ours.len()),
        };
        Err(format!("it takes other sensors than the model it stands beside ({how}): restart to change the sensors"))
    }
}
