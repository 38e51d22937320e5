//! The promise where no real Kafka is needed: what is acknowledged is in the log when Kafka is away, when the disk is full, and
//! after a restart; and what cannot keep the promise is said before anything is acknowledged.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::device::{Device, Kind};
use crate::support::{Headless, assert_adds_up, dashlight, wait_until};

const AT_LEAST_ONCE: Kind = Kind { version: 5, qos: 1 };
const ONCE: Kind = Kind { version: 4, qos: 2 };

/// An address where no Kafka is.
fn nowhere() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// So many acknowledged readings, and no more.
fn publish(mqtt: SocketAddr, name: &str, kind: Kind, readings: u64) -> BTreeSet<u64> {
    let mut device = Device::start(name, kind, mqtt, 1, Duration::from_millis(1));
    wait_until("readings are acknowledged", || device.acknowledged() >= readings);
    device.finish();
    wait_until("all are acknowledged", || device.is_done());
    device.kept()
}

fn count(summary: &Value, name: &str) -> u64 {
    summary[name].as_u64().unwrap_or_else(|| panic!("no count {name} in {summary}"))
}

fn doctor(home: &TempDir, arguments: &[&str]) -> String {
    let output = dashlight(home).args(["doctor", "--mqtt-listen", "off"]).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn refused(home: &TempDir, arguments: &[&str]) -> Output {
    let output = dashlight(home)
        .args(["run", "--headless", "--simulate", "off", "--mqtt-listen", "127.0.0.1:0", "--ack", "disk"])
        .args(arguments)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    output
}

#[test]
fn readings_that_were_acknowledged_while_kafka_is_away_wait_in_the_log_over_restarts() {
    let (state, kafka) = (tempfile::tempdir().unwrap(), nowhere());
    let path = state.path().to_str().unwrap();
    let arguments = ["--simulate", "off", "--kafka", &kafka, "--state", path];
    let run = Headless::start(&arguments);
    let kept = publish(run.mqtt, "car-1", AT_LEAST_ONCE, 150).len() as u64;
    let (_, summary) = run.stop();
    assert_adds_up(&summary);
    let waiting = count(&summary, "in_log");
    assert!(waiting >= kept && count(&summary, "received") == waiting && count(&summary, "produced") == 0, "{summary}");

    let said = doctor(&state, &["--kafka", &kafka, "--state", path]);
    assert!(said.contains(&format!("{waiting} readings wait for Kafka")) && said.contains("a sync takes"), "{said}");

    let run = Headless::start(&arguments);
    let more = publish(run.mqtt, "car-2", ONCE, 100).len() as u64;
    let (_, summary) = run.stop();
    assert_adds_up(&summary);
    assert_eq!((count(&summary, "recovered"), count(&summary, "in_log")), (waiting, waiting + more), "{summary}");
    let (_, summary) = Headless::start(&arguments).stop();
    assert_adds_up(&summary);
    assert_eq!(count(&summary, "recovered"), waiting + more, "releases of QoS 2 are no readings: {summary}");
}

#[test]
fn every_policy_takes_readings_to_the_verdict_and_its_counts_add_up() {
    for ack in ["disk", "kafka", "memory"] {
        for kind in [AT_LEAST_ONCE, ONCE] {
            let run = Headless::start(&["--simulate", "off", "--ack", ack]);
            let kept = publish(run.mqtt, "car-1", kind, 300).len() as u64;
            let (_, summary) = run.stop();
            assert_adds_up(&summary);
            assert!(count(&summary, "scored") >= kept && count(&summary, "in_log") == 0, "{ack}: {summary}");
            assert_eq!(count(&summary, "scored"), count(&summary, "received"), "{ack}: {summary}");
        }
    }
}

#[test]
fn one_log_is_for_one_process_and_the_second_is_told_so() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().to_str().unwrap();
    let _first = Headless::start(&["--simulate", "off", "--ack", "disk", "--state", path]);
    let said = String::from_utf8(refused(&state, &["--state", path]).stderr).unwrap();
    assert!(said.contains("another process has the log in") && said.contains("--state"), "{said}");
    let said = doctor(&state, &["--ack", "disk", "--state", path]);
    assert!(said.contains("another process has it"), "{said}");
}

#[test]
fn a_directory_that_cannot_be_used_is_said_with_the_way_out() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let path = file.to_str().unwrap();
    let said = String::from_utf8(refused(&home, &["--state", path]).stderr).unwrap();
    assert!(said.contains(&format!("the log's directory {path}/wal cannot be written")), "{said}");
    assert!(said.contains("wal.directory"), "{said}");
    let said = doctor(&home, &["--ack", "disk", "--state", path]);
    assert!(said.contains("fail  acknowledged"), "{said}");
}

/// A small disk in memory; gone when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let place = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(place.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk(place));
        }
        eprintln!("skipped: only root may mount a small disk to fill");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_acknowledges_nothing_says_so_and_with_room_goes_on_having_lost_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    let ballast: PathBuf = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; 12 << 20]).unwrap();
    let (state, kafka) = (disk.path().to_str().unwrap(), nowhere());
    let arguments = ["--simulate", "off", "--kafka", &kafka, "--state", state];
    let mut run = Headless::start(&arguments);
    let mut devices: Vec<Device> = (0..8)
        .map(|n| Device::start(&format!("car-{n}"), [AT_LEAST_ONCE, ONCE][n % 2], run.mqtt, n as u64, Duration::ZERO))
        .collect();
    let said = run.wait_for_log("cannot be written");
    assert!(said.contains("No space left") && said.contains("make room on the disk"), "{said}");
    let acknowledged = |devices: &[Device]| devices.iter().map(Device::acknowledged).sum::<u64>();
    // What was synced before may still be on its way to the devices; then nothing comes any more.
    let mut before = 0;
    wait_until("nothing is acknowledged any more", || {
        let now = acknowledged(&devices);
        std::thread::sleep(Duration::from_millis(300));
        std::mem::replace(&mut before, now) == now && acknowledged(&devices) == now
    });
    std::fs::remove_file(&ballast).unwrap();
    wait_until("it goes on", || acknowledged(&devices) > before + 100);
    devices.iter().for_each(Device::finish);
    wait_until("all are acknowledged", || devices.iter().all(Device::is_done));
    let kept: u64 = devices.iter_mut().map(|device| device.kept().len() as u64).sum();
    let (_, summary) = run.stop();
    assert_adds_up(&summary);
    assert_eq!(count(&summary, "lost"), 0, "{summary}");
    let (_, summary) = Headless::start(&arguments).stop();
    assert!(count(&summary, "recovered") >= kept, "{kept} were acknowledged: {summary}");
}
