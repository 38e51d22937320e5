//! Packets read and written: round trips, what real clients send, and bytes that are no packet.
