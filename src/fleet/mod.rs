//! What is known of every car now and lately. A [`Shard`] is a part of the fleet that one worker owns outright: no locks.
//!
//! Owns memory only, and a bounded amount of it; does no I/O and never decides what is anomalous.

pub mod history;
pub mod shard;

pub use history::History;
pub use shard::{Car, Judged, Shard};
