//! What `dashlight run` can be told on the command line. Each flag of [`Settings`] is one configuration key.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Ack, Config, Inputs, Loaded, Setting};
use crate::failure::Failure;

/// Flags that set configuration keys, shared by the commands that read the configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Settings {
    /// Configuration file [default: ./dashlight.toml, else $XDG_CONFIG_HOME/dashlight/config.toml]
    #[arg(long, value_name = "FILE", help_heading = "Configuration")]
    pub config: Option<PathBuf>,
    /// Directory for what must survive a restart [default: $XDG_STATE_HOME/dashlight]
    #[arg(long, value_name = "DIR", help_heading = "Configuration")]
    pub state: Option<PathBuf>,
    /// Log level (error, warn, info, debug, trace) or filter
    #[arg(long, value_name = "LEVEL", help_heading = "Configuration")]
    pub log_level: Option<String>,
    /// Log file [default: stderr when headless, else dashlight.log in the state directory]
    #[arg(long, value_name = "FILE", help_heading = "Configuration")]
    pub log_file: Option<PathBuf>,

    /// Addresses of the embedded broker, ADDR[,mqtts://ADDR…], or `off` [default: 127.0.0.1:1883, else the next free port]
    #[arg(long, value_name = "ADDR", help_heading = "Readings")]
    pub mqtt_listen: Option<String>,
    /// Let clients of the embedded broker in without user and password, from other machines too
    #[arg(long, help_heading = "Readings")]
    pub anonymous: bool,
    /// External broker to subscribe to, mqtt://[USER@]HOST[:PORT], mqtts:// for TLS; may be repeated
    #[arg(long, value_name = "URL", help_heading = "Readings")]
    pub mqtt_connect: Vec<String>,
    /// When a message is acknowledged: disk, kafka, memory [default: disk, or kafka with the embedded one]
    #[arg(long, value_name = "WHEN", value_parser = clap::builder::PossibleValuesParser::new(Ack::WORDS), help_heading = "Readings")]
    pub ack: Option<String>,
    /// Kafka's bootstrap servers, HOST:PORT[,HOST:PORT…] [default: an embedded cluster, in memory]
    #[arg(long, value_name = "BOOTSTRAP", help_heading = "Readings")]
    pub kafka: Option<String>,

    /// Built-in model's name, an ONNX file, or a folder whose newest one counts [default: car-sensors]
    #[arg(long, value_name = "NAME|FILE|DIR", help_heading = "Verdicts")]
    pub model: Option<String>,
    /// Challenger: another model that judges the same readings, to be compared; publishes nothing
    #[arg(long, value_name = "NAME|FILE|DIR", help_heading = "Verdicts")]
    pub shadow: Option<String>,
    /// Which scores are written to Kafka [default: breaches]
    #[arg(long, value_name = "WHICH", value_parser = clap::builder::PossibleValuesParser::new(crate::config::Scores::WORDS), help_heading = "Verdicts")]
    pub scores: Option<String>,

    /// Simulated cars, or `off` [default: 100 if nothing else is set up to send readings]
    #[arg(long, value_name = "N|off", value_parser = cars_or_off, help_heading = "Simulated fleet")]
    pub simulate: Option<i64>,
    /// Readings per second of each simulated car [default: 5]
    #[arg(long, value_name = "HZ", allow_negative_numbers = true, help_heading = "Simulated fleet")]
    pub rate: Option<f64>,
    /// Faults per simulated car and hour [default: 1]
    #[arg(long, value_name = "PER_CAR_HOUR", allow_negative_numbers = true, help_heading = "Simulated fleet")]
    pub faults: Option<f64>,
    /// Seed of the simulated fleet: the same seed, the same fleet [default: another one at each start]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(i64).range(0..), help_heading = "Simulated fleet")]
    pub seed: Option<i64>,
    /// MQTT connections that the simulated cars share [default: one each, at most 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..), help_heading = "Simulated fleet")]
    pub connections: Option<i64>,

    /// Theme: dark, light, high-contrast, mono, or a theme file [default: dark]
    #[arg(long, value_name = "NAME|FILE", help_heading = "Screen")]
    pub theme: Option<String>,
    /// Colours: auto, truecolor, 256, 16, none [default: auto, which heeds NO_COLOR]
    #[arg(long, value_name = "DEPTH", value_parser = ["auto", "truecolor", "256", "16", "none"], help_heading = "Screen")]
    pub color: Option<String>,
    /// Only ASCII characters
    #[arg(long, help_heading = "Screen")]
    pub ascii: bool,
}

impl Settings {
    /// Each flag that was given, as a setting of its key.
    fn given(&self) -> Vec<Setting> {
        let text = |value: &Option<String>| value.clone().map(toml::Value::String);
        let path = |value: &Option<PathBuf>| value.as_ref().map(|path| path.to_string_lossy().into_owned().into());
        let listen = self.mqtt_listen.as_deref().map(|address| if address == "off" { "" } else { address }.into());
        let connect = (!self.mqtt_connect.is_empty()).then(|| self.mqtt_connect.clone().into());
        let given: [(&'static str, &'static str, Option<toml::Value>); 19] = [
            ("--state", "state", path(&self.state)),
            ("--log-level", "log.level", text(&self.log_level)),
            ("--log-file", "log.file", path(&self.log_file)),
            ("--mqtt-listen", "mqtt.listen", listen),
            ("--anonymous", "mqtt.anonymous", self.anonymous.then_some(toml::Value::Boolean(true))),
            ("--mqtt-connect", "mqtt.connect", connect),
            ("--ack", "ingest.ack", text(&self.ack)),
            ("--kafka", "kafka.bootstrap", text(&self.kafka)),
            ("--model", "model.name", text(&self.model)),
            ("--shadow", "model.shadow", text(&self.shadow)),
            ("--scores", "model.scores", text(&self.scores)),
            ("--simulate", "simulate.cars", self.simulate.map(toml::Value::Integer)),
            ("--rate", "simulate.rate", self.rate.map(toml::Value::Float)),
            ("--faults", "simulate.faults", self.faults.map(toml::Value::Float)),
            ("--seed", "simulate.seed", self.seed.map(toml::Value::Integer)),
            ("--connections", "simulate.connections", self.connections.map(toml::Value::Integer)),
            ("--theme", "console.theme", text(&self.theme)),
            ("--color", "console.color", text(&self.color)),
            ("--ascii", "console.ascii", self.ascii.then_some(toml::Value::Boolean(true))),
        ];
        given.into_iter().filter_map(|(flag, key, value)| Some(Setting { flag, key, value: value? })).collect()
    }

    /// What the configuration is made from in this process: file, environment and these flags.
    pub fn inputs(self) -> Inputs {
        Inputs { flags: self.given(), file: self.config, ..Inputs::of_process() }
    }
}

/// Runs the whole path and shows the fleet: MQTT → Kafka → score → Kafka → console
///
/// With no configuration at all it needs no server: it brings an embedded MQTT broker, an embedded Kafka (in memory)
/// and a simulated fleet of 100 cars.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// No screen: one JSON object per line on stdout; implied when stdout is no terminal
    #[arg(long)]
    pub headless: bool,
    /// Ends by itself after this time: 30s, 10m, 1h 30m
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub for_: Option<Duration>,
    /// Prints the whole configuration as a commented TOML file, and ends
    #[arg(long)]
    pub print_config: bool,
    /// Everything that is a configuration key as well.
    #[command(flatten)]
    pub settings: Settings,
}

/// How to run what is configured.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// No screen: JSON lines on stdout.
    pub headless: bool,
    /// End by itself after this time.
    pub for_: Option<Duration>,
    /// The directory for what must survive a restart; `None` if there is no place for it (no HOME), which only what needs it minds.
    pub state: Option<PathBuf>,
    /// The configuration file that was read.
    pub file: Option<PathBuf>,
    /// Sentences to log as warnings once logging runs.
    pub warnings: Vec<String>,
}

impl Args {
    /// Reads the configuration with these flags on top. Refuses, naming the place and the way out, what cannot work.
    pub fn into_config(self) -> Result<(Config, RunOptions), Failure> {
        let headless = self.headless || !std::io::stdout().is_terminal();
        let loaded = self.settings.inputs().load()?;
        let state = loaded.state_directory().ok();
        let log = loaded.log_directory();
        let Loaded { mut config, file, warnings, .. } = loaded;
        config.state.clone_from(&state);
        if config.ack() == Ack::Disk {
            config.wal.directory = Some(log?);
        }
        Ok((config, RunOptions { headless, for_: self.for_, state, file, warnings }))
    }
}

/// `30s`, `10m`, `1h 30m`; a bare number is in seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    parsed
        .filter(|time| !time.is_zero())
        .ok_or_else(|| "write a time above zero, such as 30s, 10m or 1h 30m".to_owned())
}

fn cars_or_off(text: &str) -> Result<i64, String> {
    match text {
        "off" => Ok(0),
        number => number.parse().ok().filter(|n| *n >= 0).ok_or_else(|| "write a number of cars, or `off`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches};

    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        let command = Args::augment_args(clap::Command::new("run"));
        Args::from_arg_matches(&command.try_get_matches_from(std::iter::once("run").chain(line.split(' ')))?)
    }

    #[test]
    fn every_flag_sets_a_key_that_exists_and_has_its_type() {
        let line = "--config f --state s --log-level warn --log-file l --mqtt-listen 127.0.0.1:0 --anonymous \
                    --mqtt-connect mqtt://a --mqtt-connect mqtt://b --ack memory --kafka k:9092 --model m --shadow n --scores all --simulate 7 \
                    --rate 2 --faults 3 --seed 4 \
                    --connections 5 --theme light --color 16 --ascii";
        let settings = parse(line).unwrap().settings;
        let keys = crate::config::keys::all();
        let given = settings.given();
        for setting in &given {
            assert!(keys.iter().any(|key| key.path == setting.key), "{} sets {}", setting.flag, setting.key);
        }
        let flags = Settings::augment_args(clap::Command::new("x"));
        assert_eq!(given.len(), flags.get_arguments().filter(|arg| arg.get_id() != "config").count());

        let config = Inputs { flags: given, ..Inputs::default() }.load().unwrap().config;
        assert_eq!(config.mqtt.connect, ["mqtt://a", "mqtt://b"]);
        assert_eq!(
            (config.simulate.cars, config.simulate.seed, config.simulate.connections),
            (Some(7), Some(4), Some(5))
        );
        assert_eq!((config.simulate.rate, config.simulate.faults), (2.0, 3.0));
        assert_eq!(config.model.scores, crate::config::Scores::All);
        assert!(config.console.ascii);
    }

    #[test]
    fn off_turns_the_fleet_and_the_listener_off() {
        let settings = parse("--simulate off --mqtt-listen off").unwrap().settings;
        let config = Inputs { flags: settings.given(), ..Inputs::default() }.load().unwrap().config;
        assert_eq!(config.simulated_cars(), 0);
        assert_eq!(config.mqtt.listen, "");
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("2.5"), Ok(Duration::from_millis(2500)));
        for bad in ["", "0", "-1", "soon", "nan", "inf", "1e300"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_number_of_cars_is_refused() {
        for bad in ["--simulate many", "--simulate -1", "--seed -1", "--connections 0", "--rate fast", "--color pink"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
