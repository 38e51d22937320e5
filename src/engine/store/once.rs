//! QoS 2 across restarts: which messages were kept and not yet released by their senders. A message that is sent again under
//! the same packet id, because its sender never saw the PUBREC, is the one we have.
//!
//! While this process lives the gate knows that by itself. The log knows it afterwards: a message of QoS 2 stands there with its
//! sender and id, and so does each release, which is synced before the sender hears of it and may use the id for something else.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

/// Most messages remembered; beyond, the oldest is forgotten. A sender keeps a few open at once, and releases them.
const MOST: usize = 100_000;

/// Messages kept and not released, by sender: as a checkpoint notes it.
pub type Noted = BTreeMap<String, Vec<u16>>;

/// Messages kept and not released.
#[derive(Debug, Default)]
pub struct Unreleased {
    /// By sender and packet id, the message's number in the log.
    by_sender: FxHashMap<Arc<str>, FxHashMap<u16, u64>>,
    /// The same by number: several of an earlier run may have none of their own, and share one.
    by_seq: BTreeMap<(u64, u64), (Arc<str>, u16)>,
    /// Counts up, to tell apart what has the same number.
    entered: u64,
    /// Messages below are of earlier runs.
    restored: u64,
}

/// How far the log is known to hold nothing of QoS 2, and what was open there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OnceNote {
    /// Below this number there is no message of QoS 2 and no release.
    pub plain_below: u64,
    /// Kept, and not released.
    pub unreleased: Noted,
}

impl Unreleased {
    /// What a checkpoint noted.
    pub fn new(noted: &Noted) -> Self {
        let mut unreleased = Unreleased::default();
        for (client, ids) in noted {
            ids.iter().for_each(|id| unreleased.kept(client, *id, 0));
        }
        unreleased
    }

    /// Everything so far is of earlier runs, whose numbers are below.
    pub fn restored(&mut self, below: u64) {
        self.restored = below;
    }

    /// Whether an earlier run has kept this message.
    pub fn has(&self, client: &str, id: u16) -> bool {
        self.by_sender.get(client).and_then(|ids| ids.get(&id)).is_some_and(|seq| *seq < self.restored)
    }

    /// The message is in the log, under this number.
    pub fn kept(&mut self, client: &str, id: u16, seq: u64) {
        self.released(client, id);
        let client = match self.by_sender.get_key_value(client) {
            Some((known, _)) => known.clone(),
            None => Arc::from(client),
        };
        self.by_sender.entry(client.clone()).or_default().insert(id, seq);
        self.entered += 1;
        self.by_seq.insert((seq, self.entered), (client, id));
        if self.by_seq.len() > MOST
            && let Some((_, (client, id))) = self.by_seq.pop_first()
        {
            self.forget(&client, id);
        }
    }

    /// The sender has released the id.
    pub fn released(&mut self, client: &str, id: u16) {
        if let Some(seq) = self.forget(client, id) {
            let same: Vec<(u64, u64)> = self
                .by_seq
                .range((seq, 0)..=(seq, u64::MAX))
                .filter(|(_, (sender, known))| **sender == *client && *known == id)
                .map(|(key, _)| *key)
                .collect();
            same.iter().for_each(|key| drop(self.by_seq.remove(key)));
        }
    }

    fn forget(&mut self, client: &str, id: u16) -> Option<u64> {
        let ids = self.by_sender.get_mut(client)?;
        let seq = ids.remove(&id);
        if ids.is_empty() {
            self.by_sender.remove(client);
        }
        seq
    }

    /// What to note when everything below `committed` is synced: what is not, is not kept.
    pub fn note(&self, committed: u64) -> Noted {
        let mut noted = Noted::new();
        for (client, id) in self.by_seq.range(..(committed, 0)).map(|(_, sender)| sender) {
            noted.entry(client.to_string()).or_default().push(*id);
        }
        noted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_run_kept_is_known_until_it_is_released_or_its_id_is_used_again() {
        let mut unreleased = Unreleased::new(&Noted::from([("a".into(), vec![1, 2]), ("b".into(), vec![1])]));
        unreleased.kept("b", 7, 40);
        unreleased.restored(50);
        assert!(unreleased.has("a", 1) && unreleased.has("a", 2) && unreleased.has("b", 1) && unreleased.has("b", 7));
        unreleased.released("a", 1);
        unreleased.kept("a", 2, 50);
        assert!(!unreleased.has("a", 1) && !unreleased.has("a", 2), "released; kept by this run, which the gate knows");
        assert_eq!(unreleased.note(50), Noted::from([("b".into(), vec![1, 7])]), "what is not synced is not kept");
        assert_eq!(unreleased.note(51), Noted::from([("a".into(), vec![2]), ("b".into(), vec![1, 7])]));
    }

    #[test]
    fn there_is_a_bound_and_the_oldest_goes_first() {
        let mut unreleased = Unreleased::default();
        for seq in 0..MOST as u64 + 10 {
            unreleased.kept(&format!("car-{}", seq / 100), (seq % 100) as u16, seq);
        }
        unreleased.restored(u64::MAX);
        assert!(!unreleased.has("car-0", 9) && unreleased.has("car-0", 10));
        assert_eq!((unreleased.by_seq.len(), unreleased.note(u64::MAX).values().map(Vec::len).sum()), (MOST, MOST));
    }
}
