//! The beginning and the end of a connection: TLS, CONNECT read and judged, the session opened; and the last words.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::connection::{Connection, End, READ};
use super::guard::Identity;
use super::limits::{Origin, Pace};
use super::place::{Place, Served};
use super::router::Opened;
use super::session::{Link, Writer};
use super::stream::Stream;
use super::{Inner, Present};
use crate::mqtt::ledger::Outstanding;
use crate::mqtt::wire::{self, ConnAck, Connect, Fault, Framing, Reason, Version};
use crate::text::harmless;

/// A CONNECT, will and password included, is no larger than this: it is read from whoever comes, and its will is kept.
const CONNECT_MAX: usize = 32 * 1024;
/// Longest client id: it names a session that may be kept.
const CLIENT_ID_MAX: usize = 1_024;
/// How long a refused or ended connection is given to read why.
const FAREWELL: Duration = Duration::from_millis(500);

/// Messages of QoS 1 and 2 a subscriber is sent before it acknowledges one, if it takes that many.
const WINDOW: u16 = 256;

/// Somebody who may be served.
struct Guest {
    stream: Stream,
    connect: Connect,
    identity: Identity,
    /// What came behind CONNECT.
    buf: BytesMut,
}

/// Somebody who may not.
enum Refused {
    /// And is gone.
    Gone,
    /// And is told so, if it speaks a dialect of ours.
    Told(Stream, Option<Version>, Reason, &'static str),
}

/// Serves one socket to its end.
pub async fn run(mut place: Place, socket: TcpStream, tls: Option<Arc<ServerConfig>>, peer: SocketAddr, crowded: bool) {
    let gate = place.gate.clone();
    // Without it an acknowledgement waits for the next; a socket that cannot be set still works.
    let _ = socket.set_nodelay(true);
    let mut stopping = gate.stopping.subscribe();
    let greeted = tokio::select! {
        greeted = greet(&gate, place.origin, socket, tls, crowded) => greeted,
        () = tokio::time::sleep(gate.options.handshake) => Err(Refused::Gone),
        _ = stopping.wait_for(|&stopping| stopping) => Err(Refused::Gone),
    };
    let begun = match greeted {
        Ok(guest) => {
            let version = guest.connect.version;
            open(&mut place, guest).map_err(|(stream, reason)| {
                Refused::Told(stream, Some(version), reason, "its will or its client id is not its own to use")
            })
        }
        Err(refused) => Err(refused),
    };
    let mut connection = match begun {
        Ok(connection) => connection,
        Err(refused) => return turn_away(&gate, peer, refused).await,
    };
    let end = connection.serve().await;
    connection.tally();
    match &end {
        End::Goodbye | End::Stopping => {
            if let Some(served) = &mut place.served {
                served.will = None;
            }
        }
        End::Fault(fault) => {
            gate.counters.malformed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%peer, client = %harmless(&connection.session.client, 64), reason = fault.why,
                "an MQTT client broke a rule; its connection is ended");
        }
        End::Lost => {
            gate.counters.lost.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%peer, client = %harmless(&connection.session.client, 64),
                "a message could not be kept; its MQTT connection is ended without an acknowledgement");
        }
        End::Lapsed => tracing::info!(%peer, client = %harmless(&connection.session.client, 64),
            "the users' file has changed, and this MQTT client's user is no longer let in"),
        end => {
            tracing::debug!(%peer, client = %harmless(&connection.session.client, 64), ?end, "an MQTT connection ended")
        }
    }
    // Before the last bytes are waited for: whoever comes next with this client id finds the session free.
    place.leave();
    let Connection { stream, mut out, large, stalled, version, .. } = connection;
    drop((large, stalled));
    if let Some(reason) = end.reason() {
        wire::disconnect(&mut out, version, reason);
    }
    if !matches!(end, End::Gone) {
        farewell(stream, &out).await;
    }
}

async fn turn_away(gate: &Inner, peer: SocketAddr, refused: Refused) {
    gate.counters.refused.fetch_add(1, Ordering::Relaxed);
    let Refused::Told(stream, version, reason, why) = refused else { return };
    match reason {
        Reason::NOT_AUTHORIZED | Reason::BAD_CREDENTIALS | Reason::CONNECTION_RATE_EXCEEDED => {
            gate.counters.unauthorised.fetch_add(1, Ordering::Relaxed);
        }
        Reason::QUOTA_EXCEEDED => {
            gate.counters.crowded.fetch_add(1, Ordering::Relaxed);
        }
        _ => {}
    }
    tracing::debug!(%peer, code = reason.0, why, "an MQTT client is refused");
    let mut out = BytesMut::new();
    if let Some(version) = version {
        wire::connack(&mut out, version, reason, &ConnAck::default());
    }
    farewell(stream, &out).await;
}

/// TLS if it is to be, CONNECT, and who it is.
async fn greet(
    gate: &Inner,
    origin: Origin,
    socket: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    crowded: bool,
) -> Result<Guest, Refused> {
    let mut stream = match tls {
        None => Stream::Plain(socket),
        Some(config) => Stream::secure(socket, config).await.map_err(|error| {
            gate.counters.insecure.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%error, "the TLS handshake of an MQTT client failed");
            Refused::Gone
        })?,
    };
    let mut buf = BytesMut::new();
    let connect = match first_packet(gate, &mut stream, &mut buf).await {
        Ok(connect) => connect,
        Err(None) => return Err(Refused::Gone),
        Err(Some(wire::ConnectFault { version, fault })) => {
            return Err(Refused::Told(stream, version, fault.reason, fault.why));
        }
    };
    let version = Some(connect.version);
    if let Err(reason) = admissible(gate, &connect, crowded) {
        return Err(Refused::Told(stream, version, reason, "it is too many, or asks for what is not offered"));
    }
    let certified = stream.has_certificate().then(|| stream.certified());
    match gate.guard.admit(origin, certified, &connect).await {
        Ok(identity) => Ok(Guest { stream, connect, identity, buf }),
        Err(reason) => Err(Refused::Told(stream, version, reason, "no right user, password or certificate")),
    }
}

/// Opens the session and writes the CONNACK and what the client has not acknowledged earlier. What it is told if its will or
/// its client id are not its own to use.
fn open(place: &mut Place, guest: Guest) -> Result<Connection, (Stream, Reason)> {
    let Guest { stream, connect, identity, buf } = guest;
    let gate = place.gate.clone();
    let options = &gate.options;
    let version = connect.version;
    let serial = gate.link_serial.fetch_add(1, Ordering::Relaxed) + 1;
    let assigned = connect.client.is_empty().then(|| assigned_name(serial));
    let client = assigned.as_deref().unwrap_or(&connect.client);

    let permit = gate.guard.permit(&identity, client);
    let may =
        |topic: &[u8]| permit.as_ref().is_none_or(|permit| str::from_utf8(topic).is_ok_and(|t| permit.may_publish(t)));
    if connect.will.as_ref().is_some_and(|will| !may(&will.message.topic)) {
        gate.counters.denied.fetch_add(1, Ordering::Relaxed);
        return Err((stream, Reason::NOT_AUTHORIZED));
    }
    let link = Arc::new(Link::default());
    let opened = gate.router.open(client, identity.user.as_ref(), connect.clean, connect.session_expiry, &link);
    let Some(Opened { session, present, wills }) = opened else {
        return Err((stream, Reason::CLIENT_ID_NOT_VALID));
    };
    place.served = Some(Served { session: session.clone(), link: link.clone(), serial, will: connect.will });
    let user = identity.user.filter(|_| identity.by_password);
    gate.links.lock().insert(serial, Present { link: link.clone(), user });
    gate.publish_wills(wills);
    gate.counters.accepted.fetch_add(1, Ordering::Relaxed);

    // 0 asks for none, which is longer than any.
    let granted = |longest: u16| version == Version::V5 && (connect.keep_alive == 0 || connect.keep_alive > longest);
    let shortened = options.max_keep_alive.filter(|&longest| granted(longest));
    let keep_alive = shortened.unwrap_or(connect.keep_alive);
    let more = ConnAck {
        session_present: present,
        session_expiry: None,
        receive_maximum: Some(options.receive_maximum.max(1)),
        maximum_packet: Some(u32::try_from(options.max_packet).unwrap_or(u32::MAX)),
        alias_maximum: Some(options.alias_maximum),
        assigned_client: assigned.as_deref(),
        keep_alive: shortened,
        reason_string: None,
    };
    let max_packet = connect.maximum_packet.map_or(usize::MAX, |max| max as usize);
    let window = usize::from(connect.receive_maximum.min(WINDOW));
    let mut out = BytesMut::new();
    let mut writer = Writer::new(version, window, max_packet, connect.alias_maximum.min(WINDOW));
    wire::connack(&mut out, version, Reason::SUCCESS, &more);
    if present {
        session.rewrite(&mut writer, &mut out);
    }
    let now = Instant::now();
    Ok(Connection {
        stream,
        version,
        session,
        permit,
        outstanding: Outstanding::new(usize::from(options.receive_maximum), link.wake.clone()),
        link,
        writer,
        buf,
        chunk: *READ.start(),
        out,
        unreleased: 0,
        aliases: Vec::new(),
        stalled: None,
        large: None,
        keep_alive: (keep_alive > 0).then(|| Duration::from_millis(u64::from(keep_alive) * 1_500)),
        pace: Pace::new(options.rates),
        paused: None,
        heard: now,
        wrote: now,
        messages: 0,
        bytes_out: 0,
        gate,
    })
}

/// Reads until the first packet is there. `None`: the client is gone.
pub async fn first_packet(
    gate: &Inner,
    stream: &mut Stream,
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
        stream.ready(Interest::READABLE).await.map_err(|_| None)?;
        buf.reserve(2 * 1024);
        match stream.try_read_buf(buf) {
            Ok(0) => return Err(None),
            Ok(read) => drop(gate.counters.bytes_in.fetch_add(read as u64, Ordering::Relaxed)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(None),
        }
    }
}

/// Whether the client may be served, whoever it is; if not, what it is told.
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
pub async fn farewell(stream: Stream, out: &[u8]) {
    let last_words = async {
        let mut socket = stream.finish(out).await?;
        let mut rest = [0; 1024];
        while socket.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    // A client that does not read them, or goes on writing, has had its chance.
    let _ = tokio::time::timeout(FAREWELL, last_words).await;
}
