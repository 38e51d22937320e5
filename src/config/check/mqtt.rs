//! Judges `[mqtt]`: addresses, who is let in, rules, brokers.

use super::{Verdict, host_port, not_empty, topic_filter};
use crate::config::secret::Properties;
use crate::config::{Broker, Mqtt, MqttTls, Rule, listeners};

/// What is said of every key, in the order of declaration.
pub fn verdicts(mqtt: &Mqtt) -> Vec<(String, Verdict)> {
    let mut verdicts: Vec<(String, Verdict)> = Vec::new();
    let mut say = |key: &str, verdict: Verdict| verdicts.push((key.to_owned(), verdict));
    say("mqtt.listen", listen(mqtt));
    let MqttTls { certificate, key, client_ca, require_client_certificate } = &mqtt.tls;
    for (name, path) in [
        ("mqtt.users_file", &mqtt.users_file),
        ("mqtt.tls.certificate", certificate),
        ("mqtt.tls.key", key),
        ("mqtt.tls.client_ca", client_ca),
        ("mqtt.password_file", &mqtt.password_file),
        ("mqtt.ca_file", &mqtt.ca_file),
    ] {
        if let Some(path) = path {
            say(name, not_empty(&path.to_string_lossy(), "name a file, or leave the key out"));
        }
    }
    match (certificate, key) {
        (Some(_), None) => {
            say("mqtt.tls.certificate", Err("stands without its key: name the file as mqtt.tls.key".into()));
        }
        (None, Some(_)) => {
            say("mqtt.tls.key", Err("stands without its certificate: name the file as mqtt.tls.certificate".into()));
        }
        _ => {}
    }
    if *require_client_certificate && client_ca.is_none() {
        let why = "is on, but no authority is named: name its file as mqtt.tls.client_ca";
        say("mqtt.tls.require_client_certificate", Err(why.into()));
    }
    for (n, rule) in mqtt.rule.iter().enumerate() {
        for (name, verdict) in rule_verdicts(rule) {
            say(&format!("mqtt.rule[{n}].{name}"), verdict);
        }
    }
    for (n, url) in mqtt.connect.iter().enumerate() {
        say(
            &format!("mqtt.connect[{n}]"),
            broker_url(url, "mqtt.password_file or the variable DASHLIGHT_MQTT_PASSWORD"),
        );
    }
    for (n, broker) in mqtt.broker.iter().enumerate() {
        for (name, verdict) in broker_verdicts(broker) {
            say(&format!("mqtt.broker[{n}].{name}"), verdict);
        }
    }
    verdicts
}

/// The addresses; and that nobody is let in from other machines unasked.
fn listen(mqtt: &Mqtt) -> Verdict {
    let listeners = listeners::parse(&mqtt.listen)?;
    if listeners.iter().any(|listener| listener.tls) && mqtt.tls.certificate.is_none() {
        return Err(
            "asks for TLS, but there is no certificate: name its files as mqtt.tls.certificate and mqtt.tls.key".into(),
        );
    }
    let asks_nobody = |listener: &&listeners::Listener| {
        let by_certificate = listener.tls && mqtt.tls.require_client_certificate;
        !listener.address.ip().is_loopback() && !by_certificate
    };
    // With certificates alone a TLS address can let clients in; a plain one cannot.
    let open = mqtt.users_file.is_none() && mqtt.anonymous != Some(true);
    match listeners.iter().find(asks_nobody) {
        Some(listener) if open => Err(format!(
            "has {}, which other machines reach, and there are no users: make a users' file with `dashlight passwd FILE USER` and \
             name it as mqtt.users_file, or let everybody in with --anonymous (mqtt.anonymous = true)",
            listener.address
        )),
        _ => Ok(()),
    }
}

fn rule_verdicts(rule: &Rule) -> Vec<(String, Verdict)> {
    let mut verdicts = Vec::new();
    for (name, pattern) in [("user", &rule.user), ("client", &rule.client)] {
        if let Some(pattern) = pattern {
            let way_out = "write a name, `*` standing for any run of characters, or leave the key out for everybody";
            verdicts.push((name.to_owned(), not_empty(pattern, way_out)));
        }
    }
    for (name, filters) in [("publish", &rule.publish), ("subscribe", &rule.subscribe)] {
        for (n, filter) in filters.iter().enumerate() {
            let verdict = topic_filter(filter).and_then(|()| names_in(filter));
            verdicts.push((format!("{name}[{n}]"), verdict));
        }
    }
    verdicts
}

/// `%u` and `%c`, and `%` before nothing else that could be meant as a name.
fn names_in(filter: &str) -> Verdict {
    let after = filter.split('%').skip(1).map(|rest| rest.chars().next());
    for letter in after.flatten().filter(char::is_ascii_alphabetic) {
        if letter != 'u' && letter != 'c' {
            return Err(format!(
                "has %{letter}, which stands for nothing: write %u for the user, %c for the client id"
            ));
        }
    }
    if filter.starts_with("$share/") {
        return Err("begins with $share/: write the filter behind it, which is for shared subscriptions too".into());
    }
    Ok(())
}

fn broker_verdicts(broker: &Broker) -> Vec<(String, Verdict)> {
    let Broker { url, password, client_id: _, ca_file, certificate, key } = broker;
    let mut verdicts = Vec::new();
    let mut say = |name: &str, verdict: Verdict| verdicts.push((name.to_owned(), verdict));
    say("url", broker_url(url, "`password` of the same broker, as env:NAME or file:PATH"));
    if !password.is_empty() && !Properties::is_reference(password) {
        say(
            "password",
            Err("is written out: put it into a file or a variable, and write file:PATH or env:NAME".into()),
        );
    }
    if !password.is_empty() && !url.contains('@') {
        say("password", Err("has no user to go with: write mqtt://USER@HOST as url".into()));
    }
    for (name, path) in [("ca_file", ca_file), ("certificate", certificate), ("key", key)] {
        if let Some(path) = path {
            say(name, not_empty(&path.to_string_lossy(), "name a file, or leave the key out"));
            if !["mqtts://", "ssl://", "tls://"].iter().any(|scheme| url.starts_with(scheme)) {
                say(name, Err("is for TLS, and the url is not mqtts://: change the one or leave out the other".into()));
            }
        }
    }
    if certificate.is_some() != key.is_some() {
        say("certificate", Err("and key belong together: name both files, or neither".into()));
    }
    verdicts
}

/// `mqtt[s]://[USER@]HOST[:PORT]`. A password may be in it, so the URL is not repeated; `place` is where one belongs.
fn broker_url(url: &str, place: &str) -> Verdict {
    let form = "write mqtt://[USER@]HOST[:PORT], or mqtts:// for TLS";
    if url.is_empty() {
        return Err(format!("is empty: {form}"));
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(format!("is not a URL: {form}"));
    };
    match scheme {
        "mqtt" | "tcp" | "mqtts" | "ssl" | "tls" => {}
        "ws" | "wss" => return Err(format!("asks for {scheme}://, which is not supported: use mqtt:// or mqtts://")),
        _ => return Err(format!("does not begin with mqtt:// or mqtts://: {form}")),
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (user, address) = rest.rsplit_once('@').map_or((None, rest), |(user, address)| (Some(user), address));
    if user.is_some_and(|user| user.contains(':')) {
        return Err(format!("holds a password, which would be shown wherever the URL is: put it into {place}"));
    }
    if user == Some("") {
        return Err(format!("has an empty user name: {form}"));
    }
    let bare_v6 = address.starts_with('[') && address.ends_with(']');
    let with_port = if bare_v6 || !address.contains(':') { format!("{address}:1883") } else { address.to_owned() };
    host_port(&with_port).map(drop).map_err(|why| format!("has no usable address ({why}): {form}"))
}
