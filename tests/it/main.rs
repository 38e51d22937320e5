//! What crosses modules: the real binary, real sockets, a real terminal. One test binary, so that it links once.

mod cli;
mod config;
mod docs;
mod house;
mod run;
mod support;
mod train;
