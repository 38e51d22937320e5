//! What the operator sees. Knows the engine only by its snapshots and commands.
