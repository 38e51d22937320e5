//! Users, rules and TLS as they are used: `dashlight passwd`, Mosquitto's clients at our door, and we at Mosquitto's.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};

use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::support::{Headless, assert_adds_up, dashlight, has_peer, wait_until};

/// Runs `dashlight passwd` with this on stdin.
fn passwd(home: &TempDir, arguments: &[&str], stdin: &str) -> Output {
    let mut command = dashlight(home);
    let mut child = command
        .arg("passwd")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A refusal before it reads leaves the pipe broken.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn passwd_adds_changes_prints_and_deletes_users() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("users");
    let added = passwd(&home, &["users", "truck"], "secret\n");
    assert!(added.status.success() && said(&added).contains("users: the user truck is added"), "{}", said(&added));
    let changed = passwd(&home, &["users", "truck"], "other");
    assert!(said(&changed).contains("has a new password"), "{}", said(&changed));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("truck:$argon2id$v=19$m=19456,t=2,p=1$") && text.lines().count() == 1, "{text}");
    let printed = passwd(&home, &["-", "train"], "secret\n");
    let line = String::from_utf8(printed.stdout).unwrap();
    assert!(line.starts_with("train:$argon2id$") && line.ends_with('\n'), "{line}");
    let deleted = passwd(&home, &["--delete", "users", "truck"], "");
    assert!(deleted.status.success() && std::fs::read_to_string(&file).unwrap().is_empty(), "{}", said(&deleted));
    for (arguments, stdin, sentence) in [
        (&["--delete", "users", "truck"][..], "", "users: there is no user truck to delete"),
        (&["--delete", "-", "truck"], "", "name the file"),
        (&["users", "a:b"], "x", "can be no user's name"),
        (&["users", "truck"], "", "the password is empty"),
        (&["users", "truck"], "a\nb\n", "more than one line"),
        (&["no/such/folder/users", "truck"], "x", "name a file in a directory that is there"),
    ] {
        let refused = passwd(&home, arguments, stdin);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert!(said(&refused).contains(sentence) && said(&refused).lines().count() == 1, "{}", said(&refused));
    }
}

#[test]
fn at_a_terminal_the_password_is_asked_for_twice_and_not_shown() {
    let home = tempfile::tempdir().unwrap();
    let typed = |first: &str, second: &str| {
        let pair = native_pty_system().openpty(PtySize::default()).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_dashlight"));
        command.env_clear();
        command.cwd(home.path());
        command.args(["passwd", "users", "truck"]);
        let mut child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let mut reader = pair.master.try_clone_reader().unwrap();
        let mut keyboard = pair.master.take_writer().unwrap();
        let mut shown = String::new();
        let mut wait_for = |text: &str| {
            let mut buffer = [0; 1024];
            while !shown.contains(text) {
                match reader.read(&mut buffer) {
                    Ok(n @ 1..) => shown.push_str(&String::from_utf8_lossy(&buffer[..n])),
                    _ => panic!("it never said {text:?}: {shown:?}"),
                }
            }
            shown.clone()
        };
        wait_for("Password for truck: ");
        keyboard.write_all(format!("{first}\r").as_bytes()).unwrap();
        wait_for("The same again: ");
        keyboard.write_all(format!("{second}\r").as_bytes()).unwrap();
        let shown = wait_for("dashlight: ");
        let code = child.wait().unwrap().exit_code();
        assert!(!shown.contains("hunter2"), "{shown:?}");
        code
    };
    assert_eq!(typed("hunter2", "hunter3"), 2, "they differ");
    assert!(!home.path().join("users").exists());
    assert_eq!(typed("hunter2", "hunter2"), 0);
    assert!(std::fs::read_to_string(home.path().join("users")).unwrap().starts_with("truck:$argon2id$"));
}

/// A home with users `truck` and `desk` (password `secret`), rules, and a configuration that listens plain and with TLS.
fn secured(certificates: &Certificates) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    for user in ["truck", "desk"] {
        assert!(passwd(&home, &["users", user], "secret").status.success());
    }
    let config = format!(
        "[mqtt]\nlisten = '127.0.0.1:0, mqtts://127.0.0.1:0'\nusers_file = 'users'\n[mqtt.tls]\ncertificate = '{0}/server.pem'\n\
         key = '{0}/server.key'\nclient_ca = '{0}/ca.pem'\n[[mqtt.rule]]\nuser = 'truck'\npublish = ['vehicles/sensor/data/%u']\n\
         [[mqtt.rule]]\nuser = 'desk'\nsubscribe = ['vehicles/#']\n",
        certificates.folder().display()
    );
    std::fs::write(home.path().join("dashlight.toml"), config).unwrap();
    home
}

#[test]
fn mosquittos_clients_come_in_with_password_or_certificate_and_do_what_the_rules_allow() {
    if !has_peer("mosquitto_pub") || !has_peer("mosquitto_sub") {
        return;
    }
    let certificates = Certificates::new("truck");
    let mut run = Headless::start_configured(secured(&certificates), &["--simulate", "off"]);
    let secure = run.wait_for_log("listening: mqtts ");
    let secure = secure.rsplit(':').next().unwrap().trim().to_owned();
    let plain = run.mqtt.port().to_string();
    let client = |program: &str, port: &str, version: &str, more: &[&str]| {
        let mut command = Command::new(program);
        command.args(["-h", "localhost", "-p", port, "-V", version, "-q", "1"]).args(more);
        command
    };
    let publish = |port: &str, version: &str, more: &[&str]| {
        client("mosquitto_pub", port, version, more).args(["-m", "{\"speed\": 20.5}"]).output().unwrap()
    };
    let ca = certificates.text("ca.pem");
    let (certificate, key) = (certificates.text("client.pem"), certificates.text("client.key"));
    let topic = ["-t", "vehicles/sensor/data/truck"];
    let mut expected = 0;
    for version in ["mqttv311", "mqttv5"] {
        let mut subscriber = client("mosquitto_sub", &secure, version, &["-t", "vehicles/#", "-C", "3", "-W", "60"])
            .args(["-u", "desk", "-P", "secret", "--cafile", &ca])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The right password, plain and over TLS; a certificate instead of one.
        let by_password = [&topic[..], &["-u", "truck", "-P", "secret"]].concat();
        let over_tls = [&by_password[..], &["--cafile", &ca]].concat();
        let by_certificate = [&topic[..], &["--cafile", &ca, "--cert", &certificate, "--key", &key]].concat();
        let ways = [(&plain, &by_password), (&secure, &over_tls), (&secure, &by_certificate)];
        let mut heard = false;
        while !heard {
            for (port, arguments) in ways {
                let published = publish(port, version, arguments);
                assert!(published.status.success(), "{arguments:?}: {}", said(&published));
                expected += 1;
            }
            // It may have subscribed only after the first round.
            heard = subscriber.try_wait().unwrap().is_some();
        }
        let lines = String::from_utf8(subscriber.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(lines, "{\"speed\": 20.5}\n".repeat(3), "{version}");
        // A wrong password, none, a topic of somebody else, no TLS where it must be.
        for (port, arguments) in [
            (&plain, [&topic[..], &["-u", "truck", "-P", "wrong"]].concat()),
            (&plain, topic.to_vec()),
            (&secure, [&topic[..], &["--cafile", &ca]].concat()),
            (&secure, by_password.clone()),
        ] {
            assert!(!publish(port, version, &arguments).status.success(), "{arguments:?}");
        }
    }
    let foreign = publish(&plain, "mqttv5", &["-t", "vehicles/sensor/data/other", "-u", "truck", "-P", "secret"]);
    assert!(said(&foreign).to_lowercase().contains("not authori"), "{}", said(&foreign));
    let (_, summary) = run.stop();
    assert_adds_up(&summary);
    assert_eq!(summary["received"].as_u64(), Some(expected), "{summary}");
}

#[test]
fn the_simulated_fleet_and_a_fleet_with_a_password_get_in_where_passwords_are_asked_for() {
    let certificates = Certificates::new("truck");
    let home = secured(&certificates);
    // What the fleet publishes on is no topic of the rules' own: the fleet is ours.
    let run = Headless::start_configured(home, &["--simulate", "5", "--rate", "20", "--seed", "1"]);
    let outside = tempfile::tempdir().unwrap();
    let address = format!("truck@{}", run.mqtt);
    let mut fleet = dashlight(&outside);
    fleet.args(["simulate", "--mqtt", &address, "--cars", "1", "--rate", "1", "--for", "1s", "--qos", "0"]);
    let without = fleet.output().unwrap();
    assert_eq!(without.status.code(), Some(2), "{}", said(&without));
    assert!(said(&without).contains("DASHLIGHT_MQTT_PASSWORD"), "{}", said(&without));
    let wrong = fleet.env("DASHLIGHT_MQTT_PASSWORD", "wrong").output().unwrap();
    assert!(said(&wrong).contains("bad user name or password"), "{}", said(&wrong));
    let right = fleet.env("DASHLIGHT_MQTT_PASSWORD", "secret").output().unwrap();
    assert!(right.status.success(), "{}", said(&right));
    let (_, summary) = run.stop();
    assert_adds_up(&summary);
    assert!(summary["received"].as_u64().unwrap() > 0, "{summary}");
}

/// A Mosquitto that asks for TLS, a client certificate and a password. Killed when dropped.
struct Mosquitto {
    child: Child,
    port: u16,
}

impl Mosquitto {
    fn start(certificates: &Certificates) -> Mosquitto {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = certificates.folder().display();
        let users = certificates.text("mosquitto-users");
        let made = Command::new("mosquitto_passwd").args(["-b", "-c", &users, "op", "hunter2"]).output().unwrap();
        assert!(made.status.success(), "{}", said(&made));
        // The user that Mosquitto becomes must get at it.
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(&users, readable).unwrap();
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {users}\ncafile {folder}/ca.pem\n\
             certfile {folder}/server.pem\nkeyfile {folder}/server.key\nrequire_certificate true\n"
        );
        std::fs::write(certificates.path("mosquitto.conf"), config).unwrap();
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(certificates.path("mosquitto.conf")).env("PATH", path);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("Mosquitto listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Mosquitto { child, port }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_broker_with_tls_certificate_and_password_is_subscribed_to_beside_a_plain_one() {
    if !has_peer("mosquitto") || !has_peer("mosquitto_pub") || !has_peer("mosquitto_passwd") {
        return;
    }
    let certificates = Certificates::new("edge");
    let broker = Mosquitto::start(&certificates);
    // The second broker is a dashlight of ours, plain and without passwords.
    let other = Headless::start(&["--simulate", "off"]);
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("password"), "hunter2\n").unwrap();
    let folder = certificates.folder().display();
    let config = format!(
        "[mqtt]\nconnect = ['mqtt://{}']\n[[mqtt.broker]]\nurl = 'mqtts://op@localhost:{}'\npassword = 'file:password'\n\
         ca_file = '{folder}/ca.pem'\ncertificate = '{folder}/client.pem'\nkey = '{folder}/client.key'\n",
        other.mqtt, broker.port
    );
    std::fs::write(home.path().join("dashlight.toml"), &config).unwrap();
    let checked = dashlight(&home).args(["doctor", "--mqtt-listen", "off"]).output().unwrap();
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(text.contains(&format!("mqtts://op@localhost:{} lets us in", broker.port)), "{text}");
    let wrong = config.replace("file:password", "file:wrong");
    std::fs::write(home.path().join("wrong"), "no").unwrap();
    std::fs::write(home.path().join("wrong.toml"), wrong).unwrap();
    let checked = dashlight(&home).args(["doctor", "--mqtt-listen", "off", "--config", "wrong.toml"]).output().unwrap();
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(text.contains("does not let us in") && !text.contains("hunter2"), "{text}");

    let mut run = Headless::start_in(home, &["--simulate", "off"]);
    let subscribed = format!("broker=mqtts://op@localhost:{}", broker.port);
    run.wait_for_log(&subscribed);
    let port = broker.port.to_string();
    let mut client = Command::new("mosquitto_pub")
        .args(["-h", "localhost", "-p", &port, "-u", "op", "-P", "hunter2", "--cafile", &certificates.text("ca.pem")])
        .args(["--cert", &certificates.text("client.pem"), "--key", &certificates.text("client.key")])
        .args(["-q", "1", "-l", "-t", "vehicles/sensor/data/truck-7"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = client.stdin.take().unwrap();
    for n in 0..100 {
        writeln!(lines, "{{\"speed\": {}.5}}", n % 30).unwrap();
    }
    drop(lines);
    assert!(client.wait().unwrap().success());
    let (_, summary) = run.stop();
    assert_adds_up(&summary);
    assert_eq!(summary["received"].as_u64(), Some(100), "{summary}");
    drop(other);
}
