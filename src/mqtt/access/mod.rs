//! Who may come in, and what may be done: the users' file, the topic rules.
//!
//! | file | what it owns |
//! |---|---|
//! | [`users`] | names and hashed passwords, read and written |
//! | [`rules`] | which topics a client may publish on and subscribe to |
//!
//! Knows no connection: the gate asks.

pub mod rules;
pub mod users;

pub use rules::{Permit, Rule};
pub use users::{Users, UsersError};
