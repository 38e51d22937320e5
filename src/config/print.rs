//! The whole configuration as a commented TOML file: every key with its doc string and its default; one that differs from
//! its default is set, the others are commented out. Reading it back gives the same configuration, hidden secrets apart.

use std::fmt::Write;

use super::keys::{Field, Key, Kind, Section};
use super::secret::{Properties, shown};
use super::{Broker, Config, Rule, Source};

/// The file's text.
pub fn print(config: &Config) -> String {
    let current = table(config);
    let default = table(&Config::default());
    let mut out = String::from(
        "# dashlight's configuration. Every key stands here with its default, commented out; what is set differs from it.\n\
         # The file is looked for as ./dashlight.toml, then as $XDG_CONFIG_HOME/dashlight/config.toml, or named by --config.\n\
         # Environment variables (named with each key) are stronger than the file, flags are stronger than both.\n\
         # Relative paths start from the working directory.\n",
    );
    section(&mut out, Config::FIELDS, "", &current, &default);
    out
}

/// As plain values; keys that are not set are left out.
fn table(config: &Config) -> toml::Table {
    // A configuration is made of strings, numbers, lists and tables only, all of which TOML has.
    toml::Table::try_from(config).unwrap_or_default()
}

/// The keys of a section first, then the sections in it: TOML wants it so.
fn section(out: &mut String, fields: &'static [Field], prefix: &str, current: &toml::Table, default: &toml::Table) {
    for field in fields {
        match field.kind {
            Kind::Section(_) | Kind::Sections(_) | Kind::Properties => {}
            _ => key(out, field, prefix, current.get(field.name), default.get(field.name)),
        }
    }
    for field in fields {
        let path = format!("{prefix}{}", field.name);
        let empty = toml::Table::new();
        let inner = |table: &'_ toml::Table| table.get(field.name).and_then(|v| v.as_table()).cloned();
        match field.kind {
            Kind::Section(fields) => {
                heading(out, field, &format!("[{path}]"));
                let (current, default) = (inner(current), inner(default));
                let path = format!("{path}.");
                section(out, fields, &path, current.as_ref().unwrap_or(&empty), default.as_ref().unwrap_or(&empty));
            }
            Kind::Sections(fields) => tables(out, field, fields, &path, current, default),
            Kind::Properties => properties(out, field, &path, inner(current).unwrap_or_default()),
            _ => {}
        }
    }
}

fn heading(out: &mut String, field: &Field, brackets: &str) {
    out.push('\n');
    comment(out, &field.paragraph());
    let _ = writeln!(out, "{brackets}");
}

fn key(out: &mut String, field: &Field, prefix: &str, current: Option<&toml::Value>, default: Option<&toml::Value>) {
    out.push('\n');
    comment(out, &field.paragraph());
    let mut facts = match default {
        Some(value) => format!("Default: {value}"),
        None => "Default: not set".to_owned(),
    };
    if let Some(variable) = (Key { path: format!("{prefix}{}", field.name), field: *field }).variable() {
        let _ = write!(facts, ". Environment: {variable}");
    }
    let _ = writeln!(out, "# {facts}");
    let _ = match current.filter(|_| current != default) {
        Some(value) => writeln!(out, "{} = {value}", field.name),
        None => {
            writeln!(out, "#{} = {}", field.name, default.map_or_else(|| placeholder(field.kind), ToString::to_string))
        }
    };
}

/// Something of its kind to write over.
fn placeholder(kind: Kind) -> String {
    match kind {
        Kind::Integer(..) => "0".into(),
        Kind::Number => "1.0".into(),
        Kind::Switch => "false".into(),
        Kind::Texts => "[]".into(),
        Kind::Choice(words) => format!("{:?}", words.first().copied().unwrap_or_default()),
        _ => "\"\"".into(),
    }
}

/// An array of tables: those that are set replace the default ones, so the file shows either one as a comment or all that
/// are set.
fn tables(
    out: &mut String,
    field: &Field,
    fields: &'static [Field],
    path: &str,
    current: &toml::Table,
    default: &toml::Table,
) {
    let list = |table: &toml::Table| -> Vec<toml::Table> {
        let items = table.get(field.name).and_then(|value| value.as_array()).cloned().unwrap_or_default();
        items.into_iter().filter_map(|item| item.as_table().cloned()).collect()
    };
    let prefix = format!("{path}.");
    let one_default = default_of(path);
    let set = list(current);
    if set == list(default) {
        heading(out, field, &format!("#[[{path}]]"));
        section(out, fields, &prefix, &one_default, &one_default);
        return;
    }
    for table in &set {
        heading(out, field, &format!("[[{path}]]"));
        section(out, fields, &prefix, table, &one_default);
    }
}

/// The defaults of one table of an array's.
pub fn default_of(path: &str) -> toml::Table {
    let defaults = match path {
        "source" => toml::Table::try_from(Source::default()),
        "mqtt.rule" => toml::Table::try_from(Rule::default()),
        "mqtt.broker" => toml::Table::try_from(Broker::default()),
        _ => Ok(toml::Table::new()),
    };
    defaults.unwrap_or_default()
}

fn properties(out: &mut String, field: &Field, path: &str, current: toml::Table) {
    heading(out, field, &format!("[{path}]"));
    out.push_str(
        "# Environment: DASHLIGHT_KAFKA_PROPERTIES_… (SASL_PASSWORD for \"sasl.password\"). For example:\n\
         #\"security.protocol\" = \"SASL_SSL\"\n\
         #\"sasl.mechanism\" = \"SCRAM-SHA-512\"\n\
         #\"sasl.username\" = \"dashlight\"\n\
         #\"sasl.password\" = \"env:KAFKA_PASSWORD\"\n\
         #\"ssl.ca.location\" = \"/etc/ssl/certs/kafka-ca.pem\"\n",
    );
    for (name, value) in current {
        let text = value.as_str().unwrap_or_default();
        let name = toml::Value::String(name);
        let hidden = name.as_str().is_some_and(|name| Properties::is_secret(name) && !Properties::is_reference(text));
        let value = toml::Value::String(shown(name.as_str().unwrap_or_default(), text).to_owned());
        let _ = writeln!(out, "{}{name} = {value}", if hidden { "#" } else { "" });
    }
}

/// Text as comment lines of at most 118 characters.
fn comment(out: &mut String, text: &str) {
    let mut width = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width == 0 || width + 1 + length > 118 {
            out.push_str(if width == 0 { "# " } else { "\n# " });
            width = 2;
        } else {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += length;
    }
    out.push('\n');
}
