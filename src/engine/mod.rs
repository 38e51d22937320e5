//! The wiring of the path, MQTT to verdict, and the counts that prove nothing was lost.
//!
//! The engine knows no terminal. A console meets it in three types: [`Query`] (what it wants to see), [`Snapshot`] (what
//! can be seen) and [`Command`] (what can be asked). All three are plain data that can cross a socket.

pub mod counts;
pub mod latency;
pub mod view;

pub use view::{Command, Query, Snapshot};
