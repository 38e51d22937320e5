//! How many bytes the pictures cost.
