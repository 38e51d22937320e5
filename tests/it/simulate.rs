//! `simulate` and `replay` as whoever calls them sees them: files, exit codes, and a real broker.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::{dashlight, has_peer, wait_until};

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn run(home: &TempDir, arguments: &[&str]) -> Output {
    dashlight(home).args(arguments).output().unwrap()
}

fn done(home: &TempDir, arguments: &[&str]) -> String {
    let output = run(home, arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?} ended with {}: {said}", output.status);
    said
}

/// Runs what must fail, and answers with its exit code and the one line it says.
fn refused(home: &TempDir, arguments: &[&str]) -> (i32, String) {
    let output = run(home, arguments);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn text(home: &TempDir, name: &str) -> String {
    std::fs::read_to_string(home.path().join(name)).unwrap()
}

#[test]
fn the_same_options_write_the_same_bytes_plain_and_compressed() {
    let home = home();
    let options = ["simulate", "--cars", "5", "--rate", "2", "--for", "3m", "--faults", "60", "--seed", "7"];
    let write = |name: &str, more: &[&str]| {
        done(&home, &[&options[..], &["--csv", name], more].concat());
        std::fs::read(home.path().join(name)).unwrap()
    };
    let first = write("a.csv", &[]);
    assert_eq!(first, write("b.csv", &[]));
    assert_eq!(write("a.csv.gz", &[]), write("b.csv.gz", &[]), "compressed too");
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&write("c.csv.gz", &[])[..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(first, unpacked);
    let to_stdout = run(&home, &[&options[..], &["--csv", "-"]].concat());
    assert_eq!(first, to_stdout.stdout);

    let lines: Vec<&[u8]> = first.split(|&byte| byte == b'\n').collect();
    assert_eq!(lines.len(), 1 + 5 * 360 + 1, "a header, each car's readings, and the end of the last line");
    assert!(lines[0].starts_with(b"time,car,coolant_temp,") && lines[0].ends_with(b",failures"));
    assert!(lines[1].starts_with(b"1767225600,electric-vehicle-00001,"));
    assert!(lines[6].starts_with(b"1767225600.500,electric-vehicle-00001,"));
    let moved = write("d.csv", &["--start", "2020-02-29T00:00:00Z"]);
    assert!(String::from_utf8(moved).unwrap().contains("\n1582934400,electric-vehicle-00001,"));
}

#[test]
fn the_labels_file_says_what_the_failures_column_says() {
    let home = home();
    done(&home, &["simulate", "--csv", "r.csv", "--labels", "l.csv", "--cars", "10", "--for", "30m", "--faults", "12"]);
    let mut rows: BTreeMap<(String, String), Vec<i64>> = BTreeMap::new();
    for line in text(&home, "r.csv").lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        for failure in fields[20].split_whitespace() {
            rows.entry((fields[1].into(), failure.into())).or_default().push(fields[0].parse().unwrap());
        }
    }
    let labels = text(&home, "l.csv");
    assert!(labels.starts_with("car,fault,onset,end,severity,sensors\n"));
    let mut spans: BTreeMap<(String, String), i64> = BTreeMap::new();
    for line in labels.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let (onset, end): (i64, i64) = (fields[2].parse().unwrap(), fields[3].parse().unwrap());
        let key = (fields[0].to_owned(), fields[1].to_owned());
        let times = rows.get(&key).unwrap_or_else(|| panic!("no row of {key:?}"));
        assert_eq!(times.iter().filter(|time| (onset..=end).contains(time)).count() as i64, end - onset + 1);
        assert!(!fields[5].is_empty());
        *spans.entry(key).or_default() += end - onset + 1;
    }
    assert!(spans.len() > 10);
    for (key, times) in rows {
        assert_eq!(spans[&key], times.len() as i64, "{key:?}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_in_one_sentence_with_the_way_out() {
    let home = home();
    std::fs::write(home.path().join("r.csv"), "time,car,speed\n1,a,2\n").unwrap();
    std::fs::write(home.path().join("no-header.csv"), "1,2,3\n").unwrap();
    let csv = ["simulate", "--csv", "x.csv"];
    let cases: [(&[&str], &str); 14] = [
        (&["simulate"], "--csv"),
        (&[&csv[..], &["--mqtt", "localhost:1"]].concat(), "--mqtt"),
        (&csv, "--for"),
        (&[&csv[..], &["--for", "1s", "--rate", "0.5"]].concat(), "not one reading"),
        (&[&csv[..], &["--for", "soon"]].concat(), "--for"),
        (&[&csv[..], &["--for", "1m", "--cars", "0"]].concat(), "0 cars"),
        (&[&csv[..], &["--for", "1m", "--rate", "-1"]].concat(), "-1"),
        (&[&csv[..], &["--for", "1m", "--only-fault", "brakes"]].concat(), "drive_shaft"),
        (&[&csv[..], &["--for", "1m", "--start", "yesterday"]].concat(), "yesterday"),
        (&["simulate", "--csv", "no/such/folder.csv", "--for", "1m"], "no/such/folder.csv"),
        (&[&csv[..], &["--for", "1m", "--labels", "no/such/l.csv"]].concat(), "no/such/l.csv"),
        (&["simulate", "--mqtt", "nowhere"], "HOST:PORT"),
        (&["replay", "missing.csv", "--mqtt", "localhost:1"], "missing.csv"),
        (&["replay", "r.csv", "--mqtt", "localhost:1", "--topic", "cars/#"], "cars/#"),
    ];
    for (arguments, expected) in cases {
        let (code, said) = refused(&home, arguments);
        assert_eq!(code, 2, "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let (code, said) = refused(&home, &["replay", "no-header.csv", "--mqtt", "localhost:1"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("no-header.csv, line 1"), "{said}");
}

#[test]
fn a_broker_that_is_not_there_is_said_at_once() {
    let home = home();
    std::fs::write(home.path().join("r.csv"), "time,car,speed\n1,a,2\n").unwrap();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    for arguments in [vec!["simulate", "--mqtt", &address, "--for", "5s"], vec!["replay", "r.csv", "--mqtt", &address]]
    {
        let (code, said) = refused(&home, &arguments);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&address), "{said}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_and_a_signal_both_end_a_file_in_good_order() {
    let home = home();
    let start = |to: &str| {
        dashlight(&home)
            .args(["simulate", "--cars", "50", "--for", "240h", "--labels", "l.csv", "--csv", to])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut child = start("-");
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    drop(out);
    assert!(child.wait().unwrap().success());

    let mut child = start("endless.csv");
    let file = home.path().join("endless.csv");
    wait_until("something is written", || std::fs::metadata(&file).is_ok_and(|file| file.len() > 300_000));
    terminate(&child);
    assert!(child.wait().unwrap().success());
    let written = text(&home, "endless.csv");
    assert!(written.ends_with('\n'));
    assert_eq!(written.lines().last().unwrap().matches(',').count(), 20, "the last line is whole");
}

fn terminate(child: &Child) {
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A mosquitto of our own. Killed when dropped.
struct Mosquitto {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Mosquitto {
    fn start() -> Self {
        let port = free_port();
        let folder = home();
        let config = folder.path().join("mosquitto.conf");
        let lines = format!("listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n");
        std::fs::write(&config, lines).unwrap();
        let child = Self::spawn(&config, port);
        Mosquitto { child, port, folder }
    }

    fn spawn(config: &Path, port: u16) -> Child {
        let program = if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" };
        let child =
            Command::new(program).arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("mosquitto listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        child
    }

    fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::spawn(&self.folder.path().join("mosquitto.conf"), self.port);
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A subscriber to everything that ends after so many messages; it has its subscription when this returns.
    fn subscribe(&self, count: usize) -> Subscriber {
        let port = self.port.to_string();
        let retained = ["-p", &port, "-r", "-t", "ready", "-m", "ready"];
        assert!(Command::new("mosquitto_pub").args(retained).status().unwrap().success());
        let mut child = Command::new("mosquitto_sub")
            .args(["-p", &port, "-v", "-q", "2", "-t", "#", "-W", "60", "-C", &(count + 1).to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        lines.read_line(&mut ready).unwrap();
        assert_eq!(ready.trim(), "ready ready");
        Subscriber { child, lines }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Subscriber {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Subscriber {
    /// All messages as (topic, payload).
    fn messages(mut self) -> Vec<(String, serde_json::Value)> {
        let lines = self.lines.by_ref().lines();
        let messages = lines
            .map(|line| {
                let line = line.unwrap();
                let (topic, payload) = line.split_once(' ').unwrap();
                (topic.to_owned(), serde_json::from_str(payload).unwrap())
            })
            .collect();
        let _ = self.child.wait();
        messages
    }
}

fn has_mosquitto() -> bool {
    ["mosquitto", "mosquitto_sub", "mosquitto_pub"].iter().all(|program| has_peer(program))
}

#[test]
fn mosquitto_gets_every_reading_of_a_simulated_fleet_at_every_quality_of_service() {
    if !has_mosquitto() {
        return;
    }
    let (home, mosquitto) = (home(), Mosquitto::start());
    for qos in ["0", "1", "2"] {
        let subscriber = mosquitto.subscribe(60);
        let said = done(
            &home,
            &["simulate", "--mqtt", &mosquitto.address(), "--cars", "6", "--rate", "10", "--for", "1s", "--qos", qos],
        );
        assert!(said.contains("6 cars, 6 connections: 60 readings published"), "{said}");
        assert_eq!(said.contains("60 acknowledged"), qos != "0", "{said}");
        let mut cars: BTreeMap<String, usize> = BTreeMap::new();
        for (topic, reading) in subscriber.messages() {
            *cars.entry(topic).or_default() += 1;
            assert!(reading["time"].as_i64().unwrap() > 1_600_000_000_000);
            assert!(reading["speed"].as_f64().unwrap() >= 0.0);
        }
        assert_eq!(cars.len(), 6, "{cars:?}");
        assert!(cars.values().all(|&count| count == 10), "{cars:?}");
    }
}

#[test]
fn a_recorded_file_arrives_whole_in_order_with_its_own_times_and_gaps() {
    if !has_mosquitto() {
        return;
    }
    let (home, mosquitto) = (home(), Mosquitto::start());
    let mut file = String::from("time,car,alpha,beta\n");
    for n in 0..3_000 {
        let beta = if n % 3 == 0 { String::new() } else { format!("{n}.5") };
        file += &format!("{},car{},{n},{beta}\n", 1_600_000_000 + n, n % 7);
    }
    let path = home.path().join("r.csv.gz");
    let mut out = flate2::write::GzEncoder::new(std::fs::File::create(path).unwrap(), flate2::Compression::fast());
    out.write_all(file.as_bytes()).unwrap();
    out.finish().unwrap();

    let subscriber = mosquitto.subscribe(3_000);
    let topic = ["--topic", "plant/{car}/data"];
    let arguments = ["replay", "r.csv.gz", "--mqtt", &mosquitto.address(), "--speed", "max"];
    let said = done(&home, &[&arguments[..], &topic].concat());
    assert!(said.contains("3000 readings published, 3000 acknowledged"), "{said}");
    let messages = subscriber.messages();
    assert_eq!(messages.len(), 3_000);
    for (n, (topic, reading)) in messages.iter().enumerate() {
        assert_eq!(*topic, format!("plant/car{}/data", n % 7));
        assert_eq!(reading["alpha"], n as u64);
        assert_eq!(reading["time"], 1_600_000_000_000 + n as u64 * 1_000);
        assert_eq!(reading.get("beta").is_none(), n % 3 == 0, "a gap is left out");
    }
}

#[test]
fn the_original_demos_ten_thousand_readings_are_all_acknowledged() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/cars/car-sensor-data.csv");
    if !Path::new(file).exists() {
        eprintln!("skipped: {file} is not there");
        return;
    }
    if !has_mosquitto() {
        return;
    }
    let (home, mosquitto) = (home(), Mosquitto::start());
    let said = done(&home, &["replay", file, "--mqtt", &mosquitto.address(), "--speed", "max"]);
    assert!(said.contains("10000 readings published, 10000 acknowledged"), "{said}");
}

#[test]
fn a_bad_line_is_named_and_what_came_before_it_is_published() {
    if !has_mosquitto() {
        return;
    }
    let (home, mosquitto) = (home(), Mosquitto::start());
    for (line, why) in [("3,a,fast", "\"fast\""), ("3,a/b,1", "a/b"), ("3,a", "fields")] {
        std::fs::write(home.path().join("r.csv"), format!("time,car,speed\n1,a,1\n2,a,2\n{line}\n")).unwrap();
        let (code, said) = refused(&home, &["replay", "r.csv", "--mqtt", &mosquitto.address(), "--speed", "max"]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("2 readings published, 2 acknowledged"), "{said}");
        assert!(said.contains("r.csv, line 4") && said.contains(why), "{said}");
    }
}

#[test]
fn a_replay_keeps_the_recorded_pace() {
    if !has_mosquitto() {
        return;
    }
    let (home, mosquitto) = (home(), Mosquitto::start());
    std::fs::write(home.path().join("r.csv"), "time,car,speed\n0,a,1\n10,a,2\n20,a,3\n").unwrap();
    let begun = std::time::Instant::now();
    done(&home, &["replay", "r.csv", "--mqtt", &mosquitto.address(), "--speed", "20"]);
    assert!(begun.elapsed().as_secs_f64() >= 1.0, "20 s at twenty times the speed");
}

#[test]
fn a_broker_that_is_restarted_costs_no_reading_and_sigterm_waits_for_what_is_outstanding() {
    if !has_mosquitto() {
        return;
    }
    let (home, mut mosquitto) = (home(), Mosquitto::start());
    let child = dashlight(&home)
        .args(["simulate", "--mqtt", &mosquitto.address(), "--cars", "20", "--rate", "20", "--connections", "4"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let some = mosquitto.subscribe(200);
    assert!(some.messages().len() >= 200);
    mosquitto.restart();
    let more = mosquitto.subscribe(200);
    assert!(more.messages().len() >= 200, "it went on by itself");
    terminate(&child);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let count = |word: &str| -> u64 {
        let before = said.split(word).next().unwrap();
        before.split_whitespace().last().unwrap().parse().unwrap_or_else(|_| panic!("no count before {word}: {said}"))
    };
    assert!(count("readings published") >= 400, "{said}");
    assert_eq!(count("readings published"), count("acknowledged"), "{said}");
}

/// The whole way, in one process: a fault, the model in the binary, an episode and whom it blames.
#[test]
fn an_episode_of_a_simulated_fault_blames_a_sensor_that_its_label_lists() {
    use dashlight::detect::{Calibration, Change, Detector, Scratch};
    use dashlight::model::Model;
    use dashlight::simulate::{Fleet, FleetOptions, faults, sensor};

    const READINGS: i64 = 1200;
    const CARS: usize = 3;
    let mut model = Model::load("car-sensors").unwrap();
    let calibration: Calibration = model.manifest().calibration().unwrap().unwrap();
    let detector = Detector::new(&calibration, model.schema()).unwrap();
    let (mut opened, mut right) = (0, 0);
    for kind in faults() {
        let options = FleetOptions {
            cars: CARS,
            only_fault: Some(kind.id.into()),
            duration: Some(std::time::Duration::from_secs(READINGS as u64)),
            labels: true,
            seed: 11,
            ..FleetOptions::default()
        };
        let mut fleet = Fleet::new(&options).unwrap();
        let mut episodes = Vec::new();
        for car in 0..CARS {
            let (mut state, mut scratch, mut expected) = (detector.car(None), Scratch::default(), Vec::new());
            let mut row = [0.0; sensor::COUNT];
            for n in 0..READINGS {
                fleet.step(car, n * 1000, &mut row);
                model.expected(&row, &mut expected).unwrap();
                let verdict = detector.observe(&mut state, n * 1000, &row, &expected, &mut scratch);
                if matches!(verdict.change, Change::Opened | Change::Updated) {
                    let episode = state.open_episode().unwrap();
                    episodes.retain(|&(of, onset, _)| (of, onset) != (car, episode.onset_ms));
                    episodes.push((car, episode.onset_ms, episode.blames()[0].sensor));
                }
            }
        }
        for label in fleet.finish() {
            let of_it = |&&(car, onset, _): &&(usize, i64, u16)| {
                car == label.car && (label.onset - 2000..=label.end).contains(&onset)
            };
            if let Some(&(_, _, blamed)) = episodes.iter().find(of_it) {
                opened += 1;
                right += usize::from(label.sensors & (1 << blamed) != 0);
            }
        }
    }
    let all = CARS * faults().len();
    assert!(opened * 10 >= all * 8, "{opened} of {all} faults opened an episode");
    assert!(right * 10 >= opened * 9, "of {opened} episodes {right} blame the right sensor most");
}
