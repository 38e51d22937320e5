//! The gate over real sockets, byte by byte: what it promises, and what a client may try.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Weak;
use std::time::Instant;

use bytes::BytesMut;
use parking_lot::Mutex;
use rumqttc::v5::mqttbytes::v5 as five;
use tokio::runtime::Runtime;

use super::*;
use crate::mqtt::wire::{self, Framing};

mod access;
mod delivery;
mod hostile;
mod pace;
mod promise;
mod session;
mod tls;

/// What a test's intake does with messages.
#[derive(Default)]
struct Desk {
    taken: Vec<Message>,
    receipts: VecDeque<Receipt>,
    /// Settle at once, or hold the receipts.
    hold: bool,
    /// Messages it has room for.
    room: Option<usize>,
}

#[derive(Clone, Default)]
struct TestIntake {
    desk: Arc<Mutex<Desk>>,
    freed: Arc<Notify>,
}

impl Intake for TestIntake {
    fn offer(&self, message: Message, receipt: Receipt) -> Result<(), (Message, Receipt)> {
        let mut desk = self.desk.lock();
        match &mut desk.room {
            Some(0) => return Err((message, receipt)),
            Some(room) => *room -= 1,
            None => {}
        }
        desk.taken.push(message);
        if desk.hold {
            desk.receipts.push_back(receipt);
        } else {
            drop(desk);
            receipt.kept();
        }
        Ok(())
    }

    fn room(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let freed = self.freed.notified();
        let mut freed = Box::pin(freed);
        freed.as_mut().enable();
        if self.desk.lock().room != Some(0) {
            return Box::pin(std::future::ready(()));
        }
        freed
    }
}

impl TestIntake {
    fn taken(&self) -> usize {
        self.desk.lock().taken.len()
    }

    fn payloads(&self) -> Vec<String> {
        self.desk.lock().taken.iter().map(|m| String::from_utf8_lossy(&m.payload).into_owned()).collect()
    }

    fn topics(&self) -> Vec<String> {
        self.desk.lock().taken.iter().map(|m| String::from_utf8_lossy(&m.topic).into_owned()).collect()
    }

    fn make_room(&self, room: Option<usize>) {
        self.desk.lock().room = room;
        self.freed.notify_waiters();
    }

    /// The receipt of the nth message that is still held.
    fn receipt(&self, n: usize) -> Receipt {
        self.desk.lock().receipts.remove(n).expect("a receipt is held")
    }
}

/// A gate on a port of its own, and the runtime it runs on.
struct Bench {
    gate: Gate,
    intake: TestIntake,
    runtime: Runtime,
}

fn bench_with(change: impl FnOnce(&mut GateOptions)) -> Bench {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut options = GateOptions::listening_on("127.0.0.1:0").unwrap();
    change(&mut options);
    let intake = TestIntake::default();
    let gate = Gate::start(options, Arc::new(intake.clone()), runtime.handle()).unwrap();
    Bench { gate, intake, runtime }
}

fn bench() -> Bench {
    bench_with(|_| {})
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a client speaks into.
enum Wire {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Wire {
    fn socket(&self) -> &TcpStream {
        match self {
            Wire::Plain(socket) => socket,
            Wire::Tls(tls) => tls.get_ref(),
        }
    }

    fn shutdown(&self, how: Shutdown) -> std::io::Result<()> {
        self.socket().shutdown(how)
    }
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.read(buf),
            Wire::Tls(tls) => tls.read(buf),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.write(buf),
            Wire::Tls(tls) => tls.write(buf),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Wire::Plain(socket) => socket.flush(),
            Wire::Tls(tls) => tls.flush(),
        }
    }
}

/// A client that speaks in bytes.
struct Raw {
    socket: Wire,
    buf: BytesMut,
    v5: bool,
}

impl Bench {
    fn dial(&self) -> Raw {
        let socket = TcpStream::connect(self.gate.addresses()[0]).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Raw { socket: Wire::Plain(socket), buf: BytesMut::new(), v5: false }
    }

    /// A 3.1.1 client with a clean session.
    fn client(&self, id: &str) -> Raw {
        let mut raw = self.dial();
        raw.send(&connect(id, true, 0));
        assert_eq!(raw.packet(), [0x20, 2, 0, 0], "accepted");
        raw
    }

    /// An MQTT 5 client with a clean session that ends with its connection.
    fn client5(&self, id: &str) -> Raw {
        self.client5_with(id, true, &[]).0
    }

    /// An MQTT 5 client with these properties; also its CONNACK.
    fn client5_with(&self, id: &str, clean: bool, properties: &[u8]) -> (Raw, Vec<u8>) {
        let mut raw = self.dial();
        raw.v5 = true;
        raw.send(&connect5(id, clean, 0, properties));
        let connack = raw.packet();
        assert_eq!((connack[0], connack[3]), (0x20, 0), "accepted: {connack:x?}");
        (raw, connack)
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = body.len();
    loop {
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        out.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

fn connect(id: &str, clean: bool, keep_alive: u16) -> Vec<u8> {
    let body = [&text("MQTT")[..], &[4, u8::from(clean) << 1], &keep_alive.to_be_bytes(), &text(id)].concat();
    frame(0x10, &body)
}

fn connect5(id: &str, clean: bool, keep_alive: u16, properties: &[u8]) -> Vec<u8> {
    let head = [&text("MQTT")[..], &[5, u8::from(clean) << 1], &keep_alive.to_be_bytes()].concat();
    frame(0x10, &[&head[..], &[properties.len() as u8], properties, &text(id)].concat())
}

/// A 3.1.1 CONNECT with a clean session, user and password.
fn connect_as(id: &str, user: &str, password: &str) -> Vec<u8> {
    let head = [&text("MQTT")[..], &[4, 0xc2, 0, 0], &text(id), &text(user), &text(password)].concat();
    frame(0x10, &head)
}

/// A 3.1.1 CONNECT with a will.
fn connect_with_will(id: &str, keep_alive: u16, topic: &str, message: &str, retain: bool) -> Vec<u8> {
    let flags = 2 | 4 | u8::from(retain) << 5;
    let head = [&text("MQTT")[..], &[4, flags], &keep_alive.to_be_bytes(), &text(id)].concat();
    frame(0x10, &[&head[..], &text(topic), &text(message)].concat())
}

const SESSION_FOR_EVER: [u8; 5] = [17, 0xff, 0xff, 0xff, 0xff];

impl Raw {
    fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// PUBLISH; the packet id is left out at QoS 0.
    fn publish(&mut self, topic: &str, payload: &str, qos: u8, id: u16, flags: u8) {
        let id = if qos == 0 { Vec::new() } else { id.to_be_bytes().to_vec() };
        let properties: &[u8] = if self.v5 { &[0] } else { &[] };
        let body = [&text(topic)[..], &id, properties, payload.as_bytes()].concat();
        self.send(&frame(0x30 | qos << 1 | flags, &body));
    }

    fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        let properties: &[u8] = if self.v5 { &[0] } else { &[] };
        self.send(&frame(0x82, &[&[0, 77], properties, &text(filter), &[options]].concat()));
        let suback = self.packet();
        assert_eq!(suback[0], 0x90, "{suback:x?}");
        *suback.last().unwrap()
    }

    /// The next packet, whole.
    fn packet(&mut self) -> Vec<u8> {
        self.try_packet().expect("a packet before the connection's end")
    }

    /// The next packet, or `None` when the gate has closed the connection.
    fn try_packet(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Ok(Framing::Whole { length, .. }) = wire::framing(&self.buf, usize::MAX) {
                return Some(self.buf.split_to(length).to_vec());
            }
            let mut chunk = [0; 4096];
            match self.socket.read(&mut chunk) {
                Ok(0) => return None,
                Ok(read) => self.buf.extend_from_slice(&chunk[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return None;
                }
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// Whether nothing comes: asked by a ping, whose answer would come after it.
    fn is_quiet(&mut self) -> bool {
        self.send(&[0xc0, 0]);
        self.packet() == [0xd0, 0]
    }

    /// The next PUBLISH: topic, payload, first byte, packet id.
    fn message(&mut self) -> (String, String, u8, u16) {
        let packet = self.packet();
        assert_eq!(packet[0] >> 4, 3, "a PUBLISH: {packet:x?}");
        let mut bytes = BytesMut::from(&packet[..]);
        if self.v5 {
            let five::Packet::Publish(publish) = five::Packet::read(&mut bytes, None).unwrap() else { unreachable!() };
            let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
            return (topic, String::from_utf8(publish.payload.to_vec()).unwrap(), packet[0], publish.pkid);
        }
        let read = rumqttc::mqttbytes::v4::Packet::read(&mut bytes, usize::MAX).unwrap();
        let rumqttc::mqttbytes::v4::Packet::Publish(publish) = read else { unreachable!() };
        (publish.topic, String::from_utf8(publish.payload.to_vec()).unwrap(), packet[0], publish.pkid)
    }

    /// Topic and payload of the next message.
    fn heard(&mut self) -> (String, String) {
        let (topic, payload, ..) = self.message();
        (topic, payload)
    }

    /// The reason of the DISCONNECT that ends this MQTT 5 connection.
    fn disconnected(&mut self) -> u8 {
        loop {
            let packet = self.packet();
            if packet[0] == 0xe0 {
                assert_eq!(self.try_packet(), None, "the connection is closed after it");
                return packet[2];
            }
        }
    }

    /// Waits for the gate to close the connection; answers what it still sent.
    fn closed(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.try_packet()).collect()
    }

    /// Goes without a word.
    fn vanish(self) {
        self.socket.shutdown(Shutdown::Both).unwrap();
    }
}
