//! How fast MQTT brokers take readings, and how long an acknowledgement takes: the same load on each of them, in one run.
//!
//! `cargo bench --bench ingest -- --peer NAME=HOST:PORT …` publishes to brokers that run already (`benches/peers/run` starts
//! dashlight with each of its acknowledgement policies, Mosquitto and rumqttd, and calls this). Without a peer it is our gate with an
//! intake that keeps at once. Options: `--publishers 1000`, `--window 20` (messages of one publisher that wait for their
//! acknowledgement), `--messages 200000`, `--rounds 3` (the brokers take turns; the median counts).
//!
//! The load comes from one thread of this process, so on two cores a broker has about one.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use dashlight::mqtt::{Gate, GateOptions, Intake, Message, Receipt};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait that is told apart from longer ones, microseconds.
const LONGEST_US: u64 = 60_000_000;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

struct Trivial;

impl Intake for Trivial {
    fn offer(&self, _message: Message, receipt: Receipt) -> Result<(), (Message, Receipt)> {
        receipt.kept();
        Ok(())
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

/// What is done to each broker.
#[derive(Clone, Copy)]
struct Load {
    publishers: usize,
    window: usize,
    messages: usize,
    qos: u8,
}

struct Peer {
    name: String,
    address: String,
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut peers, mut rounds) = (Vec::new(), None);
    let mut load = Load { publishers: 100, window: 20, messages: 5_000, qos: 1 };
    while let Some(argument) = arguments.next() {
        let mut number = || -> Outcome<usize> { Ok(arguments.next().ok_or("a number is missing")?.parse()?) };
        match argument.as_str() {
            "--bench" => (load.publishers, load.messages, rounds) = (1_000, 200_000, Some(3)),
            "--publishers" => load.publishers = number()?.max(1),
            "--window" => load.window = number()?.clamp(1, 1_000),
            "--messages" => load.messages = number()?,
            "--rounds" => rounds = Some(number()?),
            "--peer" => {
                let peer = arguments.next().ok_or("--peer wants NAME=HOST:PORT")?;
                let (name, address) = peer.split_once('=').ok_or("--peer wants NAME=HOST:PORT")?;
                peers.push(Peer { name: name.into(), address: address.into() });
            }
            // What cargo itself passes on.
            _ => {}
        }
    }
    let gate_threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("gate").enable_all().build()?;
    let mut own = None;
    if peers.is_empty() {
        let gate = Gate::start(GateOptions::listening_on("127.0.0.1:0")?, Arc::new(Trivial), gate_threads.handle())?;
        peers.push(Peer { name: "gate".into(), address: gate.addresses()[0].to_string() });
        own = Some(gate);
    }
    let clients = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("{} publishers, {} messages of {} bytes", load.publishers, load.messages, reading(0).len());
    for qos in [0, 1, 2] {
        let load = Load { qos, ..load };
        let mut results: Vec<Vec<(f64, Histogram<u64>)>> = peers.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds.unwrap_or(1) {
            for (peer, results) in peers.iter().zip(&mut results) {
                results.push(clients.block_on(measure(peer, load))?);
            }
        }
        for (peer, mut results) in peers.iter().zip(results) {
            results.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            let (rate, acks) = &results[results.len() / 2];
            let ms = |quantile| acks.value_at_quantile(quantile) as f64 / 1000.0;
            let waits = if qos == 0 {
                String::new()
            } else {
                format!("  acknowledged after p50 {:.1} ms, p99 {:.1} ms", ms(0.5), ms(0.99))
            };
            println!("{:>16}: QoS {qos} {rate:>9.0} messages/s{waits}", peer.name);
        }
    }
    drop(own);
    Ok(())
}

/// Messages per second, and how long acknowledgements took in microseconds.
async fn measure(peer: &Peer, load: Load) -> Outcome<(f64, Histogram<u64>)> {
    let mut publishers = Vec::new();
    for n in 0..load.publishers {
        let socket = connect(&peer.address, n).await.map_err(|error| format!("{}: {error}", peer.name))?;
        publishers.push(socket);
    }
    let start = Instant::now();
    let each = (load.messages / load.publishers).max(1);
    let local = tokio::task::LocalSet::new();
    let tasks: Vec<_> = publishers
        .into_iter()
        .enumerate()
        .map(|(n, socket)| local.spawn_local(publish(socket, n, each, load)))
        .collect();
    let mut acks = Histogram::new_with_bounds(1, LONGEST_US, 3)?;
    local
        .run_until(async {
            for task in tasks {
                let waited = tokio::time::timeout(Duration::from_secs(120), task).await;
                let waited = waited.map_err(|_| format!("{} does not answer", peer.name))?;
                acks.add(waited?.map_err(|error| format!("{}: {error}", peer.name))?)?;
            }
            Outcome::Ok(())
        })
        .await?;
    Ok(((each * load.publishers) as f64 / start.elapsed().as_secs_f64(), acks))
}

async fn connect(address: &str, n: usize) -> std::io::Result<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let id = format!("bench-{n:06}");
    let mut packet = vec![0x10, 12 + id.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, id.len() as u8];
    packet.extend_from_slice(id.as_bytes());
    socket.write_all(&packet).await?;
    socket.read_exact(&mut [0; 4]).await?;
    Ok(socket)
}

/// Publishes `count` readings, at most `window` unacknowledged at a time; a last message of QoS 1 tells when all are taken.
async fn publish(mut socket: TcpStream, n: usize, count: usize, load: Load) -> std::io::Result<Histogram<u64>> {
    let topic = format!("vehicles/sensor/data/bench-{n:06}");
    let payload = reading(n);
    let mut acks = Histogram::new_with_bounds(1, LONGEST_US, 3).map_err(std::io::Error::other)?;
    let (mut sent, mut settled) = (0, 0);
    let mut waiting: VecDeque<Instant> = VecDeque::new();
    let (mut out, mut input) = (BytesMut::new(), BytesMut::new());
    let total = count + usize::from(load.qos == 0);
    let window = if load.qos == 0 { usize::MAX } else { load.window };
    while settled < total {
        while sent < total && sent - settled < window {
            let qos = if sent < count { load.qos } else { 1 };
            packet(&mut out, qos, (sent % 60_000 + 1) as u16, &topic, payload.as_bytes());
            sent += 1;
            if qos == 0 {
                settled += 1;
            } else {
                waiting.push_back(Instant::now());
            }
            if out.len() > 64 * 1024 {
                break;
            }
        }
        if !out.is_empty() {
            socket.write_all_buf(&mut out).await?;
        }
        if sent < total && sent - settled < window {
            // There is more to write: let the others write too.
            tokio::task::yield_now().await;
            continue;
        }
        if settled == total {
            break;
        }
        if socket.read_buf(&mut input).await? == 0 {
            return Err(std::io::Error::other("the broker ended the connection"));
        }
        // PUBACK, PUBREC and PUBCOMP are four bytes each in 3.1.1.
        while input.len() >= 4 {
            let answer = input.split_to(4);
            match answer[0] >> 4 {
                4 | 7 => {
                    settled += 1;
                    if let Some(since) = waiting.pop_front() {
                        acks.saturating_record(since.elapsed().as_micros() as u64);
                    }
                }
                5 => out.extend_from_slice(&[0x62, 2, answer[2], answer[3]]),
                _ => {}
            }
        }
        if !out.is_empty() {
            socket.write_all_buf(&mut out).await?;
        }
    }
    Ok(acks)
}

fn packet(out: &mut BytesMut, qos: u8, id: u16, topic: &str, payload: &[u8]) {
    let body = 2 + topic.len() + if qos == 0 { 0 } else { 2 } + payload.len();
    out.extend_from_slice(&[0x30 | qos << 1, (body & 0x7f) as u8 | 0x80, (body >> 7) as u8]);
    out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    out.extend_from_slice(topic.as_bytes());
    if qos > 0 {
        out.extend_from_slice(&id.to_be_bytes());
    }
    out.extend_from_slice(payload);
}

/// A reading of all 18 sensors.
fn reading(n: usize) -> String {
    let names = [
        "coolant_temp",
        "intake_air_temp",
        "intake_air_flow_speed",
        "battery_percentage",
        "battery_voltage",
        "current_draw",
        "speed",
        "engine_vibration_amplitude",
        "throttle_pos",
        "tire_pressure_1_1",
        "tire_pressure_1_2",
        "tire_pressure_2_1",
        "tire_pressure_2_2",
        "accelerometer_1_1_value",
        "accelerometer_1_2_value",
        "accelerometer_2_1_value",
        "accelerometer_2_2_value",
        "control_unit_firmware",
    ];
    let fields: Vec<String> =
        names.iter().enumerate().map(|(i, name)| format!("\"{name}\":{:.3}", 20.0 + (i * 7 + n % 10) as f32)).collect();
    format!("{{{}}}", fields.join(","))
}
