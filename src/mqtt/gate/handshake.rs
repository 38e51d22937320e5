//! The beginning and the end of a connection: CONNECT read and judged, and the last words.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Inner;
use crate::mqtt::wire::{self, Connect, Fault, Framing, Reason, Version};

/// A CONNECT, will and password included, is no larger than this: it is read from whoever comes, and its will is kept.
const CONNECT_MAX: usize = 32 * 1024;
/// Longest client id: it names a session that may be kept.
const CLIENT_ID_MAX: usize = 1_024;
/// How long a refused or ended connection is given to read why.
const FAREWELL: Duration = Duration::from_millis(500);

/// Reads until the first packet is there. `None`: the client is gone.
pub async fn first_packet(
    gate: &Inner,
    stream: &TcpStream,
    buf: &mut BytesMut,
) -> Result<Connect, Option<wire::ConnectFault>> {
    loop {
        let fault = |fault| Some(wire::ConnectFault { version: None, fault });
        if buf.first().is_some_and(|&first| first != 0x10) {
            return Err(fault(Fault::protocol("the first packet is not CONNECT")));
        }
        if let Framing::Whole { length, header } = wire::framing(buf, CONNECT_MAX).map_err(fault)? {
            let whole = buf.split_to(length);
            return Connect::read(&whole, header).map_err(Some);
        }
        stream.readable().await.map_err(|_| None)?;
        buf.reserve(2 * 1024);
        match stream.try_read_buf(buf) {
            Ok(0) => return Err(None),
            Ok(read) => drop(gate.counters.bytes_in.fetch_add(read as u64, Ordering::Relaxed)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(None),
        }
    }
}

/// Whether the client may be served; if not, what it is told.
pub fn admissible(gate: &Inner, connect: &Connect, crowded: bool) -> Result<(), Reason> {
    if gate.is_stopping() {
        return Err(Reason::SERVER_SHUTTING_DOWN);
    }
    if connect.extended_authentication {
        return Err(Reason::BAD_AUTHENTICATION_METHOD);
    }
    let nameless = connect.client.is_empty() && connect.version == Version::V311 && !connect.clean;
    if nameless || connect.client.len() > CLIENT_ID_MAX {
        return Err(Reason::CLIENT_ID_NOT_VALID);
    }
    if let Some(rules) = &gate.options.rules {
        if !rules.admit(&connect.client, connect.user.as_deref(), connect.password.as_deref()) {
            return Err(Reason::NOT_AUTHORIZED);
        }
        if let Some(will) = &connect.will
            && !str::from_utf8(&will.message.topic).is_ok_and(|topic| rules.may_publish(&connect.client, topic))
        {
            return Err(Reason::NOT_AUTHORIZED);
        }
    }
    // One that takes over its own older connection frees a place.
    if crowded && !gate.router.is_live(&connect.client) {
        return Err(Reason::QUOTA_EXCEEDED);
    }
    Ok(())
}

/// A client id nobody else has, nor can guess.
pub fn assigned_name(serial: u64) -> String {
    use std::hash::BuildHasher;
    format!("dashlight-{serial}-{:016x}", std::hash::RandomState::new().hash_one(serial))
}

/// Writes the last words, closes our side, and reads what still comes for a moment: a socket closed with unread bytes
/// resets the connection, and the client would never read why.
pub async fn farewell(mut stream: TcpStream, out: &[u8]) {
    let last_words = async {
        stream.write_all(out).await?;
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    // A client that does not read them, or goes on writing, has had its chance.
    let _ = tokio::time::timeout(FAREWELL, last_words).await;
}
