//! A lane from payload to verdict, with a detector and a fleet of its own.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::config::Source;
use crate::detect::Calibration;
use crate::engine::order::{Candidate, Order, Place};
use crate::engine::present::{self, Look};
use crate::engine::view::{CarState, Command, FleetQuery, FleetSort};
use crate::model::Model;
use crate::telemetry::codec::encode_json;

/// A lane of the built-in model that judges by mean squared error, so that a test can say what is a breach.
fn lane(threshold: f64, scores: Scores, limit: usize) -> Lane {
    let model = Model::load("car-sensors").unwrap();
    let scorer = Scorer::new(model, &Calibration::mse(threshold), None).unwrap();
    let codec = Codec::of_source(&Source::default(), scorer.schema().clone()).unwrap();
    Lane::new(0, "car-sensor".into(), codec.into(), scorer, scores, limit)
}

fn record<'a>(key: &'a [u8], payload: &'a [u8], time: i64) -> Record<'a> {
    Record {
        topic: "car-sensor",
        partition: 0,
        offset: time,
        key: Some(key),
        payload,
        mqtt_topic: None,
        received_ms: time,
    }
}

fn reading(lane: &Lane, speed: f32) -> Vec<u8> {
    let schema = lane.shard().schema();
    let mut row = vec![f32::NAN; schema.width()];
    row[schema.position("speed").unwrap()] = speed;
    let mut payload = Vec::new();
    encode_json(schema, &row, NOW, None, &mut payload);
    payload
}

/// Takes readings of one car through the lane, a second apart, and answers with all verdicts.
fn drive(lane: &mut Lane, car: &str, speeds: &[f32], from: i64) -> Vec<(&'static str, Value)> {
    let mut verdicts = Vec::new();
    for (n, &speed) in speeds.iter().enumerate() {
        let schema = lane.shard().schema().clone();
        let mut row = vec![f32::NAN; schema.width()];
        row[schema.position("speed").unwrap()] = speed;
        let mut payload = Vec::new();
        let time = from + n as i64 * 1000;
        encode_json(&schema, &row, time, None, &mut payload);
        lane.decode(&record(car.as_bytes(), &payload, time)).unwrap();
        lane.judge(time, &mut |_, verdict| {
            verdicts.push(match verdict {
                Verdict::Score(json) => ("score", serde_json::from_slice(&json).unwrap()),
                Verdict::Breach(json) => ("breach", serde_json::from_slice(&json).unwrap()),
                Verdict::Episode(json) => ("episode", serde_json::from_slice(&json).unwrap()),
            });
        })
        .unwrap();
    }
    verdicts
}

const NOW: i64 = 1_700_000_000_000;

#[test]
fn every_score_is_reported_only_when_asked_for() {
    let quiet = drive(&mut lane(1e12, Scores::Breaches, 9), "a", &[10.0, 11.0], NOW);
    assert!(quiet.is_empty(), "{quiet:?}");
    let all = drive(&mut lane(1e12, Scores::All, 9), "a", &[10.0, 11.0], NOW);
    assert_eq!(all.iter().map(|(what, _)| *what).collect::<Vec<_>>(), ["score", "score"]);
    assert_eq!(all[0].1["threshold"], 1e12);
    assert!(all[0].1["score"].as_f64().unwrap() > 0.0, "{:?}", all[0]);
}

#[test]
fn breaches_become_an_episode_that_the_car_s_row_shows() {
    let mut lane = lane(1e-6, Scores::Breaches, 9);
    let verdicts = drive(&mut lane, "car-7", &[5.0; 30], NOW);
    assert!(verdicts.iter().any(|(what, json)| *what == "breach" && json["car"] == "car-7"));
    let opened = verdicts.iter().find(|(_, json)| json["event"] == "episode_opened").unwrap();
    assert_eq!(opened.1["car"], "car-7");
    let look = Look { now: NOW + 30_000, stale_after: 60_000 };
    let row = present::fleet_row(&lane, 0, 30, look);
    assert!(matches!(row.state, CarState::Critical | CarState::Warning), "{row:?}");
    assert_eq!(row.blame.as_ref().unwrap().value, 5.0, "{row:?}");
    assert_eq!((row.episodes, row.scores.values.len()), (1, 8), "30 s at 4 s a point");
    assert!(row.scores.breaches.iter().any(|&breach| breach));
}

#[test]
fn an_operators_marks_change_what_is_shown_and_are_reported() {
    let mut lane = lane(1e-6, Scores::Breaches, 9);
    drive(&mut lane, "a", &[5.0; 30], NOW);
    let look = Look { now: NOW + 30_000, stale_after: 60_000 };
    let mut records: Vec<Value> = Vec::new();
    let mut mark = |lane: &mut Lane, command: Command| {
        lane.mark(&command, look.now, &mut |_, verdict| match verdict {
            Verdict::Episode(json) => records.push(serde_json::from_slice(&json).unwrap()),
            _ => panic!("marks go to the episodes"),
        })
        .map(|marked| marked.reply)
    };
    assert!(mark(&mut lane, Command::Acknowledge { car: "a".into() }).unwrap().contains("acknowledged"));
    assert_eq!(present::state(&lane, 0, look), CarState::Acknowledged);
    mark(&mut lane, Command::Mute { car: "a".into(), duration: Duration::from_secs(60) }).unwrap();
    assert_eq!(present::state(&lane, 0, look), CarState::Muted);
    mark(&mut lane, Command::Unmute { car: "a".into() }).unwrap();
    assert_eq!(present::state(&lane, 0, look), CarState::Acknowledged);
    assert_eq!(mark(&mut lane, Command::Unmute { car: "nobody".into() }), None);
    let events: Vec<&str> = records.iter().map(|record| record["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["episode_acknowledged", "car_muted", "car_unmuted"]);
}

#[test]
fn a_car_unseen_for_a_while_is_stale_and_comes_before_the_quiet_ones() {
    let mut lane = lane(1e12, Scores::Breaches, 9);
    drive(&mut lane, "quiet", &[5.0], NOW + 60_000);
    drive(&mut lane, "stale", &[5.0], NOW);
    let look = Look { now: NOW + 61_000, stale_after: 30_000 };
    assert_eq!(present::state(&lane, 1, look), CarState::Stale);
    let candidates = (0..2).map(|car| Candidate {
        rank: present::rank(&lane, car, FleetSort::Severity, look),
        name: lane.shard().cars()[car as usize].name.clone(),
        place: Place { worker: 0, lane: 0, car },
    });
    let mut order = Order::default();
    order.sort(&FleetQuery::default(), candidates.collect(), 2, std::time::Instant::now());
    assert_eq!((order.locate("stale"), order.locate("quiet")), (Some(0), Some(1)));
}

#[test]
fn a_full_fleet_refuses_new_cars_with_the_way_out() {
    let mut lane = lane(1e12, Scores::Breaches, 1);
    drive(&mut lane, "a", &[5.0], NOW);
    let payload = reading(&lane, 5.0);
    let Err(Refusal::Unusable(reason)) = lane.decode(&record(b"b", &payload, NOW)) else { panic!("taken in") };
    assert!(reason.contains("limits.cars"), "{reason}");
    assert_eq!(lane.waiting(), 0);
}

#[test]
fn cars_of_a_partition_that_went_elsewhere_are_let_go_and_the_others_keep_their_episodes() {
    let mut lane = lane(1e-6, Scores::Breaches, 9);
    let payload = reading(&lane, 5.0);
    lane.decode(&Record { partition: 3, ..record(b"gone", &payload, NOW) }).unwrap();
    lane.judge(NOW, &mut |_, _| ()).unwrap();
    drive(&mut lane, "stays", &[5.0; 30], NOW);
    assert_eq!(&*lane.open(1).unwrap().episode.car, "stays");
    lane.release(3);
    assert_eq!(lane.shard().cars().len(), 1);
    assert_eq!(&*lane.open(0).unwrap().episode.car, "stays");
    drive(&mut lane, "stays", &[5.0], NOW + 60_000);
    assert_eq!(lane.shard().cars()[0].readings, 31);
}

#[test]
fn a_device_whose_clock_runs_ahead_is_not_believed() {
    let mut lane = lane(1e12, Scores::Breaches, 9);
    let schema = lane.shard().schema().clone();
    let mut payload = Vec::new();
    encode_json(&schema, &vec![1.0; schema.width()], NOW + 86_400_000, None, &mut payload);
    lane.decode(&record(b"a", &payload, NOW)).unwrap();
    lane.judge(NOW, &mut |_, _| ()).unwrap();
    assert_eq!(lane.shard().cars()[0].last_time, NOW);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_comes_is_scored_or_refused_with_a_reason(payloads in prop::collection::vec(any::<Vec<u8>>(), 0..8)) {
        let mut lane = lane(1.0, Scores::All, 4);
        let mut refused = 0;
        for (n, payload) in payloads.iter().enumerate() {
            if let Err(refusal) = lane.decode(&record(&[n as u8 + 1], payload, NOW)) {
                prop_assert!(matches!(refusal, Refusal::Unusable(reason) if !reason.is_empty()));
                refused += 1;
            }
        }
        let tally = lane.judge(NOW, &mut |_, _| ()).unwrap();
        prop_assert_eq!(tally.scored + refused, payloads.len() as u64);
    }
}

#[test]
fn a_model_that_is_replaced_leaves_open_episodes_and_marks() {
    let mut lane = lane(1e-6, Scores::Breaches, 9);
    drive(&mut lane, "a", &[5.0; 3], NOW);
    lane.mark(&Command::Acknowledge { car: "a".into() }, NOW, &mut |_, _| {}).unwrap();
    let id = lane.open(0).unwrap().episode.id.clone();
    let other =
        |threshold| Scorer::new(Model::load("car-sensors").unwrap(), &Calibration::mse(threshold), None).unwrap();
    assert_eq!(lane.take_up(other(1e-3)), Ok(true), "a threshold says nothing of the cars");
    assert_eq!(lane.take_up(Scorer::load("car-sensors", None).unwrap()), Ok(false));
    assert_eq!((&lane.open(0).unwrap().episode.id, lane.open(0).unwrap().episode.acknowledged), (&id, true));
    assert_eq!(lane.take_up(other(1e12)), Ok(false));
    let closed = drive(&mut lane, "a", &[5.0], NOW + 10_000);
    assert_eq!((&closed[0].1["event"], &closed[0].1["id"]), (&"episode_closed".into(), &id.into()));
}

#[test]
fn a_challenger_judges_the_same_readings_and_publishes_nothing() {
    let model =
        |threshold| Scorer::new(Model::load("car-sensors").unwrap(), &Calibration::mse(threshold), None).unwrap();
    let mut lane = lane(1e12, Scores::Breaches, 9);
    lane.challenge(model(1e-6)).unwrap();
    assert!(drive(&mut lane, "a", &[5.0; 4], NOW).is_empty());
    let view = lane.comparison().unwrap();
    assert_eq!((view.readings, view.both, view.agreement()), (4, 0, 0.0));
    assert_eq!((view.live.breaches, view.shadow.breaches, view.shadow.episodes, view.shadow.open), (0, 4, 1, 1));
    assert!(view.live.cost_us > 0.0 && view.shadow.cost_us > 0.0);
    lane.challenge(model(1e12)).unwrap();
    drive(&mut lane, "b", &[5.0], NOW);
    assert_eq!(lane.comparison().unwrap().agreement(), 1.0);
}
