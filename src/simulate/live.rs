//! The fleet as devices: real MQTT publishers over TCP, publishing as time passes.
//!
//! Each connection is one task that owns its cars outright: up to a hundred cars have one each, more share a hundred (or
//! as many as asked for), as behind gateways. A car's readings are evenly spaced, and the cars' turns are spread evenly
//! over the interval. Nothing is dropped: if the receiver does not keep up, the fleet falls behind its timetable, and
//! once it is behind by [`CATCH_UP`] the timetable itself is put off; [`Live::behind`] says by how much.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::fault::{FaultKind, KINDS, faults};
use super::fleet::{Faults, Fleet, FleetError, FleetOptions, Label, car_name, car_number};
use super::link::{Link, LinkOptions, Login, Qos};
use super::sensor;
use crate::telemetry::Schema;
use crate::telemetry::codec::encode_json;

/// Cars that have a connection each; beyond it they share as many.
pub const CONNECTIONS: usize = 100;
/// Shortest time between two writes to one connection: what is due within it goes out together.
const QUANTUM: Duration = Duration::from_millis(20);
/// How far behind its timetable the fleet catches up.
const CATCH_UP: Duration = Duration::from_secs(1);
/// Readings made between two looks at the connection.
const BATCH: usize = 256;
/// How often a task without room looks whether it should stop.
const LOOK_UP: Duration = Duration::from_millis(100);

/// What to publish, and where to.
#[derive(Debug, Clone)]
pub struct LiveOptions {
    /// The broker's host and port.
    pub address: String,
    /// User and password, if the broker asks.
    pub login: Option<Login>,
    /// The fleet. With a `duration`, each car publishes as many readings as fit into it.
    pub fleet: FleetOptions,
    /// MQTT connections; `None`: one a car, but at most [`CONNECTIONS`].
    pub connections: Option<usize>,
    /// The promise for every publish.
    pub qos: Qos,
}

/// A fleet that is publishing. Dropping it ends it at once; [`Live::stop`] waits for acknowledgements.
#[derive(Debug)]
pub struct Live {
    shared: Arc<Shared>,
    stop: watch::Sender<Option<Instant>>,
    tasks: Mutex<Vec<JoinHandle<bool>>>,
}

/// How it came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Readings published.
    pub published: u64,
    /// Of these, acknowledged by the broker; none at QoS 0.
    pub acknowledged: u64,
    /// Whether everything was written, and acknowledged as far as it was to be.
    pub settled: bool,
}

/// What the tasks write and everybody reads. Atomics, because the counts are looked at while they change; the orders and
/// labels are few, and locked for the moment of handing over.
#[derive(Debug)]
struct Shared {
    cars: usize,
    faithful: bool,
    faults: Vec<AtomicU32>,
    lines: Vec<Line>,
    labels: Mutex<Vec<Label>>,
}

/// One connection.
#[derive(Debug, Default)]
struct Line {
    published: AtomicU64,
    acknowledged: AtomicU64,
    behind_us: AtomicU64,
    orders: Mutex<Vec<Order>>,
    trouble: Mutex<Option<String>>,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Break(usize, &'static str),
    Repair(usize),
}

/// Starts the fleet on `runtime`. Connections are made, and made again, by the tasks: until they stand nothing is
/// published, and [`Live::trouble`] says why.
pub fn start(options: LiveOptions, runtime: &Handle) -> Result<Live, FleetError> {
    let fleet = Fleet::new(&options.fleet)?;
    let cars = fleet.len();
    let parts = fleet.split(options.connections.unwrap_or(CONNECTIONS).max(1));
    let shared = Arc::new(Shared {
        cars,
        faithful: options.fleet.faithful,
        faults: (0..cars).map(|_| AtomicU32::new(0)).collect(),
        lines: parts.iter().map(|_| Line::default()).collect(),
        labels: Mutex::default(),
    });
    let schema = Arc::new(Schema::car_sensors());
    let limit = options.fleet.duration.map(|duration| readings_in(duration, options.fleet.rate));
    let (stop, stopped) = watch::channel(None);
    let tasks = parts.into_iter().enumerate().map(|(line, fleet)| {
        let who = if fleet.len() == 1 { car_name(fleet.number(0)) } else { format!("gateway-{:05}", line + 1) };
        let link = Link::new(LinkOptions {
            address: options.address.clone(),
            // Two simulators at one broker are not to push each other off.
            client_id: format!("{who}-{}", std::process::id()),
            login: options.login.clone(),
            qos: options.qos,
        });
        let publisher = Publisher {
            topics: (0..fleet.len()).map(|car| topic(&car_name(fleet.number(car)))).collect(),
            fleet,
            link,
            schema: Arc::clone(&schema),
            shared: Arc::clone(&shared),
            line,
            limit,
            stopped: stopped.clone(),
        };
        runtime.spawn(publisher.run())
    });
    let tasks = Mutex::new(tasks.collect());
    Ok(Live { shared, stop, tasks })
}

/// Readings of one car at `rate` per second that fit into `duration`.
pub fn readings_in(duration: Duration, rate: f64) -> u64 {
    (duration.as_secs_f64() * rate + 1e-6).floor() as u64
}

/// The topic a car publishes on.
fn topic(car: &str) -> Box<[u8]> {
    format!("vehicles/sensor/data/{car}").into_bytes().into()
}

impl Live {
    /// Gives a car a fault, as [`Fleet::break_car`]. It shows from its next reading on.
    pub fn break_car(&self, car: &str, fault: &str) -> Result<(), FleetError> {
        let number = self.number(car)?;
        let kind = faults().iter().position(|kind| kind.id == fault);
        let kind = kind.ok_or_else(|| FleetError::Fault(crate::text::harmless(fault, 60).into_owned()))?;
        if self.shared.faithful && !super::faithful::knows(kind) {
            return Err(FleetError::NotFaithful(fault.into()));
        }
        self.order(number, |car| Order::Break(car, faults()[kind].id));
        // So that whoever asks before the next reading hears of it.
        self.shared.faults[number].store(1 << kind, Ordering::Relaxed);
        Ok(())
    }

    /// Repairs a car, as [`Fleet::repair`].
    pub fn repair(&self, car: &str) -> Result<(), FleetError> {
        let number = self.number(car)?;
        self.order(number, Order::Repair);
        Ok(())
    }

    /// The fault a car has, or the first of several; `None` if it is well or not of this fleet.
    pub fn fault_of(&self, car: &str) -> Option<&'static FaultKind> {
        let bits = self.shared.faults.get(car_number(car)?)?.load(Ordering::Relaxed);
        KINDS.get(bits.trailing_zeros() as usize)
    }

    /// Cars in the fleet.
    pub fn cars(&self) -> usize {
        self.shared.cars
    }

    /// MQTT connections they share.
    pub fn connections(&self) -> usize {
        self.shared.lines.len()
    }

    /// Readings published so far.
    pub fn published(&self) -> u64 {
        self.shared.lines.iter().map(|line| line.published.load(Ordering::Relaxed)).sum()
    }

    /// Of these, acknowledged by the broker as far as has been heard; none at QoS 0.
    pub fn acknowledged(&self) -> u64 {
        self.shared.lines.iter().map(|line| line.acknowledged.load(Ordering::Relaxed)).sum()
    }

    /// How far the connection that is furthest behind is behind its timetable, put-off time included.
    pub fn behind(&self) -> Duration {
        let most = self.shared.lines.iter().map(|line| line.behind_us.load(Ordering::Relaxed)).max();
        Duration::from_micros(most.unwrap_or(0))
    }

    /// Why readings are not getting through, if some connection does not stand.
    pub fn trouble(&self) -> Option<String> {
        self.shared.lines.iter().find_map(|line| line.trouble.lock().clone())
    }

    /// The faults that are over since the last call. Only if the fleet keeps labels.
    pub fn take_labels(&self) -> Vec<Label> {
        std::mem::take(&mut *self.shared.labels.lock())
    }

    /// Waits until every car has published what its fleet's duration allows and that is acknowledged. Without a duration,
    /// until [`Live::stop`].
    pub async fn finished(&self) -> Outcome {
        let tasks = std::mem::take(&mut *self.tasks.lock());
        let mut settled = true;
        for task in tasks {
            settled &= task.await.unwrap_or(false);
        }
        Outcome { published: self.published(), acknowledged: self.acknowledged(), settled }
    }

    /// Publishes no more, and waits at most `patience` for what is not acknowledged yet.
    pub async fn stop(&self, patience: Duration) -> Outcome {
        self.ask_to_stop(patience);
        self.finished().await
    }

    /// As [`Live::stop`], without waiting: for whoever is in [`Live::finished`] already.
    pub fn ask_to_stop(&self, patience: Duration) {
        self.stop.send_replace(Some(Instant::now() + patience));
    }

    fn number(&self, car: &str) -> Result<usize, FleetError> {
        car_number(car)
            .filter(|&number| number < self.shared.cars)
            .ok_or_else(|| FleetError::Car(crate::text::harmless(car, 60).into_owned()))
    }

    fn order(&self, number: usize, order: impl FnOnce(usize) -> Order) {
        let lines = self.shared.lines.len();
        self.shared.lines[number % lines].orders.lock().push(order(number / lines));
    }
}

/// One connection's task.
struct Publisher {
    fleet: Fleet,
    link: Link,
    topics: Vec<Box<[u8]>>,
    schema: Arc<Schema>,
    shared: Arc<Shared>,
    line: usize,
    limit: Option<u64>,
    stopped: watch::Receiver<Option<Instant>>,
}

impl Publisher {
    async fn run(mut self) -> bool {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            // Everything it does can be left at any await: packets are made and counted between them.
            () = self.publish_all() => {}
            _ = stopped.wait_for(Option::is_some) => {}
        }
        self.tell(Duration::ZERO);
        let ended = self.fleet.finish();
        self.shared.labels.lock().extend(ended);
        let shared = Arc::clone(&self.shared);
        let Publisher { link, line, .. } = self;
        // One who has come to the end by himself waits as long as it takes, or until he is told to stop.
        let far = Instant::now() + Duration::from_secs(365 * 24 * 3600);
        let mut link = link;
        if stopped.borrow().is_none() {
            tokio::select! {
                () = link.drive(far, Link::is_settled) => {}
                _ = stopped.wait_for(Option::is_some) => {}
            }
        }
        let deadline = (*stopped.borrow()).unwrap_or_else(Instant::now);
        let (link, settled) = link.close(deadline).await;
        shared.lines[line].acknowledged.store(link.acknowledged(), Ordering::Relaxed);
        settled
    }

    async fn publish_all(&mut self) {
        // Until it is connected there is no timetable to be behind.
        let far = Instant::now() + Duration::from_secs(365 * 24 * 3600);
        while let Err(error) = self.link.connect().await {
            *self.shared.lines[self.line].trouble.lock() = Some(error.to_string());
            sleep_until((Instant::now() + Duration::from_millis(300)).min(far)).await;
        }
        *self.shared.lines[self.line].trouble.lock() = None;

        let cars = self.fleet.len();
        let interval = self.fleet.interval();
        let phase: Vec<f64> =
            (0..cars).map(|car| (self.fleet.number(car) as f64 + 0.5) / self.shared.cars as f64).collect();
        let begun = Instant::now();
        let mut put_off = Duration::ZERO;
        let (mut round, mut car) = (0u64, 0);
        let due = |round: u64, car: usize, put_off: Duration| {
            begun + put_off + Duration::from_secs_f64((round as f64 + phase[car]) * interval)
        };
        let mut next = due(round, car, put_off);
        let mut row = [0.0; sensor::COUNT];
        while self.limit.is_none_or(|limit| round < limit) {
            self.obey();
            let now = Instant::now();
            let late = now.saturating_duration_since(next);
            if late > CATCH_UP {
                put_off += late - CATCH_UP;
                next = due(round, car, put_off);
            }
            let time_ms = unix_millis();
            let mut made = 0;
            while next <= now && made < BATCH && self.link.has_room() && self.limit.is_none_or(|limit| round < limit) {
                self.fleet.step(car, time_ms, &mut row);
                self.show(car, self.fleet.faults_of(car));
                let schema = &self.schema;
                self.link.publish(&self.topics[car], |payload| encode_json(schema, &row, time_ms, None, payload));
                made += 1;
                car += 1;
                if car == cars {
                    (round, car) = (round + 1, 0);
                }
                next = due(round, car, put_off);
            }
            self.tell(put_off + now.saturating_duration_since(next));
            if next > now {
                self.link.pace(next.max(now + QUANTUM)).await;
            } else {
                // Behind: no pause but for the connection itself.
                self.link.drive(now + LOOK_UP, |link| made > 0 || link.has_ample_room()).await;
                tokio::task::yield_now().await;
            }
            self.tell(put_off + Instant::now().saturating_duration_since(next));
        }
    }

    /// Does what operators asked for.
    fn obey(&mut self) {
        let orders = std::mem::take(&mut *self.shared.lines[self.line].orders.lock());
        for order in orders {
            // Both were checked when they were given.
            let (car, _) = match order {
                Order::Break(car, fault) => (car, self.fleet.break_car(car, fault).is_ok()),
                Order::Repair(car) => (car, self.fleet.repair(car).is_ok()),
            };
            self.show(car, self.fleet.faults_of(car));
        }
    }

    fn show(&self, car: usize, faults: Faults) {
        let shown = &self.shared.faults[self.fleet.number(car)];
        if shown.load(Ordering::Relaxed) != faults.0 {
            shown.store(faults.0, Ordering::Relaxed);
        }
    }

    /// Publishes the counts.
    fn tell(&mut self, behind: Duration) {
        let line = &self.shared.lines[self.line];
        line.published.store(self.link.published(), Ordering::Relaxed);
        line.acknowledged.store(self.link.acknowledged(), Ordering::Relaxed);
        line.behind_us.store(behind.as_micros() as u64, Ordering::Relaxed);
        let trouble = self.link.trouble();
        if line.trouble.lock().as_deref() != trouble {
            *line.trouble.lock() = trouble.map(str::to_owned);
        }
        let ended = self.fleet.take_labels();
        if !ended.is_empty() {
            self.shared.labels.lock().extend(ended);
        }
    }
}

fn unix_millis() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
