//! What crosses modules: the real binary, real sockets, a real terminal. One test binary, so that it links once.

mod run;
mod support;
