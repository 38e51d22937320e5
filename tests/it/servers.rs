//! The whole path with real servers in the place of the embedded ones: Apache Kafka (named by `DASHLIGHT_TEST_KAFKA`, see
//! `.ci/kafka`) and a Mosquitto that is started here.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Headless, assert_adds_up, dashlight, has_peer, wait_until};

/// The real Kafka to test against, if there is one.
pub fn kafka() -> Option<String> {
    let address = std::env::var("DASHLIGHT_TEST_KAFKA").ok();
    if address.is_none() {
        eprintln!("skipped: DASHLIGHT_TEST_KAFKA names no Kafka");
    }
    address
}

/// A directory whose dashlight.toml gives every topic and the group a name that no other test has used.
fn own_topics() -> TempDir {
    fill_with_own_topics(tempfile::tempdir().unwrap(), &unique())
}

/// A name that nobody has used before.
pub fn unique() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    format!("{}-{time}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Writes a dashlight.toml with topics and a group of that name.
pub fn fill_with_own_topics(home: TempDir, id: &str) -> TempDir {
    let text = format!(
        "[kafka]\ngroup = 'g-{id}'\npartitions = 4\n[kafka.topics]\nscores = 'scores-{id}'\nbreaches = 'breaches-{id}'\n\
         episodes = 'episodes-{id}'\ndead_letters = 'dead-{id}'\n[[source]]\ntopic = 'cars-{id}'\n"
    );
    std::fs::write(home.path().join("dashlight.toml"), text).unwrap();
    home
}

/// A labelled file of the simulator's: 100 cars, 100 readings each.
fn ten_thousand_readings(home: &TempDir) -> std::path::PathBuf {
    let path = home.path().join("fleet.csv");
    let made = dashlight(home)
        .args(["simulate", "--cars", "100", "--rate", "0.1", "--for", "1000s", "--faults", "1", "--seed", "5", "--csv"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let rows = std::fs::read_to_string(&path).unwrap().lines().count() - 1;
    assert_eq!(rows, 10_000);
    path
}

fn count(summary: &Value, name: &str) -> u64 {
    summary[name].as_u64().unwrap_or_else(|| panic!("no count {name} in {summary}"))
}

fn replay(home: &TempDir, file: &std::path::Path, mqtt: SocketAddr) {
    let mut command = dashlight(home);
    command.arg("replay").arg(file).args(["--mqtt", &mqtt.to_string(), "--speed", "max"]);
    let replayed = command.output().unwrap();
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
}

/// A Mosquitto on a free port, killed when dropped.
struct Mosquitto {
    child: Child,
    address: SocketAddr,
    _home: TempDir,
}

impl Mosquitto {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let file = home.path().join("mosquitto.conf");
        // Its own limits are the bridge's trial elsewhere; here nothing may be dropped while nobody listens.
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 100\n",
            address.port()
        );
        std::fs::write(&file, text).unwrap();
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(&file).env("PATH", path).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        wait_until("Mosquitto listens", || TcpStream::connect(address).is_ok());
        Mosquitto { child, address, _home: home }
    }

    fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_recorded_file_is_scored_reading_for_reading_through_a_real_kafka() {
    let Some(kafka) = kafka() else { return };
    let home = tempfile::tempdir().unwrap();
    let file = ten_thousand_readings(&home);
    let run = Headless::start_in(own_topics(), &["--simulate", "off", "--kafka", &kafka]);
    replay(&home, &file, run.mqtt);
    let (_, summary) = run.stop();
    assert_adds_up(&summary);
    for name in ["received", "produced", "consumed", "scored"] {
        assert_eq!(count(&summary, name), 10_000, "{name}: {summary}");
    }
    assert_eq!(count(&summary, "cars"), 100);
}

#[test]
fn episodes_of_a_broken_fleet_are_read_from_a_real_kafka_by_kcat() {
    let Some(kafka) = kafka() else { return };
    if !has_peer("kcat") {
        return;
    }
    let id = unique();
    let home = fill_with_own_topics(tempfile::tempdir().unwrap(), &id);
    let arguments =
        ["--simulate", "100", "--rate", "5", "--faults", "120", "--seed", "1", "--for", "15s", "--kafka", &kafka];
    let (events, summary) = Headless::start_in(home, &arguments).ended();
    assert_adds_up(&summary);
    let opened = |events: &[Value]| -> Vec<String> {
        let opened = events.iter().filter(|event| event["event"] == "episode_opened");
        let mut ids: Vec<String> = opened.map(|event| event["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    let said = opened(&events);
    assert!(!said.is_empty(), "{summary}");
    let topic = format!("episodes-{id}");
    let read = Command::new("kcat").args(["-b", &kafka, "-C", "-e", "-q", "-t", &topic]).output().unwrap();
    let written: Vec<Value> =
        String::from_utf8(read.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(opened(&written), said, "what stdout said and what Kafka holds");
}

#[test]
fn two_processes_of_one_group_share_the_cars_and_score_every_reading() {
    let Some(kafka) = kafka() else { return };
    let id = unique();
    let start = || {
        let home = fill_with_own_topics(tempfile::tempdir().unwrap(), &id);
        Headless::start_in(home, &["--simulate", "off", "--kafka", &kafka])
    };
    let (first, second) = (start(), start());
    // Longer than the group needs to share the partitions out, so that both get some of it.
    let home = tempfile::tempdir().unwrap();
    let mut fleet = dashlight(&home);
    fleet.args(["simulate", "--mqtt", &first.mqtt.to_string(), "--cars", "100", "--rate", "10", "--for", "20s"]);
    let published = fleet.output().unwrap();
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    let (_, first) = first.stop();
    let (_, second) = second.stop();
    assert_eq!((count(&first, "received"), count(&second, "received")), (20_000, 0));
    let scored = [count(&first, "scored"), count(&second, "scored")];
    assert!(scored.iter().all(|scored| *scored > 0), "{scored:?}");
    // At least once: whoever takes a partition over may read again what the other had not committed yet.
    assert!(scored.iter().sum::<u64>() >= 20_000, "{scored:?}");
}

#[test]
fn every_message_that_an_external_broker_acknowledged_is_scored() {
    if !has_peer("mosquitto") || !has_peer("mosquitto_pub") {
        return;
    }
    let broker = Mosquitto::start();
    let mut run = Headless::start(&["--simulate", "off", "--mqtt-connect", &broker.url()]);
    run.wait_for_log("subscribed at the MQTT broker");
    let mut client = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &broker.address.port().to_string(), "-q", "1", "-l"])
        .args(["-t", "vehicles/sensor/data/truck-7"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = client.stdin.take().unwrap();
    for n in 0..500 {
        writeln!(lines, "{{\"speed\": {}.5, \"coolant_temp\": 39.4}}", n % 30).unwrap();
    }
    drop(lines);
    assert!(client.wait().unwrap().success());
    let (_, summary) = run.stop();
    assert_adds_up(&summary);
    assert_eq!(count(&summary, "received"), 500, "{summary}");
    assert_eq!(count(&summary, "scored"), 500, "{summary}");
}

#[test]
fn doctor_finds_a_real_broker_and_a_real_kafka() {
    if !has_peer("mosquitto") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start();
    let mut command = dashlight(&home);
    command.args(["doctor", "--mqtt-listen", "off", "--mqtt-connect", &broker.url()]);
    let kafka = kafka();
    if let Some(kafka) = &kafka {
        command.args(["--kafka", kafka]);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("ok    mqtt broker   mqtt://{} lets us in", broker.address)), "{text}");
    assert!(text.contains("ok    kafka         "), "{text}");
    if let Some(kafka) = kafka {
        assert!(text.contains(&format!("{kafka} answers")), "{text}");
    }
}
