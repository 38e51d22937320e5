//! The whole path, headless: real MQTT clients in, verdicts out, and counts that add up.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{Headless, assert_adds_up, dashlight, has_peer};

fn publish(run: &Headless, arguments: &[&str], payload: &[u8]) {
    let port = run.mqtt.port().to_string();
    // It takes no empty payload from stdin.
    let from = if payload.is_empty() { "-n" } else { "-s" };
    let mut client = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port, from])
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(payload).unwrap();
    assert!(client.wait().unwrap().success(), "mosquitto_pub {arguments:?}");
}

const READING: &[u8] = br#"{"coolant_temp":39.39,"intake_air_temp":34.5,"intake_air_flow_speed":123.3,"battery_percentage":0.82,
    "battery_voltage":246.1,"current_draw":0.65,"speed":24.9,"engine_vibration_amplitude":2493.4,"throttle_pos":0.03,
    "tire_pressure_11":32,"tire_pressure_12":31,"tire_pressure_21":34,"tire_pressure_22":34,"accelerometer_11_value":0.5,
    "accelerometer_12_value":0.9,"accelerometer_21_value":0.8,"accelerometer_22_value":0.04,"control_unit_firmware":2000}"#;

#[test]
fn a_broken_fleet_opens_episodes_and_the_counts_add_up() {
    let mut run =
        Headless::start(&["--simulate", "100", "--rate", "5", "--faults", "60", "--seed", "1", "--for", "15s"]);
    let (events, summary) = run.ended();
    assert_adds_up(&summary);
    for count in ["produced", "consumed", "scored"] {
        assert_eq!(summary[count], summary["received"], "{count}: {summary}");
    }
    assert!(summary["received"].as_u64().unwrap() > 1_000, "{summary}");
    let opened = events.iter().find(|event| event["event"] == "episode_opened").expect("an episode");
    assert!(opened["car"].as_str().unwrap().starts_with("electric-vehicle-"), "{opened}");
    assert!(!opened["sensor"].as_str().unwrap().is_empty(), "{opened}");
    assert_eq!(summary["events_dropped"], 0);
}

#[test]
fn readings_of_mosquittos_clients_at_every_qos_and_version_are_scored() {
    if !has_peer("mosquitto_pub") {
        return;
    }
    let run = Headless::start(&["--simulate", "off"]);
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            publish(&run, &["-V", version, "-q", qos, "-t", "vehicles/sensor/data/electric-vehicle-00001"], READING);
        }
    }
    let (_, summary) = run.stop();
    assert_adds_up(&summary);
    assert_eq!((summary["scored"].as_u64(), summary["cars"].as_u64()), (Some(6), Some(1)), "{summary}");
}

#[test]
fn what_is_no_reading_is_dead_lettered_and_nothing_else_suffers() {
    if !has_peer("mosquitto_pub") || !has_peer("kcat") {
        return;
    }
    let run = Headless::start(&["--simulate", "off"]);
    let topic = ["-q", "1", "-t", "vehicles/sensor/data/car-1"];
    let bad: [&[u8]; 6] = [
        b"not json",
        br#"{"speed":NaN}"#,
        br#"{"speed":"fast"}"#,
        b"",
        &[0xff, 0x00, 0xc3, 0x28],
        &vec![b'x'; 10_000_000],
    ];
    for payload in bad {
        publish(&run, &topic, payload);
        publish(&run, &topic, READING);
    }
    let letters = Command::new("kcat")
        .args(["-b", &run.kafka, "-C", "-t", "dead-letters", "-c", "6", "-o", "beginning", "-q"])
        .output()
        .unwrap();
    let letters = String::from_utf8(letters.stdout).unwrap();
    assert_eq!(letters.lines().count(), bad.len(), "{letters:.2000}");
    for letter in letters.lines() {
        let letter: serde_json::Value = serde_json::from_str(letter).unwrap();
        assert!(!letter["reason"].as_str().unwrap().is_empty());
        assert_eq!(letter["mqtt_topic"], "vehicles/sensor/data/car-1");
    }
    let (_, summary) = run.stop();
    assert_adds_up(&summary);
    assert_eq!(summary["scored"], bad.len(), "{summary}");
    assert_eq!(summary["undecodable"].as_u64().unwrap() + summary["refused"].as_u64().unwrap(), bad.len() as u64);
}

/// What stands in a topic by now.
fn read_topic(run: &Headless, topic: &str, count: usize) -> Vec<serde_json::Value> {
    let count = count.to_string();
    let arguments = ["-b", &run.kafka, "-C", "-q", "-o", "beginning", "-t", topic, "-c", &count];
    let read = Command::new("kcat").args(arguments).output().unwrap();
    String::from_utf8(read.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A folder configured for the KSQL demo's message.
fn ksql(model: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let text = format!(
        "[model]\n{model}\nscores = 'all'\n[[source]]\nmqtt = ['car/engine/temperature']\ntopic = 'engine-temperature'\n\
         codec = 'delimited'\ncar = 'event'\n"
    );
    std::fs::write(home.path().join("dashlight.toml"), text).unwrap();
    home
}

#[test]
fn the_ksql_demo_runs_end_to_end_without_bringing_a_model() {
    if !has_peer("mosquitto_pub") || !has_peer("kcat") {
        return;
    }
    let run = Headless::start_in(ksql("name = 'engine-cycle'"), &[]);
    let home = tempfile::tempdir().unwrap();
    let mut engines = dashlight(&home);
    engines.args(["simulate", "--kind", "engine-cycle", "--mqtt", &run.mqtt.to_string(), "--cars", "5"]);
    let published = engines.args(["--rate", "5", "--for", "4s", "--faults", "0"]).output().unwrap();
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    // As in the demo: blanks after the separators, and one after the last value.
    let strange: String = (0..210).map(|n| format!("{}.5# ", 20 + n % 7)).collect();
    publish(&run, &["-q", "1", "-t", "car/engine/temperature"], format!("99999,{strange}").as_bytes());

    let scores = read_topic(&run, "anomaly-detection", 101);
    let breaches = read_topic(&run, "anomaly-detection-breaches", 1);
    assert_eq!((&breaches[0]["car"], &breaches[0]["model"]), (&"99999".into(), &"engine-cycle".into()));
    assert_eq!(breaches[0]["sensors"][0]["direction"], "high");
    let (_, summary) = run.stop();
    assert_adds_up(&summary);
    assert_eq!((&summary["scored"], scores.len()), (&101.into(), 101), "{summary}");
    assert!(scores.iter().any(|score| score["car"] == "10005" && score["breach"] == false));
    assert_eq!(summary["anomalies"], 1, "only the strange one: {summary}");
}

#[test]
fn the_ksql_demo_with_a_model_of_ones_own_compares_the_mean_squared_error_with_the_threshold() {
    if !has_peer("mosquitto_pub") || !has_peer("kcat") {
        return;
    }
    let home = ksql("threshold = 3.0");
    let own = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/engine-cycle.onnx");
    std::fs::copy(own, home.path().join("autoencoder.onnx")).unwrap();
    let run = Headless::start_in(home, &["--model", "autoencoder.onnx"]);
    for (id, value) in [("1", "2.5"), ("2", "60")] {
        let values = vec![value; 210].join("# ");
        publish(&run, &["-q", "1", "-t", "car/engine/temperature"], format!("{id},{values}").as_bytes());
    }
    let scores = read_topic(&run, "anomaly-detection", 2);
    for score in &scores {
        let over = score["score"].as_f64().unwrap() > 3.0;
        assert_eq!((&score["threshold"], &score["breach"]), (&3.0.into(), &over.into()), "{score}");
    }
    let breaches = read_topic(&run, "anomaly-detection-breaches", 1);
    assert_eq!(breaches[0]["car"], "2", "{breaches:?}");
    assert_adds_up(&run.stop().1);
}
