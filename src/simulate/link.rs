//! One MQTT 3.1.1 connection that only publishes: pipelined, acknowledged, and taken up again where it broke off.
//!
//! A general client moves every message through a channel and a state machine; here packets are written one behind the
//! other into the buffer that goes to the socket, and stay in it until they are acknowledged, so that publishing costs
//! little more than making the payload. What was sent and not acknowledged when a connection broke is sent again on the
//! next, marked as a duplicate. Nothing is ever dropped: without room, whoever publishes waits.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

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
/// Bytes waiting for the socket beyond which there is no room for another packet.
const MOST_UNSENT: usize = 256 * 1024;

/// MQTT's delivery promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Qos {
    /// At most once: nothing is acknowledged.
    AtMostOnce,
    /// At least once.
    #[default]
    AtLeastOnce,
    /// Exactly once.
    ExactlyOnce,
}

impl Qos {
    /// The promise of level 0, 1 or 2.
    pub fn level(level: u8) -> Option<Qos> {
        [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce].get(usize::from(level)).copied()
    }

    /// Publishes that may be unacknowledged at a time. Brokers take few at exactly once (mosquitto: 20).
    fn window(self) -> usize {
        match self {
            Qos::AtMostOnce => usize::MAX,
            Qos::AtLeastOnce => 2_000,
            Qos::ExactlyOnce => 20,
        }
    }
}

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

/// Where a link goes, and as whom.
#[derive(Debug, Clone)]
pub struct LinkOptions {
    /// Host and port.
    pub address: String,
    /// Client id; the same again after a break.
    pub client_id: String,
    /// The promise for every publish.
    pub qos: Qos,
}

/// What a packet in the buffer still waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// PUBACK, or PUBREC.
    Acknowledgement,
    /// PUBCOMP; its PUBREL follows in the buffer.
    Completion,
    /// Nothing but to be written.
    Nothing,
}

#[derive(Debug)]
struct Packet {
    id: u16,
    length: usize,
    state: State,
}

/// The packets of one link, in the order of sending: those written and not acknowledged, then those not written.
#[derive(Debug)]
struct Outbox {
    qos: Qos,
    bytes: Vec<u8>,
    packets: VecDeque<Packet>,
    /// Where in `bytes` the first packet begins, and where what is not written begins.
    start: usize,
    written: usize,
    next_id: u16,
    unacknowledged: usize,
    published: u64,
    acknowledged: u64,
}

impl Outbox {
    fn new(qos: Qos) -> Self {
        Outbox {
            qos,
            bytes: Vec::new(),
            packets: VecDeque::new(),
            start: 0,
            written: 0,
            next_id: 1,
            unacknowledged: 0,
            published: 0,
            acknowledged: 0,
        }
    }

    fn has_room(&self) -> bool {
        self.unacknowledged < self.qos.window() && self.bytes.len() - self.written < MOST_UNSENT
    }

    fn is_settled(&self) -> bool {
        self.unacknowledged == 0 && self.written == self.bytes.len()
    }

    /// Appends a PUBLISH whose payload `fill` appends.
    fn publish(&mut self, topic: &[u8], fill: impl FnOnce(&mut Vec<u8>)) {
        let at = self.bytes.len();
        // Room for the longest fixed header; what it does not need is closed up below.
        const HEADER: usize = 5;
        self.bytes.extend_from_slice(&[0; HEADER]);
        self.bytes.extend_from_slice(&(topic.len() as u16).to_be_bytes());
        self.bytes.extend_from_slice(topic);
        let id = if self.qos == Qos::AtMostOnce { 0 } else { self.fresh_id() };
        if id != 0 {
            self.bytes.extend_from_slice(&id.to_be_bytes());
        }
        fill(&mut self.bytes);
        let remaining = self.bytes.len() - at - HEADER;
        let (header, used) = fixed_header(0x30 | (self.qos as u8) << 1, remaining);
        let unused = HEADER - used;
        self.bytes.copy_within(at + HEADER.., at + used);
        self.bytes.truncate(self.bytes.len() - unused);
        self.bytes[at..at + used].copy_from_slice(&header[..used]);
        let state = if id == 0 { State::Nothing } else { State::Acknowledgement };
        self.packets.push_back(Packet { id, length: used + remaining, state });
        self.unacknowledged += usize::from(id != 0);
        self.published += 1;
    }

    fn fresh_id(&mut self) -> u16 {
        let id = self.next_id;
        // The window is far smaller than the range, so the oldest use of an id is long over.
        self.next_id = if id == u16::MAX { 1 } else { id + 1 };
        id
    }

    fn control(&mut self, packet: &[u8]) {
        self.bytes.extend_from_slice(packet);
        self.packets.push_back(Packet { id: 0, length: packet.len(), state: State::Nothing });
    }

    fn wrote(&mut self, count: usize) {
        self.written += count;
        self.forget();
    }

    /// The broker has taken (QoS 1) or taken charge of (QoS 2) packet `id`.
    fn settle(&mut self, id: u16, waiting: State, next: State) {
        // Brokers acknowledge in the order of sending, so the search ends at once.
        let Some(packet) = self.packets.iter_mut().find(|packet| packet.id == id && packet.state == waiting) else {
            return;
        };
        packet.state = next;
        if next == State::Nothing {
            self.unacknowledged -= 1;
            self.acknowledged += 1;
        }
    }

    /// Forgets packets from the front that wait for nothing.
    fn forget(&mut self) {
        while let Some(packet) = self.packets.front()
            && packet.state == State::Nothing
            && self.start + packet.length <= self.written
        {
            self.start += packet.length;
            self.packets.pop_front();
        }
        if self.start == self.bytes.len() {
            self.bytes.clear();
            (self.start, self.written) = (0, 0);
        } else if self.start > 64 * 1024 && self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.written -= self.start;
            self.start = 0;
        }
    }

    /// A new connection: everything that waits is to be written again, as a duplicate if it has been before. Without the
    /// session, what the broker had taken charge of is its own.
    fn begin_again(&mut self, session: bool) {
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.start);
        let mut packets = VecDeque::with_capacity(self.packets.len());
        let mut at = self.start;
        for packet in std::mem::take(&mut self.packets) {
            let was_begun = at < self.written;
            let is_written = at + packet.length <= self.written;
            let old = &self.bytes[at..at + packet.length];
            at += packet.length;
            match packet.state {
                State::Acknowledgement => {
                    let from = bytes.len();
                    bytes.extend_from_slice(old);
                    if was_begun {
                        bytes[from] |= 0x08;
                    }
                    packets.push_back(packet);
                }
                State::Completion if session => {
                    let release = release(packet.id);
                    bytes.extend_from_slice(&release);
                    packets.push_back(Packet { length: release.len(), ..packet });
                }
                State::Completion => {
                    self.unacknowledged -= 1;
                    self.acknowledged += 1;
                }
                // Of those that wait for nothing only publishes are worth it; pings and releases are made anew.
                State::Nothing if !is_written && old.first().is_some_and(|byte| byte >> 4 == 3) => {
                    bytes.extend_from_slice(old);
                    packets.push_back(packet);
                }
                State::Nothing => {}
            }
        }
        (self.bytes, self.packets, self.start, self.written) = (bytes, packets, 0, 0);
    }
}

/// The first byte and the remaining length [MQTT 3.1.1, 2.2.3], and how many bytes they are.
fn fixed_header(first: u8, remaining: usize) -> ([u8; 5], usize) {
    let mut header = [first, 0, 0, 0, 0];
    let (mut left, mut used) = (remaining, 1);
    loop {
        header[used] = (left & 0x7f) as u8;
        left >>= 7;
        if left == 0 || used == 4 {
            return (header, used + 1);
        }
        header[used] |= 0x80;
        used += 1;
    }
}

fn release(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x62, 2, high, low]
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

    /// Whether everything published is written, and acknowledged as far as it is to be.
    pub fn is_settled(&self) -> bool {
        self.outbox.is_settled()
    }

    /// Publishes since it was made.
    pub fn published(&self) -> u64 {
        self.outbox.published
    }

    /// Of these, those the broker has acknowledged; none at QoS 0.
    pub fn acknowledged(&self) -> u64 {
        self.outbox.acknowledged
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
        self.drive(deadline, |link| link.outbox.written == link.outbox.bytes.len()).await;
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
            if self.outbox.written < self.outbox.bytes.len() {
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
        while self.outbox.written < self.outbox.bytes.len() {
            match stream.try_write(&self.outbox.bytes[self.outbox.written..]) {
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
    let mut packet = Vec::new();
    let id = options.client_id.as_bytes();
    let (header, used) = fixed_header(0x10, 12 + id.len());
    packet.extend_from_slice(&header[..used]);
    packet.extend_from_slice(&[0, 4, b'M', b'Q', b'T', b'T', 4, if clean { 0x02 } else { 0 }]);
    packet.extend_from_slice(&KEEP_ALIVE.to_be_bytes());
    packet.extend_from_slice(&(id.len() as u16).to_be_bytes());
    packet.extend_from_slice(id);
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
