//! Where devices are reached, as configured: the gate, clients of external brokers, the simulated fleet.

use std::sync::Arc;

use tokio::runtime::Runtime;

use super::{EngineError, now_ms};
use crate::config::{self, Config, listeners};
use crate::mqtt::Intake;
use crate::mqtt::access::Rule;
use crate::mqtt::bridge::{Bridge, BridgeOptions, Broker};
use crate::mqtt::gate::{Access, Gate, GateOptions, Insider, Rates};
use crate::mqtt::tls::{ClientTls, ServerTls};
use crate::simulate::link::{Login, Qos};
use crate::simulate::{FleetOptions, live};

/// What the gate is told. `insider`: who is let in besides the users.
pub fn gate_options(config: &Config, insider: Option<Insider>) -> Result<GateOptions, EngineError> {
    let wrong = |why: String| EngineError::Config(format!("`mqtt.listen` {why}"));
    let listen = listeners::parse(&config.mqtt.listen).map_err(wrong)?;
    let config::Mqtt { users_file, tls, .. } = &config.mqtt;
    let limits = &config.limits;
    let tls = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => Some(ServerTls {
            certificate: certificate.clone(),
            key: key.clone(),
            client_ca: tls.client_ca.clone(),
            require_client_certificate: tls.require_client_certificate,
        }),
        _ => None,
    };
    let rule = |rule: &config::Rule| Rule {
        user: rule.user.clone(),
        client: rule.client.clone(),
        publish: rule.publish.clone(),
        subscribe: rule.subscribe.clone(),
    };
    Ok(GateOptions {
        listen: listen.iter().filter(|one| !one.tls).map(|one| one.address).collect(),
        listen_tls: listen.iter().filter(|one| one.tls).map(|one| one.address).collect(),
        tls,
        access: Access {
            users_file: users_file.clone(),
            anonymous: config.mqtt.lets_anyone_in(),
            rules: config.mqtt.rule.iter().map(rule).collect(),
            insider,
        },
        max_connections: limits.connections,
        max_connections_per_address: match limits.connections_per_address {
            0 => usize::MAX,
            most => most,
        },
        rates: Rates { messages: limits.messages_per_second, bytes: limits.bytes_per_second },
        max_packet: limits.packet_bytes,
        ..GateOptions::default()
    })
}

/// Starts the gate, if there is to be one, and says who the simulated fleet is to it.
pub fn start_gate(
    config: &Config,
    intake: Arc<dyn Intake>,
    runtime: &Runtime,
) -> Result<Option<(Gate, Insider)>, EngineError> {
    if config.mqtt.listen.is_empty() {
        return Ok(None);
    }
    let insider = Insider::new()?;
    let gate = Gate::start(gate_options(config, Some(insider.clone()))?, intake, runtime.handle())?;
    for (wanted, got) in gate.moved() {
        tracing::warn!("{wanted} is taken, devices can connect to {got} instead");
    }
    Ok(Some((gate, insider)))
}

/// Every external broker that is configured, with our user, password and certificate there.
pub fn brokers(config: &Config) -> Result<Vec<BridgeOptions>, EngineError> {
    let mqtt = &config.mqtt;
    let wrong = |error: config::ConfigError| EngineError::Config(error.to_string());
    let filters: Vec<String> = config.source.iter().flat_map(|source| source.mqtt.clone()).collect();
    let options = |url: &str, password: Option<String>, tls: ClientTls, client_id: &str| {
        let broker = Broker::parse(url)?.with_password(password).with_tls(&tls)?;
        let mut options =
            BridgeOptions { max_packet: config.limits.packet_bytes, ..BridgeOptions::new(broker, filters.clone()) };
        if !client_id.is_empty() {
            client_id.clone_into(&mut options.client_id);
        }
        Ok::<_, EngineError>(options)
    };
    let mut all = Vec::new();
    for url in &mqtt.connect {
        let tls = ClientTls { ca: mqtt.ca_file.clone(), own: None };
        all.push(options(url, mqtt.password().map_err(wrong)?, tls, &mqtt.client_id)?);
    }
    for broker in &mqtt.broker {
        let tls = ClientTls {
            ca: broker.ca_file.clone().or_else(|| mqtt.ca_file.clone()),
            own: broker.certificate.clone().zip(broker.key.clone()),
        };
        let client_id = if broker.client_id.is_empty() { &mqtt.client_id } else { &broker.client_id };
        all.push(options(&broker.url, broker.password().map_err(wrong)?, tls, client_id)?);
    }
    Ok(all)
}

/// Connects to every external broker.
pub fn start_bridges(config: &Config, intake: &Arc<dyn Intake>, runtime: &Runtime) -> Result<Vec<Bridge>, EngineError> {
    let start = |options| Ok(Bridge::start(options, intake.clone(), runtime.handle())?);
    brokers(config)?.into_iter().map(start).collect()
}

/// Starts the simulated fleet, publishing to the gate like anybody else.
pub fn start_fleet(
    config: &Config,
    gate: &Gate,
    insider: &Insider,
    runtime: &Runtime,
) -> Result<live::Live, EngineError> {
    let Some(address) = gate.plain_addresses().first() else {
        return Err(EngineError::Config(
            "`mqtt.listen` has no address without TLS, and the simulated fleet needs one: add 127.0.0.1:1883, or turn the \
             fleet off with --simulate off"
                .into(),
        ));
    };
    let options = live::LiveOptions {
        address: address.to_string(),
        login: Some(Login { user: insider.user().to_owned(), password: insider.password().to_owned() }),
        fleet: FleetOptions {
            cars: config.simulated_cars(),
            rate: config.simulate.rate,
            faults: config.simulate.faults,
            // Without a seed, another fleet at each start.
            seed: config.simulate.seed.unwrap_or_else(|| now_ms() as u64),
            ..FleetOptions::default()
        },
        connections: config.simulate.connections,
        qos: Qos::AtLeastOnce,
    };
    live::start(options, runtime.handle()).map_err(|error| EngineError::Simulate(error.to_string()))
}
