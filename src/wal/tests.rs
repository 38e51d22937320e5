//! The log against a disk that fails, and against a model of it: what was acknowledged is read back, in order, whatever happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use super::simulated::{Fault, Simulated};
use super::*;

const OPTIONS: Options =
    Options { max_bytes: 20_000, max_age: Some(1_000), segment_bytes: 1_000, batch_bytes: 2_000, tail_bytes: 1_500 };

/// A log whose committer is the test.
struct Bench {
    disk: Simulated,
    wal: Wal<u64>,
    committer: Committer<u64>,
    reader: Reader<u64>,
    kept: Arc<Mutex<Vec<u64>>>,
    note: Vec<u8>,
    waiting: u64,
}

fn open(disk: &Simulated) -> Bench {
    open_with(disk, OPTIONS)
}

fn open_with(disk: &Simulated, options: Options) -> Bench {
    let kept: Arc<Mutex<Vec<u64>>> = Arc::default();
    let told = kept.clone();
    let opened = Wal::open(Arc::new(disk.clone()), options, move |token| told.lock().push(token)).unwrap();
    let Opened { wal, committer, reader, note, waiting } = opened;
    Bench { disk: disk.clone(), wal, committer, reader, kept, note, waiting }
}

impl Bench {
    fn append(&self, token: u64) -> Result<u64, NoRoom> {
        self.wal.append(&[&token.to_le_bytes(), &filler(token)], 0, token).map_err(|(_, why)| why)
    }

    /// Every record that can be read now: number and token.
    fn read_all(&mut self) -> Vec<(u64, u64)> {
        let mut all = Vec::new();
        while let Some(batch) = self.reader.read(Duration::ZERO).unwrap() {
            all.extend(batch.entries().map(|entry| (entry.seq, token_of(entry.body))));
        }
        all
    }

    fn segments(&self) -> Vec<String> {
        self.disk.names().into_iter().filter(|name| name.ends_with(".wal")).collect()
    }
}

/// Bodies of many lengths, the empty filler and one longer than a segment among them.
fn filler(token: u64) -> Vec<u8> {
    vec![token as u8; if token % 37 == 36 { 1_500 } else { (token * 31 % 97) as usize }]
}

/// The token of a body, which must be as it was appended.
fn token_of(body: &[u8]) -> u64 {
    let (token, rest) = body.split_first_chunk::<8>().unwrap();
    let token = u64::from_le_bytes(*token);
    assert_eq!(rest, filler(token));
    token
}

#[test]
fn nothing_is_kept_before_it_is_synced_and_everything_synced_is_read_after_a_crash() {
    let disk = Simulated::default();
    let mut bench = open(&disk);
    for token in 0..5 {
        assert_eq!(bench.append(token), Ok(token));
    }
    assert!(bench.kept.lock().is_empty());
    assert!(bench.reader.read(Duration::ZERO).unwrap().is_none(), "what is not synced is not handed out");
    assert!(bench.committer.step().unwrap());
    assert_eq!(*bench.kept.lock(), [0, 1, 2, 3, 4]);
    bench.append(5).unwrap();
    disk.crash(&mut Pcg64Mcg::seed_from_u64(1));
    let mut bench = open(&disk);
    assert_eq!(bench.read_all(), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]);
    assert_eq!(bench.append(9), Ok(5), "numbers go on");
}

#[test]
fn what_is_handed_on_is_removed_in_whole_segments_and_does_not_come_back() {
    let disk = Simulated::default();
    let mut bench = open(&disk);
    for token in 0..100 {
        bench.append(token).unwrap();
        bench.committer.step().unwrap();
    }
    let before = bench.segments().len();
    let bytes = bench.wal.status().bytes;
    assert!(before > 5);
    bench.wal.checkpoint(60, Some(0), b"noted").unwrap();
    assert!(bench.segments().len() < before / 2 + 2 && bench.wal.status().bytes < bytes / 2 + 1_500);
    let mut bench = open(&disk);
    assert_eq!((bench.note.as_slice(), bench.waiting), (b"noted".as_slice(), 40));
    assert_eq!(bench.read_all().first(), Some(&(60, 60)));
    bench.wal.checkpoint(100, None, b"").unwrap();
    let mut bench = open(&disk);
    assert_eq!((bench.waiting, bench.read_all()), (0, vec![]));
    assert_eq!(bench.append(7), Ok(100), "numbers go on though every record is gone");
}

#[test]
fn a_full_log_takes_nothing_until_something_is_handed_on() {
    let disk = Simulated::default();
    let mut bench = open(&disk);
    let mut token = 0;
    let why = loop {
        match bench.append(token) {
            Ok(_) => token += 1,
            Err(why) => break why,
        }
        bench.committer.step().unwrap();
    };
    assert_eq!(why, NoRoom::Full);
    let on_disk: u64 = disk.list().unwrap().iter().map(|(_, bytes)| bytes).sum();
    assert!((OPTIONS.max_bytes - 2_000..OPTIONS.max_bytes + 200).contains(&on_disk), "{on_disk}");
    bench.wal.checkpoint(token / 2, Some(0), b"").unwrap();
    assert!(bench.append(token).is_ok());
    bench.committer.step().unwrap();
    // And one whose oldest record has waited too long.
    let late = bench.wal.append(&[b"late"], 1_001, 0).map_err(|(_, why)| why);
    assert_eq!(late, Err(NoRoom::Old));
    bench.wal.checkpoint(token + 1, None, b"").unwrap();
    assert!(bench.wal.append(&[b"late"], 1_001, 0).is_ok());
}

#[test]
fn more_than_a_batch_may_hold_waits_for_the_disk() {
    let bench = open(&Simulated::default());
    let refused = (0..).find_map(|token| bench.append(token).err());
    assert_eq!(refused, Some(NoRoom::Busy));
    assert!(bench.wal.append_always(&[b"small"], 0, 0).is_ok());
}

#[test]
fn a_disk_that_is_full_or_fails_acknowledges_nothing_says_so_once_and_goes_on_when_it_is_healed() {
    for fault in [Fault::Full, Fault::Sync, Fault::SyncDirectory, Fault::ReadOnly] {
        for appended_before in [0, 3] {
            let disk = Simulated::default();
            let mut bench = open(&disk);
            for token in 0..appended_before {
                bench.append(token).unwrap();
            }
            bench.committer.step().unwrap();
            if fault == Fault::SyncDirectory && appended_before > 0 {
                continue; // Nothing is created then.
            }
            disk.fault(Some(fault));
            bench.append(100).unwrap();
            for _ in 0..3 {
                assert!(bench.committer.step().is_err(), "{fault:?}");
            }
            assert_eq!(bench.kept.lock().len() as u64, appended_before, "{fault:?}");
            let trouble = bench.wal.status().trouble.unwrap();
            assert!(trouble.contains("simulated/") && trouble.contains("nothing is acknowledged"), "{trouble}");
            disk.fault(None);
            assert!(bench.committer.step().unwrap());
            assert_eq!(bench.wal.status().trouble, None);
            assert_eq!(bench.kept.lock().last(), Some(&100));
            disk.crash(&mut Pcg64Mcg::seed_from_u64(7));
            let mut bench = open(&disk);
            let numbers: Vec<u64> = bench.read_all().into_iter().map(|(_, token)| token).collect();
            assert_eq!(numbers, (0..appended_before).chain([100]).collect::<Vec<_>>(), "{fault:?}");
        }
    }
}

#[test]
fn a_damaged_record_in_the_middle_costs_itself_only() {
    for at_damage in [0usize, 5, 9, 30] {
        let disk = Simulated::default();
        let mut bench = open_with(&disk, Options { tail_bytes: 0, ..OPTIONS });
        for token in 0..30 {
            bench.append(token).unwrap();
            bench.committer.step().unwrap();
        }
        let name = &bench.segments()[0];
        disk.damage(name, record::HEADER + record::OVERHEAD + 8 + filler(0).len() + at_damage, &[0xff, 0xfe]);
        let read = bench.read_all();
        let numbers: Vec<u64> = read.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(numbers, (0..30).filter(|seq| *seq != 1).collect::<Vec<_>>(), "damaged at {at_damage}");
    }
}

#[test]
fn a_segment_that_is_gone_or_unreadable_costs_its_own_records_only() {
    let disk = Simulated::default();
    let mut bench = open_with(&disk, Options { tail_bytes: 0, ..OPTIONS });
    for token in 0..60 {
        bench.append(token).unwrap();
        bench.committer.step().unwrap();
    }
    let names = bench.segments();
    disk.remove(&names[1]).unwrap();
    let whole = disk.read(&names[2], 0, usize::MAX).unwrap().len();
    disk.damage(&names[2], 0, &vec![0; whole]);
    let (lost_from, lost_to) = (segment::first_of(&names[1]).unwrap(), segment::first_of(&names[3]).unwrap());
    let expected: Vec<u64> = (0..60).filter(|seq| !(lost_from..lost_to).contains(seq)).collect();
    let numbers = |bench: &mut Bench| bench.read_all().into_iter().map(|(seq, _)| seq).collect::<Vec<_>>();
    assert_eq!(numbers(&mut bench), expected);
    assert_eq!(numbers(&mut open(&disk)), expected, "after a restart too");
}

#[test]
fn a_damaged_checkpoint_hands_everything_on_again() {
    let disk = Simulated::default();
    let mut bench = open(&disk);
    for token in 0..10 {
        bench.append(token).unwrap();
    }
    bench.committer.step().unwrap();
    bench.wal.checkpoint(9, Some(0), b"").unwrap();
    let id = bench.wal.id();
    disk.damage("checkpoint", 20, &[0xee]);
    let mut bench = open(&disk);
    assert_eq!((bench.waiting, bench.read_all().len(), bench.wal.id()), (10, 10, id));
}

#[test]
fn a_directory_is_for_one_process_and_a_file_in_its_place_is_said() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a/b");
    let first = Directory::open(&path).unwrap();
    let taken = Directory::open(&path).err().unwrap().to_string();
    assert!(taken.contains("another process has the log") && taken.contains("--state"), "{taken}");
    drop(first);
    assert!(Directory::open(&path).is_ok());
    std::fs::write(home.path().join("file"), "").unwrap();
    let error = Directory::open(&home.path().join("file")).err().unwrap().to_string();
    assert!(error.contains("file") && error.contains("wal.directory"), "{error}");
}

#[test]
fn threads_append_commit_and_read_on_a_real_disk() {
    const THREADS: u64 = 4;
    const EACH: u64 = 5_000;
    let home = tempfile::tempdir().unwrap();
    let kept: Arc<Mutex<Vec<u64>>> = Arc::default();
    let told = kept.clone();
    let options = Options { tail_bytes: 64 * 1024, ..Options::bounded(Options::LEAST_BYTES, None) };
    let directory = Arc::new(Directory::open(home.path()).unwrap());
    let Opened { wal, committer, mut reader, .. } =
        Wal::open(directory, options, move |token| told.lock().push(token)).unwrap();
    let committing = std::thread::spawn(move || committer.run());
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let wal = wal.clone();
            scope.spawn(move || {
                for n in 0..EACH {
                    let token = thread * EACH + n;
                    while wal.append(&[&token.to_le_bytes(), &filler(token)], 0, token).is_err() {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let mut handed_on = 0;
        while seen.len() < (THREADS * EACH) as usize {
            if let Some(batch) = reader.read(Duration::from_millis(100)).unwrap() {
                seen.extend(batch.entries().map(|entry| (entry.seq, token_of(entry.body))));
                handed_on += 1;
                if handed_on % 16 == 0 {
                    wal.checkpoint(batch.next, Some(0), b"").unwrap();
                }
            }
        }
    });
    wal.close();
    committing.join().unwrap();
    assert!(seen.iter().enumerate().all(|(n, (seq, _))| n as u64 == *seq));
    assert_eq!(kept.lock().len(), seen.len());
    assert!(kept.lock().iter().eq(seen.iter().map(|(_, token)| token)), "told in the order of the records");
}

/// What a test of the model does.
#[derive(Debug, Clone)]
enum Step {
    Append(u8),
    Commit,
    Read,
    /// Hands on that part of what was read, and says so.
    Checkpoint(u8),
    Fault(Option<Fault>),
    /// Ends in good order, and opens again.
    Reopen,
    /// The power fails.
    Crash(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fault = prop_oneof![
        4 => Just(None),
        1 => Just(Some(Fault::Full)),
        1 => Just(Some(Fault::Sync)),
        1 => Just(Some(Fault::SyncDirectory)),
        1 => Just(Some(Fault::ReadOnly)),
    ];
    let step = prop_oneof![
        8 => (1..12u8).prop_map(Step::Append),
        6 => Just(Step::Commit),
        4 => Just(Step::Read),
        3 => any::<u8>().prop_map(Step::Checkpoint),
        2 => fault.prop_map(Step::Fault),
        1 => Just(Step::Reopen),
        2 => any::<u64>().prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..80)
}

/// What must be true of the log.
#[derive(Default)]
struct Model {
    /// What was acknowledged and may still be wanted: token by number.
    acknowledged: BTreeMap<u64, u64>,
    /// What was appended in this life: token by number.
    appended: BTreeMap<u64, u64>,
    /// What the disk may hold that nobody was told of: tokens by number.
    perhaps: BTreeMap<u64, Vec<u64>>,
    /// Numbers read so far.
    read_to: u64,
    /// Where a crash may put us: the last checkpoint that is sure, and those that may have got through.
    lows: Vec<u64>,
    told: usize,
}

impl Model {
    fn hear(&mut self, bench: &Bench) {
        let kept = bench.kept.lock();
        for token in &kept[self.told..] {
            let seq = self.appended.iter().find(|(_, appended)| *appended == token).map(|(seq, _)| *seq);
            let seq = seq.expect("only what was appended is acknowledged");
            assert!(self.acknowledged.insert(seq, *token).is_none(), "a number is given once");
        }
        self.told = kept.len();
    }

    fn read(&mut self, bench: &mut Bench) {
        for (seq, token) in bench.read_all() {
            assert!(seq >= self.read_to, "in order, and nothing twice");
            if let Some((missed, _)) = self.acknowledged.range(self.read_to..seq).next() {
                panic!("{missed} was acknowledged and not read");
            }
            match self.acknowledged.get(&seq) {
                Some(acknowledged) => assert_eq!(token, *acknowledged),
                None => assert!(self.perhaps.get(&seq).is_some_and(|tokens| tokens.contains(&token)), "{seq} {token}"),
            }
            self.read_to = seq + 1;
        }
        if let Some((missed, _)) = self.acknowledged.range(self.read_to..).next() {
            panic!("{missed} was acknowledged and not read");
        }
    }

    fn reopened(&mut self, bench: &mut Bench) {
        let low = bench.reader.position();
        assert!(self.lows.contains(&low), "{low} of {:?}", self.lows);
        // Segments are removed even if the checkpoint did not get through: their records were handed on.
        let handed_on = self.lows.iter().copied().max().unwrap_or(low);
        let wanted = self.acknowledged.split_off(&handed_on);
        for (seq, token) in std::mem::replace(&mut self.acknowledged, wanted) {
            self.perhaps.entry(seq).or_default().push(token);
        }
        for (seq, token) in std::mem::take(&mut self.appended) {
            self.perhaps.entry(seq).or_default().push(token);
        }
        (self.lows, self.read_to, self.told) = (vec![low], low, 0);
        self.read(bench);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_the_disk_what_was_acknowledged_is_read_back_in_order(steps in steps()) {
        let disk = Simulated::default();
        let mut bench = open(&disk);
        let mut model = Model { lows: vec![0], ..Model::default() };
        let mut next_token = 0;
        for step in steps {
            match step {
                Step::Append(count) => for _ in 0..count {
                    if let Ok(seq) = bench.append(next_token) {
                        prop_assert!(model.acknowledged.range(seq..).next().is_none(), "numbers only grow");
                        model.appended.insert(seq, next_token);
                    }
                    next_token += 1;
                },
                Step::Commit => {
                    let committed = bench.committer.step().is_ok();
                    model.hear(&bench);
                    if committed {
                        model.read(&mut bench);
                    }
                }
                Step::Read => model.read(&mut bench),
                Step::Checkpoint(part) => {
                    // Of one that failed the segments are gone all the same: there is no way back.
                    let low = model.lows.iter().copied().max().unwrap_or(0);
                    let to = low + (model.read_to.saturating_sub(low)) * u64::from(part) / 255;
                    match bench.wal.checkpoint(to, Some(0), b"n") {
                        Ok(()) => model.lows = vec![to],
                        Err(_) => model.lows.push(to),
                    }
                }
                Step::Fault(fault) => disk.fault(fault),
                Step::Reopen => {
                    disk.fault(None);
                    while bench.committer.step().unwrap() {}
                    model.hear(&bench);
                    bench.wal.close();
                    bench = open(&disk);
                    model.reopened(&mut bench);
                }
                Step::Crash(seed) => {
                    disk.crash(&mut Pcg64Mcg::seed_from_u64(seed));
                    bench = open(&disk);
                    model.reopened(&mut bench);
                }
            }
        }
    }
}
