//! The promise, tried: devices with numbered readings at QoS 1 and 2 over MQTT 3.1.1 and 5, while dashlight is killed and
//! started again, connections are cut in the middle of packets, and Kafka is killed and comes back. Whatever happened, every
//! reading that was acknowledged is in Kafka, and after the faults new ones flow.
//!
//! The schedule comes from a seed: `DASHLIGHT_KILL_SEED=N` repeats one, `DASHLIGHT_KILL_CYCLES=200` makes it longer (the
//! nightly run). It needs a real Kafka (see `kafka`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use dashlight::config;
use dashlight::kafka::{Cluster, Consumer, LOGGED, Tail};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::Value;
use tempfile::TempDir;

use crate::device::{Device, Kind};
use crate::kafka::{Own, real};
use crate::support::{PATIENCE, dashlight, wait_until};

const KINDS: [Kind; 4] = [
    Kind { version: 4, qos: 1 },
    Kind { version: 5, qos: 1 },
    Kind { version: 4, qos: 2 },
    Kind { version: 5, qos: 2 },
];

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |text| text.parse().expect(variable))
}

/// A run of the real binary that always has the same port and state.
struct Run {
    child: Child,
    out: std::path::PathBuf,
    log: std::path::PathBuf,
}

impl Run {
    fn start(home: &TempDir, n: u64, mqtt: SocketAddr, arguments: &[&str]) -> Run {
        let file = |name: &str| home.path().join(format!("{name}-{n}"));
        let (out, log) = (file("out"), file("log"));
        let child = dashlight(home)
            .args(["run", "--headless", "--simulate", "off", "--mqtt-listen", &mqtt.to_string()])
            .args(arguments)
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let run = Run { child, out, log };
        wait_until("it listens", || {
            let log = run.logged();
            assert!(!log.contains("instead"), "somebody took the port:\n{log}");
            log.contains("listening: mqtt")
        });
        run
    }

    fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it in good order; its summary.
    fn stop(mut self) -> Value {
        let pid = self.child.id().to_string();
        std::process::Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "ended with {status}; its log:\n{}", self.logged());
        let out = std::fs::read_to_string(&self.out).unwrap();
        let summary: Value = serde_json::from_str(out.lines().last().expect("a summary")).unwrap();
        assert_balanced(&summary);
        summary
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the log of the last run:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

fn assert_balanced(summary: &Value) {
    let count = |name: &str| summary[name].as_u64().unwrap_or_else(|| panic!("no count {name} in {summary}"));
    assert_eq!(
        count("received") + count("recovered"),
        count("produced") + count("refused") + count("lost") + count("in_log"),
        "{summary}"
    );
}

/// What stands in a topic: by device, the numbers in the order of the log; and the identities that records have from the
/// write-ahead log, each with how often it is there.
fn in_kafka(bootstrap: &str, topic: &str) -> (BTreeMap<String, Vec<u64>>, BTreeMap<String, usize>) {
    let cluster = Cluster::open(&config::Kafka { bootstrap: bootstrap.into(), ..config::Kafka::default() }).unwrap();
    let mut partitions = 0;
    wait_until("Kafka tells the topic's partitions", || {
        partitions = cluster.ensure_topic(topic).unwrap_or(0);
        partitions > 0
    });
    let tail = Tail::open(&cluster).unwrap();
    let ends = tail.ends(topic, partitions).unwrap();
    let mut identities = BTreeMap::new();
    tail.read(topic, &[], &ends, LOGGED, |_, value| {
        *identities.entry(String::from_utf8(value.to_vec()).unwrap()).or_insert(0) += 1;
    })
    .unwrap();
    let mut consumer = Consumer::open(&cluster, &format!("{topic}-witness"), &[topic]).unwrap();
    let (total, mut read): (i64, i64) = (ends.iter().sum(), 0);
    let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    // However much there is, as long as there is something.
    while read < total {
        let polled = consumer.poll(10_000, PATIENCE, |record| {
            read += 1;
            let payload: Value = serde_json::from_slice(record.payload).unwrap();
            let device = payload["device"].as_str().unwrap().to_owned();
            numbers.entry(device).or_default().push(payload["n"].as_u64().unwrap());
        });
        assert!(polled.records > 0 || !polled.assigned.is_empty(), "{read} of {total} records could be read");
    }
    (numbers, identities)
}

/// The first time each number appears, in the order of the log.
fn first_times(numbers: &[u64]) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    numbers.iter().copied().filter(|n| seen.insert(*n)).collect()
}

fn write_configuration(home: &Path, id: &str) {
    let text = format!(
        "[kafka]\ngroup = 'g-{id}'\npartitions = 3\n[kafka.topics]\nscores = 'scores-{id}'\nbreaches = 'breaches-{id}'\n\
         episodes = 'episodes-{id}'\ndead_letters = 'dead-{id}'\n[[source]]\ntopic = 'cars-{id}'\n"
    );
    std::fs::write(home.join("dashlight.toml"), text).unwrap();
}

#[test]
fn every_acknowledged_reading_is_in_kafka_however_often_everything_is_killed() {
    if real().is_none() {
        return;
    }
    let cycles = number("DASHLIGHT_KILL_CYCLES", 6);
    let seed = number("DASHLIGHT_KILL_SEED", 1);
    let mut chance = Pcg64Mcg::seed_from_u64(seed);
    let kafka = Own::start();
    let home = tempfile::tempdir().unwrap();
    write_configuration(home.path(), "kill");
    let mqtt = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let arguments = ["--kafka", kafka.bootstrap.as_str()];
    let mut devices: Vec<Device> = KINDS
        .into_iter()
        .cycle()
        .take(8)
        .enumerate()
        .map(|(n, kind)| {
            let name = format!("car-{}-{}-{n}", kind.version, kind.qos);
            Device::start(&name, kind, mqtt, seed.wrapping_mul(31) + n as u64, Duration::from_millis(1 + n as u64 % 3))
        })
        .collect();

    let mut kafka_down_until = None;
    let mut orderly = 0;
    for cycle in 0..cycles {
        let run = Run::start(&home, cycle, mqtt, &arguments);
        if kafka_down_until.is_some_and(|until| cycle >= until) {
            kafka_down_until = None;
            kafka.start_again();
        }
        // Once in a while long enough for what waits to get through.
        let time = if chance.random_bool(0.2) { 1_500..4_000 } else { 20..900 };
        std::thread::sleep(Duration::from_millis(chance.random_range(time)));
        // One of each kind at the least, whatever chance says.
        let kill_kafka = cycle == cycles / 2 || chance.random_bool(0.05);
        if kill_kafka && kafka_down_until.is_none() && cycle + 1 < cycles {
            kafka.kill();
            kafka_down_until = Some(cycle + chance.random_range(1..=3));
            std::thread::sleep(Duration::from_millis(chance.random_range(0..1_000)));
        }
        if chance.random_bool(0.1) {
            orderly += 1;
            run.stop();
        } else {
            run.kill();
        }
        assert!(devices.iter().all(|device| !device.is_done()));
    }

    // The faults are over: new readings flow, and everything old gets there.
    if kafka_down_until.is_some() {
        kafka.start_again();
    }
    let run = Run::start(&home, cycles, mqtt, &arguments);
    let before: Vec<u64> = devices.iter().map(Device::acknowledged).collect();
    wait_until("new readings flow from every device", || {
        devices.iter().zip(&before).all(|(device, before)| device.acknowledged() >= before + 50)
    });
    devices.iter().for_each(Device::finish);
    wait_until("every reading is acknowledged", || devices.iter().all(Device::is_done));
    let summary = run.stop();
    assert_eq!((summary["lost"].as_u64(), summary["in_log"].as_u64()), (Some(0), Some(0)), "{summary}");

    let (numbers, identities) = in_kafka(&kafka.bootstrap, "cars-kill");
    let (mut total, mut twice) = (0, 0);
    for device in &mut devices {
        let kept = device.kept();
        let there = numbers.get(&device.name).cloned().unwrap_or_default();
        let first = first_times(&there);
        let there_set: BTreeSet<u64> = first.iter().copied().collect();
        let missing: Vec<&u64> = kept.difference(&there_set).collect();
        assert!(missing.is_empty(), "{} {:?}: acknowledged and not in Kafka: {missing:?}", device.name, device.kind);
        assert!(first.is_sorted(), "{}: in the order they were sent", device.name);
        if device.kind.qos == 2 {
            assert_eq!(there.len(), first.len(), "{}: QoS 2, and some came twice", device.name);
        }
        total += kept.len();
        twice += there.len() - first.len();
    }
    let again: Vec<_> = identities.iter().filter(|(_, times)| **times > 1).collect();
    assert!(again.is_empty(), "handed on to Kafka twice: {again:?}");
    println!(
        "{cycles} cycles from seed {seed}, {orderly} of them ended in good order: {total} readings acknowledged, all in Kafka; \
         {twice} of QoS 1 came twice"
    );
}

#[test]
fn kafka_away_from_the_start_fills_the_log_to_its_bound_and_comes_back_to_all_of_it() {
    if real().is_none() {
        return;
    }
    let kafka = Own::start();
    kafka.kill();
    let home = tempfile::tempdir().unwrap();
    write_configuration(home.path(), "full");
    let text = std::fs::read_to_string(home.path().join("dashlight.toml")).unwrap();
    let small = format!("[wal]\nmax_bytes = {}\n[limits]\nreading_bytes = 100000\n{text}", 16 << 20);
    std::fs::write(home.path().join("dashlight.toml"), small).unwrap();
    let mqtt = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let arguments = ["--kafka", kafka.bootstrap.as_str()];
    let run = Run::start(&home, 0, mqtt, &arguments);
    let mut devices: Vec<Device> =
        (0..16).map(|n| Device::start(&format!("car-{n}"), KINDS[n % 2], mqtt, n as u64, Duration::ZERO)).collect();
    let acknowledged = |devices: &[Device]| devices.iter().map(Device::acknowledged).sum::<u64>();
    let log = home.path().join("dashlight/wal");
    let bytes = || -> u64 {
        std::fs::read_dir(&log).unwrap().map(|file| file.unwrap().metadata().map_or(0, |m| m.len())).sum()
    };
    let deadline = Instant::now() + Duration::from_secs(120);
    let (mut before, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_secs(2) {
        assert!(Instant::now() < deadline, "the log never filled up: {} bytes", bytes());
        let now = acknowledged(&devices);
        if now > before {
            (before, since) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!((15 << 20..17 << 20).contains(&bytes()), "{}", bytes());
    // A restart changes nothing: full is full.
    run.kill();
    let run = Run::start(&home, 1, mqtt, &arguments);
    kafka.start_again();
    wait_until("devices go on", || acknowledged(&devices) > before + 1_000);
    devices.iter().for_each(Device::finish);
    wait_until("every reading is acknowledged", || devices.iter().all(Device::is_done));
    let summary = run.stop();
    assert_eq!((summary["lost"].as_u64(), summary["in_log"].as_u64()), (Some(0), Some(0)), "{summary}");
    let (numbers, identities) = in_kafka(&kafka.bootstrap, "cars-full");
    for device in &mut devices {
        let there: BTreeSet<u64> = numbers[&device.name].iter().copied().collect();
        assert!(device.kept().is_subset(&there), "{}", device.name);
    }
    assert!(identities.values().all(|times| *times == 1));
    assert!(bytes() < 4 << 20, "what Kafka has is removed: {}", bytes());
}
