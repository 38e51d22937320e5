//! A broker's URL. A password in it is neither shown nor repeated in an error.

use std::sync::Arc;

use rumqttc::{MqttOptions, TlsConfiguration, Transport};
use rustls::ClientConfig;

use crate::mqtt::MqttError;
use crate::mqtt::tls::ClientTls;

/// Where an external broker is, and who we are to it.
#[derive(Clone)]
pub struct Broker {
    /// Host name or address (an IPv6 address in brackets).
    pub host: String,
    /// Port.
    pub port: u16,
    /// User name.
    pub user: Option<String>,
    pub(super) password: Option<String>,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Whom we believe then, and our certificate.
    trust: Option<Arc<ClientConfig>>,
}

impl Broker {
    /// Reads `mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT]`; the port is 1883 if not given, with TLS 8883. `%XX` stands for a byte in
    /// user and password. With TLS, [`Broker::with_tls`] says whom to believe.
    ///
    /// # Errors
    /// Says what is wrong, without repeating the URL, which may hold a password.
    pub fn parse(url: &str) -> Result<Broker, MqttError> {
        let bad = |why: &str| MqttError::Url(why.to_owned());
        let (tls, rest) = match url.split_once("://") {
            Some(("mqtt" | "tcp", rest)) => (false, rest),
            Some(("mqtts" | "ssl" | "tls", rest)) => (true, rest),
            Some(("ws" | "wss", _)) => return Err(bad("websockets are not supported; use mqtt:// or mqtts://")),
            Some(_) => return Err(bad("it begins with another scheme than mqtt:// or mqtts://")),
            None => return Err(bad("it does not begin with mqtt:// or mqtts://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, address) = rest.rsplit_once('@').map_or((None, rest), |(login, address)| (Some(login), address));
        if address.contains(['/', '?', '#']) {
            return Err(bad("it has more after the port; topics are named by the sources"));
        }
        let (user, password) = match login {
            None => (None, None),
            Some(login) => {
                let (user, password) = login.split_once(':').map_or((login, None), |(user, pass)| (user, Some(pass)));
                let decode = |text: &str| {
                    percent_decoded(text).ok_or_else(|| bad("a % in it is not followed by two hex digits"))
                };
                (Some(decode(user)?), password.map(decode).transpose()?)
            }
        };
        if user.as_deref() == Some("") {
            return Err(bad("the user before the @ is empty"));
        }
        // The colon of a port comes after the bracket that ends an IPv6 address.
        let ends = address.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match address[ends..].rfind(':') {
            Some(at) => (&address[..ends + at], Some(&address[ends + at + 1..])),
            None => (address, None),
        };
        let port = match port {
            None if tls => 8883,
            None => 1883,
            Some(port) => match port.parse() {
                Ok(port) if port != 0 => port,
                _ => return Err(bad("its port is not a number from 1 to 65535")),
            },
        };
        if host.is_empty() || host.contains(':') && !host.starts_with('[') || host.contains(char::is_whitespace) {
            return Err(bad("its host is not a name or address (an IPv6 address stands in brackets)"));
        }
        if tls && host.starts_with('[') {
            return Err(bad("an IPv6 address cannot be checked against a certificate here; give the host's name"));
        }
        Ok(Broker { host: host.to_owned(), port, user, password, tls, trust: None })
    }

    /// With these authorities and this certificate of ours, if it speaks TLS; otherwise they are not looked at.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn with_tls(mut self, tls: &ClientTls) -> Result<Broker, MqttError> {
        if self.tls {
            self.trust = Some(tls.load()?);
        }
        Ok(self)
    }

    /// Whether it can be reached as it is to be: with TLS only once it is known whom to believe.
    pub(super) fn is_ready(&self) -> bool {
        self.trust.is_some() == self.tls
    }

    /// How the client library reaches it under this client id.
    pub(super) fn settings(&self, client_id: &str) -> MqttOptions {
        let mut settings = MqttOptions::new(client_id, &self.host, self.port);
        if let Some(user) = &self.user {
            settings.set_credentials(user, self.password.as_deref().unwrap_or_default());
        }
        if let Some(trust) = &self.trust {
            settings.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(trust.clone())));
        }
        settings
    }

    /// With this password instead of the URL's.
    pub fn with_password(mut self, password: Option<String>) -> Broker {
        if password.is_some() {
            self.password = password;
        }
        self
    }
}

impl std::fmt::Display for Broker {
    /// The URL without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        match &self.user {
            Some(user) => write!(f, "{scheme}://{user}@{}:{}", self.host, self.port),
            None => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}
