//! The addresses of the embedded broker as they are written: `IP:PORT`, with `mqtts://` before those that speak TLS.

use std::net::{SocketAddr, ToSocketAddrs};

/// One address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Where; port 0 is any free one.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
}

/// Most addresses that may be listened on.
const MOST: usize = 64;

/// Reads `IP:PORT[,mqtts://IP:PORT…]`; a port alone (`:1883`) is for every interface, nothing at all for no listener. A name
/// stands for all of its addresses.
///
/// # Errors
/// Says what is wrong with the value, to be read after its key.
pub fn parse(text: &str) -> Result<Vec<Listener>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut listeners: Vec<Listener> = Vec::new();
    for one in text.split(',') {
        let one = one.trim();
        let (tls, address) = match one.split_once("://") {
            Some(("mqtts", address)) => (true, address),
            Some(("mqtt", address)) => (false, address),
            _ => (false, one),
        };
        for address in addresses(address).ok_or_else(|| no_address(one))? {
            let taken = listeners.iter().find(|other| other.address == address && address.port() != 0);
            if let Some(Listener { tls: other, .. }) = taken {
                if *other != tls {
                    return Err(format!("asks for {address} with and without TLS: give each a port of its own"));
                }
                continue;
            }
            listeners.push(Listener { address, tls });
        }
    }
    if listeners.len() > MOST { Err(format!("has more than {MOST} addresses: name fewer")) } else { Ok(listeners) }
}

fn addresses(text: &str) -> Option<Vec<SocketAddr>> {
    let whole = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    // An address is taken as it is; only a name is looked up.
    if let Ok(address) = whole.parse() {
        return Some(vec![address]);
    }
    let mut found: Vec<SocketAddr> = whole.to_socket_addrs().ok()?.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found.dedup();
    // A name with several addresses and any free port: one of them, for they would get different ports.
    if found.first()?.port() == 0 {
        found.truncate(1);
    }
    Some(found)
}

fn no_address(text: &str) -> String {
    let text = crate::text::harmless(text, 80);
    format!(
        "is \"{text}\", which is no address: write IP:PORT, such as \"127.0.0.1:1883\" (0.0.0.0 for every interface, mqtts:// \
         before it for TLS), or nothing for no listener"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(String, bool)> {
        parse(text).unwrap().into_iter().map(|listener| (listener.address.to_string(), listener.tls)).collect()
    }

    #[test]
    fn addresses_are_read_one_by_one_with_or_without_tls() {
        assert_eq!(parsed(""), []);
        assert_eq!(parsed(":1883"), [("0.0.0.0:1883".into(), false)]);
        assert_eq!(
            parsed("127.0.0.1:1883, mqtts://:8883,mqtt://[::1]:0"),
            [("127.0.0.1:1883".into(), false), ("0.0.0.0:8883".into(), true), ("[::1]:0".into(), false)]
        );
        assert_eq!(parsed("127.0.0.1:1,127.0.0.1:1").len(), 1);
        assert!(parsed("localhost:1").contains(&("127.0.0.1:1".into(), false)));
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_way_out() {
        for bad in ["127.0.0.1", "127.0.0.1:99999", "http://127.0.0.1:1", "127.0.0.1:1,", "mqtts://"] {
            assert!(parse(bad).unwrap_err().contains("which is no address: write IP:PORT"), "{bad}");
        }
        assert!(parse("127.0.0.1:1,mqtts://127.0.0.1:1").unwrap_err().contains("with and without TLS"));
    }
}
