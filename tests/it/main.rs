//! What crosses modules: the real binary, real sockets, a real terminal. One test binary, so that it links once.

// Clippy's allowance for tests ends at `#[test]`; what tests share is a test too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod certificates;
mod cli;
mod config;
mod console;
mod delivery;
mod device;
mod docs;
mod evaluate;
mod house;
mod kafka;
mod kill;
mod mqtt;
mod restart;
mod run;
mod security;
mod servers;
mod simulate;
mod support;
mod train;
