//! What is known of every car now and lately: bounded history, shards.
