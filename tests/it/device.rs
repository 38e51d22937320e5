//! A device as the delivery tests want it: it numbers its readings, remembers which of them were acknowledged, sends again what
//! was not, and goes on whatever happens to its connection, which it cuts itself now and then in the middle of a packet.
//! Written against the standard and nothing of ours, so that it can be a witness.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Messages on their way at once.
const WINDOW: usize = 20;

/// What kind of device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// 4 (MQTT 3.1.1) or 5.
    pub version: u8,
    /// 1 or 2.
    pub qos: u8,
}

/// A device in a thread of its own.
pub struct Device {
    pub name: String,
    pub kind: Kind,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Begin no more readings; end once all are acknowledged.
    finish: AtomicBool,
    acknowledged: AtomicU64,
    /// The numbers acknowledged.
    kept: Mutex<BTreeSet<u64>>,
}

impl Device {
    /// Starts one. It pauses for `pace` after each reading, and cuts its connection after so many packets as chance has it.
    pub fn start(name: &str, kind: Kind, address: SocketAddr, seed: u64, pace: Duration) -> Device {
        let shared = Arc::<Shared>::default();
        let state = State {
            name: name.to_owned(),
            kind,
            next: 0,
            next_id: 0,
            open: BTreeMap::new(),
            chance: Pcg64Mcg::seed_from_u64(seed),
            pace,
            shared: shared.clone(),
        };
        let thread = std::thread::spawn(move || state.run(address));
        Device { name: name.to_owned(), kind, shared, thread: Some(thread) }
    }

    /// Readings acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// Begins no more readings.
    pub fn finish(&self) {
        self.shared.finish.store(true, Ordering::SeqCst);
    }

    /// Whether all its readings are acknowledged.
    pub fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The numbers of its readings that were acknowledged.
    pub fn kept(&mut self) -> BTreeSet<u64> {
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut self.shared.kept.lock().unwrap())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Where a message is between the device and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    /// Sent, perhaps.
    Published,
    /// PUBREC has come: only its id is to be released.
    Received,
}

struct State {
    name: String,
    kind: Kind,
    next: u64,
    next_id: u16,
    /// By number: its packet id, and where it is.
    open: BTreeMap<u64, (u16, Open)>,
    chance: Pcg64Mcg,
    pace: Duration,
    shared: Arc<Shared>,
}

impl State {
    fn run(mut self, address: SocketAddr) {
        while !self.is_done() {
            // However it ends, there is another connection.
            let _ = self.connection(address);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_done(&self) -> bool {
        self.shared.finish.load(Ordering::SeqCst) && self.open.is_empty()
    }

    fn connection(&mut self, address: SocketAddr) -> std::io::Result<()> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.write_all(&self.connect())?;
        let (kind, body) = read_packet(&mut socket)?;
        if kind >> 4 != 2 || body.get(1) != Some(&0) {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let open: Vec<(u64, (u16, Open))> = self.open.iter().map(|(n, open)| (*n, *open)).collect();
        for (n, (id, open)) in open {
            match open {
                Open::Published => socket.write_all(&self.publish(n, id, true))?,
                Open::Received => socket.write_all(&[0x62, 2, (id >> 8) as u8, id as u8])?,
            }
        }
        let mut left = self.chance.random_range(50..2_000u32);
        socket.set_read_timeout(Some(Duration::from_millis(1)))?;
        let mut input = Vec::new();
        while !self.is_done() {
            while self.open.len() < WINDOW && !self.shared.finish.load(Ordering::SeqCst) {
                let (n, id) = (self.next, self.fresh_id());
                self.next += 1;
                self.open.insert(n, (id, Open::Published));
                let packet = self.publish(n, id, false);
                if left == 0 {
                    let cut = self.chance.random_range(0..packet.len());
                    socket.write_all(&packet[..cut])?;
                    return socket.shutdown(Shutdown::Both);
                }
                left -= 1;
                socket.write_all(&packet)?;
                if !self.pace.is_zero() {
                    std::thread::sleep(self.pace);
                    break;
                }
            }
            let mut chunk = [0; 4096];
            match socket.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => input.extend_from_slice(&chunk[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
            while input.len() >= 2 && input.len() >= 2 + usize::from(input[1]) {
                let packet: Vec<u8> = input.drain(..2 + usize::from(input[1])).collect();
                self.hear(&packet, &mut socket)?;
            }
        }
        socket.write_all(&[0xe0, 0])
    }

    /// PUBACK, PUBREC and PUBCOMP: the id, and in MQTT 5 perhaps a reason.
    fn hear(&mut self, packet: &[u8], socket: &mut TcpStream) -> std::io::Result<()> {
        let (kind, body) = (packet[0] >> 4, &packet[2..]);
        if kind == 14 || body.len() < 2 {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        let id = u16::from_be_bytes([body[0], body[1]]);
        let failed = body.get(2).is_some_and(|reason| *reason >= 0x80);
        let Some(n) = self.open.iter().find(|(_, (open, _))| *open == id).map(|(n, _)| *n) else { return Ok(()) };
        match kind {
            4 | 5 if failed => return Err(ErrorKind::ConnectionAborted.into()),
            4 => {
                self.open.remove(&n);
                self.keep(n);
            }
            5 => {
                self.open.insert(n, (id, Open::Received));
                self.keep(n);
                socket.write_all(&[0x62, 2, body[0], body[1]])?;
            }
            // Released, or not known any more: done either way.
            7 => drop(self.open.remove(&n)),
            _ => {}
        }
        Ok(())
    }

    fn keep(&self, n: u64) {
        if self.shared.kept.lock().unwrap().insert(n) {
            self.shared.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The next id that is not out.
    fn fresh_id(&mut self) -> u16 {
        loop {
            // Few, so that they are used again and again.
            self.next_id = self.next_id % 60 + 1;
            if !self.open.values().any(|(id, _)| *id == self.next_id) {
                return self.next_id;
            }
        }
    }

    fn connect(&self) -> Vec<u8> {
        let mut body = vec![0, 4];
        body.extend_from_slice(b"MQTT");
        body.extend_from_slice(&[self.kind.version, 0, 0, 60]);
        if self.kind.version == 5 {
            // Session expiry: an hour.
            body.extend_from_slice(&[5, 0x11, 0, 0, 0x0e, 0x10]);
        }
        body.extend_from_slice(&(self.name.len() as u16).to_be_bytes());
        body.extend_from_slice(self.name.as_bytes());
        packet(0x10, &body)
    }

    fn publish(&self, n: u64, id: u16, again: bool) -> Vec<u8> {
        let topic = format!("vehicles/sensor/data/{}", self.name);
        let mut body = (topic.len() as u16).to_be_bytes().to_vec();
        body.extend_from_slice(topic.as_bytes());
        body.extend_from_slice(&id.to_be_bytes());
        if self.kind.version == 5 {
            body.push(0);
        }
        body.extend_from_slice(format!("{{\"speed\":{}.5,\"device\":\"{}\",\"n\":{n}}}", n % 30, self.name).as_bytes());
        packet(0x30 | self.kind.qos << 1 | u8::from(again) << 3, &body)
    }
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 16_384);
    let mut packet = vec![kind];
    if body.len() < 128 {
        packet.push(body.len() as u8);
    } else {
        packet.extend_from_slice(&[body.len() as u8 & 0x7f | 0x80, (body.len() >> 7) as u8]);
    }
    packet.extend_from_slice(body);
    packet
}

fn read_packet(socket: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    socket.read_exact(&mut head)?;
    let mut body = vec![0; usize::from(head[1])];
    socket.read_exact(&mut body)?;
    Ok((head[0], body))
}
