//! What an operator knows and did survives the process, however it ended: with the embedded Kafka the marks and open episodes, with a
//! real one (named by `DASHLIGHT_TEST_KAFKA`) not a verdict more or less than without a restart.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use crate::console::Console;
use crate::servers::{fill_with_own_topics, kafka, unique};
use crate::support::{Headless, assert_adds_up, dashlight, has_peer, wait_until};

/// A folder with a model that judges each reading on its own, so that a test says when an episode opens and closes: the built-in one
/// without its calibration, and a threshold in raw units.
fn with_plain_model(home: TempDir) -> TempDir {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    std::fs::copy(models.join("car-sensors.onnx"), home.path().join("plain.onnx")).unwrap();
    write_manifest(&home, 1e7);
    home
}

fn write_manifest(home: &TempDir, threshold: f64) {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let whole = std::fs::read_to_string(models.join("car-sensors.toml")).unwrap();
    let mut table: toml::Table = whole.parse().unwrap();
    table.remove("calibration");
    table.insert("name".into(), "plain".into());
    table.insert("threshold".into(), toml::toml! { value = threshold }.into());
    std::fs::write(home.path().join("plain.toml"), toml::to_string(&table).unwrap()).unwrap();
}

/// When the tests' readings begin, in seconds.
const BEGIN: u32 = 1_700_000_000;

/// Publishes readings of one car, by our own replay: seconds since the beginning, speed.
fn publish(home: &TempDir, mqtt: SocketAddr, car: &str, readings: &[(u32, f32)]) {
    let file = home.path().join("readings.csv");
    let rows: String = readings.iter().map(|(time, speed)| format!("{},{car},{speed},30\n", BEGIN + time)).collect();
    std::fs::write(&file, format!("time,car,speed,coolant_temp\n{rows}")).unwrap();
    let mut command = dashlight(home);
    command.arg("replay").arg(&file).args(["--mqtt", &mqtt.to_string(), "--speed", "max"]);
    let replayed = command.output().unwrap();
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
}

/// Files of that kind anywhere below the state directory.
fn kept(home: &TempDir, kind: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() { walk(&entry.path(), found) } else { found.push(entry.path()) }
        }
    }
    let mut found = Vec::new();
    walk(&home.path().join("dashlight/cars"), &mut found);
    found.retain(|path| path.extension().is_some_and(|extension| extension == kind));
    found
}

fn of(events: &[Value], event: &str) -> Vec<String> {
    let some = events.iter().filter(|record| record["event"] == event);
    some.map(|record| record["id"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn an_episode_open_when_the_process_was_killed_goes_on_and_closes_once() {
    let Some(kafka) = kafka() else { return };
    if !has_peer("kcat") {
        return;
    }
    let topics = unique();
    let home = Arc::new(with_plain_model(fill_with_own_topics(tempfile::tempdir().unwrap(), &topics)));
    let start = || Headless::start_shared(&home, &["--simulate", "off", "--kafka", &kafka, "--model", "plain.onnx"]);

    let mut run = start();
    publish(&home, run.mqtt, "car-1", &[(0, 10.0), (1, 90_000.0), (2, 91_000.0)]);
    publish(&home, run.mqtt, "car-2", &[(0, 10.0)]);
    let opened = run.wait_for_event("episode_opened");
    wait_until("something is kept", || !kept(&home, "cars").is_empty());
    run.kill();

    // Killed again while it goes on, and then left to end in good order.
    let run = start();
    publish(&home, run.mqtt, "car-1", &[(3, 90_500.0)]);
    run.kill();
    let run = start();
    publish(&home, run.mqtt, "car-1", &[(4, 10.0)]);
    let (events, summary) = run.stop();
    assert_adds_up(&summary);
    let id = opened["id"].as_str().unwrap();
    assert_eq!(of(&events, "episode_closed"), [id], "{events:?}");

    // What a crash makes come twice comes word for word.
    let topic = format!("episodes-{topics}");
    let read = Command::new("kcat").args(["-b", &kafka, "-C", "-e", "-q", "-t", &topic]).output().unwrap();
    let mut written: Vec<Value> =
        String::from_utf8(read.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    written.dedup();
    assert_eq!(of(&written, "episode_opened"), [id], "{written:?}");
    assert_eq!(of(&written, "episode_closed"), [id], "{written:?}");

    // After an orderly end nothing has to be read again.
    let run = start();
    let (events, summary) = run.stop();
    assert_eq!((events.len(), &summary["consumed"], &summary["cars"]), (0, &0.into(), &2.into()), "{summary}");
}

#[test]
fn marks_made_on_the_screen_are_there_after_a_kill_and_a_restart() {
    let home = Arc::new(with_plain_model(tempfile::tempdir().unwrap()));
    let start = || {
        let mut console = Console::start_in(&home, 120, 40, &["--model", "plain.onnx", "--shadow", "car-sensors"], &[]);
        console.wait("BLAMED SENSOR");
        console
    };
    let mut console = start();
    let mqtt = console.address();
    publish(&home, mqtt, "car-1", &[(0, 10.0), (1, 90_000.0)]);
    console.wait("critical car-1");
    wait_until("the car is kept", || !kept(&home, "cars").is_empty());
    console.press("4");
    console.wait("CHALLENGER");
    console.press("1");
    console.wait("critical car-1");
    console.press("a");
    console.wait("car-1 acknowledged");
    wait_until("the mark is kept", || !kept(&home, "marks").is_empty());
    console.signal("-KILL");

    let mut console = start();
    console.wait("acknowl… car-1");
    console.press("m");
    console.wait("car-1 muted for 1h");
    console.signal("-TERM");
    assert_eq!(console.ended(), 0);

    let mut console = start();
    console.wait("muted    car-1");
    // The episode is the same one still: the mute's end shows it, acknowledged.
    console.press("m");
    console.wait("acknowl… car-1");
}

#[test]
fn a_model_replaced_while_running_is_taken_up_and_a_bad_one_is_refused() {
    let home = Arc::new(with_plain_model(tempfile::tempdir().unwrap()));
    let mut run =
        Headless::start_shared(&home, &["--simulate", "off", "--model", "plain.onnx", "--shadow", "car-sensors"]);
    publish(&home, run.mqtt, "car-1", &[(0, 100.0)]);
    write_manifest(&home, 1e-3);
    run.wait_for_log("the model is replaced, and what is known of each car is kept");
    std::fs::write(home.path().join("plain.onnx"), "no model at all").unwrap();
    run.wait_for_log("the model before goes on");
    publish(&home, run.mqtt, "car-1", &[(1, 100.0)]);
    let opened = run.wait_for_event("episode_opened");
    assert_eq!((&opened["car"], &opened["onset"]), (&"car-1".into(), &1_700_000_001_000_i64.into()));
    let (_, summary) = run.stop();
    assert_adds_up(&summary);
    // The comparison began anew with the replaced model.
    assert_eq!((&summary["shadow"]["model"], &summary["shadow"]["readings"]), (&"car-sensors".into(), &1.into()));
    assert_eq!(summary["shadow"]["live"]["breaches"], 1);
}
