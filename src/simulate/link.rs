//! One MQTT 3.1.1 connection that only publishes: pipelined, acknowledged, and taken up again where it broke off.
//!
//! A general client moves every message through a channel and a state machine; here packets are written one behind the
//! other into the buffer that goes to the socket, and stay in it until they are acknowledged, so that publishing costs
//! little more than making the payload. What was sent and not acknowledged when a connection broke is sent again on the
//! next, marked as a duplicate. Nothing is ever dropped: without room, whoever publishes waits.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

pub use super::outbox::Qos;
use super::outbox::{Outbox, State, fixed_header, release};

/// Seconds without a packet after which the broker may give a connection up.
const KEEP_ALIVE: u16 = 60;
/// Silence of ours after which we ping.
const PING_AFTER: Duration = Duration::from_secs(25);
/// Silence of the broker's, with a ping unanswered, after which the connection is broken.
const SILENT_AFTER: Duration = Duration::from_secs(50);
/// How long a connection may take to be made and accepted.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Pause after the first failed attempt to connect; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The address does not answer.
    #[error("no connection to the MQTT broker at {address}: {error}; is one listening there?")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the system says.
        error: io::Error,
    },
    /// The broker answered, and refused.
    #[error("the MQTT broker at {address} refused the connection: {reason}")]
    Refused {
        /// Host and port.
        address: String,
        /// The return code, in words.
        reason: String,
    },
}

/// Who a link is to a broker that asks.
#[derive(Clone)]
pub struct Login {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Where a link goes, and as whom.
#[derive(Debug, Clone)]
pub struct LinkOptions {
    /// Host and port.
    pub address: String,
    /// Client id; the same again after a break.
    pub client_id: String,
    /// User and password, if the broker asks.
    pub login: Option<Login>,
    /// The promise for every publish.
    pub qos: Qos,
}

/// A publishing connection. It makes itself anew when it breaks; see the module's comment.
#[derive(Debug)]
pub struct Link {
    options: LinkOptions,
    stream: Option<TcpStream>,
    outbox: Outbox,
    /// What was read and is not a whole packet yet.
    inbox: Vec<u8>,
    last_sent: Instant,
    last_heard: Instant,
    /// Connections lost so far.
    breaks: u64,
    trouble: Option<String>,
}

impl Link {
    /// A link that is not connected yet: [`Link::connect`] or the first [`Link::drive`] does it.
    pub fn new(options: LinkOptions) -> Self {
        let now = Instant::now();
        let outbox = Outbox::new(options.qos);
        Link {
            options,
            stream: None,
            outbox,
            inbox: Vec::new(),
            last_sent: now,
            last_heard: now,
            breaks: 0,
            trouble: None,
        }
    }

    /// Whether another packet may be published now.
    pub fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    /// Whether many may: what to wait for after there was no room.
    pub fn has_ample_room(&self) -> bool {
        self.outbox.has_ample_room()
    }

    /// Whether everything published is written, and acknowledged as far as it is to be.
    pub fn is_settled(&self) -> bool {
        self.outbox.is_settled()
    }

    /// Publishes since it was made.
    pub fn published(&self) -> u64 {
        self.outbox.published()
    }

    /// Of these, those the broker has acknowledged; none at QoS 0.
    pub fn acknowledged(&self) -> u64 {
        self.outbox.acknowledged()
    }

    /// Connections that broke and were, or are to be, made again.
    pub fn breaks(&self) -> u64 {
        self.breaks
    }

    /// Why there is no connection now, if there should be one.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Adds a publish; `fill` appends the payload to what it is given. It goes out with the next [`Link::drive`].
    ///
    /// The topic must be legal to publish on: not empty, no wildcards, at most 65,535 bytes.
    pub fn publish(&mut self, topic: &[u8], fill: impl FnOnce(&mut Vec<u8>)) {
        self.outbox.publish(topic, fill);
    }

    /// Connects, once. Not needed before [`Link::drive`]; it says what is wrong instead of trying again.
    pub async fn connect(&mut self) -> Result<(), LinkError> {
        let clean = self.options.qos != Qos::ExactlyOnce;
        let made = timeout(CONNECT_WITHIN, open(&self.options, clean)).await;
        let (stream, session) = match made {
            Ok(made) => made?,
            Err(_) => {
                let error = io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s");
                return Err(LinkError::Unreachable { address: self.options.address.clone(), error });
            }
        };
        self.outbox.begin_again(session);
        self.inbox.clear();
        self.stream = Some(stream);
        self.trouble = None;
        let now = Instant::now();
        (self.last_sent, self.last_heard) = (now, now);
        Ok(())
    }

    /// Sends and hears acknowledgements until `deadline`, or sooner once `enough` says so. Connects again if the
    /// connection breaks.
    pub async fn drive(&mut self, deadline: Instant, enough: impl Fn(&Link) -> bool) {
        let mut pause = FIRST_PAUSE;
        loop {
            if self.stream.is_none() {
                match self.connect().await {
                    Ok(()) => pause = FIRST_PAUSE,
                    Err(error) => {
                        self.trouble = Some(error.to_string());
                        let now = Instant::now();
                        sleep_until((now + pause).min(deadline.max(now))).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        if Instant::now() >= deadline || enough(self) {
                            return;
                        }
                        continue;
                    }
                }
            }
            match self.exchange() {
                Ok(()) if enough(self) => return,
                Ok(()) => {}
                Err(error) => {
                    self.broke(&error);
                    continue;
                }
            }
            if Instant::now() >= deadline {
                return;
            }
            if let Err(error) = self.wait(deadline).await {
                self.broke(&error);
            }
        }
    }

    /// Sends, and hears what has been acknowledged by `deadline` only then: for whoever publishes so often that waking for
    /// each acknowledgement would cost more than it tells.
    pub async fn pace(&mut self, deadline: Instant) {
        self.drive(deadline, |link| !link.outbox.has_unwritten()).await;
        sleep_until(deadline).await;
    }

    /// As [`Link::drive`] until everything is written and acknowledged, then says goodbye. Answers whether it came to that
    /// before the deadline.
    pub async fn close(mut self, deadline: Instant) -> (Link, bool) {
        self.drive(deadline, Link::is_settled).await;
        let settled = self.is_settled();
        self.outbox.control(&[0xe0, 0]);
        let _ = self.exchange();
        if let Some(mut stream) = self.stream.take() {
            // A socket closed with unread input is reset, and a reset overtakes what was written last.
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
            let mut rest = [0; 512];
            let heard_out =
                async { while matches!(tokio::io::AsyncReadExt::read(&mut stream, &mut rest).await, Ok(1..)) {} };
            let _ = timeout(Duration::from_secs(1), heard_out).await;
        }
        if self.options.qos == Qos::ExactlyOnce && settled {
            // Leave no session behind.
            let _ = timeout(Duration::from_secs(2), open(&self.options, true)).await;
        }
        (self, settled)
    }

    fn broke(&mut self, error: &io::Error) {
        self.stream = None;
        self.breaks += 1;
        self.trouble = Some(format!("the connection to the MQTT broker at {} broke: {error}", self.options.address));
    }

    /// Waits until the socket has something for us or room for what we have, or it is time for `deadline` or a ping.
    async fn wait(&mut self, deadline: Instant) -> io::Result<()> {
        let Some(stream) = &self.stream else { return Ok(()) };
        let ping_at = self.last_sent + PING_AFTER;
        let until = deadline.min(ping_at);
        let ready = async {
            if self.outbox.has_unwritten() {
                stream.ready(tokio::io::Interest::READABLE | tokio::io::Interest::WRITABLE).await.map(|_| ())
            } else {
                stream.readable().await
            }
        };
        tokio::select! {
            ready = ready => ready?,
            () = sleep_until(until) => {
                let now = Instant::now();
                if now >= ping_at {
                    if now - self.last_heard > SILENT_AFTER {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "the broker does not answer pings"));
                    }
                    self.outbox.control(&[0xc0, 0]);
                    self.last_sent = now;
                }
            }
        }
        Ok(())
    }

    /// Writes and reads what can be without waiting.
    fn exchange(&mut self) -> io::Result<()> {
        let Some(stream) = &self.stream else { return Ok(()) };
        while self.outbox.has_unwritten() {
            match stream.try_write(self.outbox.unwritten()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.outbox.wrote(count);
                    self.last_sent = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut chunk = [0; 4096];
        loop {
            match stream.try_read(&mut chunk) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the broker")),
                Ok(count) => {
                    self.last_heard = Instant::now();
                    self.inbox.extend_from_slice(&chunk[..count]);
                    if count < chunk.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.hear()
    }

    /// Takes the whole packets from the inbox.
    fn hear(&mut self) -> io::Result<()> {
        let mut at = 0;
        while let Some((packet, length)) = split_packet(&self.inbox[at..])? {
            let id = match packet {
                [_, _, high, low, ..] => u16::from_be_bytes([*high, *low]),
                _ => 0,
            };
            match packet[0] >> 4 {
                4 => self.outbox.settle(id, State::Acknowledgement, State::Nothing),
                5 => {
                    self.outbox.settle(id, State::Acknowledgement, State::Completion);
                    self.outbox.control(&release(id));
                }
                7 => self.outbox.settle(id, State::Completion, State::Nothing),
                // A ping's answer, or something for subscribers, of which we are none.
                _ => {}
            }
            at += length;
        }
        self.inbox.drain(..at);
        self.outbox.forget();
        Ok(())
    }
}

/// The first packet of `bytes`, if it is there as a whole, and its length. Only acknowledgements come to a publisher, so
/// that anything long is not MQTT.
fn split_packet(bytes: &[u8]) -> io::Result<Option<(&[u8], usize)>> {
    match bytes {
        [_, length, ..] if *length < 0x80 => {
            let end = 2 + usize::from(*length);
            Ok(bytes.get(..end).map(|packet| (packet, end)))
        }
        [_, _, ..] => Err(io::Error::new(io::ErrorKind::InvalidData, "the broker sent what no publisher should get")),
        _ => Ok(None),
    }
}

/// Connects and shakes hands. Answers whether the broker still has our session.
async fn open(options: &LinkOptions, clean: bool) -> Result<(TcpStream, bool), LinkError> {
    let unreachable = |error| LinkError::Unreachable { address: options.address.clone(), error };
    let stream = TcpStream::connect(&options.address).await.map_err(unreachable)?;
    // Packets are gathered here; holding them back again would only delay acknowledgements.
    stream.set_nodelay(true).map_err(unreachable)?;
    let packet = connect_packet(options, clean);
    write_all(&stream, &packet).await.map_err(unreachable)?;
    let mut answer = [0; 4];
    read_exact(&stream, &mut answer).await.map_err(unreachable)?;
    let refused = |reason: String| LinkError::Refused { address: options.address.clone(), reason };
    match answer {
        [0x20, 2, session, 0] => Ok((stream, session & 1 == 1)),
        [0x20, 2, _, code] => Err(refused(match code {
            1 => "it does not speak MQTT 3.1.1".into(),
            2 => "it does not take this client id".into(),
            3 => "it is not available".into(),
            4 => "bad user name or password".into(),
            5 => "not authorised".into(),
            other => format!("return code {other}"),
        })),
        _ => Err(refused("its answer is not MQTT's".into())),
    }
}

fn connect_packet(options: &LinkOptions, clean: bool) -> Vec<u8> {
    let login = options.login.as_ref();
    let mut flags = u8::from(clean) << 1;
    let mut fields = vec![options.client_id.as_bytes()];
    if let Some(Login { user, password }) = login {
        flags |= 0xc0;
        fields.extend([user.as_bytes(), password.as_bytes()]);
    }
    let length = 10 + fields.iter().map(|field| 2 + field.len()).sum::<usize>();
    let (header, used) = fixed_header(0x10, length);
    let mut packet = header[..used].to_vec();
    packet.extend_from_slice(&[0, 4, b'M', b'Q', b'T', b'T', 4, flags]);
    packet.extend_from_slice(&KEEP_ALIVE.to_be_bytes());
    for field in fields {
        packet.extend_from_slice(&(field.len() as u16).to_be_bytes());
        packet.extend_from_slice(field);
    }
    packet
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn read_exact(stream: &TcpStream, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.readable().await?;
        match stream.try_read(bytes) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before it answered")),
            Ok(count) => bytes = &mut bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
