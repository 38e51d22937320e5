//! From files to a model and from a model to scores, by the commands.

use std::path::Path;
use std::process::{Command, Output};

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
