//! What a reading is: its sensors, how it is written on the wire and in files, and batches of it in memory.
//!
//! Owns no I/O but the reading of CSV files, and knows neither broker nor model.

pub mod batch;
pub mod codec;
pub mod file;
pub mod recording;
pub mod schema;
pub mod time;

pub use batch::{Batch, ReadingMeta};
pub use codec::{Codec, DecodeError, Decoded, encode_json};
pub use recording::{Recorder, Recording, Run};
pub use schema::{Schema, SchemaError, Sensor};
