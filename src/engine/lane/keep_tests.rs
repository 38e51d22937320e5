//! A lane that is ended anywhere and begun again goes on as if it had not been: against one that was never ended.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::config::{Scores, Source};
use crate::detect::Calibration;
use crate::engine::keep::Header;
use crate::engine::lane::{Refusal, Verdict};
use crate::engine::models::Scorer;
use crate::engine::present::{self, Look};
use crate::engine::view::{CarState as Shown, Command};
use crate::model::Model;
use crate::telemetry::codec::{Codec, encode_json};

const NOW: i64 = 1_700_000_000_000;
const CARS: [&str; 3] = ["a", "b", "c"];

fn lane_of(scorer: Scorer, scores: Scores) -> Lane {
    let codec = Codec::of_source(&Source::default(), scorer.schema().clone()).unwrap();
    Lane::new(0, "car-sensor".into(), codec.into(), scorer, scores, 9)
}

/// A lane of the built-in model, as it judges live.
fn lane() -> Lane {
    lane_of(Scorer::load("car-sensors", None).unwrap(), Scores::All)
}

/// One that calls every reading a breach.
fn simple() -> Lane {
    let model = Model::load("car-sensors").unwrap();
    lane_of(Scorer::new(model, &Calibration::mse(1e-6), None).unwrap(), Scores::Breaches)
}

/// One record of the log: the reading of a car at an offset.
fn take(lane: &mut Lane, offset: i64, speed: f32) -> Result<Vec<Value>, Refusal> {
    let car = CARS[offset as usize % CARS.len()];
    let schema = lane.shard().schema().clone();
    let mut row = vec![f32::NAN; schema.width()];
    row[schema.position("speed").unwrap()] = speed;
    row[schema.position("coolant_temp").unwrap()] = 30.0;
    let mut payload = Vec::new();
    let time = NOW + offset * 400;
    encode_json(&schema, &row, time, None, &mut payload);
    lane.decode(&Record {
        topic: "car-sensor",
        partition: 0,
        offset,
        key: Some(car.as_bytes()),
        payload: &payload,
        mqtt_topic: None,
        received_ms: time,
    })?;
    let mut out = Vec::new();
    lane.judge(time, &mut |_, verdict| {
        let (Verdict::Score(json) | Verdict::Breach(json) | Verdict::Episode(json)) = verdict;
        out.push(serde_json::from_slice(&json).unwrap());
    })
    .unwrap();
    Ok(out)
}

fn header(lane: &Lane, offset: i64) -> Header {
    Header { log: 0, offset, basis: lane.basis(), layout: layout() }
}

fn whole(lane: &Lane, offset: i64) -> Snapshot {
    let mut file = Builder::begin(&header(lane, offset));
    (0..lane.shard().cars().len() as u32).for_each(|n| lane.capture(n, 0, &mut file));
    Snapshot::parse(file.finish()).unwrap()
}

fn origin(from: i64, delivered: i64) -> Origin {
    Origin { partition: 0, log: 0, from: Some(from), delivered: Some(delivered) }
}

fn mark(lane: &mut Lane, command: &Command, offset: i64) -> Mark {
    let keep = lane.mark(command, NOW, &mut |_, _| {}).unwrap().keep.unwrap();
    Mark { key: (&*keep.key).into(), time: NOW, log: 0, offset, mark: keep.what }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn what_is_written_is_what_a_lane_without_a_restart_would_have_written(
        speeds in prop::collection::vec(prop_oneof![4 => 10.0f32..12.0, 1 => -90.0f32..200.0], 60..120),
        taken in 0usize..100,
        spread in 0usize..10,
        more in 0usize..30,
    ) {
        // The cars are gathered one after the other, some readings apart, and the process dies some readings later.
        let at = |n: usize| (n as i64).min(speeds.len() as i64);
        let begun = at(taken);
        let (mut first, mut file) = (lane(), None::<Builder>);
        let mut expected = Vec::new();
        for (offset, &speed) in speeds.iter().enumerate() {
            if offset as i64 == begun {
                file = Some(Builder::begin(&header(&first, begun)));
            }
            for n in 0..CARS.len() {
                if offset as i64 == at(taken + n * spread) && let Some(file) = &mut file {
                    first.capture(n as u32, 0, file);
                }
            }
            expected.push(take(&mut first, offset as i64, speed).unwrap());
        }
        let complete = at(taken + (CARS.len() - 1) * spread) < speeds.len() as i64;
        prop_assume!(complete);
        let Some(file) = file else { return Ok(()) };
        let died = at(taken + (CARS.len() - 1) * spread + more);

        let mut second = lane();
        let snapshot = Snapshot::parse(file.finish()).unwrap();
        second.restore(&origin(begun, died), Some(&snapshot), Vec::new());
        for offset in begun..speeds.len() as i64 {
            let wrote = take(&mut second, offset, speeds[offset as usize]);
            match wrote {
                Err(Refusal::Known) => prop_assert!(offset < died),
                Err(Refusal::Unusable(why)) => prop_assert!(false, "{}", why),
                Ok(wrote) if offset < died => prop_assert!(wrote.is_empty(), "{:?}", wrote),
                Ok(wrote) => prop_assert_eq!(&wrote, &expected[offset as usize]),
            }
        }
        let state = |lane: &Lane, car: &str| Some(lane.states[lane.shard().named(car)? as usize].clone());
        for car in CARS {
            prop_assert_eq!(state(&first, car), state(&second, car));
        }
        let ids = |lane: &Lane| lane.open.values().map(|open| open.episode.id.clone()).collect::<std::collections::BTreeSet<_>>();
        prop_assert_eq!(ids(&first), ids(&second));
        prop_assert!(second.catching_up.is_empty() || died == speeds.len() as i64);
    }
}

#[test]
fn an_open_episode_comes_back_with_its_id_its_acknowledgement_and_the_mute() {
    let mut before = simple();
    for offset in 0..6 {
        take(&mut before, offset, 9.0).unwrap();
    }
    before.mark(&Command::Acknowledge { car: "a".into() }, NOW, &mut |_, _| {}).unwrap();
    let mute = Command::Mute { car: "b".into(), duration: Duration::from_secs(3600) };
    before.mark(&mute, NOW, &mut |_, _| {}).unwrap();

    let mut after = simple();
    // Gathered from offset 3 on, and only done when the cars had read up to 6.
    let restored = after.restore(&origin(3, 6), Some(&whole(&before, 3)), Vec::new());
    assert_eq!(restored, Restored { cars: 3, open: 3, afresh: false });
    for n in 0..3 {
        let (is, was) = (&after.open(n).unwrap().episode, &before.open(n).unwrap().episode);
        assert_eq!((&is.id, is.onset, is.severity, is.acknowledged), (&was.id, was.onset, was.severity, n == 0));
        assert_eq!((&is.blames, is.breaches), (&was.blames, 2), "a lane tells of a breach only when something changes");
        assert_eq!(after.open(n).unwrap().since, before.open(n).unwrap().since);
    }
    let look = Look { now: NOW + 60_000, stale_after: 60_000 };
    assert_eq!(present::state(&after, 0, look), Shown::Acknowledged);
    assert_eq!(present::state(&after, 1, look), Shown::Muted);
    (3..6).for_each(|offset| assert_eq!(take(&mut after, offset, 9.0), Err(Refusal::Known)));
    assert!(take(&mut after, 6, 9.0).unwrap().iter().all(|record| record["event"] != "episode_opened"));
}

#[test]
fn marks_made_after_the_cars_were_written_are_made_again_at_their_places() {
    let mut before = simple();
    (0..3).for_each(|offset| drop(take(&mut before, offset, 9.0).unwrap()));
    let snapshot = whole(&before, 3);
    let acknowledged = mark(&mut before, &Command::Acknowledge { car: "a".into() }, 3);
    (3..6).for_each(|offset| drop(take(&mut before, offset, 9.0).unwrap()));
    let rebaselined = mark(&mut before, &Command::Rebaseline { car: "b".into() }, 6);

    let mut after = simple();
    after.restore(&origin(3, 6), Some(&snapshot), vec![acknowledged, rebaselined]);
    assert!(after.open(0).unwrap().episode.acknowledged, "its place was reached at once");
    assert!(after.open(1).is_some(), "its place comes later");
    for offset in 3..9 {
        let wrote = take(&mut after, offset, 9.0).unwrap();
        assert!(wrote.iter().all(|record| record["event"] != "episode_opened"), "{wrote:?}");
    }
    assert!(after.open(0).unwrap().episode.acknowledged);
    assert!(after.open(1).is_none() && after.states[1].relearning() > 0);
    assert!(after.catching_up.is_empty());
}

#[test]
fn marks_on_cars_that_were_never_written_still_count() {
    let mut before = simple();
    (0..3).for_each(|offset| drop(take(&mut before, offset, 9.0).unwrap()));
    let muted = mark(&mut before, &Command::Mute { car: "c".into(), duration: Duration::from_secs(3600) }, 3);
    let mut after = simple();
    let origin = Origin { from: None, delivered: None, ..origin(0, 0) };
    assert_eq!(after.restore(&origin, None, vec![muted]), Restored::default());
    assert_eq!(present::state(&after, 0, Look { now: NOW, stale_after: 1 }), Shown::Muted);
    assert!(take(&mut after, 5, 9.0).unwrap().iter().all(|record| record["event"] != "episode_opened"));
}

#[test]
fn another_model_learns_anew_and_keeps_the_episode() {
    let mut before = simple();
    (0..3).for_each(|offset| drop(take(&mut before, offset, 9.0).unwrap()));
    before.mark(&Command::Acknowledge { car: "b".into() }, NOW, &mut |_, _| {}).unwrap();
    let mut after = lane();
    let restored = after.restore(&origin(3, 3), Some(&whole(&before, 3)), Vec::new());
    assert_eq!(restored, Restored { cars: 3, open: 3, afresh: true });
    assert_eq!(after.open(1).unwrap().episode.id, before.open(1).unwrap().episode.id);
    assert!(after.open(1).unwrap().episode.acknowledged);
    let closed = (3..150).flat_map(|offset| take(&mut after, offset, 10.0).unwrap());
    let closed = closed.filter(|record| record["event"] == "episode_closed").count();
    assert_eq!(closed, 3, "each closes, once");
}

#[test]
fn a_log_that_is_gone_leaves_the_cars_but_not_their_places() {
    let mut before = simple();
    (0..6).for_each(|offset| drop(take(&mut before, offset, 9.0).unwrap()));
    let snapshot = whole(&before, 6);
    for origin in [
        Origin { partition: 0, log: 7, from: None, delivered: None },
        // The same topic, made anew: it begins where no reading could be any more.
        origin(6, 6),
    ] {
        let mut after = simple();
        after.restore(&origin, Some(&snapshot), Vec::new());
        assert_eq!(after.open.len(), 3);
        assert!(take(&mut after, 0, 9.0).is_ok(), "{origin:?}");
    }
}
