//! Devices: the gate they connect to, and the client for brokers that exist already. What is received goes to an
//! [`Intake`]; what becomes of it comes back through a [`Receipt`], and only then is a device told that its message is safe.
//!
//! | module | what it is for |
//! |---|---|
//! | [`intake`] | the one thing this floor asks of the floor above: take this, and say what became of it |
//! | [`gate`] | our own server: MQTT 3.1.1 and 5 on one port |
//! | [`access`] | who may come in, and what may be done |
//! | [`tls`], [`certificate`] | TLS on both sides; whom a client certificate names |
//! | [`bridge`] | a client of an external broker, acknowledging like the gate |
//! | [`topic`] | which topics and filters are legal, and which match |
//! | [`wire`] | packets read and written |
//! | [`ledger`] | acknowledgements that wait, in order |
//!
//! Knows neither Kafka nor what a reading is.

use std::net::SocketAddr;

pub mod access;
pub mod bridge;
pub mod certificate;
pub mod gate;
pub mod intake;
pub mod ledger;
pub mod tls;
pub mod topic;
pub mod wire;

pub use bridge::{Bridge, BridgeOptions};
pub use gate::{Gate, GateCounts, GateOptions};
pub use intake::{Fate, Intake, Message, Once, Receipt};

/// Why devices cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// Not an address.
    #[error("the MQTT address `{address}` is not HOST:PORT: {why}")]
    Address {
        /// As given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// Every port tried is taken.
    #[error("MQTT ports {} to {last} on {} are all taken: name a free one", address.port(), address.ip())]
    Taken {
        /// The first tried.
        address: SocketAddr,
        /// The last tried.
        last: u16,
    },
    /// The address cannot be bound.
    #[error("cannot listen for MQTT on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Not a filter one may subscribe to.
    #[error("`{filter}` is no MQTT topic filter: {why}")]
    Filter {
        /// As given.
        filter: String,
        /// The rule it breaks.
        why: topic::TopicError,
    },
    /// A persistent session needs a name.
    #[error("the MQTT client id for an external broker is empty: the broker keeps messages under this name")]
    ClientId,
    /// Not a broker's URL. The URL is not repeated: it may hold a password.
    #[error("the broker's URL is not mqtt[s]://[USER@]HOST[:PORT]: {0}")]
    Url(String),
    /// A certificate, key or authority that cannot be used.
    #[error("{0}")]
    Tls(String),
    /// A users' file that cannot be used.
    #[error(transparent)]
    Users(access::UsersError),
}

impl MqttError {
    /// Whether what was asked for is at fault, and not the world.
    pub fn is_usage(&self) -> bool {
        !matches!(self, MqttError::Taken { .. } | MqttError::Bind { .. })
    }
}
