//! The packets of one publishing connection: one buffer, in the order of sending.
//!
//! Its front is what was written and is not acknowledged, its rest what is not written: nothing is copied between being
//! made and being forgotten. Knows no socket.

use std::collections::VecDeque;

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

/// What a packet in the buffer still waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
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
pub(super) struct Outbox {
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
    pub fn new(qos: Qos) -> Self {
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

    pub fn has_room(&self) -> bool {
        self.unacknowledged < self.qos.window() && self.bytes.len() - self.written < MOST_UNSENT
    }

    /// Room for many, so that one who waited for it does not go on packet by packet.
    pub fn has_ample_room(&self) -> bool {
        self.unacknowledged <= self.qos.window() / 4 * 3 && self.bytes.len() - self.written < MOST_UNSENT / 2
    }

    /// Publishes so far.
    pub fn published(&self) -> u64 {
        self.published
    }

    /// Of these, acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub fn has_unwritten(&self) -> bool {
        self.written < self.bytes.len()
    }

    pub fn unwritten(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    pub fn is_settled(&self) -> bool {
        self.unacknowledged == 0 && self.written == self.bytes.len()
    }

    /// Appends a PUBLISH whose payload `fill` appends.
    pub fn publish(&mut self, topic: &[u8], fill: impl FnOnce(&mut Vec<u8>)) {
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

    pub fn control(&mut self, packet: &[u8]) {
        self.bytes.extend_from_slice(packet);
        self.packets.push_back(Packet { id: 0, length: packet.len(), state: State::Nothing });
    }

    pub fn wrote(&mut self, count: usize) {
        self.written += count;
        self.forget();
    }

    /// The broker has taken (QoS 1) or taken charge of (QoS 2) packet `id`.
    pub fn settle(&mut self, id: u16, waiting: State, next: State) {
        // Brokers acknowledge in the order of sending, so the search ends at once.
        let Some(packet) = self.packets.iter_mut().find(|packet| packet.id == id && packet.state == waiting) else {
            return;
        };
        packet.state = next;
        if next == State::Nothing {
            self.unacknowledged -= 1;
            self.acknowledged += 1;
            // At once, so that the search for the next one ends at once too.
            self.forget();
        }
    }

    /// Forgets packets from the front that wait for nothing.
    pub fn forget(&mut self) {
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
    pub fn begin_again(&mut self, session: bool) {
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
pub(super) fn fixed_header(first: u8, remaining: usize) -> ([u8; 5], usize) {
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

pub(super) fn release(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x62, 2, high, low]
}
