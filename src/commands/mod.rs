//! One file per subcommand: parse, wire, run, say how it ended.

pub mod doctor;
pub mod evaluate;
pub mod model;
pub mod replay;
pub mod run;
pub mod score;
pub mod simulate;
pub mod train;
