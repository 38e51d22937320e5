//! What stands in the body of one record of the write-ahead log: a message on its way to Kafka, or the release of one.
//!
//! ```text
//! kind u8  topic length u8  MQTT topic length u16  key length u32  sender length u16  packet id u16      (little-endian)
//! topic  MQTT topic  key  sender  payload
//! ```
//! When it was received is the record's own time. Packet id 0 is none: the message is not of QoS 2.

/// What is to become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A reading, to be written as it is.
    Reading = 0,
    /// A dead letter, made when the message was refused.
    DeadLetter = 1,
    /// Nothing for Kafka: its sender has released a message of QoS 2.
    Release = 2,
}

/// A message as it stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What is to become of it.
    pub kind: Kind,
    /// Kafka topic; at most 255 bytes.
    pub topic: &'a str,
    /// MQTT topic it came on; at most 65,535 bytes.
    pub mqtt_topic: &'a [u8],
    /// Kafka key.
    pub key: &'a [u8],
    /// Kafka value.
    pub payload: &'a [u8],
    /// Of QoS 2: its sender, at most 65,535 bytes, and packet id.
    pub sender: Option<(&'a str, u16)>,
}

const HEAD: usize = 12;

impl<'a> Entry<'a> {
    /// Hands the body, in parts, to `write`.
    pub fn parts<R>(&self, write: impl FnOnce(&[&[u8]]) -> R) -> R {
        let mut head = [0; HEAD];
        (head[0], head[1]) = (self.kind as u8, self.topic.len() as u8);
        head[2..4].copy_from_slice(&(self.mqtt_topic.len() as u16).to_le_bytes());
        head[4..8].copy_from_slice(&(self.key.len() as u32).to_le_bytes());
        let (sender, id) = self.sender.unwrap_or_default();
        head[8..10].copy_from_slice(&(sender.len() as u16).to_le_bytes());
        head[10..].copy_from_slice(&id.to_le_bytes());
        write(&[&head, self.topic.as_bytes(), self.mqtt_topic, self.key, sender.as_bytes(), self.payload])
    }

    /// Reads a body; `None` if it is none (from a version to come).
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (head, rest) = body.split_first_chunk::<HEAD>()?;
        let kind = match head[0] {
            0 => Kind::Reading,
            1 => Kind::DeadLetter,
            2 => Kind::Release,
            _ => return None,
        };
        let (topic, rest) = rest.split_at_checked(usize::from(head[1]))?;
        let (mqtt_topic, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([head[2], head[3]])))?;
        let key = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let (key, rest) = rest.split_at_checked(key as usize)?;
        let (sender, payload) = rest.split_at_checked(usize::from(u16::from_le_bytes([head[8], head[9]])))?;
        let sender = match u16::from_le_bytes([head[10], head[11]]) {
            0 => None,
            id => Some((str::from_utf8(sender).ok()?, id)),
        };
        Some(Entry { kind, topic: str::from_utf8(topic).ok()?, mqtt_topic, key, payload, sender })
    }

    /// That this sender has released this id.
    pub fn release(sender: &'a str, id: u16) -> Self {
        Entry { kind: Kind::Release, topic: "", mqtt_topic: b"", key: b"", payload: b"", sender: Some((sender, id)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_and_no_bytes_are_a_surprise(
            dead in any::<bool>(), sender in "\\PC{0,40}", id in any::<u16>(), topic in "[a-z.]{0,249}", mqtt_topic in prop::collection::vec(any::<u8>(), 0..300),
            key in prop::collection::vec(any::<u8>(), 0..300), payload in prop::collection::vec(any::<u8>(), 0..300),
            noise in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let kind = if dead { Kind::DeadLetter } else { Kind::Reading };
            let sender = (id > 0).then_some((sender.as_str(), id));
            let entry = Entry { kind, topic: &topic, mqtt_topic: &mqtt_topic, key: &key, payload: &payload, sender };
            let body = entry.parts(|parts| parts.concat());
            prop_assert_eq!(Entry::read(&body), Some(entry));
            let _ = Entry::read(&noise);
        }
    }
}
