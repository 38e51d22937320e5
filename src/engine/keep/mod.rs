//! What must survive a restart of what a worker knows: the cars' states, their open episodes, and operators' marks.
//!
//! ```text
//! STATE/cars/<cluster>/<group>/<topic>-<partition>.cars    every car of a partition, and the offset it goes on from
//!                                                .marks   what operators asked for since then
//! ```
//!
//! The cars are written a partition at a time, some cars between two batches, so that the worker never stalls; what was gathered
//! goes to the disk once everything that the readings in it led to is delivered. At a restart reading begins at the file's offset, and
//! up to what the group has committed nothing is written a second time. Each car's entry says behind which reading it was taken, so
//! that none is judged twice although the cars of one file were not taken at one moment.
//!
//! Owns the folder and the thread that writes to it. What a state means is the lane's and the detector's to know.

mod disk;
mod file;
mod marks;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};

use super::lane::Lane;
use super::lane::keep::Origin;
use crate::kafka::{Assigned, Begin};
use disk::{Disk, Job};
pub use file::Header;
pub use file::{Builder, Entry, Snapshot, layout};
pub use marks::{Mark, What};

/// Every partition's cars are written once in this time,
const ROUND: Duration = Duration::from_secs(15);
/// with at least and at most this long between two of them.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// What is gathered between two batches: well under a millisecond's work.
const GATHERED: usize = 256 * 1024;
/// The folder of a cluster that is gone with its process.
const EMBEDDED: &str = "embedded";

/// Where things are kept, and for which log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The state directory.
    pub state: PathBuf,
    /// The consumer group, whose offsets these are.
    pub group: String,
    /// When the embedded cluster was started, which ends with the process; 0 for one that stays.
    pub log: u64,
}

/// What model and calibration a topic's states are of: shared with the consumer, which must not go back for states of no use.
pub type Bases = Arc<Mutex<FxHashMap<String, u64>>>;

/// The next offset of each (lane, partition): what is below was judged.
pub type Next = FxHashMap<(usize, i32), i64>;

/// Keeps what a worker knows.
pub struct Keeper {
    place: Place,
    bases: Bases,
    /// The folder of the cluster and group, once the cluster has said who it is.
    folder: Option<PathBuf>,
    disk: Disk,
    stage: Stage,
    /// The (lane, partition) written last.
    last: (usize, i32),
    /// The offset up to which each was written.
    written: Next,
    /// Those that have a file to go back to.
    founded: FxHashSet<(usize, i32)>,
    /// Whether first files are on their way to the disk.
    founding: bool,
}

enum Stage {
    /// Nothing to do before then.
    Idle(Instant),
    /// Cars are being gathered.
    Gathering(Gathering),
    /// Gathered; waits until what came of its readings is delivered.
    Ready(Gathering),
}

struct Gathering {
    lane: usize,
    partition: i32,
    header: Header,
    path: PathBuf,
    car: u32,
    file: Builder,
}

impl Place {
    fn folder(&self, cluster: &str) -> PathBuf {
        self.state.join("cars").join(file::escaped(cluster)).join(file::escaped(&self.group))
    }

    /// From which offset a partition of a cluster that stays should be read: where its kept states stand.
    pub fn begin(&self, bases: Bases) -> Begin {
        let place = self.clone();
        Box::new(move |cluster, topic, partition| {
            let basis = bases.lock().get(topic).copied()?;
            let header = file::peek(&cars_file(&place.folder(cluster), topic, partition))?;
            (header.log == place.log && header.basis == basis && header.layout == layout()).then_some(header.offset)
        })
    }
}

fn cars_file(folder: &Path, topic: &str, partition: i32) -> PathBuf {
    folder.join(format!("{}-{partition}.cars", file::escaped(topic)))
}

fn marks_file(cars: &Path) -> PathBuf {
    cars.with_extension("marks")
}

impl Keeper {
    /// Begins to keep things at `place`. Nothing is touched before there is something to keep.
    pub fn start(place: Place, bases: Bases) -> std::io::Result<Self> {
        let folder = (place.log != 0).then(|| place.folder(EMBEDDED));
        let disk = Disk::start(place.state.join("cars"))?;
        let stage = Stage::Idle(Instant::now());
        let founded = FxHashSet::default();
        Ok(Keeper {
            place,
            bases,
            folder,
            disk,
            stage,
            last: (0, -1),
            written: Next::default(),
            founded,
            founding: false,
        })
    }

    /// Takes up what was kept of a partition of lane `n` that is read from now on. `cluster` says which cluster it is of.
    pub fn restore(
        &mut self,
        n: usize,
        lane: &mut Lane,
        assigned: &Assigned,
        cluster: impl FnOnce() -> Option<String>,
    ) {
        let place = &self.place;
        if self.folder.is_none() {
            match cluster() {
                Some(cluster) => self.folder = Some(place.folder(&cluster)),
                None => tracing::warn!(
                    "the Kafka cluster does not say its id: marks and car states are not kept until it does"
                ),
            }
        }
        let Some(folder) = &self.folder else { return };
        let path = cars_file(folder, &assigned.topic, assigned.partition);
        let marks = marks::read(&marks_file(&path)).unwrap_or_else(|error| {
            tracing::warn!(
                "{}: operators' marks cannot be read ({error}): they are not kept",
                marks_file(&path).display()
            );
            Vec::new()
        });
        let snapshot = Snapshot::read(&path).unwrap_or_else(|why| {
            tracing::warn!("{} {why}: the cars in it start afresh", path.display());
            None
        });
        let origin = Origin {
            partition: assigned.partition,
            // What an embedded cluster held is gone, and its offsets mean nothing any more.
            log: self.place.log,
            from: assigned.from,
            delivered: assigned.committed,
        };
        let restored = lane.restore(&origin, snapshot.as_ref(), marks);
        if snapshot.is_some_and(|snapshot| snapshot.header.log == self.place.log) && !restored.afresh {
            self.founded.insert((n, assigned.partition));
        } else {
            self.founded.remove(&(n, assigned.partition));
        }
        if restored.cars > 0 {
            tracing::info!(
                "{}/{}: {} cars and {} open episodes as they were{}",
                assigned.topic,
                assigned.partition,
                restored.cars,
                restored.open,
                if restored.afresh {
                    "; another model or version wrote them: what is usual of each car is learned anew"
                } else {
                    ""
                }
            );
        }
    }

    /// Takes up everything that was kept of the topics of a cluster that is gone.
    pub fn restore_all(&mut self, lanes: &mut [Lane], partitions: i32) {
        for (n, lane) in lanes.iter_mut().enumerate() {
            for partition in 0..partitions {
                let topic = lane.topic().clone();
                self.restore(n, lane, &Assigned { topic, partition, from: None, committed: None }, || None);
            }
        }
    }

    /// Goes on with gathering, a little.
    pub fn advance(&mut self, lanes: &[Lane], next: &Next) {
        match &mut self.stage {
            Stage::Idle(until) => {
                if Instant::now() >= *until && !self.disk.is_busy() {
                    self.begin(lanes, next);
                }
            }
            Stage::Gathering(gathering) => {
                let Some(lane) = lanes.get(gathering.lane) else { return };
                let enough = gathering.file.len() + GATHERED;
                if gathering.take(lane, enough) {
                    let ready = std::mem::replace(&mut self.stage, Stage::Idle(Instant::now()));
                    if let Stage::Gathering(gathering) = ready {
                        self.stage = Stage::Ready(gathering);
                    }
                }
            }
            Stage::Ready(_) => {}
        }
    }

    /// Sees to it that each partition has a file to go back to before the group's offset moves on in it: everything that the readings
    /// judged so far led to is delivered, and from the offset alone a restart would not know of the episodes they opened. Whether that is
    /// still under way, so that no offset must be stored.
    pub fn is_founding(&mut self, lanes: &[Lane], next: &Next) -> bool {
        if self.founding {
            self.founding = self.disk.is_busy();
            return self.founding;
        }
        if self.founded.len() >= next.len() && next.keys().all(|place| self.founded.contains(place)) {
            return false;
        }
        let new: Vec<(usize, i32)> = next.keys().filter(|place| !self.founded.contains(*place)).copied().collect();
        for place in new {
            // Without a folder nothing can be kept, which was said.
            if let Some(mut gathering) = self.gathering(lanes, next, place) {
                while let Some(lane) = lanes.get(gathering.lane)
                    && !gathering.take(lane, usize::MAX)
                {}
                self.founded.insert(place);
                self.write(gathering);
                self.founding = true;
            }
        }
        self.founding
    }

    /// Everything that the readings judged so far led to is delivered.
    pub fn stored(&mut self, next: &Next) {
        if matches!(self.stage, Stage::Ready(_)) {
            let pause = (ROUND / next.len().max(1) as u32).clamp(PAUSE.0, PAUSE.1);
            let ready = std::mem::replace(&mut self.stage, Stage::Idle(Instant::now() + pause));
            if let Stage::Ready(gathering) = ready {
                self.write(gathering);
            }
        }
    }

    /// A lane has let cars go, or changed its model: what is being gathered of it may be of no use.
    pub fn changed(&mut self, n: usize, lane: &Lane) {
        self.bases.lock().insert(lane.topic().to_string(), lane.basis());
        match &self.stage {
            Stage::Gathering(gathering) | Stage::Ready(gathering) if gathering.lane == n => {
                self.stage = Stage::Idle(Instant::now());
            }
            _ => {}
        }
        self.written.retain(|(of, _), _| *of != n);
    }

    /// The log this worker reads.
    pub fn log(&self) -> u64 {
        self.place.log
    }

    /// Keeps a mark on a car of a partition.
    pub fn mark(&mut self, lane: &Lane, partition: i32, mark: Mark) {
        if let Some(folder) = &self.folder {
            let path = marks_file(&cars_file(folder, lane.topic(), partition));
            self.disk.give(Job::Mark { path, mark });
        }
    }

    /// Writes what is still to be written, all of it if `all` is set (everything judged is delivered), and waits for it.
    pub fn close(mut self, lanes: &[Lane], next: &Next, all: bool) {
        if all {
            let mut places: Vec<(usize, i32)> = next.keys().copied().collect();
            places.sort_unstable();
            for place in places {
                if let Some(mut gathering) = self.gathering(lanes, next, place) {
                    while let Some(lane) = lanes.get(gathering.lane)
                        && !gathering.take(lane, usize::MAX)
                    {}
                    self.write(gathering);
                }
            }
        }
        self.disk.close();
    }

    /// Begins with the next partition that has had readings since it was written.
    fn begin(&mut self, lanes: &[Lane], next: &Next) {
        let mut places: Vec<(usize, i32)> = next
            .iter()
            .filter(|(place, next)| self.written.get(*place) != Some(*next))
            .map(|(place, _)| *place)
            .collect();
        places.sort_unstable();
        let place = places.iter().find(|place| **place > self.last).or(places.first());
        let gathering = place.and_then(|&place| self.gathering(lanes, next, place));
        self.last = place.copied().unwrap_or(self.last);
        self.stage = gathering.map_or(Stage::Idle(Instant::now() + PAUSE.0), Stage::Gathering);
    }

    fn gathering(&self, lanes: &[Lane], next: &Next, (n, partition): (usize, i32)) -> Option<Gathering> {
        let lane = lanes.get(n)?;
        let offset = *next.get(&(n, partition))?;
        if lane.is_catching_up(partition) {
            // What is on the disk is as good, and its offset is lower than what the group knows.
            return None;
        }
        let header = Header { log: self.place.log, offset, basis: lane.basis(), layout: layout() };
        let path = cars_file(self.folder.as_ref()?, lane.topic(), partition);
        Some(Gathering { lane: n, partition, file: Builder::begin(&header), header, path, car: 0 })
    }

    fn write(&mut self, gathering: Gathering) {
        let Gathering { lane, partition, header, path, file, .. } = gathering;
        self.written.insert((lane, partition), header.offset);
        let marks = marks_file(&path);
        self.disk.give(Job::Cars { path, marks, log: header.log, offset: header.offset, bytes: file.finish() });
    }
}

impl Gathering {
    /// Takes cars until the file has `enough` bytes. Whether that were all.
    fn take(&mut self, lane: &Lane, enough: usize) -> bool {
        let cars = lane.shard().cars().len() as u32;
        while self.car < cars && self.file.len() < enough {
            lane.capture(self.car, self.partition, &mut self.file);
            self.car += 1;
        }
        self.car >= cars
    }
}
