//! Models replaced while running: looks at their files each second, tries out what is new on a thread of its own, and has the worker
//! take it up between two batches. What cannot be used is refused with a sentence, and the one before goes on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::ask::Asker;
use super::models::Scorer;
use super::path::Path;
use super::worker::Worker;
use crate::model;

/// How often the files are looked at. One that was changed is taken once it has stood still this long.
const LOOK: Duration = Duration::from_secs(1);

/// A model that may be replaced.
pub struct Watched {
    /// Its lane.
    pub lane: usize,
    /// Whether it is the lane's challenger, not the live one.
    pub shadow: bool,
    /// As configured: a file, or a folder of files.
    pub name: String,
    /// The threshold configured, if any.
    pub threshold: Option<f64>,
    /// The files as they were taken or refused last.
    settled: Stamp,
    /// As they were a look ago.
    seen: Stamp,
}

/// What tells a file from its replacement: names, times of change, lengths.
type Stamp = Vec<(PathBuf, Option<(SystemTime, u64)>)>;

impl Watched {
    /// The model called `name`, whose files are about to be read.
    pub fn new(lane: usize, shadow: bool, name: &str, threshold: Option<f64>) -> Self {
        let settled = stamp(name);
        Watched { lane, shadow, name: name.to_owned(), threshold, seen: settled.clone(), settled }
    }

    /// Whether its files have changed since they were taken, and have stood still since the last look.
    fn has_changed(&mut self) -> bool {
        let now = stamp(&self.name);
        let stands_still = now == self.seen;
        self.seen = now;
        let changed = stands_still && self.seen != self.settled;
        if changed {
            self.settled.clone_from(&self.seen);
        }
        changed
    }
}

fn stamp(name: &str) -> Stamp {
    model::files(name)
        .into_iter()
        .map(|file| {
            let of = std::fs::metadata(&file).and_then(|meta| Ok((meta.modified()?, meta.len()))).ok();
            (file, of)
        })
        .collect()
}

/// Starts watching. It goes on until what is handed back is dropped.
pub fn start(mut watched: Vec<Watched>, worker: Asker<Worker>, path: Arc<Path>) -> std::io::Result<Sender<()>> {
    // A model in the binary has no files.
    watched.retain(|one| !one.settled.is_empty());
    let (stop, stopped) = bounded(0);
    if !watched.is_empty() {
        let name = "dashlight-models".into();
        std::thread::Builder::new().name(name).spawn(move || watch(watched, &worker, &path, &stopped))?;
    }
    Ok(stop)
}

fn watch(mut watched: Vec<Watched>, worker: &Asker<Worker>, path: &Path, stopped: &Receiver<()>) {
    while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        for one in &mut watched {
            if one.has_changed() {
                replace(one, worker, path);
            }
        }
    }
}

fn replace(one: &Watched, worker: &Asker<Worker>, path: &Path) {
    let Watched { lane, shadow, name, threshold, .. } = one;
    let (lane, shadow) = (*lane, *shadow);
    let role = if shadow { "challenger" } else { "model" };
    let shown = crate::text::harmless(name, 300);
    // Trying it out may panic inside, which is caught: `model::rehearsing` tells the panic hooks.
    let scorer = match Scorer::load(name, *threshold) {
        Ok(scorer) => scorer,
        Err(error) => {
            tracing::warn!("{shown} has changed and cannot be used, so the {role} before goes on: {error}");
            return;
        }
    };
    let facts = (scorer.name().to_owned(), scorer.words.clone(), scorer.schema().clone());
    let taken = worker.ask_and_wait(move |worker| worker.take_up(lane, scorer, shadow));
    match taken {
        Some(Ok(kept)) => {
            if !shadow {
                let (model, threshold, schema) = facts;
                path.show_model(lane, model, threshold, Arc::new(schema.sensors().to_vec()));
            }
            let states = match (shadow, kept) {
                (true, _) => "; the comparison begins anew",
                (false, true) => ", and what is known of each car is kept",
                (false, false) => "; what is usual of each car is learned anew, open episodes and marks stay",
            };
            tracing::info!("{shown} has changed: the {role} is replaced{states}");
        }
        Some(Err(why)) => tracing::warn!("{shown} has changed and cannot be used, so the {role} before goes on: {why}"),
        // The worker is gone: nobody scores any more.
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_replaced_is_taken_once_when_it_stands_still() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.onnx");
        std::fs::write(&file, "one").unwrap();
        let mut watched = Watched::new(0, false, file.to_str().unwrap(), None);
        assert!(!watched.has_changed());
        std::fs::write(&file, "another").unwrap();
        assert!(!watched.has_changed(), "it may still be being written");
        assert!(watched.has_changed());
        assert!(!watched.has_changed());
        std::fs::write(file.with_extension("toml"), "name = 'm'").unwrap();
        assert!(!watched.has_changed());
        assert!(watched.has_changed(), "the manifest counts too");
    }

    #[test]
    fn of_a_folder_the_newest_counts_and_a_built_in_model_has_no_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.onnx"), "a").unwrap();
        let mut watched = Watched::new(0, false, folder.path().to_str().unwrap(), None);
        let later = SystemTime::now() + Duration::from_secs(5);
        let newer = std::fs::File::create(folder.path().join("b.onnx")).unwrap();
        newer.set_modified(later).unwrap();
        assert!(!watched.has_changed());
        assert!(watched.has_changed());
        assert!(watched.settled[0].0.ends_with("b.onnx"));
        assert!(Watched::new(0, false, "car-sensors", None).settled.is_empty());
    }
}
