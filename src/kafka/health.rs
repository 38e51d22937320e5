//! Whether Kafka answers, since when not and why, gathered from all clients of one cluster.
//!
//! librdkafka retries for ever and says so with a line an attempt; an operator wants two: away, and back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::text::harmless;

/// Whether Kafka answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// At least one broker does.
    Up,
    /// None does.
    Away {
        /// Since when; at the start, since the cluster was opened.
        since: Instant,
        /// In librdkafka's words, harmless.
        reason: String,
    },
}

/// What the clients of one cluster have seen of it.
#[derive(Debug)]
pub(super) struct Board {
    address: String,
    /// The state's `away`, to be asked on the hot path.
    away: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Since when it is away, if it is.
    away: Option<Instant>,
    /// The latest failure's reason, whether it mattered or not.
    reason: String,
    /// Each client's latest word: whether it has a broker to talk to.
    clients: Vec<Option<bool>>,
    /// Whether the operator was told that it is away.
    told: bool,
}

/// One client's place on the board.
#[derive(Debug, Clone)]
pub(super) struct Place {
    board: Arc<Board>,
    client: usize,
}

impl Board {
    /// A reason before there is one.
    const NO_ANSWER_YET: &'static str = "no broker has answered yet";
    /// At the start a connection takes a moment: that long nobody is told.
    const PATIENCE: Duration = Duration::from_secs(2);

    pub fn new(address: &str) -> Arc<Self> {
        Arc::new(Board {
            address: address.to_owned(),
            away: AtomicBool::new(true),
            state: Mutex::new(State {
                away: Some(Instant::now()),
                reason: Self::NO_ANSWER_YET.into(),
                clients: Vec::new(),
                told: false,
            }),
        })
    }

    pub fn health(&self) -> Health {
        let state = self.state.lock();
        match state.away {
            None => Health::Up,
            Some(since) => Health::Away { since, reason: state.reason.clone() },
        }
    }

    /// A place for one more client.
    pub fn place(self: &Arc<Self>) -> Place {
        let mut state = self.state.lock();
        state.clients.push(None);
        Place { board: self.clone(), client: state.clients.len() - 1 }
    }

    fn judge(&self, state: &mut State) {
        if state.clients.contains(&Some(true)) {
            if let Some(since) = state.away.take()
                && std::mem::take(&mut state.told)
            {
                tracing::info!("Kafka at {} is back after {} s", self.address, since.elapsed().as_secs());
            }
        } else if state.clients.contains(&Some(false)) {
            let since = *state.away.get_or_insert_with(Instant::now);
            let starting = state.reason == Self::NO_ANSWER_YET && since.elapsed() < Self::PATIENCE;
            if !state.told && !starting {
                state.told = true;
                tracing::warn!("Kafka at {} is away: {}", self.address, state.reason);
            }
        }
        self.away.store(state.away.is_some(), Ordering::Release);
    }
}

impl Place {
    /// A broker has answered this client.
    pub fn up(&self) {
        let mut state = self.board.state.lock();
        state.clients[self.client] = Some(true);
        self.board.judge(&mut state);
    }

    /// As [`Place::up`], for the hot path: does nothing unless Kafka was away.
    pub fn alive(&self) {
        if self.board.away.load(Ordering::Acquire) {
            self.up();
        }
    }

    /// This client has no broker to talk to.
    pub fn down(&self) {
        let mut state = self.board.state.lock();
        state.clients[self.client] = Some(false);
        self.board.judge(&mut state);
    }

    /// Something failed; it is the reason if Kafka turns out to be away.
    pub fn failed(&self, reason: &str) {
        let mut state = self.board.state.lock();
        state.reason = harmless(tidy(reason), 200).into_owned();
    }
}

impl Drop for Place {
    /// A client that is gone has no say.
    fn drop(&mut self) {
        let mut state = self.board.state.lock();
        state.clients[self.client] = None;
        self.board.judge(&mut state);
    }
}

/// A line of librdkafka's without its thread's name.
fn tidy(line: &str) -> &str {
    match line.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")) {
        Some((_, rest)) => rest.trim(),
        None => line.trim(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_up(board: &Board) -> bool {
        board.health() == Health::Up
    }

    #[test]
    fn kafka_is_up_while_any_client_has_a_broker() {
        let board = Board::new("k:9092");
        let (one, two) = (board.place(), board.place());
        assert!(!is_up(&board), "nobody has answered yet");
        one.up();
        assert!(is_up(&board));
        two.down();
        assert!(is_up(&board), "one of them still has a broker");
        two.failed(
            "[thrd:k:9092/bootstrap]: k:9092/bootstrap: Connect to ipv4#10.0.0.1:9092 failed: Connection refused",
        );
        one.down();
        let Health::Away { reason, .. } = board.health() else { panic!("away") };
        assert_eq!(reason, "k:9092/bootstrap: Connect to ipv4#10.0.0.1:9092 failed: Connection refused");
        two.alive();
        assert!(is_up(&board));
    }

    #[test]
    fn a_client_that_is_gone_has_no_say() {
        let board = Board::new("k:9092");
        let (one, two) = (board.place(), board.place());
        one.down();
        two.up();
        drop(two);
        assert!(!is_up(&board));
    }
}
