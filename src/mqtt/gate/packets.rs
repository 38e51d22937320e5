//! What a connection does with each packet.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::connection::{Connection, Due, End};
use crate::mqtt::intake::{Acknowledge, Fate, Message, Once, Receipt};
use crate::mqtt::wire::{self, AckKind, Fault, Packet, Publish, Reason, Subscribe, Unsubscribe, Version};

impl Connection {
    /// Takes a message: to the intake, and to subscribers.
    pub(super) fn publish(&mut self, mut publish: Publish, received_ms: i64) -> Result<(), End> {
        if let Some(alias) = publish.alias {
            self.resolve(alias, &mut publish.topic)?;
        }
        let room = usize::from(self.gate.options.receive_maximum.max(1));
        if publish.qos > 0 && self.outstanding.len() + self.unreleased >= room && self.version == Version::V5 {
            let why = "more messages than Receive Maximum allows wait for their acknowledgement";
            return Err(Fault::new(Reason::RECEIVE_MAXIMUM_EXCEEDED, why).into());
        }
        if let Some(permit) = &self.permit
            && !str::from_utf8(&publish.topic).is_ok_and(|topic| permit.may_publish(topic))
        {
            return self.forbid(&publish);
        }
        let receipt = match publish.qos {
            0 => Receipt::none(),
            1 => {
                let due = Due { kind: AckKind::PubAck, id: publish.id, reason: Reason::SUCCESS };
                let (ledger, ticket) = self.outstanding.open(due);
                Receipt::new(ledger, ticket)
            }
            _ => {
                let due = Due { kind: AckKind::PubRec, id: publish.id, reason: Reason::SUCCESS };
                let (ledger, ticket) = self.outstanding.open(due);
                if !self.session.inbound.take(publish.id, &ledger, ticket) {
                    return Ok(());
                }
                Receipt::new(self.session.inbound.clone(), u64::from(publish.id))
            }
        };
        if self.gate.router.wants(publish.retain) {
            self.gate.router.publish(&publish, self.session.serial);
        }
        // A server's own topics are nobody's readings.
        if publish.topic.first() == Some(&b'$') {
            receipt.kept();
            return Ok(());
        }
        let once = (publish.qos == 2).then(|| {
            let client = self.session.client.clone();
            Once { client, id: publish.id, again: publish.dup }
        });
        let message = Message { topic: publish.topic, payload: publish.payload, received_ms, once };
        match self.gate.intake.offer(message, receipt) {
            Ok(()) => self.messages += 1,
            Err(back) => self.stalled = Some(back),
        }
        Ok(())
    }

    /// A message the client may not publish: MQTT 5 has a code for it, 3.1.1 only the closed connection (the standard would
    /// allow an acknowledgement too, but here that says that the message is kept). At QoS 0 it is dropped. All are counted.
    fn forbid(&mut self, publish: &Publish) -> Result<(), End> {
        self.gate.counters.denied.fetch_add(1, Ordering::Relaxed);
        let kind = match publish.qos {
            0 => return Ok(()),
            1 => AckKind::PubAck,
            _ => AckKind::PubRec,
        };
        if self.version == Version::V311 {
            return Err(End::Denied);
        }
        let (ledger, ticket) = self.outstanding.open(Due { kind, id: publish.id, reason: Reason::NOT_AUTHORIZED });
        ledger.settle(ticket, Fate::Kept);
        Ok(())
    }

    fn resolve(&mut self, alias: u16, topic: &mut Bytes) -> Result<(), Fault> {
        if alias > self.gate.options.alias_maximum {
            return Err(Fault::new(Reason::TOPIC_ALIAS_INVALID, "a topic alias beyond the maximum"));
        }
        let at = usize::from(alias) - 1;
        if topic.is_empty() {
            let known = self.aliases.get(at).filter(|known| !known.is_empty());
            *topic = known.ok_or(Fault::protocol("a topic alias that stands for nothing"))?.clone();
            return Ok(());
        }
        if self.aliases.len() <= at {
            self.aliases.resize(at + 1, Bytes::new());
        }
        // A copy: it outlives the read buffer.
        self.aliases[at] = Bytes::copy_from_slice(topic);
        Ok(())
    }

    /// Whatever is not a PUBLISH.
    pub(super) fn handle(&mut self, packet: Packet) -> Result<(), End> {
        let version = self.version;
        match packet {
            Packet::PingReq => wire::pingresp(&mut self.out),
            Packet::PubRel(ack) => {
                let known = self.session.inbound.release(ack.id);
                self.unreleased -= usize::from(known).min(self.unreleased);
                let reason = if known { Reason::SUCCESS } else { Reason::PACKET_ID_NOT_FOUND };
                // The client may use the id anew once it hears of this: the release must be kept by then, like a message.
                let (ledger, ticket) = self.outstanding.open(Due { kind: AckKind::PubComp, id: ack.id, reason });
                self.gate.intake.release(&self.session.client, ack.id, Receipt::new(ledger, ticket));
            }
            // An acknowledgement of what is not out is ignored: the client may have had it from an earlier connection.
            Packet::PubAck(ack) | Packet::PubComp(ack) => drop(self.session.acknowledged(ack.id)),
            Packet::PubRec(ack) if ack.reason.0 >= Reason::UNSPECIFIED.0 => drop(self.session.acknowledged(ack.id)),
            Packet::PubRec(ack) => {
                let known = self.session.received(ack.id);
                let reason = if known { Reason::SUCCESS } else { Reason::PACKET_ID_NOT_FOUND };
                wire::ack(&mut self.out, version, AckKind::PubRel, ack.id, reason);
            }
            Packet::Subscribe(subscribe) => self.subscribe(&subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe),
            Packet::Disconnect(disconnect) => {
                if let Some(seconds) = disconnect.session_expiry {
                    if seconds > 0 && self.session.expiry() == 0 {
                        return Err(
                            Fault::protocol("a session that ends with its connection cannot be prolonged").into()
                        );
                    }
                    self.session.set_expiry(seconds);
                }
                let with_will = disconnect.reason == Reason::WITH_WILL;
                return Err(if with_will { End::GoodbyeWithWill } else { End::Goodbye });
            }
            Packet::Connect(_) | Packet::Publish(_) => return Err(Fault::protocol("a second CONNECT").into()),
        }
        Ok(())
    }

    fn subscribe(&mut self, subscribe: &Subscribe) {
        let codes: Vec<Reason> = subscribe
            .filters
            .iter()
            .map(|filter| match &self.permit {
                Some(permit) if !permit.may_subscribe(&filter.path) => {
                    self.gate.counters.denied.fetch_add(1, Ordering::Relaxed);
                    Reason::NOT_AUTHORIZED
                }
                _ => self.gate.router.subscribe(&self.session, filter, subscribe.identifier),
            })
            .collect();
        wire::suback(&mut self.out, self.version, subscribe.id, &codes);
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe) {
        let code = |path: &String| match self.gate.router.unsubscribe(&self.session, path) {
            Ok(true) => Reason::SUCCESS,
            Ok(false) => Reason::NO_SUBSCRIPTION_EXISTED,
            Err(_) => Reason::FILTER_INVALID,
        };
        let codes: Vec<Reason> = unsubscribe.filters.iter().map(code).collect();
        wire::unsuback(&mut self.out, self.version, unsubscribe.id, &codes);
    }
}
