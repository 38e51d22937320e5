//! Documents that are derived from the program must say what it says. With DASHLIGHT_BLESS=1 they are written instead.

use std::path::Path;

use dashlight::config::{Config, keys, print};
use dashlight::engine::records::{DeadLetter, EpisodeRecord, MarkRecord, Origin, ScoreRecord, Summary, blamed, json};
use dashlight::engine::view::{Blame, Counts, Episode, ShadowSide, ShadowView};
use dashlight::telemetry::Schema;

/// Compares the document with what it must be, or writes it.
fn must_be(name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("DASHLIGHT_BLESS").is_some() {
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(expected.lines()).position(|(a, b)| a != b);
    assert!(
        found == expected,
        "{name} is out of date from line {}: DASHLIGHT_BLESS=1 cargo test --test it docs:: writes it anew",
        differs.map_or(found.lines().count().min(expected.lines().count()), |line| line) + 1
    );
}

/// The example's own part, below what `run --print-config` prints.
const EXAMPLES: &str = include_str!("../../docs/sources.toml");

#[test]
fn the_example_configuration_is_what_print_config_prints_and_sources_to_copy() {
    must_be("dashlight.example.toml", &format!("{}{}", print(&Config::default()), commented(EXAMPLES)));
}

/// Examples must not apply by themselves.
fn commented(text: &str) -> String {
    let line = |line: &str| match line {
        "" => "\n".to_owned(),
        text if text.starts_with('#') => format!("{text}\n"),
        text => format!("#{text}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn the_example_configuration_changes_nothing_and_its_sources_can_be_used() {
    let directory = tempfile::tempdir().unwrap();
    let load = |text: String| {
        std::fs::write(directory.path().join("dashlight.toml"), text).unwrap();
        let inputs = dashlight::config::Inputs { directory: directory.path().into(), ..Default::default() };
        inputs.load().map(|loaded| loaded.config)
    };
    assert_eq!(load(commented(EXAMPLES)).unwrap(), Config::default());
    assert!(load(EXAMPLES.into()).unwrap().source.len() > 1);
}

#[test]
fn the_configuration_reference_has_every_key() {
    let mut text = String::from(
        "# Configuration\n\n\
         Layers, each stronger than the one before: defaults, the file, environment variables, flags. The file is `./dashlight.toml`, else\n\
         `$XDG_CONFIG_HOME/dashlight/config.toml` (`~/.config` if that is not set), or the one named by `--config` or `DASHLIGHT_CONFIG`.\n\
         An unknown key, a value of the wrong type or one that cannot work is refused with file, line and the way out (exit code 2).\n\
         `dashlight run --print-config` prints the configuration that would apply, with every key; `dashlight doctor` tries it.\n\n\
         Secrets: a librdkafka property and a broker's password may be written `env:NAME` or `file:PATH`, and are read from there; the\n\
         password for the brokers in `mqtt.connect` comes from `mqtt.password_file` or `DASHLIGHT_MQTT_PASSWORD`. None of them is printed,\n\
         logged or shown. The users' file holds hashes only.\n\
         In environment variables lists are comma-separated; `DASHLIGHT_KAFKA_PROPERTIES_SASL_PASSWORD` sets the property `sasl.password`.\n\n\
         *This page is derived from the program (`tests/it/docs.rs` checks it).*\n",
    );
    let defaults = toml::Table::try_from(Config::default()).unwrap();
    let mut section = None;
    for key in keys::all() {
        let (of, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        if section.as_deref() != Some(of) {
            let heading = match of {
                "" => "At the top".to_owned(),
                "source" | "mqtt.rule" | "mqtt.broker" => format!("`[[{of}]]`"),
                of => format!("`[{of}]`"),
            };
            text += &format!("\n## {heading}\n\n| key | default | environment | what it is |\n|---|---|---|---|\n");
            section = Some(of.to_owned());
        }
        let default = match of {
            "source" | "mqtt.rule" | "mqtt.broker" => dashlight::config::print::default_of(of).get(name).cloned(),
            _ => key.path.split('.').try_fold(toml::Value::Table(defaults.clone()), |v, name| v.get(name).cloned()),
        };
        let default = default.map_or("not set".to_owned(), |value| format!("`{value}`").replace("`{}`", "none"));
        let variable = key.variable().map_or(String::new(), |variable| format!("`{variable}`"));
        let doc = key.field.paragraph().replace('|', "\\|");
        text += &format!("| `{name}` | {default} | {variable} | {doc} |\n");
    }
    must_be("docs/configuration.md", &text);
}

/// Every name in a JSON value, nested ones too.
fn names(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (name, value) in object {
                found.push(name.clone());
                names(value, found);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| names(item, found)),
        _ => {}
    }
}

#[test]
fn the_page_on_records_names_every_field_that_is_written() {
    let schema = Schema::car_sensors();
    let blame = Blame { sensor: 0, value: 1.0, expected: 2.0, sigma: -3.0, share: 1.0 };
    let episode = Episode {
        id: "id".into(),
        car: "car".into(),
        onset: 1,
        end: None,
        peak: 2,
        severity: 3,
        blames: vec![blame.clone()],
        acknowledged: false,
        breaches: 4,
        schema: 0,
    };
    let origin = Origin { topic: "car-sensor", partition: 0, offset: 1 };
    let score = ScoreRecord {
        car: "car",
        time: 1,
        score: 1.0,
        threshold: 1.0,
        breach: true,
        severity: 1,
        model: "car-sensors",
        sensors: blamed(&[blame], &schema),
        origin,
    };
    let summary = Summary {
        event: "summary",
        counts: Counts::default(),
        cars: 0,
        seconds: 0.0,
        scored_per_second: 0.0,
        latency_p50_ms: None,
        latency_p99_ms: None,
        peak_memory_mib: None,
        in_log: 0,
        events_dropped: 0,
        shadow: Some(ShadowView {
            model: "other".into(),
            threshold: String::new(),
            readings: 0,
            both: 0,
            live: ShadowSide::default(),
            shadow: ShadowSide::default(),
        }),
    };
    let written = [
        json(&score),
        json(&EpisodeRecord::new("episode_opened", 1, &episode, &schema, "car-sensors")),
        json(&MarkRecord { event: "car_muted", car: "car", time: 1, until: Some(2) }),
        json(&DeadLetter::new("reason", 1, b"topic", Some(origin), b"payload")),
        json(&summary),
    ];
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/records.md")).unwrap();
    for record in written {
        let mut found = Vec::new();
        names(&serde_json::from_slice(&record).unwrap(), &mut found);
        for name in found {
            assert!(page.contains(&format!("`{name}`")), "docs/records.md does not say what `{name}` is");
        }
    }
}

#[test]
fn every_link_between_our_pages_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "models/README.md"].map(|name| root.join(name)).into_iter();
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut dead = Vec::new();
    for page in pages.chain(docs).filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = std::fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if !target.contains("://") && !file.is_empty() && !page.parent().unwrap().join(file).exists() {
                dead.push(format!("{}: {target}", page.strip_prefix(root).unwrap().display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:?}");
}
