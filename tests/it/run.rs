//! The whole path, headless: real MQTT clients in, verdicts out, and counts that add up.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{Headless, assert_adds_up, has_peer};

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
