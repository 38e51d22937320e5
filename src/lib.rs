//! dashlight: the check-engine light for a whole fleet, in a terminal.
//!
//! Cars publish sensor readings over MQTT. They are written to Kafka, read back, scored by an ONNX model,
//! joined into episodes, and shown to an operator. This is the map of the house, top floor first; a module
//! may use those below it, never those above, and there are no circles:
//!
//! | floor | module | what it is for |
//! |---|---|---|
//! | 4 | [`commands`] | one file per subcommand: parse, wire, run, say how it ended |
//! | 3 | [`console`] | what the operator sees: event loop, views, theme, keys. Knows no broker |
//! | 2 | [`engine`] | wires the path, owns the counts; speaks to consoles in `Snapshot` and `Command`. Knows no terminal |
//! | 1 | [`fleet`] | what is known of every car now and lately |
//! | 1 | [`detect`] | from residual to episode |
//! | 1 | [`model`] | ONNX: manifest, session, training |
//! | 1 | [`mqtt`] | devices: the gate, the router behind it, external brokers |
//! | 1 | [`kafka`] | the log: embedded or remote |
//! | 1 | [`wal`] | the write-ahead log: on the disk before anybody is told so |
//! | 1 | [`simulate`] | a believable fleet, its faults and labels |
//! | 0 | [`telemetry`] | what a reading is: schema, batches, codecs |
//!
//! [`config`] is read by `commands` and `engine`, and its sections by those they configure; [`cli`] only by `main`;
//! [`logging`], [`text`] and [`failure`] by anyone.

pub mod cli;
pub mod commands;
pub mod config;
pub mod console;
pub mod detect;
pub mod engine;
pub mod failure;
pub mod fleet;
pub mod kafka;
pub mod logging;
pub mod model;
pub mod mqtt;
pub mod simulate;
pub mod telemetry;
pub mod text;
pub mod wal;
