//! Doctor's lines about devices: the embedded broker's ports, users and certificates, and external brokers.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Check, PATIENCE};
use crate::config::{Config, listeners as addresses};
use crate::engine::devices;
use crate::mqtt::access::Users;

const LISTENER: &str = "mqtt listener";
const USERS: &str = "mqtt users";
const TLS: &str = "mqtt tls";
const BROKER: &str = "mqtt broker";

/// The embedded broker.
pub fn listeners(config: &Config) -> Vec<Check> {
    if config.mqtt.listen.is_empty() {
        return vec![Check::ok(LISTENER, "none")];
    }
    let listeners = match addresses::parse(&config.mqtt.listen) {
        Ok(listeners) => listeners,
        Err(why) => return vec![Check::fail(LISTENER, format!("mqtt.listen {why}"))],
    };
    let options = match devices::gate_options(config, None) {
        Ok(options) => options,
        Err(error) => return vec![Check::fail(LISTENER, error.to_string())],
    };
    let mut checks: Vec<Check> =
        listeners.iter().map(|listener| port(config, listener.address, listener.tls)).collect();
    if let Some(file) = &options.access.users_file {
        checks.push(users(file, config));
    }
    if let Some(tls) = &options.tls {
        checks.push(match tls.load() {
            Ok(_) => Check::ok(TLS, tls.certificate.display().to_string()),
            Err(error) => Check::fail(TLS, error.to_string()),
        });
        checks.extend(exposed(TLS, &tls.key));
    }
    checks
}

fn port(config: &Config, address: SocketAddr, tls: bool) -> Check {
    let shown = if tls { format!("mqtts://{address}") } else { address.to_string() };
    match TcpListener::bind(address) {
        Ok(_) if address.ip().is_loopback() => Check::ok(LISTENER, format!("{shown} is free")),
        Ok(_) if config.mqtt.lets_anyone_in() && !(tls && config.mqtt.tls.require_client_certificate) => Check::warn(
            LISTENER,
            format!("{shown} is free; whoever reaches it is let in: mqtt.users_file would ask for a password"),
        ),
        Ok(_) if !tls => Check::warn(
            LISTENER,
            format!("{shown} is free; passwords cross it in the clear: mqtts:// before the address would hide them"),
        ),
        Ok(_) => Check::ok(LISTENER, format!("{shown} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Check::warn(
            LISTENER,
            format!("{shown} is taken: the next free port will be used; name another with --mqtt-listen"),
        ),
        Err(error) => {
            Check::fail(LISTENER, format!("{shown} cannot be bound ({error}); name another address with --mqtt-listen"))
        }
    }
}

fn users(file: &Path, config: &Config) -> Check {
    match Users::read(file) {
        Err(error) => Check::fail(USERS, error.to_string()),
        Ok(users) if users.is_empty() && !config.mqtt.lets_anyone_in() => Check::warn(
            USERS,
            format!("{}: holds nobody, so nobody is let in: add users with `dashlight passwd`", file.display()),
        ),
        Ok(users) => exposed(USERS, file)
            .unwrap_or_else(|| Check::ok(USERS, format!("{}: {} users", file.display(), users.len()))),
    }
}

/// A warning if every user of this machine can read the file.
fn exposed(check: &'static str, file: &Path) -> Option<Check> {
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    (mode & 0o004 != 0)
        .then(|| Check::warn(check, format!("{}: everybody on this machine can read it: chmod 600 it", file.display())))
}

/// External brokers.
pub fn brokers(config: &Config) -> Vec<Check> {
    let brokers = match devices::brokers(config) {
        Ok(brokers) => brokers,
        Err(error) => return vec![Check::fail(BROKER, error.to_string())],
    };
    if brokers.is_empty() {
        return Vec::new();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return vec![Check::fail(BROKER, format!("no connection can be tried: {error}"))],
    };
    let probe = |options: crate::mqtt::BridgeOptions| {
        let broker = options.broker;
        match runtime.block_on(broker.probe(PATIENCE)) {
            Ok(()) => Check::ok(BROKER, format!("{broker} lets us in")),
            Err(reason) => Check::fail(
                BROKER,
                format!(
                    "{broker} does not let us in ({reason}); check the address, the user, the password{}",
                    if broker.tls { " and the authority (ca_file)" } else { " and whether it speaks TLS" }
                ),
            ),
        }
    };
    brokers.into_iter().map(probe).collect()
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_free_and_a_taken_port_are_told_apart() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config::default();
        config.mqtt.listen = taken.local_addr().unwrap().to_string();
        assert_eq!(listeners(&config)[0].state, State::Warn);
        drop(taken);
        assert_eq!(listeners(&config)[0].state, State::Ok);
        config.mqtt.listen = String::new();
        assert_eq!(listeners(&config)[0].text, "none");
    }

    #[test]
    fn users_and_keys_are_looked_at_before_a_run_needs_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let mut config = Config::default();
        config.mqtt.listen = "127.0.0.1:0".into();
        config.mqtt.users_file = Some(path.clone());
        let state = |config: &Config| listeners(config)[1].state;
        assert_eq!(state(&config), State::Fail, "it is not there");
        std::fs::write(&path, "# nobody\n").unwrap();
        assert_eq!(state(&config), State::Warn, "it holds nobody");
        crate::mqtt::access::users::set(&path, "a", b"x").unwrap();
        assert_eq!(state(&config), State::Ok);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
        assert_eq!(state(&config), State::Warn, "everybody can read it");
    }

    #[test]
    fn a_broker_that_is_not_there_fails_with_its_address() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut config = Config::default();
        config.mqtt.connect = vec![format!("mqtt://op@{closed}")];
        let broker = &brokers(&config)[0];
        assert_eq!(broker.state, State::Fail);
        let said = &broker.text;
        assert!(said.contains(&closed.to_string()) && said.contains("check the address"), "{said}");
    }
}
