//! From files to a model and from a model to scores, by the commands.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use dashlight::config;
use dashlight::kafka::{Cluster, Outgoing, Producer};

fn dashlight(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dashlight")).args(arguments).current_dir(folder).output().unwrap()
}

fn done(folder: &Path, arguments: &[&str]) -> String {
    let output = dashlight(folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = dashlight(folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert_eq!(said.trim_end().lines().count(), 1, "one sentence: {said}");
    said
}

/// Six cars for two hours, a reading each 10 s; the last five minutes' current draw of one goes wild.
fn write_fleet(path: &Path, wild: bool) {
    let simulate = ["simulate", "--cars", "6", "--rate", "0.1", "--for", "2h", "--faults", "0", "--seed", "3"];
    let folder = path.parent().unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    done(folder, &[&simulate[..], &["--csv", name]].concat());
    if wild {
        let text = std::fs::read_to_string(path).unwrap();
        let rows = text.lines().count();
        let wilder = text.lines().enumerate().map(|(n, line)| {
            let mut fields: Vec<&str> = line.split(',').collect();
            if n + 180 > rows && fields[1].ends_with("4") {
                fields[7] = "390";
            }
            fields.join(",") + "\n"
        });
        std::fs::write(path, wilder.collect::<String>()).unwrap();
    }
}

#[test]
fn a_recorded_fleet_becomes_a_model_that_finds_the_car_that_goes_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_fleet(&folder.join("night.csv"), false);
    write_fleet(&folder.join("day.csv"), true);
    let train = ["train", "night.csv", "--epochs", "15", "--seed", "2", "--out"];
    let said = done(folder, &[&train[..], &["models/fleet.onnx"]].concat());
    assert!(said.contains("18 sensors") && said.contains("6 cars"), "{said}");
    done(folder, &[&train[..], &["again/fleet.onnx"]].concat());
    for name in ["fleet.onnx", "fleet.toml"] {
        let read = |from: &str| std::fs::read(folder.join(from).join(name)).unwrap();
        assert!(read("models") == read("again"), "{name}: same files and seed, same bytes");
    }

    let inspected = done(folder, &["model", "inspect", "models/fleet.onnx"]);
    assert!(inspected.contains("values: float [N, 18]") && inspected.contains("coolant_temp"), "{inspected}");

    let scored = done(folder, &["score", "day.csv", "--model", "models/fleet.onnx"]);
    let mut lines = scored.lines();
    let header = lines.next().unwrap();
    assert!(header.starts_with("time,car,score,flag,severity,residual_coolant_temp,"), "{header}");
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 6 * 720);
    let flagged = |car: &str| rows.iter().filter(|row| row[1].ends_with(car) && row[3] == "1").count();
    assert!(flagged("4") > 20, "the wild car stands out: {}", flagged("4"));
    let last = rows.iter().rfind(|row| row[1].ends_with('4')).unwrap();
    assert!(last[10].parse::<f32>().unwrap() > 50.0, "its current is far over what is expected: {last:?}");

    let json = done(folder, &["score", "day.csv", "--model", "models/fleet.onnx", "--format", "json"]);
    for (line, row) in json.lines().zip(&rows) {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(object["car"], row[1]);
        assert_eq!(object["score"].as_f64().unwrap() as f32, row[2].parse::<f32>().unwrap());
        assert_eq!(object["flag"].as_bool().unwrap(), row[3] == "1");
    }
    assert_eq!(json.lines().count(), rows.len());
}

#[test]
fn what_cannot_be_learned_from_is_refused_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("one.csv", "time,car,a\n1,c,2\n");
    write("none.csv", "time,car,a\n");
    write("still.csv", &format!("time,car,a,b\n{}", (0..300).map(|n| format!("{n},c,5,\n")).collect::<String>()));
    write("bad.csv", "time,car,a\n1,c,2\n2,c,two\n");
    write("two.csv", "time,car,a,b\n1,c,2,3\n");
    write("no-sensor.csv", "time,car\n1,c\n");
    for (files, parts) in [
        (&["one.csv"][..], &["1 readings", "at least"][..]),
        (&["none.csv"], &["none.csv", "no reading"]),
        (&["still.csv"], &["no sensor varies"]),
        (&["bad.csv"], &["bad.csv, line 3", "\"a\"", "\"two\""]),
        (&["two.csv", "one.csv"], &["one.csv, line 1", "no column \"b\"", "two.csv"]),
        (&["no-sensor.csv"], &["at least one sensor"]),
        (&["absent.csv"], &["absent.csv"]),
    ] {
        let said = refused(folder, &[&["train"][..], files, &["--out", "m.onnx"]].concat(), 2);
        assert!(parts.iter().all(|part| said.contains(part)), "{files:?}: {said}");
    }
    let said = refused(folder, &["train", "one.csv", "--out", "m.model"], 2);
    assert!(said.contains("end in .onnx"), "{said}");
    assert!(!folder.join("m.onnx").exists() && !folder.join("m.toml").exists());
}

#[test]
fn four_hundred_gappy_readings_without_cars_are_enough() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let line = |n: i32| {
        let wave = f64::from(n) * 0.3;
        let gap = if n % 9 == 4 { String::new() } else { format!("{:.3}", wave.sin() * 5.0) };
        format!("{},{gap},{:.3},7\n", 1_600_000_000 + n * 60, wave.cos())
    };
    let text: String = (0..400).map(line).collect();
    std::fs::write(folder.join("pump.csv"), format!("time,pressure,flow,setting\n{text}")).unwrap();
    done(folder, &["train", "pump.csv", "--out", "pump.onnx", "--epochs", "20"]);
    let scored = done(folder, &["score", "pump.csv", "--model", "pump.onnx"]);
    let rows: Vec<Vec<&str>> = scored.lines().skip(1).map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 400);
    assert_eq!((rows[0][1], rows[4][5]), ("pump", ""), "the file is the car, and a gap has no residual");
    assert!(rows.iter().all(|row| row[2].parse::<f32>().is_ok_and(f32::is_finite)));
}

#[test]
fn a_model_made_elsewhere_gets_a_manifest_to_start_from() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/models/car-sensors.onnx"), folder.join("bare.onnx")).unwrap();
    let inspected = done(folder, &["model", "inspect", "bare.onnx"]);
    assert!(inspected.contains("assumed") && inspected.contains("v001 to v018"), "{inspected}");
    std::fs::write(folder.join("like.csv"), "time,car,a,b\n").unwrap();
    let said = dashlight(folder, &["model", "inspect", "bare.onnx", "--write", "--like", "like.csv"]);
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&said.stderr).contains("manifest names 2 sensors"));
    assert!(!folder.join("bare.toml").exists());
    done(folder, &["model", "inspect", "bare.onnx", "--write"]);
    let text = std::fs::read_to_string(folder.join("bare.toml")).unwrap();
    assert!(text.contains("name = \"v018\"") && text.starts_with('#'), "{text}");
    let inspected = done(folder, &["model", "inspect", "bare.onnx"]);
    assert!(!inspected.contains("no manifest"), "{inspected}");
}

/// Writes four hundred readings of two cars into a new topic, and one record that is none; answers the topic.
fn fill(cluster: &Cluster) -> String {
    let topic = format!("pumps-{}-{}", std::process::id(), cluster.bootstrap().replace(':', "-"));
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while let Err(error) = cluster.ensure_topic(&topic) {
        assert!(error.is_retriable() && std::time::Instant::now() < deadline, "{error}");
    }
    let producer = Producer::open(cluster, |(), fate| assert_eq!(fate, Ok(()))).unwrap();
    let send = |key: &str, payload: &str| {
        let out = Outgoing { topic: &topic, key: Some(key.as_bytes()), payload: payload.as_bytes(), headers: &[] };
        while producer.try_send(out, ()).is_err() {
            assert!(std::time::Instant::now() < deadline, "Kafka has no room for a minute");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    send("pump-1", "hello");
    for n in 0..200 {
        let wave = (f64::from(n) * 0.3).sin();
        for pump in ["pump-1", "pump-2"] {
            let time = 1_700_000_000 + n * 10;
            send(
                pump,
                &format!(r#"{{"time":{time},"flow":{:.3},"pressure":{:.3},"site":"north"}}"#, 3.0 * wave, 7.0 - wave),
            );
        }
    }
    assert_eq!(producer.flush(Duration::from_secs(60)), 0, "all of it is in Kafka");
    topic
}

fn a_topic_is_learned_from(cluster: &Cluster) {
    let topic = fill(cluster);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let train = ["train", "--kafka", cluster.bootstrap(), "--topic", &topic, "--out", "pumps.onnx", "--epochs", "5"];
    let output = dashlight(folder, &train);
    let (said, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{warned}");
    assert!(said.contains("2 sensors") && said.contains("of 2 cars"), "{said}");
    assert!(warned.contains("left out 1 records") && warned.contains("not JSON"), "{warned}");
    let manifest = std::fs::read_to_string(folder.join("pumps.toml")).unwrap();
    assert!(manifest.contains("rows = 400") && manifest.contains(&format!("topic {topic}")), "{manifest}");
    assert!(manifest.contains("name = \"flow\"") && manifest.contains("name = \"pressure\""), "{manifest}");
    assert!(manifest.contains("2023-11-14T22:13:20Z"), "the time is the readings' own: {manifest}");
    // Nothing comes while nobody sends, and a topic that is not there is not made.
    let none = ["train", "--kafka", cluster.bootstrap(), "--topic", &topic, "--for", "1s", "--out", "none.onnx"];
    assert!(refused(folder, &none, 2).contains("holds no record of that time"));
    let absent = ["train", "--kafka", cluster.bootstrap(), "--topic", "no-such-topic", "--out", "none.onnx"];
    assert!(refused(folder, &absent, 1).contains("there is no such topic"));
    assert!(!folder.join("none.onnx").exists());
}

#[test]
fn a_topic_is_learned_from_like_a_file() {
    a_topic_is_learned_from(&Cluster::open(&config::Kafka { partitions: 2, ..config::Kafka::default() }).unwrap());
}

#[test]
fn a_topic_of_a_real_kafka_is_learned_from_like_a_file() {
    let Ok(bootstrap) = std::env::var("DASHLIGHT_TEST_KAFKA") else {
        eprintln!("skipped: DASHLIGHT_TEST_KAFKA names no Kafka");
        return;
    };
    a_topic_is_learned_from(&Cluster::open(&config::Kafka { bootstrap, ..config::Kafka::default() }).unwrap());
}

#[test]
fn where_to_learn_from_is_said_once_and_rightly() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let said = |arguments: &[&str]| {
        let output = dashlight(folder, &[&["train", "--out", "m.onnx"], arguments].concat());
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said(&[]).contains("<FILE>"));
    assert!(said(&["a.csv", "--kafka", "localhost:9"]).contains("cannot be used with"));
    for flag in ["--topic", "--from", "--to", "--for", "--config"] {
        assert!(said(&["a.csv", flag, "1s"]).contains("cannot be used with"), "{flag}");
        assert!(said(&[flag, "1s"]).contains("--kafka <BOOTSTRAP>"), "{flag}");
    }
    assert!(said(&["--kafka", "localhost:9", "--from", "noon"]).contains("--from \"noon\" is no time"));
    assert!(said(&["--kafka", "localhost:9", "--from", "2", "--to", "1"]).contains("nothing lies between"));
    assert!(said(&["a.csv", "--false-episodes", "0"]).contains("a number from 0.000001 to 100"));
}

#[test]
fn inspect_writes_a_manifest_to_start_from_for_what_other_tools_export() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
    for (name, made_by, gives) in [
        ("pytorch", "pytorch 2.5.1", "\"output\": what it expects, in raw units"),
        ("keras", "tf2onnx 1.16.1", "\"dense_1\": what it expects, in raw units"),
        ("scikit-learn", "skl2onnx 1.17.0", "\"variable\": what it expects, in raw units"),
        ("h2o", "h2o-to-onnx 3.46", "\"reconstruction\": what it expects, in raw units"),
        ("outlier-score", "skl2onnx 1.17.0", "\"scores\": a score"),
    ] {
        let file = format!("{name}.onnx");
        std::fs::copy(fixtures.join(&file), folder.join(&file)).unwrap();
        let shown = dashlight(folder, &["model", "inspect", &file, "--out", "-"]);
        let manifest = String::from_utf8(shown.stdout).unwrap();
        assert!(manifest.contains("# What the ONNX file") && manifest.contains("v004"), "{name}: {manifest}");
        let seen = String::from_utf8(shown.stderr).unwrap();
        assert!(seen.contains(made_by) && seen.contains(gives), "{name}: {seen}");
        let seen = done(folder, &["model", "inspect", &file, "--out", &format!("{name}.toml")]);
        assert!(seen.contains(&format!("{name}.toml written")) && seen.contains(gives), "{name}: {seen}");
        assert_eq!(std::fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap(), manifest);
        let seen = done(folder, &["model", "inspect", &file]);
        assert!(seen.contains(gives), "{name}: {seen}");
    }
}
