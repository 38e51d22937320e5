//! The path as a console sees it: what stands where, whether it is up, and the simulated fleet to break.

use std::sync::Arc;
use std::time::Duration;

use super::counts::Counters;
use super::view::{Millis, SchemaView, Warning};
use crate::kafka::{Cluster, Health};
use crate::mqtt::bridge::{Bridge, BridgeStatus};
use crate::mqtt::gate;

/// Everything a snapshot says that is not about cars. Shared; what changes in it changes itself.
pub struct Path {
    /// The counts.
    pub counters: Arc<Counters>,
    /// Where readings come from, in words.
    pub source: String,
    /// Kafka's address, in words.
    pub kafka: String,
    /// Whether it is embedded.
    pub kafka_embedded: bool,
    /// Topic of the raw readings.
    pub topic: String,
    /// Name of the model.
    pub model: String,
    /// What runs it.
    pub backend: String,
    /// Its threshold, in words.
    pub threshold: String,
    /// Since when the engine runs.
    pub started: Millis,
    /// The schemas of all lanes.
    pub schemas: Vec<Arc<SchemaView>>,
    /// Kafka.
    pub cluster: Arc<Cluster>,
    /// The embedded broker.
    pub gate: Option<gate::Gate>,
    /// Clients of external brokers.
    pub bridges: Vec<Bridge>,
}

impl Path {
    /// Where devices connect, a line each.
    pub fn mqtt_lines(&self) -> Vec<String> {
        let listening = self.gate.iter().flat_map(|gate| gate.addresses()).map(|address| format!("mqtt {address}"));
        let connected = self.bridges.iter().map(|bridge| match bridge.status() {
            BridgeStatus::Connected => format!("{} connected", bridge.broker()),
            BridgeStatus::Away { since, reason } => {
                format!("{} away for {}: {reason}", bridge.broker(), words(since.elapsed().unwrap_or_default()))
            }
        });
        listening.chain(connected).collect()
    }

    /// MQTT clients connected to the embedded broker.
    pub fn clients(&self) -> u64 {
        self.gate.as_ref().map_or(0, |gate| gate.clients() as u64)
    }

    /// The word for what is not up.
    pub fn trouble(&self) -> Option<String> {
        if let Health::Away { since, reason } = self.cluster.health() {
            return Some(format!("Kafka away for {}: {reason}", words(since.elapsed())));
        }
        self.bridges.iter().find_map(|bridge| match bridge.status() {
            BridgeStatus::Connected => None,
            BridgeStatus::Away { since, .. } => {
                Some(format!("{} away for {}", bridge.broker(), words(since.elapsed().unwrap_or_default())))
            }
        })
    }

    /// Warnings and errors of the last minutes.
    pub fn warnings(&self) -> Vec<Warning> {
        let warnings = crate::logging::recent().into_iter();
        warnings.map(|warning| Warning { time: warning.time_ms, text: warning.text, times: warning.times }).collect()
    }

    /// The faults a simulated car can be given.
    pub fn faults(&self) -> Arc<[(String, String)]> {
        Arc::new([])
    }

    /// The fault a simulated car has now.
    pub fn fault_of(&self, _car: &str) -> Option<String> {
        None
    }
}

/// Whole seconds, in words.
fn words(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}
