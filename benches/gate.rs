//! How fast the gate takes messages, with an intake that keeps them at once: messages of 500 bytes over loopback TCP into a
//! gate with one worker thread, written by one thread of this process.
//!
//! `cargo bench --bench gate`. Without `--bench` (as `cargo test --benches` runs it) a short run that only shows that it works.
//! `cargo bench --bench gate -- --serve 127.0.0.1:1883` serves until it is ended, for conformance tests from outside; there
//! topics that begin with `$` may not be subscribed to and keep-alives are cut to 60 s, as those tests ask.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashlight::mqtt::access::Rule;
use dashlight::mqtt::{Gate, GateOptions, Intake, Message, Receipt};

#[derive(Default)]
struct Trivial(AtomicU64);

impl Intake for Trivial {
    fn offer(&self, _message: Message, receipt: Receipt) -> Result<(), (Message, Receipt)> {
        self.0.fetch_add(1, Ordering::Relaxed);
        receipt.kept();
        Ok(())
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--serve") {
        return serve(arguments.get(at + 1).map_or("127.0.0.1:1883", String::as_str));
    }
    let messages = if arguments.iter().any(|argument| argument == "--bench") { 1_000_000 } else { 10_000 };
    for (connections, messages) in [(1, messages), (50, messages)] {
        for qos in [0, 1, 2] {
            let messages = if qos == 2 { messages / 4 } else { messages };
            let (rate, cpu) = run(connections, qos, messages)?;
            println!(
                "gate: QoS {qos}, {connections:>2} connections, {messages} messages of 500 bytes: {rate:>9.0} messages/s, \
                 {cpu:.2} µs of the gate's thread each"
            );
        }
    }
    Ok(())
}

fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).thread_name("gate").enable_all().build()
}

fn serve(address: &str) -> Outcome {
    let runtime = runtime(2)?;
    let mut options = GateOptions::listening_on(address)?;
    let everything = vec!["#".to_owned()];
    options.access.rules = vec![Rule { publish: everything.clone(), subscribe: everything, ..Rule::default() }];
    options.max_keep_alive = Some(60);
    let gate = Gate::start(options, Arc::new(Trivial::default()), runtime.handle())?;
    println!("serving on {:?}", gate.addresses());
    loop {
        std::thread::sleep(Duration::from_secs(3_600));
    }
}

/// Messages per second, and microseconds of the gate's thread per message.
fn run(connections: usize, qos: u8, messages: u64) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let runtime = runtime(1)?;
    let intake = Arc::new(Trivial::default());
    let gate = Gate::start(GateOptions::listening_on("127.0.0.1:0")?, intake.clone(), runtime.handle())?;
    let address = gate.addresses()[0];
    let mut clients = (0..connections).map(|n| Client::new(address, n, qos)).collect::<std::io::Result<Vec<_>>>()?;
    let cpu = gate_seconds();
    let start = Instant::now();
    let rounds = (messages / (connections as u64 * Client::BATCH)).max(1);
    for _ in 0..rounds {
        for client in &mut clients {
            client.write()?;
        }
        for client in &mut clients {
            client.read()?;
        }
    }
    let expected = rounds * connections as u64 * Client::BATCH;
    while intake.0.load(Ordering::Relaxed) < expected {
        std::thread::yield_now();
    }
    let seconds = start.elapsed().as_secs_f64();
    let each = (gate_seconds() - cpu) / expected as f64 * 1e6;
    Ok((expected as f64 / seconds, each))
}

/// Processor seconds of the threads named `gate`, where the system says so.
fn gate_seconds() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return f64::NAN };
    let ticks: u64 = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok())
        .filter(|stat| stat.contains("(gate)"))
        .filter_map(|stat| {
            // User and system time are the 14th and 15th fields; the name, which may hold blanks, is the second.
            let fields = stat.rsplit(')').next()?.split_whitespace().skip(11).take(2);
            Some(fields.flat_map(str::parse::<u64>).sum::<u64>())
        })
        .sum();
    ticks as f64 / 100.0
}

struct Client {
    socket: TcpStream,
    batch: Vec<u8>,
    acks: Vec<u8>,
    releases: Vec<u8>,
    qos: u8,
}

impl Client {
    /// Messages written before their acknowledgements are read.
    const BATCH: u64 = 200;

    fn new(address: SocketAddr, n: usize, qos: u8) -> std::io::Result<Client> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let id = format!("bench-{n}");
        socket.write_all(&[0x10, 12 + id.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, id.len() as u8])?;
        socket.write_all(id.as_bytes())?;
        socket.read_exact(&mut [0; 4])?;
        let topic = format!("vehicles/sensor/data/electric-vehicle-{n:05}");
        let (mut batch, mut releases) = (Vec::new(), Vec::new());
        for id in 1..=Self::BATCH as u16 {
            let body = 2 + topic.len() + if qos == 0 { 0 } else { 2 } + 500;
            batch.extend_from_slice(&[0x30 | qos << 1, (body & 0x7f) as u8 | 0x80, (body >> 7) as u8]);
            batch.extend_from_slice(&(topic.len() as u16).to_be_bytes());
            batch.extend_from_slice(topic.as_bytes());
            if qos > 0 {
                batch.extend_from_slice(&id.to_be_bytes());
            }
            batch.extend_from_slice(&[b'7'; 500]);
            releases.extend_from_slice(&[0x62, 2, (id >> 8) as u8, id as u8]);
        }
        Ok(Client { socket, batch, acks: vec![0; 4 * Self::BATCH as usize], releases, qos })
    }

    fn write(&mut self) -> std::io::Result<()> {
        self.socket.write_all(&self.batch)
    }

    fn read(&mut self) -> std::io::Result<()> {
        if self.qos > 0 {
            self.socket.read_exact(&mut self.acks)?;
        }
        if self.qos == 2 {
            self.socket.write_all(&self.releases)?;
            self.socket.read_exact(&mut self.acks)?;
        }
        Ok(())
    }
}
