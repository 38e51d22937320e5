//! Where received messages go, and how their fate comes back to the device that waits for it.

use std::sync::Arc;

use bytes::Bytes;

/// One MQTT message as received.
#[derive(Debug, Clone)]
pub struct Message {
    /// The topic it was published on; UTF-8, without wildcards, not empty, at most 65,535 bytes.
    pub topic: Bytes,
    /// The payload, byte for byte.
    pub payload: Bytes,
    /// When it was received, milliseconds since the Unix epoch.
    pub received_ms: i64,
    /// Of a message of QoS 2, by what it is known again.
    pub once: Option<Once>,
}

/// By what a message of QoS 2 is known again, until its sender releases it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// The sender's client id.
    pub client: Arc<str>,
    /// The packet id.
    pub id: u16,
    /// Whether the sender says that it has sent it before. Without that, the id may stand for another message.
    pub again: bool,
}

/// Takes messages and sees to it that they are kept.
pub trait Intake: Send + Sync + 'static {
    /// Takes the message and its receipt, or hands both back when there is no room now; the caller then stops
    /// reading its socket until [`Intake::room`]. Never blocks.
    // The error is the message itself, handed back, not a description of a failure.
    #[allow(clippy::result_large_err)]
    fn offer(&self, message: Message, receipt: Receipt) -> Result<(), (Message, Receipt)>;

    /// The sender has released a message of QoS 2 ([`Message::once`]): the id may stand for another one from when the receipt is
    /// kept. Never blocks.
    fn release(&self, _client: &Arc<str>, _id: u16, receipt: Receipt) {
        receipt.kept();
    }

    /// Resolves when there may be room again after an offer was handed back.
    fn room(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is kept (or was dead-lettered, which is kept too): acknowledge it.
    Kept,
    /// It is not kept and won't be: the device must not get an acknowledgement.
    Lost,
}

/// Hears of the fate of the messages of one connection.
pub trait Acknowledge: Send + Sync {
    /// The message with this ticket has met its fate. Called from any thread, must not block.
    fn settle(&self, ticket: u64, fate: Fate);
}

/// A device's claim to an acknowledgement. Settles exactly once: by [`Receipt::kept`], or as lost when dropped.
pub struct Receipt(Option<(Arc<dyn Acknowledge>, u64)>);

impl Receipt {
    /// For a message that nobody waits for (QoS 0).
    pub fn none() -> Self {
        Receipt(None)
    }

    /// For a message whose connection waits for `ticket`.
    pub fn new(waiting: Arc<dyn Acknowledge>, ticket: u64) -> Self {
        Receipt(Some((waiting, ticket)))
    }

    /// The message is kept: the device may have its acknowledgement.
    pub fn kept(mut self) {
        if let Some((waiting, ticket)) = self.0.take() {
            waiting.settle(ticket, Fate::Kept);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some((waiting, ticket)) = self.0.take() {
            waiting.settle(ticket, Fate::Lost);
        }
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Receipt").field(&self.0.as_ref().map(|(_, ticket)| ticket)).finish()
    }
}
