//! What an operator should hear of: clients refused for what they are or are not, held back, kept from topics. Counted where
//! it happens, said here now and then, so that a flood of strangers is no flood of lines.

use std::time::Duration;

use tokio::time::Instant;

use super::{GateCounts, Inner};

/// Between two sentences on the same subject.
const EVERY: Duration = Duration::from_secs(10);

/// What has been said, and when.
pub struct Report {
    said: GateCounts,
    at: Instant,
}

impl Report {
    /// With nothing to say yet.
    pub fn new(gate: &Inner) -> Self {
        Report { said: gate.counts(), at: Instant::now() }
    }

    /// Says what has happened since the last time, if it is time.
    pub fn say(&mut self, gate: &Inner) {
        if self.at.elapsed() < EVERY {
            return;
        }
        let now = gate.counts();
        let since = |count: fn(&GateCounts) -> u64| count(&now) - count(&self.said);
        // One sentence without a number each: the Pipeline view keeps it once, and says how often.
        if since(|counts| counts.unauthorised) > 0 {
            tracing::warn!("MQTT clients are refused: no right user, password or certificate");
        }
        if since(|counts| counts.crowded) > 0 {
            tracing::warn!(
                "MQTT clients are refused: more connections than limits.connections or limits.connections_per_address allow"
            );
        }
        if since(|counts| counts.insecure) > 0 {
            tracing::warn!("MQTT clients are refused: the TLS handshake failed or took too long");
        }
        if since(|counts| counts.denied) > 0 {
            tracing::warn!("MQTT clients are kept from topics that no [[mqtt.rule]] allows them");
        }
        if since(|counts| counts.throttled) > 0 {
            tracing::warn!(
                "MQTT clients are read slower: more than limits.messages_per_second or limits.bytes_per_second allow"
            );
        }
        (self.said, self.at) = (now, Instant::now());
    }
}
