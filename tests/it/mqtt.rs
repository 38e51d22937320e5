//! The gate and the bridge against programs of others: Mosquitto's clients and broker.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashlight::mqtt::bridge::{BridgeStatus, Broker};
use dashlight::mqtt::{Bridge, BridgeOptions, Gate, GateOptions, Intake, Message, Receipt};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use crate::support::{has_peer, wait_until};

/// Keeps messages, and their receipts while it is told to hold them.
#[derive(Default)]
struct Desk {
    taken: Mutex<Vec<(String, String)>>,
    receipts: Mutex<VecDeque<Receipt>>,
    hold: Mutex<bool>,
    /// Messages it has room for.
    room: Mutex<Option<usize>>,
    freed: Notify,
}

impl Intake for Desk {
    fn offer(&self, message: Message, receipt: Receipt) -> Result<(), (Message, Receipt)> {
        match &mut *self.room.lock().unwrap() {
            Some(0) => return Err((message, receipt)),
            Some(room) => *room -= 1,
            None => {}
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.taken.lock().unwrap().push((text(&message.topic), text(&message.payload)));
        if *self.hold.lock().unwrap() {
            self.receipts.lock().unwrap().push_back(receipt);
        } else {
            receipt.kept();
        }
        Ok(())
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut freed = Box::pin(self.freed.notified());
        freed.as_mut().enable();
        if *self.room.lock().unwrap() != Some(0) {
            return Box::pin(std::future::ready(()));
        }
        freed
    }
}

impl Desk {
    fn count(&self) -> usize {
        self.taken.lock().unwrap().len()
    }

    fn payloads(&self) -> Vec<String> {
        self.taken.lock().unwrap().iter().map(|(_, payload)| payload.clone()).collect()
    }

    fn hold(&self, hold: bool) {
        *self.hold.lock().unwrap() = hold;
    }

    fn keep_all(&self) {
        self.receipts.lock().unwrap().drain(..).for_each(Receipt::kept);
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A mosquitto client's command, its address and version given.
fn client(program: &str, address: SocketAddr, version: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &address.port().to_string(), "-V", version]);
    command
}

fn publish(address: SocketAddr, version: &str, arguments: &[&str]) -> Output {
    client("mosquitto_pub", address, version).args(arguments).output().unwrap()
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

struct Bench {
    gate: Gate,
    desk: Arc<Desk>,
    _runtime: Runtime,
}

fn gate() -> Bench {
    let runtime = runtime();
    let desk = Arc::new(Desk::default());
    let options = GateOptions::listening_on("127.0.0.1:0").unwrap();
    let gate = Gate::start(options, desk.clone(), runtime.handle()).unwrap();
    Bench { gate, desk, _runtime: runtime }
}

const VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];

#[test]
fn mosquitto_pub_succeeds_at_every_qos_and_version_and_only_when_the_message_is_kept() {
    if !has_peer("mosquitto_pub") {
        return;
    }
    let Bench { gate, desk, .. } = &gate();
    let address = gate.addresses()[0];
    for version in VERSIONS {
        for qos in ["0", "1", "2"] {
            let payload = format!("{version} {qos}");
            succeeded(&publish(address, version, &["-t", "vehicles/sensor/data/car", "-q", qos, "-m", &payload]));
            wait_until("it is taken", || desk.payloads().contains(&payload));
        }
    }
    assert_eq!(desk.count(), 9);
    desk.hold(true);
    for qos in ["1", "2"] {
        let mut waiting =
            client("mosquitto_pub", address, "mqttv5").args(["-t", "t", "-q", qos, "-m", "held"]).spawn().unwrap();
        wait_until("it is taken", || !desk.receipts.lock().unwrap().is_empty());
        std::thread::sleep(Duration::from_millis(200));
        assert!(waiting.try_wait().unwrap().is_none(), "it waits for its acknowledgement");
        desk.keep_all();
        assert!(waiting.wait().unwrap().success());
    }
}

#[test]
fn topics_and_names_that_bring_other_brokers_down_are_taken() {
    if !has_peer("mosquitto_pub") {
        return;
    }
    let Bench { gate, desk, .. } = &gate();
    let address = gate.addresses()[0];
    for version in ["mqttv311", "mqttv5"] {
        for _ in 0..2 {
            succeeded(&publish(address, version, &["-i", "bad+id", "-t", "温度/1", "-q", "1", "-m", "x"]));
        }
    }
    assert_eq!(desk.count(), 4);
    assert_eq!(gate.counts().restarts, 0);
}

#[test]
fn ten_thousand_lines_piped_through_one_client_arrive_in_order() {
    if !has_peer("mosquitto_pub") {
        return;
    }
    let Bench { gate, desk, .. } = &gate();
    for (version, qos) in [("mqttv311", "0"), ("mqttv5", "1"), ("mqttv311", "2")] {
        let mut child = client("mosquitto_pub", gate.addresses()[0], version)
            .args(["-t", "t", "-q", qos, "-l"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = child.stdin.take().unwrap();
        lines.write_all((0..10_000).map(|n| format!("{n}\n")).collect::<String>().as_bytes()).unwrap();
        drop(lines);
        assert!(child.wait().unwrap().success());
        wait_until("all are taken", || desk.count() == 10_000);
        assert!(desk.payloads().iter().enumerate().all(|(n, payload)| *payload == n.to_string()));
        desk.taken.lock().unwrap().clear();
    }
}

#[test]
fn mosquitto_sub_gets_live_retained_and_shared_messages_and_wills_in_both_versions() {
    if !has_peer("mosquitto_sub") || !has_peer("mosquitto_pub") {
        return;
    }
    let Bench { gate, .. } = &gate();
    let address = gate.addresses()[0];
    for version in ["mqttv311", "mqttv5"] {
        let topic = |name: &str| format!("{version}/{name}");
        succeeded(&publish(address, version, &["-t", &topic("kept"), "-r", "-q", "1", "-m", "retained"]));
        let subscriber = client("mosquitto_sub", address, version)
            .args(["-t", &topic("#"), "-q", "2", "-C", "4", "-F", "%t %p %q %r"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until("it is subscribed", || gate.subscriptions() == 1);
        let shared = client("mosquitto_sub", address, version)
            .args(["-t", &format!("$share/crew/{version}/+"), "-C", "2", "-F", "%t %p"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until("both are subscribed", || gate.subscriptions() == 2);
        succeeded(&publish(
            address,
            "mqttv5",
            &["-t", &topic("live"), "-q", "2", "-m", "two", "-D", "publish", "user-property", "a", "b"],
        ));
        succeeded(&publish(address, "mqttv311", &["-t", &topic("live"), "-q", "0", "-m", "zero"]));
        let mut doomed = client("mosquitto_sub", address, version)
            .args([
                "-t",
                "nothing",
                "-t",
                "nobody",
                "--will-topic",
                &topic("will"),
                "--will-payload",
                "gone",
                "--will-qos",
                "1",
            ])
            .spawn()
            .unwrap();
        wait_until("it is there", || gate.subscriptions() >= 3);
        doomed.kill().unwrap();
        doomed.wait().unwrap();
        let heard = String::from_utf8(subscriber.wait_with_output().unwrap().stdout).unwrap();
        let expected = [("kept retained 1 1"), ("live two 2 0"), ("live zero 0 0"), ("will gone 1 0")];
        assert_eq!(heard.lines().collect::<Vec<_>>(), expected.map(|line| format!("{version}/{line}")), "{version}");
        let shared = String::from_utf8(shared.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(
            shared.lines().collect::<Vec<_>>(),
            ["live two", "live zero"].map(|line| format!("{version}/{line}"))
        );
        wait_until("all are gone", || gate.clients() == 0);
    }
}

/// A Mosquitto broker of our own on a free port, keeping its sessions on disk.
struct Mosquitto {
    folder: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Mosquitto {
    fn start() -> Mosquitto {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = folder.path().display();
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {path}/\n\
             max_inflight_messages 50\nmax_queued_messages 0\n"
        );
        std::fs::write(folder.path().join("mosquitto.conf"), config).unwrap();
        // Started by root it would otherwise become a user who may not write there.
        let mut permissions = std::fs::metadata(folder.path()).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o777);
        std::fs::set_permissions(folder.path(), permissions).unwrap();
        let child = Self::spawn(&folder, port);
        Mosquitto { folder, port, child }
    }

    fn spawn(folder: &tempfile::TempDir, port: u16) -> Child {
        let program =
            if std::path::Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" };
        let child = Command::new(program)
            .arg("-c")
            .arg(folder.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("mosquitto listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        child
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// An orderly stop, by the signal it saves its state on.
    fn stop(&mut self) {
        let stopped = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(stopped.success());
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = Self::spawn(&self.folder, self.port);
    }

    fn bridge(&self, desk: &Arc<Desk>, runtime: &Runtime) -> Bridge {
        let broker = Broker::parse(&format!("mqtt://127.0.0.1:{}", self.port)).unwrap();
        let mut options = BridgeOptions::new(broker, vec!["car/#".into(), "温度/+".into()]);
        options.client_id = "dashlight-test".into();
        let bridge = Bridge::start(options, desk.clone(), runtime.handle()).unwrap();
        wait_until("the bridge is connected", || bridge.status() == BridgeStatus::Connected);
        bridge
    }

    fn publish(&self, payloads: impl Iterator<Item = u32>, qos: &str) {
        let mut child = client("mosquitto_pub", self.address(), "mqttv311")
            .args(["-t", "car/1", "-q", qos, "-l"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = child.stdin.take().unwrap();
        lines.write_all(payloads.map(|n| format!("{n}\n")).collect::<String>().as_bytes()).unwrap();
        drop(lines);
        assert!(child.wait().unwrap().success());
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn peers() -> bool {
    has_peer("mosquitto") && has_peer("mosquitto_pub")
}

/// The numbers taken, sorted, each once.
fn numbers(desk: &Desk) -> Vec<u32> {
    let mut numbers: Vec<u32> = desk.payloads().iter().map(|payload| payload.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[test]
fn the_bridge_acknowledges_to_the_broker_only_what_is_kept() {
    if !peers() {
        return;
    }
    let (broker, runtime, desk) = (Mosquitto::start(), runtime(), Arc::new(Desk::default()));
    let bridge = broker.bridge(&desk, &runtime);
    desk.hold(true);
    broker.publish(0..10, "1");
    wait_until("all are taken", || desk.count() == 10);
    assert_eq!(bridge.acknowledged(), 0);
    // It stops without having kept them: at its return the broker sends every one again.
    runtime.block_on(bridge.stop(Duration::from_millis(100)));
    drop(bridge);
    desk.receipts.lock().unwrap().clear();
    desk.taken.lock().unwrap().clear();
    desk.hold(false);
    let bridge = broker.bridge(&desk, &runtime);
    wait_until("all have come again", || numbers(&desk) == (0..10).collect::<Vec<_>>());
    wait_until("all are acknowledged", || bridge.acknowledged() == 10);
    runtime.block_on(bridge.stop(Duration::from_secs(10)));
    drop(bridge);
    // Now they are not sent again.
    desk.taken.lock().unwrap().clear();
    let bridge = broker.bridge(&desk, &runtime);
    broker.publish(10..11, "1");
    wait_until("a new one comes", || desk.count() == 1);
    assert_eq!(desk.payloads(), ["10"]);
    drop(bridge);
}

#[test]
fn messages_published_while_the_bridge_or_the_broker_is_away_arrive_later() {
    if !peers() {
        return;
    }
    let (mut broker, runtime, desk) = (Mosquitto::start(), runtime(), Arc::new(Desk::default()));
    let bridge = broker.bridge(&desk, &runtime);
    broker.publish(0..100, "1");
    wait_until("the first have come", || desk.count() == 100);
    drop(bridge);
    wait_until("the bridge is gone", || {
        broker.publish(100..101, "1");
        desk.count() == 100
    });
    broker.publish(101..200, "1");
    let bridge = broker.bridge(&desk, &runtime);
    wait_until("what was published meanwhile has come", || numbers(&desk) == (0..200).collect::<Vec<_>>());

    broker.stop();
    wait_until("it says that the broker is away", || matches!(bridge.status(), BridgeStatus::Away { .. }));
    let BridgeStatus::Away { reason, .. } = bridge.status() else { unreachable!() };
    assert!(!reason.is_empty());
    broker.restart();
    wait_until("it is connected again", || bridge.status() == BridgeStatus::Connected);
    broker.publish(200..300, "2");
    wait_until("new ones come", || numbers(&desk) == (0..300).collect::<Vec<_>>());
}

#[test]
fn what_is_outstanding_when_the_broker_goes_is_sent_again_when_it_returns() {
    if !peers() {
        return;
    }
    let (mut broker, runtime, desk) = (Mosquitto::start(), runtime(), Arc::new(Desk::default()));
    let bridge = broker.bridge(&desk, &runtime);
    desk.hold(true);
    broker.publish(0..20, "1");
    wait_until("all are taken", || desk.count() == 20);
    broker.stop();
    wait_until("it says so", || matches!(bridge.status(), BridgeStatus::Away { .. }));
    // Kept only now: the acknowledgement belongs to a connection that is gone.
    desk.keep_all();
    desk.hold(false);
    broker.restart();
    wait_until("it is connected again", || bridge.status() == BridgeStatus::Connected);
    wait_until("all have come twice", || desk.count() == 40);
    wait_until("all are acknowledged", || bridge.acknowledged() == 20);
}

#[test]
fn while_the_intake_has_no_room_the_bridge_holds_the_broker_back_and_loses_nothing() {
    if !peers() {
        return;
    }
    let (broker, runtime, desk) = (Mosquitto::start(), runtime(), Arc::new(Desk::default()));
    let bridge = broker.bridge(&desk, &runtime);
    *desk.room.lock().unwrap() = Some(10);
    broker.publish(0..5_000, "1");
    wait_until("ten are taken", || desk.count() == 10);
    std::thread::sleep(Duration::from_millis(300));
    // Mosquitto's limit in flight is 50, which it now and then exceeds by some.
    assert!(bridge.messages() <= 200, "the broker waits for acknowledgements: {}", bridge.messages());
    assert_eq!(bridge.status(), BridgeStatus::Connected);
    *desk.room.lock().unwrap() = None;
    desk.freed.notify_waiters();
    wait_until("all have come", || desk.count() == 5_000);
    assert_eq!(numbers(&desk).len(), 5_000);
    wait_until("all are acknowledged", || bridge.acknowledged() == 5_000);
}

#[test]
fn a_bridge_between_two_gates_keeps_the_promise_end_to_end() {
    // No other program needed: the gate is the external broker.
    let (bench, runtime, desk) = (gate(), runtime(), Arc::new(Desk::default()));
    let broker = Broker::parse(&format!("mqtt://user:secret@{}", bench.gate.addresses()[0])).unwrap();
    let options = BridgeOptions::new(broker, vec!["car/#".into()]);
    let bridge = Bridge::start(options, desk.clone(), runtime.handle()).unwrap();
    wait_until("it is connected", || bridge.status() == BridgeStatus::Connected);
    desk.hold(true);
    bench.gate.publish("car/1", "1", false).unwrap();
    wait_until("it is taken", || desk.count() == 1);
    assert_eq!(bridge.acknowledged(), 0);
    // A receipt that is dropped: the broker is asked to send it again.
    desk.receipts.lock().unwrap().clear();
    desk.hold(false);
    wait_until("it comes again", || desk.count() == 2);
    wait_until("and is acknowledged", || bridge.acknowledged() == 1);
    assert_eq!(desk.payloads(), ["1", "1"]);
}
