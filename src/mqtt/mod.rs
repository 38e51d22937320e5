//! Devices: the gate they connect to, the router that passes their messages on to subscribers, and the client for brokers
//! that exist already. What is received goes to an [`Intake`]; what becomes of it comes back through a [`Receipt`].
//!
//! Knows neither Kafka nor what a reading is.

pub mod intake;

pub use intake::{Intake, Message, Receipt};
