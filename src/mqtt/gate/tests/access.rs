//! Who is let in, and what may be done.

use super::*;
use crate::mqtt::access::Rule;
use crate::mqtt::access::users::cheap_line;

/// A users' file in a folder of its own.
struct Users(tempfile::TempDir);

impl Users {
    fn new(users: &[(&str, &str)]) -> Users {
        let users_file = Users(tempfile::tempdir().unwrap());
        users_file.write(users);
        users_file
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("users")
    }

    fn write(&self, users: &[(&str, &str)]) {
        let lines: Vec<String> = users.iter().map(|(user, password)| cheap_line(user, password)).collect();
        let fresh = self.0.path().join("fresh");
        std::fs::write(&fresh, lines.join("\n")).unwrap();
        std::fs::rename(fresh, self.path()).unwrap();
    }

    fn bench(&self, change: impl FnOnce(&mut GateOptions)) -> Bench {
        bench_with(|options| {
            options.access.users_file = Some(self.path());
            options.access.anonymous = false;
            options.refresh = Duration::from_millis(20);
            change(options);
        })
    }
}

fn rule(user: Option<&str>, publish: &[&str], subscribe: &[&str]) -> Rule {
    let own = |filters: &[&str]| filters.iter().map(ToString::to_string).collect();
    Rule { user: user.map(Into::into), client: None, publish: own(publish), subscribe: own(subscribe) }
}

impl Bench {
    /// Connects as a user; answers the CONNACK too.
    fn as_user(&self, id: &str, user: &str, password: &str) -> (Raw, Vec<u8>) {
        let mut raw = self.dial();
        raw.send(&connect_as(id, user, password));
        let connack = raw.packet();
        (raw, connack)
    }
}

const ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];
const BAD_CREDENTIALS: [u8; 4] = [0x20, 2, 0, 4];
const NOT_AUTHORIZED: [u8; 4] = [0x20, 2, 0, 5];

#[test]
fn only_a_right_password_lets_in_and_the_refusal_is_said_in_the_dialect() {
    let users = Users::new(&[("truck", "secret")]);
    let bench = users.bench(|_| {});
    assert_eq!(bench.as_user("a", "truck", "secret").1, ACCEPTED);
    assert_eq!(bench.as_user("b", "truck", "secret").1, ACCEPTED, "again, from what is remembered");
    for (user, password) in [("truck", "wrong"), ("nobody", "secret"), ("truck", ""), ("", ""), (":dashlight", "")] {
        assert_eq!(bench.as_user("c", user, password).1, BAD_CREDENTIALS, "{user} {password}");
    }
    let mut nobody = bench.dial();
    nobody.send(&connect("d", true, 0));
    assert_eq!(nobody.closed(), [NOT_AUTHORIZED]);
    let mut five = bench.dial();
    let head = [&text("MQTT")[..], &[5, 0xc2, 0, 0, 0], &text("e"), &text("truck"), &text("wrong")].concat();
    five.send(&frame(0x10, &head));
    assert_eq!(five.packet()[..4], [0x20, 3, 0, 0x86]);
    let counts = bench.gate.counts();
    assert_eq!((counts.accepted, counts.refused, counts.unauthorised), (2, 7, 7));
}

#[test]
fn beside_users_nobody_in_particular_is_let_in_only_if_told_so() {
    let users = Users::new(&[("truck", "secret")]);
    let bench = users.bench(|options| {
        options.access.anonymous = true;
        options.access.rules = vec![rule(Some("truck"), &["private"], &[]), rule(None, &["public"], &[])];
    });
    let mut nobody = bench.client("nobody");
    nobody.publish("public", "x", 1, 1, 0);
    assert_eq!(nobody.packet(), [0x40, 2, 0, 1]);
    nobody.publish("private", "x", 1, 2, 0);
    assert!(nobody.closed().is_empty());
    assert_eq!(bench.as_user("c", "truck", "wrong").1, BAD_CREDENTIALS, "a wrong password is no anonymity");
}

#[test]
fn a_thousand_connections_of_known_users_cost_one_computation_a_user() {
    // A real hash, to be slow enough to be noticed if it were computed each time.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users");
    crate::mqtt::access::users::set(&path, "fleet", b"secret").unwrap();
    let bench = bench_with(|options| {
        options.access.users_file = Some(path);
        options.access.anonymous = false;
    });
    let begun = Instant::now();
    assert_eq!(bench.as_user("first", "fleet", "secret").1, ACCEPTED);
    let once = begun.elapsed();
    let begun = Instant::now();
    for n in 0..1_000 {
        assert_eq!(bench.as_user(&format!("c{n}"), "fleet", "secret").1, ACCEPTED);
    }
    assert!(begun.elapsed() < once * 500, "{:?} for a thousand, {once:?} for the first", begun.elapsed());
}

#[test]
fn a_flood_of_wrong_passwords_is_soon_not_looked_at_and_those_who_are_known_still_come_in() {
    let users = Users::new(&[("truck", "secret"), ("late", "secret")]);
    let bench = users.bench(|_| {});
    assert_eq!(bench.as_user("known", "truck", "secret").1, ACCEPTED);
    let answers: Vec<u8> = (0..200).map(|n| bench.as_user("x", "truck", &format!("guess {n}")).1[3]).collect();
    assert!(answers[..20].iter().all(|&code| code == 4), "{answers:?}");
    assert_eq!(answers.last(), Some(&3), "not looked at any more: unavailable");
    assert_eq!(bench.as_user("known", "truck", "secret").1, ACCEPTED);
    assert_eq!(bench.as_user("late", "late", "secret").1, [0x20, 2, 0, 3], "who is not known has to wait");
}

#[test]
fn a_changed_users_file_is_in_force_at_once_and_a_bad_one_changes_nothing() {
    let users = Users::new(&[("stays", "secret"), ("leaves", "secret"), ("changes", "old")]);
    let bench = users.bench(|_| {});
    let (mut stays, _) = bench.as_user("stays", "stays", "secret");
    let (mut leaves, _) = bench.as_user("leaves", "leaves", "secret");
    let (mut changes, _) = bench.as_user("changes", "changes", "old");
    std::fs::write(users.path(), "this is no users' file").unwrap();
    // The lines of those who stay must stay the same.
    let lines = std::fs::read_to_string(users.path()).unwrap();
    assert_eq!(lines, "this is no users' file");
    std::thread::sleep(Duration::from_millis(100));
    assert!(stays.is_quiet() && leaves.is_quiet() && changes.is_quiet(), "they are served as before");
    assert_eq!(bench.as_user("late", "stays", "secret").1, ACCEPTED);
    users.write(&[("changes", "new"), ("comes", "secret")]);
    assert!(leaves.closed().is_empty() && changes.closed().is_empty() && stays.closed().is_empty());
    assert_eq!(bench.as_user("comes", "comes", "secret").1, ACCEPTED);
    assert_eq!(bench.as_user("changes", "changes", "new").1, ACCEPTED);
    assert_eq!(bench.as_user("changes", "changes", "old").1, BAD_CREDENTIALS);
    assert_eq!(bench.as_user("leaves", "leaves", "secret").1, BAD_CREDENTIALS);
    assert_eq!(bench.gate.counts().restarts, 0);
}

#[test]
fn a_client_id_belongs_to_the_user_whose_session_it_is() {
    let users = Users::new(&[("a", "secret"), ("b", "secret")]);
    let bench = users.bench(|_| {});
    let (mut first, _) = bench.as_user("shared", "a", "secret");
    assert_eq!(bench.as_user("shared", "b", "secret").1, [0x20, 2, 0, 2], "identifier rejected");
    assert!(first.is_quiet(), "the first is still served");
    let (mut again, connack) = bench.as_user("shared", "a", "secret");
    assert_eq!(connack, ACCEPTED, "its own user takes it over");
    assert!(first.closed().is_empty() && again.is_quiet());
    again.send(&[0xe0, 0]);
    again.closed();
    until("the id is free", || bench.as_user("shared", "b", "secret").1 == ACCEPTED);
}

#[test]
fn the_insider_is_let_in_and_may_do_everything() {
    let users = Users::new(&[]);
    let insider = Insider::new().unwrap();
    let bench = users.bench(|options| {
        options.access.insider = Some(insider.clone());
        options.access.rules = vec![rule(Some("nobody"), &[], &[])];
    });
    let (mut inside, connack) = bench.as_user("i", insider.user(), insider.password());
    assert_eq!(connack, ACCEPTED);
    assert_eq!(inside.subscribe("#", 1), 1);
    let wrong = "0".repeat(insider.password().len());
    assert_eq!(bench.as_user("i", insider.user(), &wrong).1, BAD_CREDENTIALS);
    assert!(inside.is_quiet());
}

#[test]
fn a_rule_is_enforced_counted_and_said_in_the_dialect() {
    let bench = bench_with(|options| options.access.rules = vec![rule(None, &["v/%c/#"], &["v/%c/#"])]);
    let mut five = bench.client5("five");
    assert_eq!(five.subscribe("secrets/#", 0), 0x87);
    assert_eq!(five.subscribe("v/#", 0), 0x87, "wider than allowed");
    assert_eq!(five.subscribe("v/five/+", 0), 0);
    five.publish("v/other/x", "x", 1, 1, 0);
    assert_eq!(five.packet(), [0x40, 4, 0, 1, 0x87, 0]);
    five.publish("forbidden", "x", 2, 2, 0);
    assert_eq!(five.packet(), [0x50, 4, 0, 2, 0x87, 0]);
    five.publish("forbidden", "x", 0, 0, 0);
    assert!(five.is_quiet());
    five.publish("v/five/speed", "x", 1, 3, 0);
    let mut answers = [five.packet()[0] >> 4, five.packet()[0] >> 4];
    answers.sort_unstable();
    assert_eq!(answers, [3, 4], "delivered to itself, and acknowledged");
    let mut known = bench.client("known");
    assert_eq!(known.subscribe("secrets/#", 0), 0x80);
    known.publish("forbidden", "x", 1, 1, 0);
    assert!(known.closed().is_empty(), "3.1.1 has no code for it");
    let mut will = bench.dial();
    will.send(&connect_with_will("will", 0, "forbidden", "x", false));
    assert_eq!(will.closed(), [NOT_AUTHORIZED]);
    // A client id that would widen the filter.
    for id in ["+", "five/x", "#"] {
        let mut sly = bench.client5(id);
        assert_eq!(sly.subscribe("v/five/#", 0), 0x87);
        sly.publish("v/five/speed", "x", 1, 1, 0);
        assert_eq!(sly.packet(), [0x40, 4, 0, 1, 0x87, 0], "{id}");
    }
    assert_eq!(bench.intake.topics(), ["v/five/speed"]);
    assert_eq!(bench.gate.counts().denied, 2 + 3 + 2 + 1 + 6);
}
