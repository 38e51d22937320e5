//! Secrets: values that are read from the environment or a file when a client needs them, and are never printed.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::ConfigError;
use super::keys::{Held, Kind};
use super::{Broker, Kafka, Mqtt};

/// Largest secret that is read from a file (a PEM chain fits), in bytes.
const MAX_SECRET: u64 = 256 * 1024;

/// What stands in the place of a secret wherever configuration is shown.
pub const HIDDEN: &str = "(not shown)";

/// The environment variable with the password for external MQTT brokers.
pub const MQTT_PASSWORD: &str = "DASHLIGHT_MQTT_PASSWORD";

/// librdkafka properties by name, as written: a value may be `env:NAME` or `file:PATH`. Shows no secrets when debugged.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Whether a property is a secret by its name: passwords, keys, tokens.
    pub fn is_secret(name: &str) -> bool {
        const MARKS: [&str; 6] =
            ["password", "secret", "token", "key.pem", "sasl.oauthbearer.config", "sasl.jaas.config"];
        MARKS.iter().any(|mark| name.contains(mark)) && name != "sasl.oauthbearer.token.endpoint.url"
    }

    /// Whether a value only says where the secret is.
    pub fn is_reference(value: &str) -> bool {
        value.starts_with("env:") || value.starts_with("file:")
    }

    /// Names and values with every `env:` and `file:` followed: for the client alone, never for a log or the screen.
    pub fn resolved(&self) -> Result<Vec<(String, String)>, ConfigError> {
        self.0
            .iter()
            .map(|(name, value)| {
                let value = follow(&format!("kafka.properties.\"{name}\""), value)?;
                Ok((name.clone(), value))
            })
            .collect()
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, value)| (name, shown(name, value)))).finish()
    }
}

/// A property's value as it may be shown.
pub fn shown<'a>(name: &str, value: &'a str) -> &'a str {
    if Properties::is_secret(name) && !Properties::is_reference(value) { HIDDEN } else { value }
}

impl Deref for Properties {
    type Target = BTreeMap<String, String>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Properties {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<'a> IntoIterator for &'a Properties {
    type Item = (&'a String, &'a String);
    type IntoIter = std::collections::btree_map::Iter<'a, String, String>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl FromIterator<(String, String)> for Properties {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(iter: I) -> Self {
        Properties(iter.into_iter().collect())
    }
}

impl From<BTreeMap<String, String>> for Properties {
    fn from(map: BTreeMap<String, String>) -> Self {
        Properties(map)
    }
}

impl Held for Properties {
    const KIND: Kind = Kind::Properties;
}

impl Kafka {
    /// Every librdkafka property with its secrets read: for the client alone.
    pub fn resolved_properties(&self) -> Result<Vec<(String, String)>, ConfigError> {
        self.properties.resolved()
    }
}

impl Broker {
    /// Its password, from where `password` says that it is; `None` if there is none.
    pub fn password(&self) -> Result<Option<String>, ConfigError> {
        let key = "mqtt.broker.password";
        if self.password.is_empty() { Ok(None) } else { follow(key, &self.password).map(Some) }
    }
}

impl Mqtt {
    /// The password for external brokers: `password_file`, else the environment; `None` if neither is there.
    pub fn password(&self) -> Result<Option<String>, ConfigError> {
        match &self.password_file {
            Some(path) => read_file("mqtt.password_file", path).map(Some),
            None => Ok(std::env::var(MQTT_PASSWORD).ok()),
        }
    }
}

/// What stands where an `env:NAME` or `file:PATH` leads; any other value is itself.
fn follow(key: &str, value: &str) -> Result<String, ConfigError> {
    if let Some(variable) = value.strip_prefix("env:") {
        std::env::var(variable).map_err(|_| ConfigError::Secret {
            key: key.to_owned(),
            why: format!("the environment variable {variable} is not set (or not UTF-8): set it to the value"),
        })
    } else if let Some(path) = value.strip_prefix("file:") {
        read_file(key, Path::new(path))
    } else {
        Ok(value.to_owned())
    }
}

/// A file's text without the line end at its end (editors add one).
fn read_file(key: &str, path: &Path) -> Result<String, ConfigError> {
    let refuse = |why: String| ConfigError::Secret { key: key.to_owned(), why: format!("{}: {why}", path.display()) };
    let file = std::fs::File::open(path)
        .map_err(|error| refuse(format!("cannot be read ({error}): name a file that this user can read")))?;
    let mut text = String::new();
    let read = file.take(MAX_SECRET + 1).read_to_string(&mut text);
    read.map_err(|error| refuse(format!("cannot be read ({error}): a secret is UTF-8 text")))?;
    if text.len() as u64 > MAX_SECRET {
        return Err(refuse(format!("is larger than {MAX_SECRET} bytes: that is no secret")));
    }
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    if text.is_empty() {
        return Err(refuse("is empty: write the secret into it".into()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn debug_shows_names_and_references_but_no_secret() {
        let kafka = Kafka {
            properties: properties(&[
                ("sasl.password", "hunter2"),
                ("ssl.key.pem", "-----BEGIN"),
                ("ssl.key.password", "env:KEY_PASSWORD"),
                ("security.protocol", "SASL_SSL"),
            ]),
            ..Kafka::default()
        };
        let text = format!("{kafka:?}");
        assert!(!text.contains("hunter2") && !text.contains("BEGIN"), "{text}");
        assert!(text.contains("env:KEY_PASSWORD") && text.contains("SASL_SSL"), "{text}");
    }

    #[test]
    fn a_secret_is_read_from_its_file_without_the_line_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "hun ter2\r\n").unwrap();
        let resolved =
            properties(&[("sasl.password", &format!("file:{}", path.display())), ("a", "b")]).resolved().unwrap();
        assert_eq!(resolved, [("a".into(), "b".into()), ("sasl.password".into(), "hun ter2".into())]);
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_said_with_its_key_and_place() {
        let missing = properties(&[("sasl.password", "file:/nowhere/at/all")]).resolved().unwrap_err().to_string();
        assert!(
            missing.starts_with("`kafka.properties.\"sasl.password\"`: /nowhere/at/all: cannot be read"),
            "{missing}"
        );
        let unset =
            properties(&[("sasl.password", "env:DASHLIGHT_NO_SUCH_VARIABLE")]).resolved().unwrap_err().to_string();
        assert!(unset.contains("DASHLIGHT_NO_SUCH_VARIABLE is not set"), "{unset}");
    }

    #[test]
    fn an_empty_secret_file_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mqtt = Mqtt { password_file: Some(file.path().into()), ..Mqtt::default() };
        assert!(mqtt.password().unwrap_err().to_string().contains("is empty"));
    }
}
