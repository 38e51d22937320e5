//! Ports bound, a taken one making way for the next; and who comes to them, as far as there is room.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};

use super::limits::Origin;
use super::place::Place;
use super::{GateOptions, Inner, handshake};
use crate::mqtt::MqttError;

/// Connections beyond the bound that are let in far enough to be told why they are refused.
const LOBBY: usize = 64;
/// As many of one address, beyond its own bound.
const LOBBY_PER_ADDRESS: usize = 8;

/// Connections the kernel holds for us between two calls of accept.
const QUEUE: u32 = 4_096;

/// Binds `asked`, or one of `further` ports after it.
pub fn bind(asked: SocketAddr, further: u16) -> Result<(TcpListener, SocketAddr), MqttError> {
    let last = if asked.port() == 0 { 0 } else { asked.port().saturating_add(further) };
    for port in asked.port()..=last {
        let address = SocketAddr::new(asked.ip(), port);
        match listen(address) {
            Ok(listener) => {
                let got = listener.local_addr().map_err(|source| MqttError::Bind { address, source })?;
                return Ok((listener, got));
            }
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(source) => return Err(MqttError::Bind { address, source }),
        }
    }
    Err(MqttError::Taken { address: asked, last })
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit it: a device that vanished is noticed even if it asked for no keep-alive.
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)
}

/// Takes connections in until the gate stops; with `tls` they are to shake hands first.
pub async fn accept(gate: Arc<Inner>, listener: Arc<TcpListener>, tls: bool) {
    let mut stopping = gate.stopping.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|&stopping| stopping) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let before = gate.sockets.fetch_add(1, Ordering::AcqRel);
                let origin = Origin::of(peer.ip());
                let of_origin = gate.origins.enter(origin);
                let place = Place::new(gate.clone(), origin);
                let GateOptions { max_connections: all, max_connections_per_address: each, .. } = gate.options;
                if before >= all + LOBBY || of_origin >= each.saturating_add(LOBBY_PER_ADDRESS) {
                    gate.counters.refused.fetch_add(1, Ordering::Relaxed);
                    gate.counters.crowded.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let crowded = before >= all || of_origin >= each;
                let tls = if tls { gate.guard.tls() } else { None };
                tokio::spawn(handshake::run(place, stream, tls, peer, crowded));
            }
            // Out of file descriptors, or a client gone before it was accepted: neither ends the gate.
            Err(error) => {
                tracing::warn!(%error, "an MQTT connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
