//! A believable fleet: driving, faults with onset and severity, labels.
//!
//! Owns the simulated cars and how they reach a file or a broker. Knows neither model nor engine: a simulated car is a
//! device like any other, and what it publishes takes the same path.
//!
//! | file | what |
//! |---|---|
//! | [`fleet`] | the fleet: cars by number, read one reading at a time |
//! | `car`, `drive` | one car, and the physics of a healthy one |
//! | [`cycle`] | engines by their heartbeat, the KSQL demo's message |
//! | [`fault`] | the table of faults, and what each does to a reading |
//! | `faithful` | the original demo's recurrences |
//! | [`labels`] | the labels file |
//! | [`live`] | the fleet as MQTT publishers |
//! | [`link`], `outbox` | one publishing MQTT connection, and its packets |
//! | [`sensor`] | the sensors by position |

mod car;
mod chance;
pub mod cycle;
mod drive;
mod faithful;
pub mod fault;
pub mod fleet;
pub mod labels;
pub mod link;
pub mod live;
mod outbox;
pub mod sensor;

pub use fault::{FaultClass, FaultKind, KINDS, Onset, faults};
pub use fleet::{DEFAULT_FAULTS, Faults, Fleet, FleetError, FleetOptions, Label, car_name, car_number};

#[cfg(test)]
mod link_tests;
#[cfg(test)]
mod tests;
