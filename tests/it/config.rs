//! Configuration files, good and bad: what applies, and what is said about a mistake.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use dashlight::config::{Codec, Config, Inputs, Loaded, Scores, Setting, keys, print};

/// Reads `text` as ./dashlight.toml of an otherwise empty world.
fn load(text: &str) -> Result<Loaded, String> {
    World::new().file("dashlight.toml", text).load()
}

/// A working directory, an environment and flags of a test's own.
struct World {
    directory: tempfile::TempDir,
    inputs: Inputs,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let inputs = Inputs { directory: directory.path().to_owned(), ..Inputs::default() };
        World { directory, inputs }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.inputs.environment.insert(name.into(), value.into());
        self
    }

    fn flag(mut self, flag: &'static str, key: &'static str, value: impl Into<toml::Value>) -> Self {
        self.inputs.flags.push(Setting { flag, key, value: value.into() });
        self
    }

    fn load(&self) -> Result<Loaded, String> {
        let directory = format!("{}/", self.directory.path().display());
        self.inputs.load().map_err(|error| error.to_string().replace(&directory, ""))
    }
}

#[test]
fn without_any_configuration_the_defaults_apply() {
    let loaded = World::new().load().unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.file, None);
    assert_eq!(loaded.config.simulated_cars(), 100);
    assert_eq!(loaded.config.source.len(), 1);
}

#[test]
fn a_flag_beats_the_environment_that_beats_the_file_that_beats_the_default() {
    let world = World::new().file("dashlight.toml", "[kafka]\ngroup = 'file'\nbootstrap = 'file:1'\npartitions = 3\n");
    let world = world.variable("DASHLIGHT_KAFKA_GROUP", "environment").variable("DASHLIGHT_KAFKA_BOOTSTRAP", "env:2");
    let config = world.flag("--kafka", "kafka.bootstrap", "flag:3").load().unwrap().config;
    assert_eq!(config.kafka.bootstrap, "flag:3");
    assert_eq!(config.kafka.group, "environment");
    assert_eq!(config.kafka.partitions, 3);
    assert_eq!(config.kafka.replication, -1);
}

#[test]
fn the_file_is_the_named_one_else_the_local_one_else_the_users() {
    let world = World::new().file("home/.config/dashlight/config.toml", "[kafka]\ngroup = 'home'\n");
    let home = world.path("home");
    let world = world.variable("HOME", home);
    assert_eq!(world.load().unwrap().config.kafka.group, "home");

    let world = world.file("xdg/dashlight/config.toml", "[kafka]\ngroup = 'xdg'\n");
    let xdg = world.path("xdg");
    let world = world.variable("XDG_CONFIG_HOME", xdg);
    assert_eq!(world.load().unwrap().config.kafka.group, "xdg");

    let world = world.file("dashlight.toml", "[kafka]\ngroup = 'local'\n");
    assert_eq!(world.load().unwrap().config.kafka.group, "local");

    let world = world.file("other.toml", "[kafka]\ngroup = 'variable'\n");
    let other = world.path("other.toml");
    let mut world = world.variable("DASHLIGHT_CONFIG", other);
    assert_eq!(world.load().unwrap().config.kafka.group, "variable");

    std::fs::write(world.path("named.toml"), "[kafka]\ngroup = 'named'\n").unwrap();
    world.inputs.file = Some(world.path("named.toml"));
    assert_eq!(world.load().unwrap().config.kafka.group, "named");
}

#[test]
fn a_relative_xdg_directory_is_passed_over_as_the_specification_says() {
    let world = World::new().variable("XDG_STATE_HOME", "relative").variable("HOME", "/home/op");
    assert_eq!(world.load().unwrap().state_directory().unwrap(), Path::new("/home/op/.local/state/dashlight"));
}

#[test]
fn without_a_home_there_is_no_place_for_state_unless_one_is_named() {
    let refused = World::new().load().unwrap().state_directory().unwrap_err().to_string();
    assert!(refused.contains("--state"), "{refused}");
    let named = load("state = '/var/lib/dashlight'").unwrap();
    assert_eq!(named.state_directory().unwrap(), Path::new("/var/lib/dashlight"));
}

#[test]
fn good_files_are_read() {
    type Check = fn(&Config) -> bool;
    let good: &[(&str, Check)] = &[
        ("", |c| *c == Config::default()),
        ("# only a comment\n", |c| *c == Config::default()),
        ("\u{feff}[kafka]\ngroup = 'with a byte order mark'\n", |c| c.kafka.group == "with a byte order mark"),
        ("[kafka]\r\ngroup = 'windows'\r\n", |c| c.kafka.group == "windows"),
        ("kafka.topics.scores = 'dotted'", |c| {
            c.kafka.topics.scores == "dotted" && c.kafka.topics.episodes == "anomaly-episodes"
        }),
        ("kafka = { bootstrap = 'a:1,b:2', partitions = 12 }", |c| {
            c.kafka.bootstrap == "a:1,b:2" && c.kafka.partitions == 12
        }),
        ("[kafka]\nbootstrap = '[::1]:9092, kafka-2.example.org:9092'", |c| c.kafka.bootstrap.starts_with("[::1]")),
        ("[kafka.properties]\n'sasl.password' = 'env:SECRET'", |c| c.kafka.properties["sasl.password"] == "env:SECRET"),
        ("[kafka.properties]\nssl.ca.location = 'ca.pem'\nssl.key.location = 'k.pem'", |c| {
            c.kafka.properties["ssl.ca.location"] == "ca.pem" && c.kafka.properties["ssl.key.location"] == "k.pem"
        }),
        ("[kafka.properties]\n'linger.ms' = 5\n'log.connection.close' = false", |c| {
            c.kafka.properties["linger.ms"] == "5" && c.kafka.properties["log.connection.close"] == "false"
        }),
        ("[mqtt]\nlisten = ''", |c| c.mqtt.listen.is_empty()),
        ("[mqtt]\nlisten = '0.0.0.0:1883'\nanonymous = true", |c| c.simulated_cars() == 0 && c.mqtt.lets_anyone_in()),
        ("[mqtt]\nlisten = ':1883'\nusers_file = 'users'", |c| c.simulated_cars() == 0 && !c.mqtt.lets_anyone_in()),
        ("[mqtt]\nusers_file = 'users'", |c| c.simulated_cars() == 0 && !c.mqtt.lets_anyone_in()),
        ("[mqtt]\nlisten = '127.0.0.1:1883, mqtts://127.0.0.1:8883'\ntls = { certificate = 'c', key = 'k' }", |c| {
            c.simulated_cars() == 100 && c.mqtt.lets_anyone_in()
        }),
        (
            "[mqtt]\nlisten = 'mqtts://:8883'\n[mqtt.tls]\ncertificate = 'c'\nkey = 'k'\nclient_ca = 'ca'\n\
             require_client_certificate = true",
            |c| c.mqtt.tls.require_client_certificate && !c.mqtt.lets_anyone_in(),
        ),
        ("[[mqtt.rule]]\nuser = 'truck-*'\npublish = ['v/%c/#', '100%/+']\n[[mqtt.rule]]\nsubscribe = ['#']", |c| {
            c.mqtt.rule.len() == 2 && c.mqtt.rule[1].user.is_none() && c.simulated_cars() == 100
        }),
        (
            "[[mqtt.broker]]\nurl = 'mqtts://op@edge'\npassword = 'env:EDGE'\nca_file = 'ca.pem'\ncertificate = 'c'\nkey = 'k'",
            |c| c.mqtt.broker[0].ca_file.is_some() && c.simulated_cars() == 0,
        ),
        ("[mqtt]\nlisten = '[::1]:0'", |c| c.simulated_cars() == 100),
        ("[mqtt]\nlisten = 'localhost:1884'", |c| c.simulated_cars() == 100),
        ("[mqtt]\nconnect = ['mqtt://edge', 'mqtt://op@10.0.0.7:1884', 'mqtt://[fe80::1]', 'mqtts://edge']", |c| {
            c.mqtt.connect.len() == 4
        }),
        ("[[source]]\ntopic = 'engine'\nmqtt = ['car/engine/temperature']\ncodec = 'delimited'\ncar = 'event'", |c| {
            c.source.len() == 1 && c.source[0].codec == Codec::Delimited
        }),
        ("[[source]]\n[[source]]\ntopic = 'trucks'\nmqtt = ['trucks/#']\nmodel = './trucks.onnx'", |c| {
            c.source[0].model_or(&c.model) == "car-sensors" && c.source[1].model_or(&c.model) == "./trucks.onnx"
        }),
        ("source = [{ topic = 'a', mqtt = ['a/+'] }, { topic = 'b', mqtt = ['b/+'] }]", |c| c.source[1].topic == "b"),
        ("[[source]]\ncar = 'field:vin'\ntime = ''", |c| c.source[0].time.is_empty()),
        ("[[source]]\nmqtt = ['+/+/温度', '#']", |c| c.source[0].mqtt.len() == 2),
        ("[model]\nscores = 'all'\nthreshold = 3", |c| c.model.scores == Scores::All && c.model.threshold == Some(3.0)),
        ("[simulate]\ncars = 0x10\nrate = 1\nfaults = 0\nseed = 18", |c| {
            c.simulate.cars == Some(16) && c.simulate.rate == 1.0
        }),
        ("[limits]\ncars = 1_000", |c| c.limits.cars == 1_000),
        ("[log]\nlevel = 'warn,dashlight=debug'\nfile = '/tmp/x.log'", |c| c.log.file == Some("/tmp/x.log".into())),
        ("state = '/tmp/state'\n[console]\nascii = true\ncolor = '16'\ntheme = './mine.toml'", |c| c.console.ascii),
    ];
    for (text, holds) in good {
        match load(text) {
            Ok(loaded) => assert!(holds(&loaded.config), "{text}\n{:?}", loaded.config),
            Err(error) => panic!("{text}\n{error}"),
        }
    }
}

#[test]
fn a_bad_file_is_refused_with_line_key_and_way_out() {
    let bad = [
        // Unknown keys, with the nearest known name.
        (
            "[kafka]\n\nbootstrp = 'x:1'",
            "dashlight.toml:3: unknown key `kafka.bootstrp`: did you mean `kafka.bootstrap`?",
        ),
        ("[kafak]\ngroup = 'x'", "dashlight.toml:1: unknown key `kafak`: did you mean `kafka`?"),
        ("bootstrap = 'x:1'", "dashlight.toml:1: unknown key `bootstrap`: did you mean `kafka.bootstrap`?"),
        (
            "[[source]]\ntopics = 'x'",
            "dashlight.toml:2: unknown key `source[0].topics`: did you mean `source[0].topic`?",
        ),
        ("[log]\ncolour = 1", "dashlight.toml:2: unknown key `log.colour`: known here are level, file"),
        // Not TOML.
        ("[kafka]\ngroup = 'x\n", "dashlight.toml:2: not TOML: "),
        ("a = 1\na = 2", "dashlight.toml:2: not TOML: duplicate key"),
        ("[kafka", "dashlight.toml:1: not TOML: "),
        // Wrong types.
        (
            "[kafka]\npartitions = 'eight'",
            "dashlight.toml:2: `kafka.partitions` is a string, and must be a whole number",
        ),
        (
            "[simulate]\nseed = 99999999999999999999",
            "dashlight.toml:2: `simulate.seed` is 99999999999999999999, and must be a whole number",
        ),
        ("[simulate]\ncars = -1", "dashlight.toml:2: `simulate.cars` is -1, and must be a whole number, 0 or more"),
        ("[simulate]\ncars = 1.5", "dashlight.toml:2: `simulate.cars` is 1.5, and must be a whole number"),
        ("[console]\nascii = 'yes'", "dashlight.toml:2: `console.ascii` is a string, and must be `true` or `false`"),
        ("[mqtt]\nlisten = 1883", "dashlight.toml:2: `mqtt.listen` is 1883, and must be a string in quotes"),
        (
            "[mqtt]\nconnect = 'mqtt://a'",
            "dashlight.toml:2: `mqtt.connect` is a string, and must be an array of strings",
        ),
        (
            "[mqtt]\nconnect = [\n  'mqtt://a',\n  7,\n]",
            "dashlight.toml:4: `mqtt.connect[1]` is 7, and must be a string",
        ),
        ("kafka = 'x:1'", "dashlight.toml:1: `kafka` is a string, and must be a table of keys"),
        ("[source]\ntopic = 'x'", "`source` is a table, and must be an array of tables"),
        (
            "[[source]]\ncodec = 'jsn'",
            "dashlight.toml:2: `source[0].codec` is \"jsn\", and must be one of \"json\", \"delimited\", \"csv\"",
        ),
        (
            "[model]\nscores = 'some'",
            "dashlight.toml:2: `model.scores` is \"some\", and must be one of \"breaches\", \"all\"",
        ),
        (
            "[kafka.properties]\nx = ['a']",
            "dashlight.toml:2: `kafka.properties.\"x\"` is an array, and must be a string",
        ),
        ("state = 2020-01-01", "dashlight.toml:1: `state` is a date, and must be a path"),
        // Values that cannot work.
        (
            "[mqtt]\nlisten = '127.0.0.1'",
            "dashlight.toml:2: `mqtt.listen` is \"127.0.0.1\", which is no address: write IP:PORT",
        ),
        ("[mqtt]\nlisten = '127.0.0.1:99999'", "which is no address"),
        (
            "[mqtt]\nconnect = ['edge:1883']",
            "dashlight.toml:2: `mqtt.connect[0]` is not a URL: write mqtt://[USER@]HOST[:PORT], or mqtts:// for TLS",
        ),
        ("[mqtt]\nconnect = ['http://edge']", "does not begin with mqtt://"),
        ("[mqtt]\nconnect = ['wss://edge']", "asks for wss://, which is not supported"),
        (
            "[mqtt]\nlisten = '127.0.0.1:1883,0.0.0.0:1884'",
            "dashlight.toml:2: `mqtt.listen` has 0.0.0.0:1884, which other machines reach, and there are no users: make a users' \
             file with `dashlight passwd FILE USER` and name it as mqtt.users_file, or let everybody in with --anonymous",
        ),
        ("[mqtt]\nlisten = '0.0.0.0:1883'\nanonymous = false", "which other machines reach, and there are no users"),
        (
            "[mqtt]\nlisten = '0.0.0.0:1883'\n[mqtt.tls]\ncertificate = 'c'\nkey = 'k'\nclient_ca = 'a'\n\
             require_client_certificate = true",
            "which other machines reach, and there are no users",
        ),
        ("[mqtt]\nlisten = 'mqtts://127.0.0.1:8883'", "asks for TLS, but there is no certificate: name its files"),
        ("[mqtt.tls]\ncertificate = 'c'", "dashlight.toml:2: `mqtt.tls.certificate` stands without its key"),
        ("[mqtt.tls]\nkey = 'k'", "`mqtt.tls.key` stands without its certificate"),
        ("[mqtt.tls]\nrequire_client_certificate = true", "is on, but no authority is named"),
        ("[[mqtt.rule]]\nuser = ''", "dashlight.toml:2: `mqtt.rule[0].user` is empty: write a name"),
        ("[[mqtt.rule]]\npublish = ['a', 'b/%d']", "`mqtt.rule[0].publish[1]` has %d, which stands for nothing"),
        ("[[mqtt.rule]]\npublish = ['a#']", "`#` must be a whole level and the last one"),
        ("[[mqtt.rule]]\nsubscribe = ['$share/g/a']", "begins with $share/: write the filter behind it"),
        ("[[mqtt.broker]]\nurl = 'mqtt://op@edge'\npassword = 'hunter2'", "`mqtt.broker[0].password` is written out"),
        ("[[mqtt.broker]]\nurl = 'mqtt://edge'\npassword = 'env:X'", "has no user to go with"),
        ("[[mqtt.broker]]\nurl = 'mqtt://edge'\nca_file = 'x'", "is for TLS, and the url is not mqtts://"),
        ("[[mqtt.broker]]\nurl = 'mqtts://edge'\nkey = 'x'", "and key belong together"),
        ("[[mqtt.broker]]\nclient_id = 'x'", "`mqtt.broker[0].url` is empty"),
        ("[mqtt]\nconnect = ['mqtt://op:hunter2@edge']", "holds a password, which would be shown wherever the URL is"),
        ("[mqtt]\nconnect = ['mqtt://edge:0']", "the port is not a number from 1 to 65535"),
        ("[kafka]\nbootstrap = 'k1:9092,k2'", "names the server \"k2\", but the port is missing: write HOST:PORT"),
        ("[kafka]\nbootstrap = 'http://k1:9092'", "the host is not a name or an IP address"),
        ("[kafka]\ngroup = ''", "dashlight.toml:2: `kafka.group` is empty: name a consumer group"),
        ("[kafka]\npartitions = 0", "dashlight.toml:2: `kafka.partitions` is 0, and must be from 1 to 10000"),
        ("[kafka]\nreplication = 0", "or -1 for the cluster's default"),
        ("[kafka.topics]\nscores = ''", "dashlight.toml:2: `kafka.topics.scores` is empty: name a Kafka topic"),
        ("[kafka.topics]\nscores = 'a topic'", "which Kafka takes for no topic"),
        (
            "[kafka.topics]\nscores = 'dead-letters'",
            "`kafka.topics.dead_letters` is \"dead-letters\", and so is `kafka.topics.scores`",
        ),
        (
            "[[source]]\ntopic = 'a'\n[[source]]\ntopic = 'a'\nmqtt = ['x']",
            "dashlight.toml:4: `source[1].topic` is \"a\", and so is `source[0].topic`: give each source a Kafka topic of its own",
        ),
        ("[[source]]\ntopic = 'anomaly-episodes'", "and so is `kafka.topics.episodes`"),
        (
            "[[source]]\n[[source]]\ntopic = 'b'",
            "dashlight.toml:2: `source[1].mqtt[0]` is \"vehicles/sensor/data/+\", and so is `source[0].mqtt[0]`",
        ),
        ("[[source]]\nmqtt = []", "dashlight.toml:2: `source[0].mqtt` is empty: name a topic filter"),
        ("[[source]]\nmqtt = ['a/#/b']", "`#` must be a whole level and the last one"),
        ("[[source]]\nmqtt = ['a+/b']", "`+` must be a whole level"),
        ("source = []", "dashlight.toml:1: `source` is empty: leave it out"),
        ("[[source]]\ncar = 'vin'", "is \"vin\", and must be \"topic\", \"field:NAME\" or \"event\""),
        ("[[source]]\ncar = 'event'", "a JSON payload has no event id"),
        ("[[source]]\ncodec = 'csv'\ncar = 'field:vin'", "only JSON has fields"),
        ("[model]\nthreshold = -1", "dashlight.toml:2: `model.threshold` is -1, and must be above 0"),
        ("[model]\nname = ''", "name a built-in model (car-sensors) or an ONNX file"),
        ("[simulate]\nrate = -5", "dashlight.toml:2: `simulate.rate` is -5, and must be above 0"),
        ("[simulate]\nrate = nan", "and must be above 0"),
        ("[simulate]\nfaults = inf", "and must be 0 or more"),
        ("[console]\ncolor = 'pink'", "is \"pink\", and must be one of auto, truecolor, 256, 16, none"),
        ("[limits]\ncars = 0", "dashlight.toml:2: `limits.cars` is 0, and must be 1 or more"),
        ("[limits]\nreading_bytes = 99999999", "`limits.reading_bytes` is 99999999, and must be from 1 to 16777216"),
        ("[log]\nlevel = 'dashlight=loud'", "which is no level or filter"),
    ];
    for (text, expected) in bad {
        match load(text) {
            Ok(_) => panic!("accepted:\n{text}"),
            Err(error) => {
                assert!(error.contains(expected), "{text}\n  said {error}\n  want {expected}");
                assert!(!error.contains('\n') && !error.contains("hunter2"), "{error}");
            }
        }
    }
}

#[test]
fn a_file_that_is_no_text_says_so_with_its_line() {
    let error = World::new().file("dashlight.toml", b"[kafka]\n# fine\ngroup = '\xff'\n").load().unwrap_err();
    assert_eq!(error, "dashlight.toml:3: not TOML: bytes that are not UTF-8 text: save the file as UTF-8");
}

#[test]
fn a_named_file_that_is_missing_or_a_directory_or_endless_is_refused() {
    let mut world = World::new();
    for (path, said) in [
        (world.path("absent.toml"), "absent.toml: cannot be read (No such file"),
        (world.path("."), "cannot be read (Is a directory"),
        ("/dev/zero".into(), "/dev/zero: cannot be read (it is larger than"),
    ] {
        world.inputs.file = Some(path);
        let error = world.load().unwrap_err();
        assert!(error.contains(said) && error.contains("--config"), "{error}");
    }
}

#[test]
fn control_characters_in_a_file_do_not_reach_the_error() {
    let error = load("\"\\u001b[31mred\" = 1").unwrap_err();
    assert!(!error.contains('\u{1b}'), "{error:?}");
}

#[test]
fn every_key_outside_of_sources_can_be_set_by_its_variable() {
    let mut world = World::new();
    let mut expected = BTreeMap::new();
    for key in keys::all() {
        let Some(variable) = key.variable() else { continue };
        let text = match (key.path.as_str(), key.field.kind) {
            ("mqtt.listen", _) => "127.0.0.1:7".into(),
            ("mqtt.connect", _) => "mqtt://a, mqtt://b".into(),
            ("kafka.bootstrap", _) => "k:1".into(),
            ("wal.max_bytes", _) => "33554432".into(),
            ("kafka.replication", _) => "3".into(),
            ("console.color", _) => "16".into(),
            ("log.level", _) => "debug".into(),
            ("kafka.properties", _) => continue,
            (_, keys::Kind::Text | keys::Kind::Path) => format!("text-{}", expected.len()),
            (_, keys::Kind::Switch) => "on".into(),
            (_, keys::Kind::Integer(..)) => "1000".into(),
            (_, keys::Kind::Number) => "2.5".into(),
            (_, keys::Kind::Choice(words)) => words.last().unwrap().to_string(),
            other => panic!("no test value for {other:?}"),
        };
        world = world.variable(&variable, &text);
        expected.insert(key.path, text);
    }
    let config = toml::Table::try_from(world.load().unwrap().config).unwrap();
    for (path, text) in expected {
        let value = path.split('.').fold(&toml::Value::Table(config.clone()), |v, name| &v[name]).clone();
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Boolean(on) => if on { "on" } else { "off" }.into(),
            toml::Value::Array(items) => items.iter().map(|i| i.as_str().unwrap()).collect::<Vec<_>>().join(", "),
            other => other.to_string(),
        };
        assert_eq!(value, text, "{path}");
    }
}

#[test]
fn a_librdkafka_property_can_come_from_the_environment() {
    let world = World::new().variable("DASHLIGHT_KAFKA_PROPERTIES_SASL_PASSWORD", "hunter2");
    assert_eq!(world.load().unwrap().config.kafka.properties["sasl.password"], "hunter2");
}

#[test]
fn a_bad_variable_or_flag_is_named_in_the_error() {
    let bad = World::new().variable("DASHLIGHT_SIMULATE_RATE", "fast").load().unwrap_err();
    assert_eq!(bad, "DASHLIGHT_SIMULATE_RATE: `simulate.rate` is \"fast\", and must be a number");
    let bad = World::new().variable("DASHLIGHT_SIMULATE_RATE", "-1").load().unwrap_err();
    assert_eq!(bad, "DASHLIGHT_SIMULATE_RATE: `simulate.rate` is -1, and must be above 0");
    let bad = World::new().flag("--mqtt-listen", "mqtt.listen", "nowhere").load().unwrap_err();
    assert!(bad.starts_with("--mqtt-listen: `mqtt.listen` is \"nowhere\""), "{bad}");
    let bad = World::new().file("dashlight.toml", "[mqtt]\nconnect = [\n'mqtt://a',\n'mqtt://b']");
    let bad = bad.flag("--mqtt-connect", "mqtt.connect", vec!["mqtt://a", "nonsense"]).load().unwrap_err();
    assert!(bad.starts_with("--mqtt-connect: `mqtt.connect[1]`"), "{bad}");
}

#[test]
fn a_mistyped_variable_is_warned_of_and_a_strangers_is_not() {
    let world = World::new().variable("DASHLIGHT_KAFKA_BOOTSTRP", "k:1").variable("DASHLIGHT_PORT_80_TCP", "tcp://1");
    let world = world.variable("DASHLIGHT_TEST_KAFKA", "k:1").variable("DASHLIGHT_MQTT_PASSWORD", "x");
    let warnings = world.load().unwrap().warnings;
    assert_eq!(warnings, ["DASHLIGHT_KAFKA_BOOTSTRP: no such setting: did you mean DASHLIGHT_KAFKA_BOOTSTRAP?"]);
}

#[test]
fn simulated_cars_come_unasked_only_where_no_real_ones_are_expected() {
    for (text, cars) in [
        ("", 100),
        ("[mqtt]\nlisten = '127.0.0.1:1900'", 100),
        ("[mqtt]\nlisten = '0.0.0.0:1883'\nanonymous = true", 0),
        ("[mqtt]\nusers_file = 'users'", 0),
        ("[[mqtt.broker]]\nurl = 'mqtt://edge'", 0),
        ("[mqtt]\nconnect = ['mqtt://edge']", 0),
        ("[kafka]\nbootstrap = 'k:9092'", 0),
        ("[[source]]\nmqtt = ['mine/#']", 0),
        ("[kafka]\nbootstrap = 'k:9092'\n[simulate]\ncars = 7", 7),
        ("[simulate]\ncars = 0", 0),
    ] {
        assert_eq!(load(text).unwrap().config.simulated_cars(), cars, "{text}");
    }
}

#[test]
fn what_is_printed_has_every_key_and_reads_back_as_the_same_configuration() {
    let rich = "state = '/s'\n[mqtt]\nlisten = ''\nconnect = ['mqtt://a', 'mqtt://b']\npassword_file = '/p'\n\
                users_file = '/u'\n[mqtt.tls]\nkey = 'k'\ncertificate = 'c'\n[[mqtt.rule]]\nuser = '*'\n\
                publish = ['a/%u']\n[[mqtt.broker]]\nurl = 'mqtts://op@b'\npassword = 'file:/x'\n\
                [kafka]\nbootstrap = 'k:1'\n[kafka.properties]\n'sasl.password' = 'file:/x'\n'linger.ms' = 7\n\
                [kafka.topics]\nscores = 's'\n[[source]]\n[[source]]\ntopic = 'b'\nmqtt = ['b/\"x\"', 'c']\ncodec = 'csv'\n\
                [model]\nname = './m.onnx'\nscores = 'all'\nthreshold = 2.5\n[simulate]\ncars = 3\nseed = 4\nrate = 1e-3\n\
                [console]\nascii = true\n[limits]\ncars = 5\n[log]\nlevel = 'trace'\nfile = 'l'";
    for text in ["", rich] {
        let config = load(text).unwrap().config;
        let printed = print(&config);
        assert_eq!(load(&printed).unwrap().config, config, "{printed}");
        for key in keys::all() {
            let name = key.path.rsplit('.').next().unwrap();
            let written = |line: &str| line.trim_start_matches('#').starts_with(&format!("{name} = "));
            let heading = format!("[{}]", key.path);
            assert!(printed.lines().any(|line| written(line) || line == heading), "{} in\n{printed}", key.path);
        }
        assert!(printed.lines().all(|line| line.chars().count() <= 120), "{printed}");
    }
}

#[test]
fn secrets_are_not_printed_and_references_to_them_are() {
    let config = load(
        "[kafka.properties]\n'sasl.password' = 'hunter2'\n'ssl.key.password' = 'env:KEY'\n'sasl.username' = 'me'\n\
         'sasl.oauthbearer.client.secret' = 'hunter3'\n'ssl.key.pem' = '-----BEGIN'",
    )
    .unwrap()
    .config;
    for text in [print(&config), format!("{config:?}")] {
        assert!(!text.contains("hunter") && !text.contains("BEGIN"), "{text}");
        assert!(text.contains("env:KEY") && text.contains("me"), "{text}");
    }
    assert!(load(&print(&config)).is_ok());
}
