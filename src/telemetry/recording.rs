//! Readings held in memory to learn from: each car's in the order of time, as many as a bound allows.
//!
//! A [`Recorder`] takes a stream of any length. When its bound is reached it forgets whole cars, and once few are left,
//! whole stretches of their time: what stays is unbroken, as whoever learns from one reading to the next needs it. What
//! is forgotten depends on the seed and the cars' names alone, so the same stream leaves the same recording.

use rustc_hash::FxHashMap;

/// Unbroken readings of one car.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The car.
    pub car: String,
    /// Event times, milliseconds since the Unix epoch, never falling.
    pub times: Vec<i64>,
    /// Row-major `[times.len(), S]`, raw units, NaN in a gap.
    pub values: Vec<f32>,
}

/// Readings of many cars. A car has one run, or several where stretches between them were left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recording {
    width: usize,
    runs: Vec<Run>,
}

impl Recording {
    /// A recording of these runs, each with rows of `width` values.
    pub fn new(width: usize, runs: Vec<Run>) -> Self {
        debug_assert!(runs.iter().all(|run| run.values.len() == run.times.len() * width));
        Recording { width, runs }
    }

    /// Sensors of each reading.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The runs, by car's name and then by time.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Readings in all.
    pub fn len(&self) -> usize {
        self.runs.iter().map(|run| run.times.len()).sum()
    }

    /// Whether there is no reading.
    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(|run| run.times.is_empty())
    }

    /// Every reading's values, run by run.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.runs.iter().flat_map(|run| run.values.chunks_exact(self.width.max(1)))
    }

    /// Distinct cars.
    pub fn cars(&self) -> usize {
        self.runs.chunk_by(|a, b| a.car == b.car).count()
    }

    /// Whether so many cars are a fleet, of which some can stand for all; fewer are known one by one.
    pub fn is_fleet(&self) -> bool {
        self.cars() >= FLEET
    }

    /// Parts it into what is learned from and what is held out to judge the learning: of a fleet a fifth of the cars
    /// (drawn by `seed`), of fewer the last fifth of each run's time.
    pub fn hold_out(self, seed: u64) -> (Recording, Recording) {
        let width = self.width;
        let mut names: Vec<(u64, &str)> =
            self.runs.iter().map(|run| (mix(hash(run.car.as_bytes()), seed), run.car.as_str())).collect();
        names.sort_unstable();
        names.dedup();
        let (mut learn, mut held) = (Vec::new(), Vec::new());
        if names.len() >= FLEET {
            let cutoff = names[names.len().div_ceil(5) - 1].0;
            for run in self.runs {
                let out = mix(hash(run.car.as_bytes()), seed) <= cutoff;
                if out { held.push(run) } else { learn.push(run) }
            }
        } else {
            for mut run in self.runs {
                let first = run.times.len() - run.times.len() / 5;
                let (times, values) = (run.times.split_off(first), run.values.split_off(first * width));
                if !times.is_empty() {
                    held.push(Run { car: run.car.clone(), times, values });
                }
                learn.push(run);
            }
        }
        (Recording::new(width, learn), Recording::new(width, held))
    }
}

/// So many cars are a fleet.
const FLEET: usize = 50;
/// Rows that are kept or forgotten together once single cars are thinned out.
const BLOCK: usize = 512;
/// Cars are forgotten before time, until so few are left.
const FEW_CARS: usize = 64;

/// Takes readings in any order of cars and makes a [`Recording`] of them within a bound.
#[derive(Debug)]
pub struct Recorder {
    width: usize,
    seed: u64,
    /// Most values (rows times sensors) held.
    bound: usize,
    held: usize,
    seen: u64,
    /// A car is kept if its hash is not above this.
    car_cutoff: u64,
    /// A block of a kept car is kept if its hash is not above this.
    block_cutoff: u64,
    cars: Vec<Car>,
    index: FxHashMap<Box<str>, usize>,
}

#[derive(Debug, Default)]
struct Car {
    name: Box<str>,
    hash: u64,
    /// Rows of this car so far, kept or not; skips ahead where a run is parted.
    seen: u64,
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    number: u64,
    times: Vec<i64>,
    values: Vec<f32>,
}

impl Recorder {
    /// For rows of `width` values, holding at most about `bound` values (4 bytes each) at any time.
    pub fn new(width: usize, bound: usize, seed: u64) -> Self {
        Recorder {
            width,
            seed,
            bound,
            held: 0,
            seen: 0,
            car_cutoff: u64::MAX,
            block_cutoff: u64::MAX,
            cars: Vec::new(),
            index: FxHashMap::default(),
        }
    }

    /// Readings offered so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Distinct cars among them.
    pub fn cars(&self) -> usize {
        self.cars.len()
    }

    /// Takes a reading.
    pub fn push(&mut self, car: &str, time_ms: i64, row: &[f32]) {
        self.seen += 1;
        let at = match self.index.get(car) {
            Some(&at) => at,
            None => {
                let name: Box<str> = car.into();
                self.cars.push(Car {
                    hash: mix(hash(name.as_bytes()), self.seed ^ CARS),
                    name: name.clone(),
                    ..Car::default()
                });
                self.index.insert(name, self.cars.len() - 1);
                self.cars.len() - 1
            }
        };
        let car = &mut self.cars[at];
        let number = car.seen / BLOCK as u64;
        car.seen += 1;
        if car.hash > self.car_cutoff || mix(car.hash, number) > self.block_cutoff {
            return;
        }
        if car.blocks.last().is_none_or(|block| block.number != number) {
            car.blocks.push(Block { number, times: Vec::new(), values: Vec::new() });
        }
        if let Some(block) = car.blocks.last_mut() {
            block.times.push(time_ms);
            block.values.extend_from_slice(row);
            self.held += self.width;
        }
        while self.held > self.bound && self.thin() {}
    }

    /// Ends the car's present run: a reading was left out, so what follows does not follow on what went before.
    pub fn part(&mut self, car: &str) {
        if let Some(car) = self.index.get(car).and_then(|&at| self.cars.get_mut(at)) {
            // A block's number that has no neighbour among those before.
            car.seen = (car.seen.div_ceil(BLOCK as u64) + 1) * BLOCK as u64;
        }
    }

    /// Forgets about half. `false` once nothing is left to forget by.
    fn thin(&mut self) -> bool {
        let kept = self.cars.iter().filter(|car| car.hash <= self.car_cutoff && !car.blocks.is_empty()).count();
        if kept > FEW_CARS {
            self.car_cutoff /= 2;
            for car in &mut self.cars {
                if car.hash > self.car_cutoff {
                    car.blocks = Vec::new();
                }
            }
        } else {
            self.block_cutoff /= 2;
            for car in &mut self.cars {
                let (hash, cutoff) = (car.hash, self.block_cutoff);
                car.blocks.retain(|block| mix(hash, block.number) <= cutoff);
            }
        }
        self.held = self.cars.iter().flat_map(|car| &car.blocks).map(|block| block.values.len()).sum();
        self.block_cutoff > 0
    }

    /// What was kept: runs by car's name, each in the order of time (readings of one moment in the order they came).
    pub fn finish(mut self) -> Recording {
        self.cars.sort_by(|a, b| a.name.cmp(&b.name));
        let width = self.width;
        let mut runs = Vec::new();
        for car in self.cars {
            let mut blocks = car.blocks.into_iter().peekable();
            while let Some(mut block) = blocks.next() {
                let mut last = block.number;
                while let Some(next) = blocks.next_if(|next| next.number == last + 1) {
                    last = next.number;
                    block.times.extend(next.times);
                    block.values.extend(next.values);
                }
                runs.push(in_order(Run { car: car.name.to_string(), times: block.times, values: block.values }, width));
            }
        }
        Recording::new(width, runs)
    }
}

fn in_order(run: Run, width: usize) -> Run {
    if run.times.is_sorted() {
        return run;
    }
    let mut order: Vec<usize> = (0..run.times.len()).collect();
    order.sort_by_key(|&n| run.times[n]);
    Run {
        times: order.iter().map(|&n| run.times[n]).collect(),
        values: order.iter().flat_map(|&n| &run.values[n * width..(n + 1) * width]).copied().collect(),
        car: run.car,
    }
}

/// Keeps the drawing of cars that stay apart from the drawing of cars that are held out.
const CARS: u64 = 0x9e37_79b9_7f4a_7c15;

/// FNV-1a: fixed for ever, unlike the hashers of maps, since recordings must not change with a library's version.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014) over both numbers: every bit depends on every bit.
fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_add(b.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(cars: usize, rows: usize, bound: usize) -> (u64, Recording) {
        let mut recorder = Recorder::new(2, bound, 7);
        for n in 0..rows {
            for car in 0..cars {
                recorder.push(&format!("car{car:05}"), n as i64 * 1000, &[n as f32, car as f32]);
            }
        }
        (recorder.seen(), recorder.finish())
    }

    #[test]
    fn within_the_bound_everything_is_kept_car_by_car() {
        let (seen, recording) = record(3, 2000, usize::MAX);
        assert_eq!((seen, recording.len(), recording.cars()), (6000, 6000, 3));
        for (car, run) in recording.runs().iter().enumerate() {
            assert_eq!(run.car, format!("car{car:05}"));
            assert!(run.times.iter().enumerate().all(|(n, &time)| time == n as i64 * 1000));
            assert!(run.values.chunks(2).enumerate().all(|(n, row)| row == [n as f32, car as f32]));
        }
    }

    #[test]
    fn many_cars_are_thinned_by_car_and_stay_whole() {
        let (_, recording) = record(1000, 100, 40_000);
        assert!(recording.len() * 2 <= 40_000 && recording.len() * 2 > 15_000, "{}", recording.len());
        assert!(recording.runs().iter().all(|run| run.times.len() == 100), "a car is kept whole or not at all");
        assert_eq!(recording, record(1000, 100, 40_000).1, "the same stream leaves the same recording");
    }

    #[test]
    fn a_long_time_of_one_car_is_thinned_to_unbroken_stretches() {
        let (_, recording) = record(1, 100_000, 40_000);
        assert!(recording.len() * 2 <= 40_000 && recording.len() * 2 > 8_000, "{}", recording.len());
        assert!(recording.runs().len() > 1);
        for run in recording.runs() {
            assert!(run.times.windows(2).all(|pair| pair[1] - pair[0] == 1000), "a run has no hole");
        }
    }

    #[test]
    fn readings_out_of_order_are_put_in_order() {
        let mut recorder = Recorder::new(1, usize::MAX, 0);
        for (time, value) in [(3, 0.0), (1, 1.0), (2, 2.0), (1, 3.0)] {
            recorder.push("c", time, &[value]);
        }
        let recording = recorder.finish();
        assert_eq!(recording.runs()[0].times, [1, 1, 2, 3]);
        assert_eq!(recording.runs()[0].values, [1.0, 3.0, 2.0, 0.0]);
    }

    #[test]
    fn a_reading_left_out_parts_its_cars_run_alone() {
        let mut recorder = Recorder::new(1, usize::MAX, 0);
        for n in 0..10 {
            for car in ["a", "b"] {
                if car == "a" && (n == 3 || n == 4) {
                    recorder.part(car);
                } else {
                    recorder.push(car, n, &[0.0]);
                }
            }
        }
        recorder.part("never heard of");
        let lengths: Vec<usize> = recorder.finish().runs().iter().map(|run| run.times.len()).collect();
        assert_eq!(lengths, [3, 5, 10]);
    }

    #[test]
    fn of_many_cars_some_are_held_out_and_of_few_the_end_of_their_time() {
        let (learn, held) = record(50, 20, usize::MAX).1.hold_out(1);
        assert_eq!((learn.cars(), held.cars()), (40, 10));
        assert!(held.runs().iter().all(|run| learn.runs().iter().all(|other| other.car != run.car)));
        let (learn, held) = record(2, 500, usize::MAX).1.hold_out(1);
        assert_eq!((learn.len(), held.len()), (800, 200));
        assert!(held.runs().iter().all(|run| run.times[0] == 400_000));
        let (learn, held) = record(1, 1, usize::MAX).1.hold_out(1);
        assert_eq!((learn.len(), held.len()), (1, 0));
    }
}
