//! The log, from outside: real Apache Kafka, and kcat as somebody else's client.
//!
//! The tests against a real Kafka run when `DASHLIGHT_TEST_KAFKA=HOST:PORT` names one (`.ci/kafka start DIR` starts one and
//! prints that); those that kill theirs start their own with the same script.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use dashlight::config;
use dashlight::kafka::{
    Cluster, Consumer, Health, KafkaError, MQTT_TOPIC, Outgoing, Producer, RECEIVED_MS, SendError, partition_of,
};

const PATIENCE: Duration = Duration::from_secs(120);

/// The real Kafka to test against, if there is one.
pub fn real() -> Option<String> {
    let address = std::env::var("DASHLIGHT_TEST_KAFKA").ok();
    if address.is_none() {
        eprintln!("skipped: DASHLIGHT_TEST_KAFKA names no Kafka");
    }
    address
}

fn kcat() -> bool {
    let found = Command::new("kcat").arg("-V").output().is_ok();
    if !found {
        eprintln!("skipped: kcat is not installed");
    }
    found
}

fn open(bootstrap: &str, partitions: i32) -> Cluster {
    Cluster::open(&config::Kafka { bootstrap: bootstrap.into(), partitions, ..config::Kafka::default() }).unwrap()
}

/// The topic's partitions or why it can't be had; tried again, as the engine does, while Kafka takes its time.
fn ensured(cluster: &Cluster, topic: &str) -> Result<i32, KafkaError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match cluster.ensure_topic(topic) {
            Err(error) if error.is_retriable() && Instant::now() < deadline => {}
            answer => return answer,
        }
    }
}

/// A topic that no other test and no earlier run has used.
fn fresh(name: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    format!("{name}-{}-{time}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited two minutes until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A producer that counts what was delivered and what was not.
struct Writer {
    producer: Producer<usize>,
    delivered: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    topic: String,
}

impl Writer {
    fn open(cluster: &Cluster, topic: &str) -> Self {
        let (delivered, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (d, f) = (delivered.clone(), failed.clone());
        let producer = Producer::open(cluster, move |_, fate| match fate {
            Ok(()) => drop(d.fetch_add(1, Ordering::SeqCst)),
            Err(error) => {
                eprintln!("not delivered: {error}");
                f.fetch_add(1, Ordering::SeqCst);
            }
        });
        Writer { producer: producer.unwrap(), delivered, failed, topic: topic.into() }
    }

    /// Sends a number under a key of its own; waits while there is no room.
    fn send(&self, n: usize) {
        let deadline = Instant::now() + PATIENCE;
        let (key, payload) = (format!("car{}", n % 50), n.to_string());
        let out = Outgoing { topic: &self.topic, key: Some(key.as_bytes()), payload: payload.as_bytes(), headers: &[] };
        while let Err((_, error)) = self.producer.try_send(out, n) {
            assert_eq!(error, SendError::Full);
            assert!(Instant::now() < deadline, "no room for two minutes");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Leaves the group too, should the test fail.
impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// A consumer in a thread of its own, that notes the numbers it reads.
struct Reader {
    seen: Arc<Mutex<BTreeMap<usize, usize>>>,
    mine: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    fn start(bootstrap: &str, group: &str, topic: &str) -> Self {
        let (bootstrap, group, topic) = (bootstrap.to_owned(), group.to_owned(), topic.to_owned());
        let seen = Arc::<Mutex<BTreeMap<usize, usize>>>::default();
        let (mine, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let thread = std::thread::spawn({
            let (seen, mine, stop) = (seen.clone(), mine.clone(), stop.clone());
            move || {
                let cluster = open(&bootstrap, 6);
                let mut consumer = Consumer::open(&cluster, &group, &[&topic]).unwrap();
                while !stop.load(Ordering::SeqCst) {
                    let polled = consumer.poll(200, Duration::from_millis(50), |record| {
                        let n = std::str::from_utf8(record.payload).unwrap().parse().unwrap();
                        *seen.lock().unwrap().entry(n).or_insert(0) += 1;
                    });
                    assert_eq!((polled.skipped, polled.refused), (0, None));
                    consumer.stored();
                    mine.store(consumer.partitions().0, Ordering::SeqCst);
                }
            }
        });
        Reader { seen, mine, stop, thread: Some(thread) }
    }

    fn partitions(&self) -> usize {
        self.mine.load(Ordering::SeqCst)
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Leaves the group; what it has read, and how often.
    fn stop(mut self) -> BTreeMap<usize, usize> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// What kcat reads from the beginning of a topic to its end: partition, key, headers and value, a line each.
fn kcat_reads(bootstrap: &str, topic: &str) -> String {
    let arguments = ["-C", "-q", "-e", "-o", "beginning", "-f", "%p %k %h %s\n", "-b", bootstrap, "-t", topic];
    let output = Command::new("kcat").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn write_one(cluster: &Cluster, topic: &str) {
    let writer = Writer::open(cluster, topic);
    let headers: &[(&str, &[u8])] = &[(MQTT_TOPIC, b"vehicles/car1"), (RECEIVED_MS, b"1567606196000")];
    let out = Outgoing { topic, key: Some(b"car1"), payload: br#"{"speed":1.5}"#, headers };
    writer.producer.try_send(out, 0).unwrap();
    assert_eq!(writer.producer.flush(PATIENCE), 0);
    assert_eq!(writer.delivered.load(Ordering::SeqCst), 1);
}

fn as_kcat_shows_it(partitions: i32) -> String {
    let partition = partition_of(b"car1", partitions);
    format!("{partition} car1 mqtt-topic=vehicles/car1,received-ms=1567606196000 {{\"speed\":1.5}}\n")
}

#[test]
fn kcat_reads_the_embedded_kafka_and_writes_into_it() {
    if !kcat() {
        return;
    }
    let cluster = open("", 5);
    cluster.ensure_topic("car-sensor").unwrap();
    let mut consumer = Consumer::open(&cluster, "g", &["car-sensor"]).unwrap();
    write_one(&cluster, "car-sensor");
    assert_eq!(kcat_reads(cluster.bootstrap(), "car-sensor"), as_kcat_shows_it(5));

    let mut kcat = Command::new("kcat")
        .args(["-P", "-b", cluster.bootstrap(), "-t", "car-sensor", "-k", "car2"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut kcat.stdin.take().unwrap(), b"from elsewhere").unwrap();
    assert!(kcat.wait().unwrap().success());
    let mut seen = Vec::new();
    wait_until("both records are read", || {
        consumer.poll(10, Duration::from_millis(50), |record| {
            assert!(record.received_ms > 1_500_000_000_000, "Kafka's own stamp stands in for a missing header");
            seen.push((record.key.map(<[u8]>::to_vec), record.mqtt_topic.is_some()));
        });
        seen.len() == 2
    });
    seen.sort();
    assert_eq!(seen, [(Some(b"car1".to_vec()), true), (Some(b"car2".to_vec()), false)]);
}

#[test]
fn a_header_whose_name_is_no_text_is_passed_over() {
    if !kcat() {
        return;
    }
    let cluster = open("", 1);
    cluster.ensure_topic("t").unwrap();
    let mut consumer = Consumer::open(&cluster, "g", &["t"]).unwrap();
    let name = std::os::unix::ffi::OsStringExt::from_vec(b"\xff\xfe=x".to_vec());
    let mut kcat = Command::new("kcat")
        .args(["-P", "-b", cluster.bootstrap(), "-t", "t", "-H"])
        .args([name, std::ffi::OsString::from("-H"), "mqtt-topic=a/b".into()])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut kcat.stdin.take().unwrap(), b"v").unwrap();
    assert!(kcat.wait().unwrap().success());
    let mut seen = None;
    wait_until("the record is read", || {
        consumer.poll(1, Duration::from_millis(50), |record| seen = record.mqtt_topic.map(<[u8]>::to_vec));
        seen.is_some()
    });
    assert_eq!(seen.as_deref(), Some(&b"a/b"[..]));
}

#[test]
fn a_topic_is_created_as_configured_and_kcat_reads_what_we_write() {
    let Some(bootstrap) = real() else { return };
    let (cluster, topic) = (open(&bootstrap, 6), fresh("round-trip"));
    assert_eq!(ensured(&cluster, &topic), Ok(6));
    assert_eq!(cluster.health(), Health::Up);
    // Another process with other ideas takes it as it is.
    assert_eq!(ensured(&open(&bootstrap, 3), &topic), Ok(6));
    write_one(&cluster, &topic);
    let mut consumer = Consumer::open(&cluster, &topic, &[&topic]).unwrap();
    let mut seen = Vec::new();
    wait_until("the record is read", || {
        consumer.poll(10, Duration::from_millis(50), |record| {
            seen.push((
                record.partition,
                record.offset,
                record.payload.to_vec(),
                record.mqtt_topic.map(<[u8]>::to_vec),
            ));
            assert_eq!(record.received_ms, 1_567_606_196_000);
        });
        !seen.is_empty()
    });
    // The partition is the one librdkafka's Java-compatible partitioner chose, and ours would have.
    let expected = (partition_of(b"car1", 6), 0, br#"{"speed":1.5}"#.to_vec(), Some(b"vehicles/car1".to_vec()));
    assert_eq!(seen, [expected]);
    assert_eq!(consumer.partitions(), (6, 6));
    consumer.stored();
    wait_until("the lag is known and nothing", || {
        consumer.poll(10, Duration::from_millis(50), |_| {});
        consumer.lag() == Some(0)
    });
    if kcat() {
        assert_eq!(kcat_reads(&bootstrap, &topic), as_kcat_shows_it(6));
    }
}

#[test]
fn a_topic_name_that_kafka_refuses_is_said_and_not_retried() {
    let Some(bootstrap) = real() else { return };
    let error = ensured(&open(&bootstrap, 1), "no/such name").unwrap_err();
    assert!(!error.is_retriable(), "{error}");
    assert!(
        error.to_string().starts_with(&format!("Kafka at {bootstrap} refuses the topic \"no/such name\": ")),
        "{error}"
    );
    let few_brokers = config::Kafka { bootstrap, replication: 3, ..config::Kafka::default() };
    let error = ensured(&Cluster::open(&few_brokers).unwrap(), &fresh("replicated")).unwrap_err();
    assert!(error.to_string().contains("too few brokers for kafka.replication = 3"), "{error}");
}

#[test]
fn two_consumers_of_a_group_share_the_partitions_and_lose_nothing_over_rebalances() {
    let Some(bootstrap) = real() else { return };
    let (cluster, topic) = (open(&bootstrap, 6), fresh("shared"));
    ensured(&cluster, &topic).unwrap();
    let writer = Writer::open(&cluster, &topic);
    let stop = AtomicBool::new(false);
    let (sent, seen) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::SeqCst) {
                writer.send(n);
                n += 1;
                if n % 50 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            n
        });
        let first = Reader::start(&bootstrap, &topic, &topic);
        wait_until("the first has all partitions and reads", || first.partitions() == 6 && first.count() > 100);
        let second = Reader::start(&bootstrap, &topic, &topic);
        wait_until("both have their share and read", || {
            (first.partitions(), second.partitions()) == (3, 3) && second.count() > 100
        });
        let mut seen = first.stop();
        let before = second.count();
        wait_until("the second has all partitions and reads on", || {
            second.partitions() == 6 && second.count() > before + 500
        });
        stop.store(true, Ordering::SeqCst);
        let sent = sending.join().unwrap();
        wait_until("everything is read", || {
            let second = second.seen.lock().unwrap();
            (0..sent).all(|n| seen.contains_key(&n) || second.contains_key(&n))
        });
        for (n, times) in second.stop() {
            *seen.entry(n).or_insert(0) += times;
        }
        (sent, seen)
    });
    assert_eq!(writer.producer.flush(PATIENCE), 0);
    assert_eq!((writer.delivered.load(Ordering::SeqCst), writer.failed.load(Ordering::SeqCst)), (sent, 0));
    assert_eq!(seen.len(), sent);
    let again: usize = seen.values().map(|times| times - 1).sum();
    assert_eq!(again, 0, "partitions that go over in good order are committed first, so nothing is read twice");
}

/// A Kafka of this test's own, which it may kill.
pub struct Own {
    dir: PathBuf,
    /// Where it is.
    pub bootstrap: String,
    _temporary: tempfile::TempDir,
}

impl Own {
    /// Starts one.
    pub fn start() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("kafka");
        let bootstrap = Self::script("start", &dir);
        Own { dir, bootstrap, _temporary: temporary }
    }

    fn script(what: &str, dir: &Path) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/kafka");
        let output = Command::new(script).arg(what).arg(dir).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// `kill -9`; its data stays.
    pub fn kill(&self) {
        Self::script("kill", &self.dir);
    }

    /// Starts it again with the data it had.
    pub fn start_again(&self) {
        Self::script("start", &self.dir);
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.dir.join(file)).unwrap().trim().to_owned()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        Self::script("kill", &self.dir);
    }
}

#[test]
fn kafka_killed_in_mid_stream_and_started_again_loses_doubles_and_fails_nothing() {
    if real().is_none() {
        return;
    }
    let kafka = Own::start();
    let (cluster, topic) = (open(&kafka.bootstrap, 6), fresh("killed"));
    ensured(&cluster, &topic).unwrap();
    let writer = Writer::open(&cluster, &topic);
    let reader = Reader::start(&kafka.bootstrap, &topic, &topic);
    let total = 60_000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..total {
                writer.send(n);
                if n % 100 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        wait_until("records flow", || reader.count() > 2000);
        Own::script("kill", &kafka.dir);
        wait_until("its absence is noticed", || cluster.health() != Health::Up);
        let Health::Away { reason, .. } = cluster.health() else { panic!("away") };
        assert!(!reason.is_empty());
        let error = cluster.ensure_topic(&fresh("while-away")).unwrap_err();
        assert!(error.is_retriable(), "{error}");
        Own::script("start", &kafka.dir);
    });
    wait_until("it is back", || cluster.health() == Health::Up);
    assert_eq!(writer.producer.flush(PATIENCE), 0);
    assert_eq!((writer.delivered.load(Ordering::SeqCst), writer.failed.load(Ordering::SeqCst)), (total, 0));
    wait_until("everything is read", || reader.count() == total);
    reader.stop();
    // Read once more from the beginning: each number is in the log exactly once, in order for its key.
    let again = Reader::start(&kafka.bootstrap, &fresh("again"), &topic);
    wait_until("everything is read again", || again.count() == total);
    assert!(again.stop().values().all(|&times| times == 1), "the log holds each record once");
}

#[test]
fn kafka_away_at_the_start_is_waited_for() {
    if real().is_none() {
        return;
    }
    let kafka = Own::start();
    Own::script("kill", &kafka.dir);
    let (cluster, topic) = (open(&kafka.bootstrap, 6), fresh("later"));
    let writer = Writer::open(&cluster, &topic);
    let reader = Reader::start(&kafka.bootstrap, &topic, &topic);
    let error = cluster.ensure_topic(&topic).unwrap_err();
    assert!(error.is_retriable(), "{error}");
    std::thread::scope(|scope| {
        // It waits from here on: nothing is accepted for a topic that is not there yet.
        scope.spawn(|| (0..1000).for_each(|n| writer.send(n)));
        Own::script("start", &kafka.dir);
        wait_until("the topic is there", || cluster.ensure_topic(&topic).is_ok());
    });
    wait_until("everything is read", || reader.count() == 1000);
    assert_eq!(writer.producer.flush(PATIENCE), 0);
    assert_eq!(writer.failed.load(Ordering::SeqCst), 0);
}

#[test]
fn tls_and_scram_let_us_in_and_a_guest_is_told_what_it_may_not() {
    if real().is_none() {
        return;
    }
    let kafka = Own::start();
    let open = |user: &str, password: &str| {
        let properties = [
            ("security.protocol", "SASL_SSL".to_owned()),
            ("ssl.ca.location", kafka.dir.join("ca.pem").display().to_string()),
            ("sasl.mechanism", "SCRAM-SHA-256".to_owned()),
            ("sasl.username", user.to_owned()),
            ("sasl.password", password.to_owned()),
        ];
        let properties = properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Cluster::open(&config::Kafka { bootstrap: kafka.read("secure"), properties, ..config::Kafka::default() })
            .unwrap()
    };
    let password = format!("file:{}", kafka.dir.join("password").display());
    let topic = fresh("secure");
    let ours = open("dashlight", &password);
    assert_eq!(ensured(&ours, &topic), Ok(8));
    write_one(&ours, &topic);

    let guest = open("guest", &password);
    let error = ensured(&guest, &topic).unwrap_err();
    assert!(matches!(error, KafkaError::NotAuthorised { .. }), "{error}");
    let theirs = fresh("guest");
    let error = ensured(&guest, &theirs).unwrap_err();
    assert!(matches!(error, KafkaError::NotAuthorised { what: "create topics", .. }), "{error}");
    ensured(&ours, &theirs).unwrap();
    assert_eq!(ensured(&guest, &theirs), Ok(8), "it may not create topics, and this one is there");
    write_one(&guest, &theirs);
    let heedless = open("guest", &password);
    let writer = Writer::open(&heedless, &topic);
    let out = Outgoing { topic: &topic, key: None, payload: b"1", headers: &[] };
    writer.producer.try_send(out, 0).unwrap();
    assert_eq!(writer.producer.flush(PATIENCE), 0);
    assert_eq!(writer.failed.load(Ordering::SeqCst), 1, "what it may not write comes back, and for good");

    let wrong = open("dashlight", "not the password");
    let error = wrong.ensure_topic(&topic).unwrap_err();
    wait_until(
        "the reason is known",
        || matches!(wrong.health(), Health::Away { reason, .. } if reason.contains("uthentication")),
    );
    assert!(error.is_retriable() && !error.to_string().contains("not the password"), "{error}");
}
