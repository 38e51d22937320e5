//! `dashlight evaluate` as a script sees it: the JSON contract, tables, refusals.

use std::io::Write as _;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::dashlight;

/// Two cars that alternate, 600 readings each a minute apart; in `b` the second sensor is wrong from 400 to 449.
fn readings(labels: &str, labelled: bool) -> String {
    let mut text = format!("time,car,load,heat,flow{}\n", if labelled { format!(",{labels}") } else { String::new() });
    let mut x: u64 = 7;
    let mut noise = || {
        x = (x * 1_103_515_245 + 12345) % (1 << 31);
        f64::from((x >> 16) as u32 % 1000) / 1000.0 - 0.5
    };
    for n in 0..600 {
        for car in ["a", "b"] {
            let load = (f64::from(n) / 40.0).sin() * 5.0 + noise();
            let wrong = labelled && car == "b" && (400..450).contains(&n);
            let heat = 20.0 + 2.0 * load + noise() + if wrong { 40.0 } else { 0.0 };
            let flow = 3.0 - load + noise();
            text += &format!("{},{car},{load:.4},{heat:.4},{flow:.4}", 60 * n);
            text += match (labelled, wrong, labels) {
                (false, ..) => "\n",
                (_, false, "anomaly") => ",0\n",
                (_, true, "anomaly") => ",1\n",
                (_, false, _) => ",\n",
                (_, true, _) => ",pump sensor_drift\n",
            };
        }
    }
    text
}

fn write(file: &Path, text: &str) {
    std::fs::File::create(file).unwrap().write_all(text.as_bytes()).unwrap();
}

/// A folder with a trained model and a labelled file.
fn trained(labels: &str) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    write(&home.path().join("train.csv"), &readings("", false));
    write(&home.path().join("test.csv"), &readings(labels, true));
    write(&home.path().join("causes.csv"), "car,start,end,sensors\nb,24000,26940,heat\n");
    let train = ["train", "train.csv", "--out", "m.onnx", "--epochs", "20"];
    let done = dashlight(&home).args(train).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    home
}

fn evaluate(home: &TempDir, arguments: &[&str]) -> (i32, String, String) {
    let mut command = dashlight(home);
    let done = command.args(["evaluate", "test.csv", "--model", "m.onnx"]).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

#[test]
fn one_json_object_holds_what_the_contract_says_and_a_plain_fault_is_found_and_blamed() {
    let home = trained("failures");
    let (code, out, err) = evaluate(&home, &["--json", "--causes", "causes.csv", "--vus-window", "20"]);
    assert_eq!(code, 0, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    for key in [
        "rows",
        "cars",
        "roc_auc",
        "pr_auc",
        "vus_pr",
        "vus_window",
        "f1",
        "far",
        "mar",
        "events",
        "event_recall",
        "median_delay_readings",
        "false_episodes_per_car_day",
        "attribution_top1",
        "attribution_hit_rate",
        "by_failure",
        "by_car",
    ] {
        assert!(report.get(key).is_some(), "no {key} in {out}");
    }
    assert_eq!((&report["rows"], &report["cars"], &report["vus_window"]), (&1200.into(), &2.into(), &20.into()));
    assert_eq!((&report["events"], &report["event_recall"]), (&1.into(), &1.0.into()));
    assert_eq!(report["attribution_top1"], 1.0);
    assert!(report["roc_auc"].as_f64().unwrap() > 0.95, "{out}");
    assert_eq!(report["by_failure"]["pump"]["rows"], 50);
    assert_eq!(report["by_failure"]["sensor_drift"]["events"], 1);
    assert_eq!(report["by_car"]["a"]["roc_auc"], Value::Null, "a car without anomalies has no curve");
}

#[test]
fn the_labels_that_simulate_writes_are_causes_too() {
    let home = trained("failures");
    let labels = "car,fault,onset,end,severity,sensors\nb,pump,24000,26940,0.80,heat\n";
    write(&home.path().join("labels.csv"), labels);
    let (code, out, err) = evaluate(&home, &["--json", "--causes", "labels.csv"]);
    assert_eq!(code, 0, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["attribution_top1"], 1.0);
    write(&home.path().join("labels.csv"), &labels.replace("onset", "since"));
    let (code, _, err) = evaluate(&home, &["--causes", "labels.csv"]);
    assert_eq!(code, 2);
    assert!(err.contains("labels.csv, line 1: no column \"start\"") && err.contains("onset"), "{err}");
}

#[test]
fn a_file_of_zeros_and_ones_has_tables_for_people() {
    let home = trained("anomaly");
    let (code, out, _) = evaluate(&home, &[]);
    assert_eq!(code, 0);
    for words in
        ["1200 readings of 2 cars, 50 anomalous in 1 events", "ROC-AUC", "VUS-PR", "false episodes", "blame top-1"]
    {
        assert!(out.contains(words), "no {words:?} in\n{out}");
    }
}

#[test]
fn what_cannot_be_evaluated_is_refused_with_the_way_out() {
    let home = trained("anomaly");
    write(&home.path().join("test.csv"), &readings("", false));
    let (code, _, err) = evaluate(&home, &[]);
    assert_eq!(code, 2);
    assert!(err.contains("test.csv, line 1: no label column: add `anomaly`"), "{err}");
    write(&home.path().join("test.csv"), &readings("anomaly", true));
    write(&home.path().join("causes.csv"), "car,start,end,sensors\nb,24000,26940,heart\n");
    let (code, _, err) = evaluate(&home, &["--causes", "causes.csv"]);
    assert_eq!(code, 2);
    assert!(err.contains("causes.csv, line 2: \"heart\" is no sensor of the model"), "{err}");
}
