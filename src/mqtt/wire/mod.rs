//! MQTT on the wire, as a server sees it: what clients send is read strictly, what the gate answers is written.
//!
//! Why a codec of our own: rumqttd's keeps a PUBLISH's packet id, QoS and DUP flag private and reaches an `unreachable!`
//! when a client sends what only a server may; rumqttc's refuses the two-byte DISCONNECT most MQTT 5 clients end with, and
//! neither checks reserved bits, doubled properties or U+0000. Here a packet is read once, in place: topic and payload
//! are slices of the read buffer, properties stay as they came (checked, not unpacked), so that they are passed on to
//! subscribers unchanged. The tests hold it against rumqttc's codec, packet by packet, in both directions.
//!
//! Nothing in here panics on any input, and nothing allocates for a PUBLISH.

mod properties;
mod read;
mod reader;
mod write;

pub use properties::forwardable;
pub use read::{Ack, Connect, ConnectFault, Disconnect, Filter, Packet, Publish, Subscribe, Unsubscribe, Will, packet};
pub use write::{AckKind, ConnAck, Outgoing, ack, connack, disconnect, pingresp, publish, suback, unsuback};

/// The dialects the gate speaks, both on one port; MQTT 3.1 is taken as 3.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.0.
    V5,
}

/// An MQTT 5 reason code; [`Reason::v311`] gives the return code of a 3.1.1 CONNACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u8);

#[allow(missing_docs)] // the standard's names (MQTT 5.0 section 2.4)
impl Reason {
    pub const SUCCESS: Reason = Reason(0x00);
    pub const WITH_WILL: Reason = Reason(0x04);
    pub const NO_SUBSCRIPTION_EXISTED: Reason = Reason(0x11);
    pub const UNSPECIFIED: Reason = Reason(0x80);
    pub const MALFORMED: Reason = Reason(0x81);
    pub const PROTOCOL_ERROR: Reason = Reason(0x82);
    pub const UNSUPPORTED_VERSION: Reason = Reason(0x84);
    pub const CLIENT_ID_NOT_VALID: Reason = Reason(0x85);
    pub const BAD_CREDENTIALS: Reason = Reason(0x86);
    pub const NOT_AUTHORIZED: Reason = Reason(0x87);
    pub const SERVER_UNAVAILABLE: Reason = Reason(0x88);
    pub const SERVER_SHUTTING_DOWN: Reason = Reason(0x8b);
    pub const BAD_AUTHENTICATION_METHOD: Reason = Reason(0x8c);
    pub const KEEP_ALIVE_TIMEOUT: Reason = Reason(0x8d);
    pub const SESSION_TAKEN_OVER: Reason = Reason(0x8e);
    pub const FILTER_INVALID: Reason = Reason(0x8f);
    pub const TOPIC_INVALID: Reason = Reason(0x90);
    pub const PACKET_ID_NOT_FOUND: Reason = Reason(0x92);
    pub const RECEIVE_MAXIMUM_EXCEEDED: Reason = Reason(0x93);
    pub const TOPIC_ALIAS_INVALID: Reason = Reason(0x94);
    pub const PACKET_TOO_LARGE: Reason = Reason(0x95);
    pub const QUOTA_EXCEEDED: Reason = Reason(0x97);
    pub const ADMINISTRATIVE_ACTION: Reason = Reason(0x98);
    pub const CONNECTION_RATE_EXCEEDED: Reason = Reason(0x9f);

    /// The return code of a 3.1.1 CONNACK for this reason; `None` where the connection is closed without one.
    pub fn v311(self) -> Option<u8> {
        match self {
            Reason::SUCCESS => Some(0),
            Reason::UNSUPPORTED_VERSION => Some(1),
            Reason::CLIENT_ID_NOT_VALID => Some(2),
            Reason::SERVER_UNAVAILABLE
            | Reason::QUOTA_EXCEEDED
            | Reason::CONNECTION_RATE_EXCEEDED
            | Reason::SERVER_SHUTTING_DOWN => Some(3),
            Reason::BAD_CREDENTIALS => Some(4),
            Reason::NOT_AUTHORIZED => Some(5),
            _ => None,
        }
    }
}

/// What a client did that ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Fault {
    /// What it is told, if it speaks MQTT 5.
    pub reason: Reason,
    /// For the log.
    pub why: &'static str,
}

impl Fault {
    pub(crate) const fn new(reason: Reason, why: &'static str) -> Self {
        Fault { reason, why }
    }

    pub(crate) const fn malformed(why: &'static str) -> Self {
        Fault::new(Reason::MALFORMED, why)
    }

    pub(crate) const fn protocol(why: &'static str) -> Self {
        Fault::new(Reason::PROTOCOL_ERROR, why)
    }
}

/// How much of the next packet is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Not even its length.
    Unknown,
    /// Its length in bytes, fixed header included, is known; not all of them have come.
    Partial(usize),
    /// All of it: its length, and the length of its fixed header.
    Whole {
        /// Bytes, fixed header included.
        length: usize,
        /// Bytes of the fixed header: 2 to 5.
        header: usize,
    },
}

/// Looks at the fixed header of the packet that `bytes` begin with; one larger than `max` bytes is a fault.
pub fn framing(bytes: &[u8], max: usize) -> Result<Framing, Fault> {
    let mut remaining = 0usize;
    for n in 0..4 {
        let Some(&byte) = bytes.get(1 + n) else { return Ok(Framing::Unknown) };
        remaining |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            let header = 2 + n;
            let length = header + remaining;
            if length > max {
                return Err(Fault::new(Reason::PACKET_TOO_LARGE, "the packet is larger than allowed"));
            }
            return Ok(if bytes.len() < length { Framing::Partial(length) } else { Framing::Whole { length, header } });
        }
    }
    Err(Fault::malformed("the packet's length has more than four bytes"))
}
