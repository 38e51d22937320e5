//! Finds the layers and merges them: defaults < file < environment < flags.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::error::{ConfigError, Origin};
use super::keys::{self, Key, Kind};
use super::{Config, check, file};

/// The file looked for in the working directory.
const LOCAL_FILE: &str = "dashlight.toml";

/// How every variable of ours begins.
const PREFIX: &str = "DASHLIGHT_";
/// Variables that are no keys.
const OTHER_VARIABLES: [&str; 2] = ["DASHLIGHT_CONFIG", super::secret::MQTT_PASSWORD];

/// One value given by a flag.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The flag as it is spelled: `--kafka`.
    pub flag: &'static str,
    /// The key it sets: `kafka.bootstrap`.
    pub key: &'static str,
    /// The value, of the key's type.
    pub value: toml::Value,
}

/// What a configuration is made from.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The file named on the command line. It must exist.
    pub file: Option<PathBuf>,
    /// The working directory, searched for `dashlight.toml`; empty for the process's own.
    pub directory: PathBuf,
    /// The environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// What the flags say.
    pub flags: Vec<Setting>,
}

impl Inputs {
    /// Those of this process, with nothing said on the command line.
    pub fn of_process() -> Self {
        Inputs { environment: std::env::vars_os().collect(), ..Inputs::default() }
    }

    fn variable(&self, name: &str) -> Option<&OsString> {
        self.environment.get(&OsString::from(name)).filter(|value| !value.is_empty())
    }

    /// A directory of the XDG base directory specification: the variable if it holds an absolute path, else below HOME.
    fn xdg(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        let set = self.variable(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        set.or_else(|| Some(PathBuf::from(self.variable("HOME")?).join(below_home))).map(|path| path.join("dashlight"))
    }

    /// The configuration file that applies: the one named by `--config` or DASHLIGHT_CONFIG, else the first that exists
    /// of `./dashlight.toml` and `$XDG_CONFIG_HOME/dashlight/config.toml`.
    pub fn config_file(&self) -> Option<PathBuf> {
        if let Some(named) = self.file.clone().or_else(|| self.variable("DASHLIGHT_CONFIG").map(PathBuf::from)) {
            return Some(named);
        }
        let local = self.directory.join(LOCAL_FILE);
        let user = self.xdg("XDG_CONFIG_HOME", ".config").map(|path| path.join("config.toml"));
        // `exists` and not `is_file`: a file that cannot be read is an error to be told, not one to be passed over.
        std::iter::once(local).chain(user).find(|path| path.exists())
    }

    /// The places looked in for a file when none is named.
    pub fn searched(&self) -> Vec<PathBuf> {
        let user = self.xdg("XDG_CONFIG_HOME", ".config").map(|path| path.join("config.toml"));
        std::iter::once(self.directory.join(LOCAL_FILE)).chain(user).collect()
    }

    /// Merges the layers and checks the result.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut layers = Layers::default();
        let path = self.config_file();
        if let Some(path) = &path {
            file::merge(path, &file::read(path)?, &mut layers)?;
        }
        let warnings = self.environment_layer(&mut layers)?;
        for setting in &self.flags {
            layers.set(setting.key, setting.value.clone(), Origin::Flag(setting.flag));
        }
        let Layers { table, origins } = layers;
        let config: Config = toml::Value::Table(table).try_into().map_err(|error: toml::de::Error| {
            // Every value was checked against the table above, so this is a gap in that check; say what serde says.
            ConfigError::Syntax { origin: Origin::Default, reason: error.message().to_owned() }
        })?;
        let loaded =
            Loaded { config, file: path, state: self.xdg("XDG_STATE_HOME", ".local/state"), origins, warnings };
        check::check(&loaded)?;
        Ok(loaded)
    }

    /// Lays `DASHLIGHT_…` over the layers; answers with a sentence for each variable that looks mistyped.
    fn environment_layer(&self, layers: &mut Layers) -> Result<Vec<String>, ConfigError> {
        let keys = keys::all();
        let variables: BTreeMap<String, &Key> = keys.iter().filter_map(|key| Some((key.variable()?, key))).collect();
        let mut warnings = Vec::new();
        for (name, value) in &self.environment {
            let Some((name, rest)) = name.to_str().and_then(|name| Some((name, name.strip_prefix(PREFIX)?))) else {
                continue;
            };
            let origin = Origin::Variable(name.to_owned());
            let text = value.to_str().ok_or_else(|| ConfigError::BadValue {
                origin: origin.clone(),
                key: name.to_owned(),
                why: "is not UTF-8 text".into(),
            });
            if let Some(property) = rest.strip_prefix("KAFKA_PROPERTIES_") {
                layers.set_property(&property.replace('_', ".").to_lowercase(), text?, origin);
            } else if let Some(key) = variables.get(name) {
                let text = text?;
                if text.is_empty() && !matches!(key.field.kind, Kind::Text | Kind::Texts) {
                    continue;
                }
                let value = from_text(text, key.field.kind).ok_or_else(|| ConfigError::WrongType {
                    origin: origin.clone(),
                    key: key.path.clone(),
                    found: format!("\"{}\"", crate::text::harmless(text, 40)),
                    wanted: key.field.kind.wanted().replace(" in quotes", ""),
                })?;
                layers.set(&key.path, value, origin);
            } else if !OTHER_VARIABLES.contains(&name) {
                // Not refused: container platforms invent variables of this form (DASHLIGHT_PORT) for a service of our name.
                let known = variables.keys().map(String::as_str).chain(OTHER_VARIABLES);
                if let Some(near) = keys::nearest(rest, known.filter_map(|name| name.strip_prefix(PREFIX))) {
                    warnings.push(format!("{name}: no such setting: did you mean {PREFIX}{near}?"));
                }
            }
        }
        Ok(warnings)
    }
}

/// A value written as plain text, as in the environment; lists are comma-separated.
fn from_text(text: &str, kind: Kind) -> Option<toml::Value> {
    let trimmed = text.trim();
    match kind {
        Kind::Text | Kind::Path => Some(toml::Value::String(text.to_owned())),
        Kind::Switch => match trimmed.to_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(toml::Value::Boolean(true)),
            "false" | "0" | "no" | "off" => Some(toml::Value::Boolean(false)),
            _ => None,
        },
        Kind::Integer(low, high) => {
            let number = trimmed.parse().ok().filter(|number| (low..=high).contains(number))?;
            Some(toml::Value::Integer(number))
        }
        Kind::Number => Some(toml::Value::Float(trimmed.parse().ok()?)),
        Kind::Choice(words) => words.contains(&trimmed).then(|| toml::Value::String(trimmed.to_owned())),
        Kind::Texts => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(toml::Value::Array(items.map(|item| toml::Value::String(item.to_owned())).collect()))
        }
        Kind::Properties | Kind::Section(_) | Kind::Sections(_) => None,
    }
}

/// The layers merged so far, and where each value was given.
#[derive(Debug, Default)]
pub struct Layers {
    table: toml::Table,
    origins: BTreeMap<String, Origin>,
}

impl Layers {
    /// Notes where `key` was given.
    pub fn note(&mut self, key: &str, origin: Origin) {
        self.origins.insert(key.to_owned(), origin);
    }

    /// Lays a whole table over what there is. Tables merge; anything else replaces.
    pub fn overlay(&mut self, over: toml::Table) {
        fn merge(under: &mut toml::Table, over: toml::Table) {
            for (key, value) in over {
                match (under.get_mut(&key), value) {
                    (Some(toml::Value::Table(under)), toml::Value::Table(over)) => merge(under, over),
                    (_, value) => {
                        under.insert(key, value);
                    }
                }
            }
        }
        merge(&mut self.table, over);
    }

    /// Sets one key, named by its path.
    pub fn set(&mut self, path: &str, value: toml::Value, origin: Origin) {
        // What was noted of a replaced list's items no longer holds.
        self.origins.retain(|key, _| !key.starts_with(&format!("{path}[")));
        self.note(path, origin);
        let over = path
            .rsplit('.')
            .fold(value, |value, name| toml::Value::Table(toml::Table::from_iter([(name.to_owned(), value)])));
        if let toml::Value::Table(over) = over {
            self.overlay(over);
        }
    }

    fn set_property(&mut self, property: &str, text: &str, origin: Origin) {
        self.note(&format!("kafka.properties.\"{property}\""), origin);
        let properties = toml::Table::from_iter([(property.to_owned(), toml::Value::String(text.to_owned()))]);
        let kafka = toml::Table::from_iter([("properties".to_owned(), toml::Value::Table(properties))]);
        self.overlay(toml::Table::from_iter([("kafka".to_owned(), toml::Value::Table(kafka))]));
    }
}

/// A configuration and where it came from.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The configuration, checked.
    pub config: Config,
    /// The file it was read from, if there was one.
    pub file: Option<PathBuf>,
    /// Sentences for the log: what was passed over and may be meant otherwise.
    pub warnings: Vec<String>,
    state: Option<PathBuf>,
    origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// Where the value of `key` was given.
    pub fn origin(&self, key: &str) -> Origin {
        let mut key = key;
        loop {
            if let Some(origin) = self.origins.get(key) {
                return origin.clone();
            }
            // A list given as a whole has no lines of its items; a key left out has at the most its section's line.
            match key.rfind(['[', '.']) {
                Some(end) => key = &key[..end],
                None => return Origin::Default,
            }
        }
    }

    /// The write-ahead log's directory: configured, else below the state directory.
    pub fn log_directory(&self) -> Result<PathBuf, ConfigError> {
        self.config.wal.directory.clone().map_or_else(|| Ok(self.state_directory()?.join("wal")), Ok)
    }

    /// The directory for what must survive a restart: configured, else the user's.
    pub fn state_directory(&self) -> Result<PathBuf, ConfigError> {
        self.config.state.clone().or_else(|| self.state.clone()).ok_or(ConfigError::NoState)
    }
}
