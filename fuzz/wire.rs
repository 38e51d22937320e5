//! libFuzzer's way into [`exercise::exercise`]. See README.md beside it.

#![no_main]
#![allow(dead_code, missing_docs)]

mod exercise;

/// The codec's sources, without the rest of dashlight: what is built is small, and every branch counted is the codec's.
#[path = "../src/mqtt"]
mod mqtt {
    pub mod topic;
    pub mod wire;
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exercise::exercise(bytes));
