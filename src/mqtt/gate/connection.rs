//! One device's connection: one task that reads, hands over, acknowledges, passes on, and ends.
//!
//! ```text
//!  socket ─▶ buf ─▶ packet ─▶ intake.offer ──no room──▶ stalled: nothing is read until room()
//!                     │             └─ receipt ─▶ ledger ─┐ wakes
//!  socket ◀─ out ◀────┴── session's queue ◀─ router       │
//!             ▲───────────── acks, in order ◀─────────────┘
//! ```
//! Bounded: `buf` by the packet size (and what all large packets may take), `out` by [`ANSWERS`] and one packet more, the
//! line of acknowledgements by Receive Maximum. An idle connection holds no buffer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::Interest;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::limits::Pace;
use super::session::{Kick, Link, Session, Writer};
use super::stream::Stream;
use super::{Inner, now_ms};
use crate::mqtt::access::Permit;
use crate::mqtt::intake::{Message, Receipt};
use crate::mqtt::ledger::Outstanding;
use crate::mqtt::wire::{self, AckKind, Fault, Framing, Packet, Reason, Version};

/// First and largest size of a read: it doubles while reads fill it.
pub(super) const READ: std::ops::RangeInclusive<usize> = 2 * 1024..=64 * 1024;
/// Messages are written to a subscriber while less than this waits to be sent.
const FILL: usize = 64 * 1024;
/// Packets are taken from a client while less than this waits to be sent to it: what is beyond [`FILL`] are answers.
const ANSWERS: usize = 4 * FILL;
/// How a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// DISCONNECT.
    Goodbye,
    /// DISCONNECT that wants the will published.
    GoodbyeWithWill,
    /// The network, or the client without a word.
    Gone,
    /// The client broke a rule.
    Fault(Fault),
    /// It published where it may not, in the dialect that has no word for it.
    Denied,
    /// Its user is no longer let in.
    Lapsed,
    /// A message of its cannot be kept.
    Lost,
    /// Another connection has its client id.
    TakenOver,
    /// Nothing heard in one and a half times the keep-alive.
    Silent,
    /// It takes nothing of what is written to it, or never finishes a large packet.
    Stuck,
    /// The gate stops.
    Stopping,
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        End::Fault(fault)
    }
}

impl End {
    /// What an MQTT 5 client is told.
    pub(super) fn reason(&self) -> Option<Reason> {
        match self {
            End::Goodbye | End::GoodbyeWithWill | End::Gone => None,
            End::Fault(fault) => Some(fault.reason),
            End::Denied => Some(Reason::NOT_AUTHORIZED),
            End::Lapsed => Some(Reason::ADMINISTRATIVE_ACTION),
            End::Lost | End::Stuck => Some(Reason::UNSPECIFIED),
            End::TakenOver => Some(Reason::SESSION_TAKEN_OVER),
            End::Silent => Some(Reason::KEEP_ALIVE_TIMEOUT),
            End::Stopping => Some(Reason::SERVER_SHUTTING_DOWN),
        }
    }
}

/// Why no further packet is taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// The next is not there yet.
    Unread,
    /// The intake has no room.
    Stalled,
    /// Too many messages wait for their fate.
    Window,
    /// It has sent as much as it may in this second.
    Pace,
    /// The client does not take what is written to it.
    Output,
    /// The next is large, and there is no memory for it now.
    Memory(usize),
    /// The gate stops.
    Stopping,
}

/// What is due when a message of QoS 1 or 2 is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    pub kind: AckKind,
    pub id: u16,
    pub reason: Reason,
}

/// The task's state.
pub(super) struct Connection {
    pub gate: Arc<Inner>,
    pub stream: Stream,
    pub version: Version,
    pub session: Arc<Session>,
    /// What it may do; `None`: everything.
    pub permit: Option<Permit>,
    pub link: Arc<Link>,
    pub writer: Writer,
    pub buf: BytesMut,
    /// Size of the next read.
    pub chunk: usize,
    pub out: BytesMut,
    pub outstanding: Outstanding<Due>,
    /// QoS 2 messages of this connection between PUBREC and PUBREL.
    pub unreleased: usize,
    pub aliases: Vec<Bytes>,
    pub stalled: Option<(Message, Receipt)>,
    pub large: Option<(OwnedSemaphorePermit, Instant)>,
    pub keep_alive: Option<Duration>,
    pub pace: Pace,
    /// Until when it is read no further, if it is ahead of its pace.
    pub paused: Option<Instant>,
    pub heard: Instant,
    /// When it last took anything written to it.
    pub wrote: Instant,
    pub messages: u64,
    pub bytes_out: u64,
}

impl Connection {
    pub async fn serve(&mut self) -> End {
        let sleep = tokio::time::sleep_until(self.deadline());
        tokio::pin!(sleep);
        let gate = self.gate.clone();
        loop {
            self.link.wake.listen();
            let pause = match self.round() {
                Ok(pause) => self.held_back(pause),
                Err(end) => return end,
            };
            self.tally();
            if pause == Pause::Stopping && (self.is_done() || gate.abandoned.load(Ordering::Acquire)) {
                return End::Stopping;
            }
            if self.deadline() < sleep.deadline() {
                sleep.as_mut().reset(self.deadline());
            }
            let interest = match (pause == Pause::Unread, !self.is_writing()) {
                (true, true) => Some(Interest::READABLE),
                (true, false) => Some(Interest::READABLE | Interest::WRITABLE),
                (false, false) => Some(Interest::WRITABLE),
                (false, true) => None,
            };
            if pause == Pause::Unread && self.buf.is_empty() && self.chunk == *READ.start() {
                self.buf = BytesMut::new();
                self.session.rest();
                if self.out.is_empty() {
                    self.out = BytesMut::new();
                }
            }
            let stalled = self.stalled.is_some();
            let wanted = if let Pause::Memory(bytes) = pause { bytes } else { 0 };
            tokio::select! {
                biased;
                () = self.link.wake.rung() => {}
                ready = self.stream.ready(interest.unwrap_or(Interest::READABLE)), if interest.is_some() => match ready {
                    Ok(ready) if ready.is_readable() && pause == Pause::Unread => {
                        if let Err(end) = self.read() {
                            return end;
                        }
                    }
                    Ok(_) => {}
                    Err(_) => return End::Gone,
                },
                () = gate.intake.room(), if stalled => self.retry(),
                permit = gate.large.clone().acquire_many_owned(kibibytes(wanted)), if wanted > 0 => match permit {
                    Ok(permit) => self.large = Some((permit, Instant::now())),
                    Err(_) => return End::Stuck,
                },
                () = sleep.as_mut() => {
                    if let Some(end) = self.overdue(pause) {
                        return end;
                    }
                    sleep.as_mut().reset(self.deadline());
                }
            }
        }
    }

    /// Does all that can be done without waiting; answers what is waited for before more can be read.
    fn round(&mut self) -> Result<Pause, End> {
        loop {
            match self.link.kicked() {
                Some(Kick::Resumed | Kick::Replaced) => return Err(End::TakenOver),
                Some(Kick::Lapsed) => return Err(End::Lapsed),
                None => {}
            }
            self.settle()?;
            let pause = self.take()?;
            self.settle()?;
            let full = self.out.len() >= FILL;
            let written = self.session.write(&mut self.writer, &mut self.out, FILL);
            self.flush()?;
            // If all of it went there is room for what may still be queued, and nobody rings again for that.
            let again = (full || written > 0) && self.out.is_empty()
                || match pause {
                    Pause::Window => !self.outstanding.is_full(),
                    Pause::Output => self.out.len() < ANSWERS,
                    _ => false,
                };
            if !again {
                return Ok(pause);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.outstanding.is_empty() && !self.is_writing() && self.stalled.is_none()
    }

    /// Whether the client has not yet taken all that is written to it.
    fn is_writing(&self) -> bool {
        !self.out.is_empty() || self.stream.holds()
    }

    /// Not to be read further if it is ahead of its pace: a pause to read becomes one to wait.
    fn held_back(&mut self, pause: Pause) -> Pause {
        if pause != Pause::Unread && pause != Pause::Pace {
            return pause;
        }
        let until = self.pace.until();
        if until.is_some() && self.paused.is_none() {
            self.gate.counters.throttled.fetch_add(1, Ordering::Relaxed);
        }
        self.paused = until;
        if until.is_some() { Pause::Pace } else { pause }
    }

    /// Acknowledges what is kept.
    fn settle(&mut self) -> Result<(), End> {
        let (out, version, unreleased) = (&mut self.out, self.version, &mut self.unreleased);
        let settled = self.outstanding.settled(|due| {
            *unreleased += usize::from(due.kind == AckKind::PubRec && due.reason == Reason::SUCCESS);
            wire::ack(out, version, due.kind, due.id, due.reason);
        });
        settled.map_err(|_| End::Lost)
    }

    /// Takes packets until something is to be waited for.
    fn take(&mut self) -> Result<Pause, End> {
        if self.gate.is_stopping() {
            return Ok(Pause::Stopping);
        }
        let received_ms = now_ms();
        loop {
            if self.stalled.is_some() {
                return Ok(Pause::Stalled);
            }
            if self.out.len() >= ANSWERS {
                return Ok(Pause::Output);
            }
            let (length, header) = match wire::framing(&self.buf, self.gate.options.max_packet)? {
                Framing::Unknown => return Ok(Pause::Unread),
                Framing::Partial(length) => {
                    let large = length > *READ.end();
                    return Ok(if large && self.large.is_none() { Pause::Memory(length) } else { Pause::Unread });
                }
                Framing::Whole { length, header } => (length, header),
            };
            let publishes = self.buf[0] >> 4 == 3;
            let waits = publishes && self.buf[0] & 0x06 != 0 && self.version == Version::V311;
            let releases = self.buf[0] >> 4 == 6;
            if (waits || releases) && self.outstanding.is_full() {
                return Ok(Pause::Window);
            }
            if publishes && !self.pace.may_publish() {
                return Ok(Pause::Pace);
            }
            let whole = self.buf.split_to(length).freeze();
            match wire::packet(self.version, whole, header)? {
                Packet::Publish(publish) => self.publish(publish, received_ms)?,
                packet => self.handle(packet)?,
            }
            if self.stalled.is_none() {
                self.large = None;
            }
        }
    }

    /// Offers again what the intake had no room for.
    fn retry(&mut self) {
        self.heard = Instant::now();
        if let Some((message, receipt)) = self.stalled.take() {
            match self.gate.intake.offer(message, receipt) {
                Ok(()) => {
                    self.messages += 1;
                    self.large = None;
                }
                Err(back) => self.stalled = Some(back),
            }
        }
    }

    fn read(&mut self) -> Result<(), End> {
        let missing = match wire::framing(&self.buf, usize::MAX) {
            Ok(Framing::Partial(length)) => length - self.buf.len(),
            _ => 0,
        };
        self.buf.reserve(missing.max(self.chunk));
        let room = self.buf.capacity() - self.buf.len();
        match self.stream.try_read_buf(&mut self.buf) {
            Ok(0) => Err(End::Gone),
            Ok(read) => {
                self.heard = Instant::now();
                self.gate.counters.bytes_in.fetch_add(read as u64, Ordering::Relaxed);
                self.pace.read(read, self.heard);
                self.chunk = match read {
                    _ if read == room => (self.chunk * 2).min(*READ.end()),
                    _ if read < self.chunk / 4 => (self.chunk / 2).max(*READ.start()),
                    _ => self.chunk,
                };
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(End::Gone),
        }
    }

    fn flush(&mut self) -> Result<(), End> {
        if self.stream.holds() {
            self.stream.push().map_err(|_| End::Gone)?;
        }
        while !self.out.is_empty() {
            match self.stream.try_write(&self.out) {
                Ok(0) => return Err(End::Gone),
                Ok(written) => {
                    self.bytes_out += written as u64;
                    self.wrote = Instant::now();
                    self.out.advance(written);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(End::Gone),
            }
        }
        if !self.stream.holds() {
            self.wrote = Instant::now();
        }
        self.out.clear();
        Ok(())
    }

    /// When to look whether something is overdue; a look too early costs little.
    fn deadline(&self) -> Instant {
        let mut next = Instant::now() + Duration::from_secs(3_600);
        if let Some(keep_alive) = self.keep_alive {
            next = next.min(self.heard + keep_alive);
        }
        if let Some((_, since)) = &self.large {
            next = next.min(*since + self.gate.options.stall);
        }
        if self.is_writing() {
            next = next.min(self.wrote + self.gate.options.stall);
        }
        self.paused.map_or(next, |until| next.min(until))
    }

    fn overdue(&mut self, pause: Pause) -> Option<End> {
        let now = Instant::now();
        let stall = self.gate.options.stall;
        if self.is_writing() && now >= self.wrote + stall {
            return Some(End::Stuck);
        }
        if pause != Pause::Unread {
            // It is the gate that does not listen.
            self.heard = now;
            if let Some((_, since)) = &mut self.large {
                *since = now;
            }
            return None;
        }
        if self.keep_alive.is_some_and(|keep_alive| now >= self.heard + keep_alive) {
            return Some(End::Silent);
        }
        self.large.as_ref().is_some_and(|(_, since)| now >= *since + stall).then_some(End::Stuck)
    }

    /// Moves this connection's counts to the shared ones: once a round, not once a message.
    pub fn tally(&mut self) {
        if self.messages > 0 {
            self.gate.counters.messages.fetch_add(std::mem::take(&mut self.messages), Ordering::Relaxed);
        }
        if self.bytes_out > 0 {
            self.gate.counters.bytes_out.fetch_add(std::mem::take(&mut self.bytes_out), Ordering::Relaxed);
        }
    }
}

fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}
