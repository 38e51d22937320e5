//! Reads one TOML file against the table of keys: every key must be known and of its type, and each keeps its line.

use std::io::Read;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use super::keys::{Field, Kind, Section, nearest};
use super::load::Layers;

/// Largest configuration file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The file's text.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable { path: path.to_owned(), reason };
    let file = std::fs::File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(unreadable(format!("it is larger than {MAX_FILE} bytes, which is no configuration")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        ConfigError::Syntax {
            origin: Origin::File(path.to_owned(), line),
            reason: "bytes that are not UTF-8 text: save the file as UTF-8".into(),
        }
    })
}

/// Parses `text` (of the file at `path`) and lays it over `layers`.
pub fn merge(path: &Path, text: &str, layers: &mut Layers) -> Result<(), ConfigError> {
    let reader = Reader { path, text };
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        origin: reader.origin(error.span().map_or(0, |span| span.start)),
        reason: error.message().split_whitespace().collect::<Vec<_>>().join(" "),
    })?;
    let merged = reader.table(table.get_ref(), super::Config::FIELDS, "", layers)?;
    layers.overlay(merged);
    Ok(())
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn origin(&self, offset: usize) -> Origin {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        Origin::File(self.path.to_owned(), 1 + before.iter().filter(|b| **b == b'\n').count())
    }

    /// A table of known keys, checked, as plain values. Where each stands is noted in `layers`.
    fn table(
        &self,
        table: &DeTable<'_>,
        fields: &'static [Field],
        prefix: &str,
        layers: &mut Layers,
    ) -> Result<toml::Table, ConfigError> {
        let mut out = toml::Table::new();
        // In the file's order, so that the first mistake in the file is the one that is told.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            let key = format!("{prefix}{}", name.get_ref());
            let Some(field) = fields.iter().find(|field| field.name == name.get_ref().as_ref()) else {
                return Err(ConfigError::UnknownKey {
                    origin: self.origin(name.span().start),
                    nearest: nearest_key(name.get_ref(), fields, prefix),
                    known: fields.iter().map(|field| field.name.to_owned()).collect(),
                    key: crate::text::harmless(&key, 120).into_owned(),
                });
            };
            out.insert(field.name.to_owned(), self.value(value, field.kind, &key, layers)?);
        }
        Ok(out)
    }

    fn value(
        &self,
        value: &Spanned<DeValue<'_>>,
        kind: Kind,
        key: &str,
        layers: &mut Layers,
    ) -> Result<toml::Value, ConfigError> {
        let origin = self.origin(value.span().start);
        layers.note(key, origin.clone());
        let wrong = || ConfigError::WrongType {
            origin: origin.clone(),
            key: key.to_owned(),
            found: found(value.get_ref(), kind),
            wanted: kind.wanted(),
        };
        match (kind, value.get_ref()) {
            (Kind::Text | Kind::Path, DeValue::String(text)) => Ok(toml::Value::String(text.to_string())),
            (Kind::Switch, DeValue::Boolean(on)) => Ok(toml::Value::Boolean(*on)),
            (Kind::Integer(low, high), DeValue::Integer(digits)) => {
                let number = i64::from_str_radix(digits.as_str(), digits.radix()).map_err(|_| wrong())?;
                if (low..=high).contains(&number) { Ok(toml::Value::Integer(number)) } else { Err(wrong()) }
            }
            (Kind::Number, DeValue::Integer(digits)) => {
                let number = i64::from_str_radix(digits.as_str(), digits.radix()).map_err(|_| wrong())?;
                Ok(toml::Value::Float(number as f64))
            }
            (Kind::Number, DeValue::Float(digits)) => {
                Ok(toml::Value::Float(digits.as_str().parse().map_err(|_| wrong())?))
            }
            (Kind::Choice(words), DeValue::String(word)) => {
                if words.contains(&word.as_ref()) {
                    Ok(toml::Value::String(word.to_string()))
                } else {
                    Err(wrong())
                }
            }
            (Kind::Texts, DeValue::Array(items)) => {
                let mut out = Vec::with_capacity(items.len());
                for (n, item) in items.iter().enumerate() {
                    out.push(self.value(item, Kind::Text, &format!("{key}[{n}]"), layers)?);
                }
                Ok(toml::Value::Array(out))
            }
            (Kind::Properties, DeValue::Table(table)) => {
                let mut out = toml::Table::new();
                self.properties(table, "", key, &mut out, layers)?;
                Ok(toml::Value::Table(out))
            }
            (Kind::Section(fields), DeValue::Table(table)) => {
                Ok(toml::Value::Table(self.table(table, fields, &format!("{key}."), layers)?))
            }
            (Kind::Sections(fields), DeValue::Array(items)) => {
                let mut out = Vec::with_capacity(items.len());
                for (n, item) in items.iter().enumerate() {
                    out.push(self.value(item, Kind::Section(fields), &format!("{key}[{n}]"), layers)?);
                }
                Ok(toml::Value::Array(out))
            }
            _ => Err(wrong()),
        }
    }

    /// Properties' own names hold dots, and unquoted dots make tables in TOML: `sasl.password` and `"sasl.password"` are one.
    /// Their values may be written as what they are: `5`, `true` and `"5"` are one as well.
    fn properties(
        &self,
        table: &DeTable<'_>,
        prefix: &str,
        key: &str,
        out: &mut toml::Table,
        layers: &mut Layers,
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let property = format!("{prefix}{}", name.get_ref());
            let full = format!("{key}.\"{property}\"");
            layers.note(&full, self.origin(value.span().start));
            let text = match value.get_ref() {
                DeValue::Table(inner) => {
                    self.properties(inner, &format!("{property}."), key, out, layers)?;
                    continue;
                }
                DeValue::String(text) => text.to_string(),
                DeValue::Boolean(on) => on.to_string(),
                DeValue::Integer(digits) if digits.radix() == 10 => digits.as_str().to_owned(),
                DeValue::Float(digits) => digits.as_str().to_owned(),
                other => {
                    return Err(ConfigError::WrongType {
                        origin: self.origin(value.span().start),
                        key: full,
                        found: found(other, Kind::Text),
                        wanted: Kind::Text.wanted(),
                    });
                }
            };
            out.insert(property, toml::Value::String(text));
        }
        Ok(())
    }
}

/// What stands there, in words.
fn found(value: &DeValue<'_>, kind: Kind) -> String {
    match value {
        DeValue::String(text) if matches!(kind, Kind::Choice(_)) => format!("\"{}\"", crate::text::harmless(text, 40)),
        DeValue::String(_) => "a string".into(),
        DeValue::Integer(digits) => crate::text::harmless(digits.as_str(), 40).into_owned(),
        DeValue::Float(digits) => crate::text::harmless(digits.as_str(), 40).into_owned(),
        DeValue::Boolean(on) => on.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "an array".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// The key an unknown one may be meant for: of the same section first, else of any (`bootstrap` at the top level).
fn nearest_key(name: &str, fields: &'static [Field], prefix: &str) -> Option<String> {
    if let Some(near) = nearest(name, fields.iter().map(|field| field.name)) {
        return Some(format!("{prefix}{near}"));
    }
    let wanted = format!(".{name}");
    super::keys::all().into_iter().map(|key| key.path).find(|path| path.ends_with(&wanted))
}
