//! Payloads of each codec, well-formed and not, and what becomes of them.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn json() -> Codec {
    codec(config::Codec::Json, 18, "topic")
}

fn codec(how: config::Codec, width: usize, car: &str) -> Codec {
    let schema = if width == 18 { Schema::car_sensors() } else { Schema::numbered("numbered", width).unwrap() };
    let time = if matches!(how, config::Codec::Json) { "time" } else { "" };
    Codec::new(how, Arc::new(schema), car.parse().unwrap(), time).unwrap()
}

fn decode<'a>(codec: &Codec, payload: &'a (impl AsRef<[u8]> + ?Sized)) -> (Result<Decoded<'a>, DecodeError>, Vec<f32>) {
    let mut row = vec![f32::NAN; codec.schema().width()];
    let decoded = codec.decode(payload.as_ref(), &mut row);
    (decoded, row)
}

fn refusal(codec: &Codec, payload: &(impl AsRef<[u8]> + ?Sized)) -> String {
    decode(codec, payload).0.unwrap_err().to_string()
}

#[test]
fn an_object_of_sensors_goes_into_the_row_and_the_rest_is_ignored() {
    let payload = r#" { "coolant_temp" : 39.395103, "TIRE_PRESSURE_11": 32, "speed":-1.5e1, "vendor": {"a": [1, {}, [], "}"]},
        "battery_percentage": null, "throttle_pos": "0.25", "engine_vibration_amplitude": true, "time": 1567606196 } "#;
    let (decoded, row) = decode(&json(), payload);
    assert_eq!(decoded.unwrap(), Decoded { car: None, time_ms: Some(1_567_606_196_000) });
    assert_eq!((row[0], row[9], row[6], row[8], row[7]), (39.395103, 32.0, -15.0, 0.25, 1.0));
    assert!(row[3].is_nan(), "null is a gap");
    assert_eq!(row.iter().filter(|value| value.is_nan()).count(), 13);
}

#[test]
fn names_may_be_written_with_escapes() {
    let (decoded, row) = decode(&json(), r#"{"coolant\u005ftemp":1,"\u0073peed":2,"x\ud83d\ude00":3}"#);
    decoded.unwrap();
    assert_eq!((row[0], row[6]), (1.0, 2.0));
    assert_eq!(
        refusal(&json(), r#"{"\ud83d":1}"#),
        "the payload is not JSON: half of a surrogate pair in a string at byte 2"
    );
}

#[test]
fn the_car_is_found_where_the_source_says() {
    let codec = codec(config::Codec::Json, 18, "field:car");
    for (payload, car) in [
        (r#"{"car":"car7","speed":1}"#, "car7"),
        (r#"{"speed":1,"car":"c\"7"}"#, "c\"7"),
        (r#"{"speed":1,"car":42}"#, "42"),
    ] {
        assert_eq!(decode(&codec, payload).0.unwrap().car.as_deref(), Some(car));
    }
    for payload in [r#"{"speed":1}"#, r#"{"speed":1,"car":""}"#, r#"{"speed":1,"car":null}"#, "{}"] {
        assert_eq!(refusal(&codec, payload), "no car: the field \"car\" is missing, null or empty");
    }
    assert_eq!(refusal(&codec, r#"{"speed":1,"car":{}}"#), "no car: its field is an object, not a name");
    assert_eq!(refusal(&codec, r#"{"car":"a","car":"b","speed":1}"#), "the car stands there twice");
}

#[test]
fn each_refusal_says_why_in_one_sentence() {
    for (payload, sentence) in [
        ("", "the payload is empty"),
        (" \n", "the payload is empty"),
        ("hello", "the payload is not JSON: expected a value at byte 0"),
        ("[1,2]", "the payload is JSON, but not an object of sensors"),
        ("39.4", "the payload is JSON, but not an object of sensors"),
        ("{}", "no sensor of car-sensors is in it"),
        (r#"{"speed":null,"other":1}"#, "no sensor of car-sensors is in it"),
        (r#"{"speed":1"#, "the payload is not JSON: expected , or } at byte 10"),
        (r#"{"speed":1,}"#, "the payload is not JSON: expected a string at byte 11"),
        (r#"{"speed":1}x"#, "the payload is not JSON: expected nothing more at byte 11"),
        (r#"{"speed":01}"#, "the payload is not JSON: expected a number at byte 11"),
        (r#"{"speed":NaN}"#, "the payload is not JSON: expected a value at byte 9"),
        (r#"{"speed":-Infinity}"#, "the payload is not JSON: expected a number at byte 10"),
        (r#"{"speed":"NaN"}"#, "sensor speed is the text \"NaN\", not a number"),
        (r#"{"speed":"inf"}"#, "sensor speed is the text \"inf\", not a number"),
        (r#"{"speed":"\u001b[31m"}"#, "sensor speed is the text \"\\u{1b}[31m\", not a number"),
        (r#"{"speed":[1]}"#, "sensor speed is an array, not a number"),
        (r#"{"speed":1e39}"#, "sensor speed is 1e39, larger than a reading can hold"),
        (r#"{"speed":"-1e39"}"#, "sensor speed is -1e39, larger than a reading can hold"),
        (r#"{"speed":1,"speed":2}"#, "sensor speed stands there twice"),
        (r#"{"speed":1,"SPEED":2}"#, "sensor speed stands there twice"),
        (r#"{"speed":1,"time":"soon"}"#, "the time \"soon\" is neither a number since the epoch nor RFC 3339"),
        (r#"{"speed":1,"time":[]}"#, "the time an array is neither a number since the epoch nor RFC 3339"),
        (r#"{"speed":1,"time":1,"time":2}"#, "the time stands there twice"),
    ] {
        assert_eq!(refusal(&json(), payload), sentence, "{payload}");
    }
    assert_eq!(refusal(&json(), b"{\"speed\":1,\"x\":\"\xff\"}"), "the payload is not text: byte 16 is not UTF-8");
}

#[test]
fn a_hostile_payload_costs_linear_time_and_no_stack() {
    let mib = 1 << 20;
    let deep = "[".repeat(10 * mib);
    assert_eq!(refusal(&json(), &deep), "the payload nests deeper than 64 levels");
    assert_eq!(refusal(&json(), &format!("{{\"x\":{deep}")), "the payload nests deeper than 64 levels");
    assert_eq!(refusal(&json(), &vec![b' '; 10 * mib]), "the payload is empty");
    let long_name = format!("{{\"{}\":1}}", "x".repeat(10 * mib));
    assert_eq!(refusal(&json(), &long_name), "no sensor of car-sensors is in it");
    let long_number = format!("{{\"speed\":{}}}", "9".repeat(mib));
    let sentence = refusal(&json(), &long_number);
    assert!(sentence.ends_with("larger than a reading can hold") && sentence.len() < 200, "{sentence}");
    let small = format!("{{\"speed\":0.{}1}}", "0".repeat(mib));
    assert_eq!(decode(&json(), &small).1[6], 0.0);
    let many = format!("{{{}\"speed\":1}}", "\"speed\":null,".repeat(mib / 2));
    assert_eq!(decode(&json(), &many).1[6], 1.0);
}

#[test]
fn sixty_four_levels_are_read_and_one_more_is_not() {
    let nested = |levels: usize| format!("{{\"x\":{}{},\"speed\":1}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    decode(&json(), &nested(64)).0.unwrap();
    assert_eq!(decode(&json(), &nested(65)).0, Err(DecodeError::TooDeep));
}

#[test]
fn the_demo_s_delimited_reading_is_read() {
    let codec = codec(config::Codec::Delimited, 4, "event");
    for payload in ["99999,2.10# 2.13#2.19 # 2.28", " 99999 , 2.10#2.13#2.19#2.28#\n"] {
        let (decoded, row) = decode(&codec, payload);
        assert_eq!(decoded.unwrap().car.as_deref(), Some("99999"));
        assert_eq!(row, [2.10, 2.13, 2.19, 2.28]);
    }
    let (decoded, row) = decode(&codec, "1,1##3#4");
    decoded.unwrap();
    assert!(row[1].is_nan(), "an empty value is a gap");
}

#[test]
fn delimited_refusals_say_why() {
    let codec = codec(config::Codec::Delimited, 3, "event");
    for (payload, sentence) in [
        ("", "the payload is empty"),
        ("99999", "no car: a delimited reading is EVENTID,v1#v2#…, and no comma is in it"),
        (",1#2#3", "no car: the event id is empty"),
        ("1,1#2", "2 values where 3 were expected"),
        ("1,1#2#3#4", "4 values where 3 were expected"),
        ("1,1,2,3", "sensor v001 is \"1,2,3\", not a number"),
        ("1,1#x#3", "sensor v002 is \"x\", not a number"),
        ("1,1#NaN#3", "sensor v002 is \"NaN\", not a number"),
        ("1,1#2#1e99", "sensor v003 is 1e99, larger than a reading can hold"),
        ("1, # # ", "no sensor of numbered is in it"),
    ] {
        assert_eq!(refusal(&codec, payload), sentence, "{payload}");
    }
    assert_eq!(refusal(&codec, b"1,1#2#\xff"), "the payload is not text: byte 6 is not UTF-8");
}

#[test]
fn csv_is_the_schema_s_values_with_or_without_an_event() {
    let plain = codec(config::Codec::Csv, 3, "topic");
    let (decoded, row) = decode(&plain, "1, 2.5,-3\r\n");
    assert_eq!((decoded.unwrap().car, row), (None, vec![1.0, 2.5, -3.0]));
    assert_eq!(refusal(&plain, "1,2"), "2 values where 3 were expected");
    assert_eq!(refusal(&plain, "1,2,3\n4,5,6"), "sensor v003 is \"3\\u{a}4\", not a number");
    let with_event = codec(config::Codec::Csv, 3, "event");
    assert_eq!(decode(&with_event, "car7,1,,3").0.unwrap().car.as_deref(), Some("car7"));
    assert_eq!(refusal(&with_event, ",1,2,3"), "no car: the event id is empty");
    assert_eq!(refusal(&with_event, "car7"), "1 values where 3 were expected");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let schema = Arc::new(Schema::car_sensors());
    let new = |how, car: &str, time: &str| Codec::new(how, schema.clone(), car.parse()?, time).map(|_| ());
    let sentence = |result: Result<(), CodecError>| result.unwrap_err().to_string();
    assert_eq!(
        sentence(new(config::Codec::Json, "feild:car", "")),
        "car = \"feild:car\": write \"topic\", \"field:NAME\" or \"event\""
    );
    assert_eq!(
        sentence(new(config::Codec::Json, "event", "")),
        "car = \"event\" does not go with codec = \"json\": write \"topic\" or \"field:NAME\""
    );
    assert_eq!(
        sentence(new(config::Codec::Csv, "field:car", "")),
        "car = \"field:…\" does not go with codec = \"csv\": its values have no names, so write \"topic\" or \"event\""
    );
    assert_eq!(
        sentence(new(config::Codec::Json, "field:id", "id")),
        "the field \"id\" can't be both the car and the time: give one another name"
    );
    assert_eq!(
        sentence(new(config::Codec::Json, "topic", "speed")),
        "the field \"speed\" can't be both the time and a sensor: give one another name"
    );
    new(config::Codec::Delimited, "event", "time").unwrap();
}

#[test]
fn a_reading_is_encoded_in_shortest_form_without_its_gaps() {
    let schema = Schema::new("s", vec![super::super::Sensor::named("a\"b"), super::super::Sensor::named("c")]).unwrap();
    let mut out = Vec::new();
    encode_json(&schema, &[0.1, 32.0], 1567606196000, Some("car\\7\n"), &mut out);
    assert_eq!(std::str::from_utf8(&out), Ok(r#"{"a\"b":0.1,"c":32,"car":"car\\7\u000a","time":1567606196000}"#));
    out.clear();
    encode_json(&schema, &[f32::NAN, f32::INFINITY], -1, None, &mut out);
    assert_eq!(std::str::from_utf8(&out), Ok(r#"{"time":-1}"#));
}

/// Any finite value, and now and then a gap.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |value| value.is_finite()),
        8 => (-1_000_000i32..1_000_000, 0i32..7).prop_map(|(n, places)| n as f32 / 10f32.powi(places)),
        1 => Just(f32::NAN),
    ]
}

fn bits(row: &[f32]) -> Vec<Option<u32>> {
    row.iter().map(|value| (!value.is_nan()).then_some(value.to_bits())).collect()
}

/// Text that is JSON, or nearly.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let token = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"speed\"",
        "\"time\"",
        "\"x\"",
        "\"\\u00e4\\n\"",
        "\"\\x\"",
        "1",
        "-0.5",
        "1e5",
        "1e",
        "01",
        "-",
        "true",
        "false",
        "null",
        "nul",
        " ",
        "\n",
        "\"",
        "\"speed\":",
        "{\"speed\":1,\"x\":",
        "\u{1}",
        "ä",
        "\"ä\"",
    ]);
    prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat().into_bytes())
}

proptest! {
    #[test]
    fn encoded_json_decodes_to_the_same_reading(
        row in prop::collection::vec(value(), 18), time in 100_000_000_000i64..99_999_999_999_999, car in "\\PC{1,20}|[\\x00-\\x7f]{1,9}"
    ) {
        prop_assume!(row.iter().any(|value| !value.is_nan()));
        let codec = codec(config::Codec::Json, 18, "field:car");
        let mut payload = Vec::new();
        encode_json(codec.schema(), &row, time, Some(&car), &mut payload);
        let (decoded, read) = decode(&codec, &payload);
        prop_assert_eq!(decoded, Ok(Decoded { car: Some(car.into()), time_ms: Some(time) }));
        prop_assert_eq!(bits(&read), bits(&row));
    }

    #[test]
    fn encoded_delimited_decodes_to_the_same_reading(row in prop::collection::vec(value(), 1..300), event in "[a-z0-9]{1,8}") {
        prop_assume!(row.iter().any(|value| !value.is_nan()));
        let codec = codec(config::Codec::Delimited, if row.len() == 18 { 19 } else { row.len() }, "event");
        prop_assume!(codec.schema().width() == row.len());
        let mut payload = Vec::new();
        encode_delimited(&event, &row, &mut payload);
        let (decoded, read) = decode(&codec, &payload);
        prop_assert_eq!(decoded, Ok(Decoded { car: Some(event.into()), time_ms: None }));
        prop_assert_eq!(bits(&read), bits(&row));
    }

    #[test]
    fn any_other_count_of_values_is_refused(count in 1usize..40, separator in prop::sample::select(vec!['#', ','])) {
        prop_assume!(count != 7);
        let how = if separator == '#' { config::Codec::Delimited } else { config::Codec::Csv };
        let values = vec!["1.5"; count].join(&separator.to_string());
        let payload = format!("event,{values}");
        let found = decode(&codec(how, 7, "event"), &payload).0;
        prop_assert_eq!(found, Err(DecodeError::WrongCount { expected: 7, found: count }));
    }

    #[test]
    fn no_bytes_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        for codec in [json(), codec(config::Codec::Delimited, 3, "event"), codec(config::Codec::Csv, 3, "event")] {
            let _ = decode(&codec, &payload);
        }
    }

    #[test]
    fn json_is_what_serde_json_takes_for_json(payload in nearly_json()) {
        let judged = serde_json::from_slice::<serde_json::Value>(&payload);
        match decode(&json(), &payload).0 {
            Ok(_) => prop_assert!(judged.is_ok_and(|value| value.is_object())),
            Err(DecodeError::Empty | DecodeError::NotText(_) | DecodeError::NotJson { .. }) => prop_assert!(judged.is_err()),
            Err(DecodeError::NotAnObject) => prop_assert!(judged.is_ok_and(|value| !value.is_object())),
            // Refused for what it says, perhaps before the place where it also stops being JSON.
            Err(_) => {}
        }
    }
}
