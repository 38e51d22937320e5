//! The path as a console sees it: what stands where, whether it is up, and the simulated fleet to break.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use super::counts::Counters;
use super::store::Store;
use super::view::{Millis, SchemaView, Warning};
use crate::config::Ack;
use crate::kafka::{Cluster, Health};
use crate::mqtt::bridge::{Bridge, BridgeStatus};
use crate::mqtt::gate;
use crate::simulate::{faults, live};

/// Everything a snapshot says that is not about cars. Shared; what changes in it changes itself.
pub struct Path {
    /// The counts.
    pub counters: Arc<Counters>,
    /// What a message must have reached before it is acknowledged.
    pub ack: Ack,
    /// With `disk`, what is between the door and Kafka.
    pub store: Option<Arc<Store>>,
    /// Where readings come from, in words.
    pub source: String,
    /// Kafka's address, in words.
    pub kafka: String,
    /// Whether it is embedded.
    pub kafka_embedded: bool,
    /// Topic of the raw readings.
    pub topic: String,
    /// What runs the models.
    pub backend: String,
    /// What changes when a model is replaced. Behind a lock that is taken for a snapshot and a replacement only.
    pub shown: RwLock<Shown>,
    /// Since when the engine runs.
    pub started: Millis,
    /// The embedded broker.
    pub gate: Option<gate::Gate>,
    /// Clients of external brokers.
    pub bridges: Vec<Bridge>,
    /// The simulated fleet, once it drives. Behind a lock because it starts last and stops first; never taken on the hot path.
    pub live: RwLock<Option<live::Live>>,
    /// Kafka. Last, so that it goes last: whoever writes to it must be gone before an embedded one is.
    pub cluster: Arc<Cluster>,
}

/// The models as they are shown.
#[derive(Debug, Default)]
pub struct Shown {
    /// Name of the first lane's.
    pub model: String,
    /// Its threshold, in words.
    pub threshold: String,
    /// The schemas of all lanes.
    pub schemas: Vec<Arc<SchemaView>>,
}

impl Path {
    /// A lane's model was replaced.
    pub fn show_model(&self, lane: usize, model: String, threshold: String, schema: Arc<SchemaView>) {
        let mut shown = self.shown.write();
        if lane == 0 {
            (shown.model, shown.threshold) = (model, threshold);
        }
        if let Some(place) = shown.schemas.get_mut(lane) {
            *place = schema;
        }
    }

    /// Where devices connect, a line each.
    pub fn mqtt_lines(&self) -> Vec<String> {
        let plain = self.gate.iter().map(|gate| gate.plain_addresses().len()).sum::<usize>();
        let addresses = self.gate.iter().flat_map(|gate| gate.addresses()).enumerate();
        let listening = addresses.map(|(n, address)| format!("{} {address}", if n < plain { "mqtt" } else { "mqtts" }));
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
        let stored = self.store.as_ref().and_then(|store| store.trouble());
        if let Health::Away { since, reason } = self.cluster.health() {
            let away = format!("Kafka away for {}: {reason}", words(since.elapsed()));
            return Some(stored.map_or(away.clone(), |stored| format!("{stored}; {away}")));
        }
        if stored.is_some() {
            return stored;
        }
        if let Some(trouble) = self.live.read().as_ref().and_then(live::Live::trouble) {
            return Some(format!("simulated fleet: {trouble}"));
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
        if self.live.read().is_none() {
            return Arc::new([]);
        }
        faults().iter().map(|fault| (fault.id.to_owned(), fault.label.to_owned())).collect()
    }

    /// The fault a simulated car has now.
    pub fn fault_of(&self, car: &str) -> Option<String> {
        Some(self.live.read().as_ref()?.fault_of(car)?.label.to_owned())
    }

    /// Gives a simulated car a fault; answers in a sentence.
    pub fn break_car(&self, car: &str, fault: &str) -> String {
        self.on_live(|live| match live.break_car(car, fault) {
            Ok(()) => {
                let label = faults().iter().find(|known| known.id == fault).map_or(fault, |known| known.label);
                format!("{car} gets a fault: {label}")
            }
            Err(error) => error.to_string(),
        })
    }

    /// Repairs a simulated car; answers in a sentence.
    pub fn repair(&self, car: &str) -> String {
        self.on_live(|live| match live.repair(car) {
            Ok(()) => format!("{car} is being repaired"),
            Err(error) => error.to_string(),
        })
    }

    fn on_live(&self, act: impl FnOnce(&live::Live) -> String) -> String {
        self.live.read().as_ref().map_or_else(|| "only simulated cars can be broken and repaired".to_owned(), act)
    }
}

/// Whole seconds, in words.
fn words(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}
