//! What a connection holds of the gate, given up whatever way it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Inner;
use super::limits::Origin;
use super::session::{Link, Session};
use crate::mqtt::wire::Will;

/// A connection's place among those counted; whatever way its task ends, even by a bug, it is given up, the session is left,
/// and the will is published.
pub struct Place {
    /// The gate.
    pub gate: Arc<Inner>,
    /// Where it comes from.
    pub origin: Origin,
    /// Once it is served.
    pub served: Option<Served>,
}

/// A connection that is served.
pub struct Served {
    pub session: Arc<Session>,
    pub link: Arc<Link>,
    /// Its key in the gate's list.
    pub serial: u64,
    /// What is published when it ends, unless it says goodbye.
    pub will: Option<Will>,
}

impl Place {
    /// For a socket that has been counted.
    pub fn new(gate: Arc<Inner>, origin: Origin) -> Self {
        Place { gate, origin, served: None }
    }

    /// Leaves the session; the socket is still counted.
    pub fn leave(&mut self) {
        if let Some(served) = self.served.take() {
            self.gate.links.lock().remove(&served.serial);
            let wills = self.gate.router.close(&served.session, &served.link, served.will);
            // While a bug unwinds, an intake that is part of it must not be called: a second panic would end the process.
            if !std::thread::panicking() && !self.gate.is_stopping() {
                self.gate.publish_wills(wills);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
        self.gate.origins.leave(self.origin);
        self.gate.sockets.fetch_sub(1, Ordering::AcqRel);
        self.gate.closed.notify_waiters();
    }
}
