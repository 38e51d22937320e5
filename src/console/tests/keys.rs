//! State, keys, state.
