//! The bridge against a broker of its own: acknowledgements, reconnection, what a broker may refuse.

use super::*;

#[test]
fn a_brokers_url_is_read_with_its_defaults() {
    let broker = Broker::parse("mqtt://broker.example").unwrap();
    assert_eq!((broker.host.as_str(), broker.port, &broker.user), ("broker.example", 1883, &None));
    let broker = Broker::parse("mqtt://car:p%40ss:w@[::1]:1884/").unwrap();
    assert_eq!((broker.host.as_str(), broker.port), ("[::1]", 1884));
    assert_eq!((broker.user.as_deref(), broker.password.as_deref()), (Some("car"), Some("p@ss:w")));
    let secure = Broker::parse("mqtts://car@broker.example").unwrap();
    assert_eq!((secure.port, secure.tls, secure.to_string().as_str()), (8883, true, "mqtts://car@broker.example:8883"));
    assert_eq!(broker.with_password(Some("other".into())).password.as_deref(), Some("other"));
}

#[test]
fn a_password_is_neither_shown_nor_repeated_in_an_error() {
    let broker = Broker::parse("mqtt://car:secret@host:1884").unwrap();
    assert_eq!(format!("{broker} {broker:?}"), "mqtt://car@host:1884 mqtt://car@host:1884");
    for bad in ["mqtt://car:secret@host:port", "http://car:secret@host", "mqtt://car:secret@", "car:secret@host"] {
        let error = Broker::parse(bad).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn what_is_no_brokers_url_is_refused_with_the_reason() {
    for (url, why) in [
        ("localhost:1883", "does not begin with mqtt://"),
        ("mqtts://[::1]", "the host's name"),
        ("ws://host", "websockets"),
        ("http://host", "another scheme"),
        ("mqtt://", "its host"),
        ("mqtt://host:0", "its port"),
        ("mqtt://host:99999", "its port"),
        ("mqtt://::1", "its host"),
        ("mqtt://host/topic", "after the port"),
        ("mqtt://@host", "the user"),
        ("mqtt://a%4:b@host", "hex digits"),
    ] {
        let error = Broker::parse(url).unwrap_err().to_string();
        assert!(error.contains(why), "{url}: {error}");
    }
}
