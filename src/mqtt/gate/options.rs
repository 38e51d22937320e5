//! What the gate is told when it starts.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use super::guard::Access;
use super::limits::Rates;
use crate::mqtt::MqttError;
use crate::mqtt::tls::ServerTls;

/// The gate's addresses and bounds.
#[derive(Clone)]
pub struct GateOptions {
    /// Addresses to listen on; port 0 is any free one.
    pub listen: Vec<SocketAddr>,
    /// Addresses to listen on that speak TLS.
    pub listen_tls: Vec<SocketAddr>,
    /// What those need.
    pub tls: Option<ServerTls>,
    /// Who may come in, and what may be done.
    pub access: Access,
    /// How many further ports are tried when one is taken.
    pub further_ports: u16,
    /// Connections at once; further ones are refused with a code.
    pub max_connections: usize,
    /// Connections at once from one address.
    pub max_connections_per_address: usize,
    /// Messages and bytes a second of one connection.
    pub rates: Rates,
    /// Largest packet in bytes; a larger one ends its connection (0x95).
    pub max_packet: usize,
    /// Messages of QoS 1 and 2 of one connection that wait for their fate at once: in MQTT 5 announced as Receive Maximum,
    /// in 3.1.1 the connection is not read beyond it.
    pub receive_maximum: u16,
    /// Topic aliases of one MQTT 5 connection.
    pub alias_maximum: u16,
    /// Longest keep-alive in seconds granted to MQTT 5 clients; 3.1.1 has no way to say so. `None`: whatever they ask for.
    pub max_keep_alive: Option<u16>,
    /// Time for a connection to shake hands, send its CONNECT and be let in.
    pub handshake: Duration,
    /// Time for a packet larger than 64 KiB to come in whole, and for a client to take any of what is written to it.
    pub stall: Duration,
    /// Bytes that packets larger than 64 KiB take up in all while they come in; a connection waits for its share.
    pub large_packet_bytes: usize,
    /// Sessions kept, with or without a connection; beyond, the one away longest is forgotten.
    pub max_sessions: usize,
    /// Subscriptions of one client; in all a hundred times as many.
    pub max_subscriptions: usize,
    /// Messages queued for one subscriber; further ones are dropped and counted.
    pub max_queued: usize,
    /// Bytes queued for one subscriber; for all, eight times as many.
    pub max_queued_bytes: usize,
    /// Retained messages; further topics are not retained, and counted.
    pub max_retained: usize,
    /// Bytes of retained messages.
    pub max_retained_bytes: usize,
    /// How often files are looked at for changes.
    pub refresh: Duration,
}

impl Default for GateOptions {
    fn default() -> Self {
        GateOptions {
            listen: Vec::new(),
            listen_tls: Vec::new(),
            tls: None,
            access: Access::default(),
            further_ports: 20,
            max_connections: 10_000,
            max_connections_per_address: usize::MAX,
            rates: Rates::default(),
            max_packet: 16 * 1024 * 1024,
            receive_maximum: 1_024,
            alias_maximum: 64,
            max_keep_alive: None,
            handshake: Duration::from_secs(10),
            stall: Duration::from_secs(60),
            large_packet_bytes: 128 * 1024 * 1024,
            max_sessions: 20_000,
            max_subscriptions: 1_000,
            max_queued: 20_000,
            max_queued_bytes: 32 * 1024 * 1024,
            max_retained: 10_000,
            max_retained_bytes: 64 * 1024 * 1024,
            refresh: Duration::from_secs(2),
        }
    }
}

impl GateOptions {
    /// The defaults, listening on `address` (`127.0.0.1:1883`, `localhost:1883`, `[::1]:1883`, `:1883` for every address).
    ///
    /// # Errors
    /// An address that is none, or a name that leads nowhere.
    pub fn listening_on(address: &str) -> Result<GateOptions, MqttError> {
        let bad = |why: String| MqttError::Address { address: address.to_owned(), why };
        let (host, port) = address.rsplit_once(':').ok_or_else(|| bad("it has no port".into()))?;
        let port: u16 = port.parse().map_err(|_| bad("its port is not a number up to 65535".into()))?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let host = if host.is_empty() { "0.0.0.0" } else { host };
        let mut listen: Vec<SocketAddr> =
            (host, port).to_socket_addrs().map_err(|error| bad(error.to_string()))?.collect();
        listen.sort_by_key(SocketAddr::is_ipv6);
        listen.dedup();
        // A name with several addresses and any free port: one of them, for they would get different ports.
        if port == 0 {
            listen.truncate(1);
        }
        Ok(GateOptions { listen, ..GateOptions::default() })
    }
}

impl std::fmt::Debug for GateOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GateOptions")
            .field("listen", &self.listen)
            .field("max_connections", &self.max_connections)
            .field("max_packet", &self.max_packet)
            .finish_non_exhaustive()
    }
}
