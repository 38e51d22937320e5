//! Ports bound; a taken one makes way for the next.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use crate::mqtt::MqttError;

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
