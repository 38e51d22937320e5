//! dashlight's own log: to stderr or to a file that is bounded, never to stdout or the screen; and the warnings of the last
//! minutes, kept for the Pipeline view.
//!
//! Owns the process's tracing subscriber, which there is one of by its nature.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Warnings kept at most.
const KEPT: usize = 64;
/// Warnings kept at most of one place in the code, so that a storm of one kind does not push out the others.
const KEPT_OF_A_PLACE: usize = 8;
/// How long a warning is kept after it was last said, in milliseconds.
const KEPT_FOR: i64 = 10 * 60 * 1000;
/// Characters of a warning's text.
const TEXT: usize = 300;
/// A log file's size in bytes at which it is begun anew; the one before is kept beside it.
const FILE_BYTES: u64 = 10 * 1024 * 1024;

/// A warning or an error that was logged lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recent {
    /// When it was last said, milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// One harmless line.
    pub text: String,
    /// How often it was said since it was first kept.
    pub times: u32,
}

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The process's stderr; only when no console owns the terminal.
    Stderr,
    /// This file, bounded.
    File(PathBuf),
    /// Nowhere; warnings are still kept for the Pipeline view.
    Nowhere,
}

/// The filter that a level or a filter's text stands for. A bare level is dashlight's own; of the libraries below it,
/// warnings are enough.
pub fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    let text = match text.parse::<Level>() {
        Ok(level) if level > Level::WARN => format!("warn,dashlight={text}"),
        _ => text.to_owned(),
    };
    EnvFilter::builder().parse(text)
}

/// Starts logging for the whole process, once; a second call changes nothing. The warnings of the last minutes are
/// kept from then on, whatever the level. A file that cannot be written is an error.
pub fn init(level: &str, target: &Target) -> io::Result<()> {
    let filter = filter(level).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let writer = Writer(Arc::new(Mutex::new(match target {
        Target::Stderr => Sink::Stderr,
        Target::Nowhere => Sink::Nowhere,
        Target::File(path) => Sink::File(Bounded::open(path, FILE_BYTES)?),
    })));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(true)
        .with_writer(move || writer.clone())
        .with_filter(filter);
    // An Err here says that there is a subscriber already, as in tests: then that one stays.
    let _ = tracing_subscriber::registry().with(KeepRecent(&RECENT)).with(lines).try_init();
    Ok(())
}

/// The warnings and errors of the last minutes, newest first.
pub fn recent() -> Vec<Recent> {
    RECENT.lock().newest_first(now_ms())
}

static RECENT: LazyLock<Mutex<Ring>> = LazyLock::new(Mutex::default);

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Warnings by when they were last said, oldest first.
#[derive(Debug, Default)]
struct Ring(VecDeque<Kept>);

#[derive(Debug)]
struct Kept {
    /// File and line of the code that said it.
    place: (&'static str, u32),
    recent: Recent,
}

impl Ring {
    fn say(&mut self, place: (&'static str, u32), text: String, time_ms: i64) {
        let said = self.0.iter().position(|kept| kept.recent.text == text);
        let times = match said.and_then(|n| self.0.remove(n)) {
            Some(kept) => kept.recent.times.saturating_add(1),
            None => {
                self.make_room(place);
                1
            }
        };
        self.0.push_back(Kept { place, recent: Recent { time_ms, text, times } });
    }

    fn make_room(&mut self, place: (&'static str, u32)) {
        let of_place = self.0.iter().filter(|kept| kept.place == place).count();
        if of_place >= KEPT_OF_A_PLACE
            && let Some(oldest) = self.0.iter().position(|kept| kept.place == place)
        {
            self.0.remove(oldest);
        } else if self.0.len() >= KEPT {
            self.0.pop_front();
        }
    }

    fn newest_first(&mut self, now: i64) -> Vec<Recent> {
        self.0.retain(|kept| now - kept.recent.time_ms <= KEPT_FOR);
        self.0.iter().rev().map(|kept| kept.recent.clone()).collect()
    }
}

/// The layer that keeps warnings and errors.
struct KeepRecent(&'static Mutex<Ring>);

impl<S: Subscriber> Layer<S> for KeepRecent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let text = crate::text::harmless(line.0.trim(), TEXT).into_owned();
        let place = (metadata.file().unwrap_or_default(), metadata.line().unwrap_or_default());
        self.0.lock().say(place, text, now_ms());
    }
}

/// An event's message, then its fields.
#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "message" => write!(self.0, "{value}"),
            name => write!(self.0, " {name}={value}"),
        };
    }
}

/// Where lines are written. Shared by every thread that logs, hence the lock; logging is off the hot path.
#[derive(Clone)]
struct Writer(Arc<Mutex<Sink>>);

enum Sink {
    Stderr,
    Nowhere,
    File(Bounded),
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.0.lock() {
            Sink::Stderr => io::stderr().write(bytes),
            Sink::Nowhere => Ok(bytes.len()),
            Sink::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut *self.0.lock() {
            Sink::Stderr => io::stderr().flush(),
            Sink::Nowhere => Ok(()),
            Sink::File(file) => file.file.flush(),
        }
    }
}

/// A file that never grows beyond `limit`: when a line would, the file becomes `PATH.1` and another is begun.
#[derive(Debug)]
struct Bounded {
    path: PathBuf,
    file: File,
    written: u64,
    limit: u64,
}

impl Bounded {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let written = file.metadata()?.len();
        Ok(Bounded { path: path.to_owned(), file, written, limit })
    }

    fn begin_anew(&mut self) -> io::Result<()> {
        let mut before = self.path.clone().into_os_string();
        before.push(".1");
        std::fs::rename(&self.path, before)?;
        self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written > 0 && self.written + bytes.len() as u64 > self.limit && self.begin_anew().is_err() {
            // The file cannot be moved aside (not a regular file, no permission): start over in place rather than grow.
            self.file.set_len(0)?;
            self.written = 0;
        }
        let written = self.file.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_warning_is_kept_once_and_counted() {
        let mut ring = Ring::default();
        ring.say(("a.rs", 1), "Kafka is away".into(), 1);
        ring.say(("b.rs", 2), "disk is full".into(), 2);
        ring.say(("a.rs", 1), "Kafka is away".into(), 3);
        let recent = ring.newest_first(3);
        assert_eq!(recent[0], Recent { time_ms: 3, text: "Kafka is away".into(), times: 2 });
        assert_eq!(recent[1], Recent { time_ms: 2, text: "disk is full".into(), times: 1 });
    }

    #[test]
    fn a_storm_from_one_place_leaves_the_others_standing() {
        let mut ring = Ring::default();
        ring.say(("kafka.rs", 1), "Kafka is away".into(), 0);
        for n in 0..10_000 {
            ring.say(("mqtt.rs", 7), format!("client {n} sent nonsense"), n);
        }
        let recent = ring.newest_first(10_000);
        assert_eq!(recent.len(), 1 + KEPT_OF_A_PLACE);
        assert_eq!(recent.last().unwrap().text, "Kafka is away");
        assert_eq!(recent[0].text, "client 9999 sent nonsense");
    }

    #[test]
    fn the_ring_is_bounded_and_forgets() {
        let mut ring = Ring::default();
        for n in 0..1_000 {
            ring.say(("x.rs", n), format!("warning {n}"), i64::from(n));
        }
        assert_eq!(ring.newest_first(1_000).len(), KEPT);
        assert_eq!(ring.newest_first(1_000 + KEPT_FOR).len(), 0);
    }

    #[test]
    fn a_logged_warning_is_kept_harmless_and_information_is_not() {
        static MINE: LazyLock<Mutex<Ring>> = LazyLock::new(Mutex::default);
        let subscriber = tracing_subscriber::registry().with(KeepRecent(&MINE));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(client = "bad\u{1b}[31m", "refused");
            tracing::info!("all is well");
        });
        let recent = MINE.lock().newest_first(now_ms());
        assert_eq!(recent.len(), 1);
        assert_eq!(recent[0].text, "refused client=bad\\u{1b}[31m");
    }

    #[test]
    fn the_log_file_is_begun_anew_before_it_exceeds_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/dashlight.log");
        let mut file = Bounded::open(&path, 100).unwrap();
        for n in 0..50 {
            file.write_all(format!("line {n:04} of the log\n").as_bytes()).unwrap();
        }
        let size = |name: &str| std::fs::metadata(path.with_file_name(name)).unwrap().len();
        assert!(size("dashlight.log") <= 100 && size("dashlight.log.1") <= 100);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("line 0049 of the log\n"));
        let kept = Bounded::open(&path, 100).unwrap();
        assert_eq!(kept.written, size("dashlight.log"));
    }

    #[test]
    fn a_bare_level_is_for_dashlight_and_warnings_for_the_rest() {
        assert_eq!(filter("debug").unwrap().to_string().split(',').count(), 2);
        assert_eq!(filter("error").unwrap().to_string(), "error");
        assert!(filter("dashlight=nonsense").is_err());
    }
}
