//! From the configuration to lanes: models, codecs, what watches the models' files and what keeps the cars' states.

use std::sync::Arc;

use parking_lot::Mutex;

use super::door::Route;
use super::keep::{Keeper, Place};
use super::lane::Lane;
use super::models::Scorer;
use super::path::Shown;
use super::reload::Watched;
use super::{EngineError, now_ms};
use crate::config::Config;
use crate::kafka::{Begin, Cluster};
use crate::telemetry::codec::Codec;

/// What sources are made into.
pub struct Built {
    /// One a source.
    pub lanes: Vec<Lane>,
    /// One a source.
    pub routes: Vec<Route>,
    /// The models that may be replaced while they run.
    pub watched: Vec<Watched>,
    /// The models, for consoles.
    pub shown: Shown,
}

/// A lane for each source, with its model, and its challenger if the source judges by `model.name`.
pub fn lanes(config: &Config) -> Result<Built, EngineError> {
    let mut built = Built { lanes: Vec::new(), routes: Vec::new(), watched: Vec::new(), shown: Shown::default() };
    let threshold = config.model.threshold;
    for (index, source) in config.source.iter().enumerate() {
        let name = source.model_or(&config.model);
        built.watched.push(Watched::new(index, false, name, threshold));
        let scorer = Scorer::load(name, threshold)?;
        let codec = Codec::of_source(source, scorer.schema().clone())
            .map_err(|error| EngineError::Codec(source.topic.clone(), error))?;
        let codec = Arc::new(codec);
        if index == 0 {
            scorer.name().clone_into(&mut built.shown.model);
            built.shown.threshold.clone_from(&scorer.words);
        }
        built.shown.schemas.push(Arc::new(scorer.schema().sensors().to_vec()));
        built.routes.push(Route { source: source.clone(), codec: codec.clone() });
        let topic: Arc<str> = source.topic.as_str().into();
        let mut lane = Lane::new(index, topic, codec, scorer, config.model.scores, config.limits.cars);
        let shadow = &config.model.shadow;
        if !shadow.is_empty() && source.model.is_empty() {
            built.watched.push(Watched::new(index, true, shadow, None));
            // Its own threshold: one that was chosen for another model says nothing about it.
            let challenger = Scorer::load(shadow, None)?;
            lane.challenge(challenger).map_err(|why| EngineError::Config(format!("model.shadow {shadow:?}: {why}")))?;
        }
        built.lanes.push(lane);
    }
    Ok(built)
}

/// What keeps marks and states over restarts, and how the consumer learns where to go on. `None` if nothing is kept: a simulated fleet
/// is another one each time, and without a place nothing can be.
pub fn keeper(config: &Config, cluster: &Cluster, lanes: &mut [Lane]) -> Option<(Keeper, Begin)> {
    if config.simulated_cars() > 0 {
        return None;
    }
    let Some(state) = config.state.clone() else {
        tracing::warn!("there is no state directory: marks and car states are not kept; name one with --state");
        return None;
    };
    let log = if cluster.is_embedded() { now_ms().max(1) as u64 } else { 0 };
    let place = Place { state, group: config.kafka.group.clone(), log };
    let bases = lanes.iter().map(|lane| (lane.topic().to_string(), lane.basis())).collect();
    let bases = Arc::new(Mutex::new(bases));
    let begin = place.begin(bases.clone());
    match Keeper::start(place, bases) {
        Ok(mut keeper) => {
            if cluster.is_embedded() {
                keeper.restore_all(lanes, config.kafka.partitions);
            }
            Some((keeper, begin))
        }
        Err(error) => {
            tracing::error!("marks and car states are not kept: the system gives no thread to write them ({error})");
            None
        }
    }
}
