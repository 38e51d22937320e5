//! How fast the write-ahead log keeps messages on this disk, and how long one waits until it is kept: readings of 500 bytes from
//! a few threads, as from the gate's; once at 50,000 a second, and once as fast as it goes.
//!
//! `cargo bench --bench wal`. Without `--bench` (as `cargo test --benches` runs it) a short run that only shows that it works.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashlight::wal::{Directory, Opened, Options, Wal};
use hdrhistogram::Histogram;
use parking_lot::Mutex;

const THREADS: u64 = 4;
const BYTES: usize = 500;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let time = Duration::from_secs(if std::env::args().any(|argument| argument == "--bench") { 10 } else { 1 });
    let place = tempfile::tempdir_in(std::env::current_dir()?)?;
    for rate in [Some(50_000), None] {
        let directory = place.path().join(rate.map_or_else(|| "most".to_owned(), |rate| rate.to_string()));
        run(&directory, rate, time)?;
    }
    Ok(())
}

fn run(directory: &Path, rate: Option<u64>, time: Duration) -> Outcome<()> {
    // Microseconds until a record was kept.
    let waits = Arc::new(Mutex::new(Histogram::<u64>::new_with_bounds(1, 60_000_000, 2)?));
    let waited = waits.clone();
    // No wait is as long as the histogram's bound.
    let kept = move |appended: Instant| waited.lock().saturating_record(appended.elapsed().as_micros() as u64);
    let options = Options::bounded(4 << 30, None);
    let Opened { wal, committer, mut reader, .. } = Wal::open(Arc::new(Directory::open(directory)?), options, kept)?;
    let committing = std::thread::spawn(move || committer.run().len());
    let (start, appended) = (Instant::now(), AtomicU64::new(0));
    let mut handed_on = 0;
    std::thread::scope(|scope| -> Outcome<()> {
        for _ in 0..THREADS {
            scope.spawn(|| append(&wal, rate.map(|rate| rate / THREADS), start, time, &appended));
        }
        // As the drain does: read what is kept, and trim once a second.
        let mut checked = Instant::now();
        while start.elapsed() < time {
            if let Some(batch) = reader.read(Duration::from_millis(20))? {
                handed_on = batch.next;
            }
            if checked.elapsed() > Duration::from_secs(1) {
                wal.checkpoint(handed_on, None, b"")?;
                checked = Instant::now();
            }
        }
        Ok(())
    })?;
    wal.close();
    let lost = committing.join().map_err(|_| "the committer died")?;
    assert_eq!(lost, 0);
    let seconds = start.elapsed().as_secs_f64();
    let waits = waits.lock();
    let ms = |quantile: f64| waits.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "wal: {:>7.0} records of {BYTES} bytes a second{}; kept after {:.1} ms (p50), {:.1} ms (p99), {:.1} ms (longest); a sync takes {:.1} ms",
        appended.load(Ordering::Relaxed) as f64 / seconds,
        rate.map_or_else(String::new, |rate| format!(" of {rate} offered")),
        ms(0.5),
        ms(0.99),
        ms(1.0),
        wal.status().sync_ms
    );
    Ok(())
}

/// Appends at that rate, in handfuls each millisecond, as sockets bring them.
fn append(wal: &Wal<Instant>, rate: Option<u64>, start: Instant, time: Duration, appended: &AtomicU64) {
    let body = [b'7'; BYTES];
    let mut mine = 0;
    while start.elapsed() < time {
        let due = rate.map_or(mine + 1_000, |rate| (start.elapsed().as_secs_f64() * rate as f64) as u64);
        while mine < due {
            match wal.append(&[&body], 0, Instant::now()) {
                Ok(_) => mine += 1,
                Err(_) => break,
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    appended.fetch_add(mine, Ordering::Relaxed);
}
