//! Topic names and topic filters: which are legal, and which filter matches which topic (MQTT 5.0 section 4.7, the same
//! in 3.1.1). Every other module asks here; nothing here allocates.

/// Longest topic name or filter in bytes: its length is a 16-bit number on the wire.
pub const MAX_BYTES: usize = 65_535;

/// Deepest filter the gate takes. The standard sets no limit; a filter of 65,535 levels would only serve to exhaust a
/// stack, and no device names its readings in more than a handful.
pub const MAX_LEVELS: usize = 128;

/// Why a topic name or filter is not legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Not a single character.
    #[error("it is empty")]
    Empty,
    /// More than [`MAX_BYTES`].
    #[error("it is longer than 65,535 bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("it is not UTF-8")]
    NotText,
    /// Holds U+0000.
    #[error("it holds the character U+0000")]
    Nul,
    /// A topic name with `+` or `#`.
    #[error("a topic to publish on holds no wildcard (`+` or `#`)")]
    Wildcard,
    /// `+` or `#` beside other characters in a level.
    #[error("a wildcard fills its level (`a/+/b`, not `a/b+`)")]
    PartialWildcard,
    /// `#` before the end.
    #[error("`#` is the last level of a filter")]
    EarlyHash,
    /// `$share/…` without a group or without a filter.
    #[error("a shared subscription is `$share/GROUP/FILTER`, its group without wildcards")]
    Share,
    /// More than [`MAX_LEVELS`] levels.
    #[error("it has more than 128 levels")]
    TooDeep,
}

/// `bytes` as a topic name one may publish on.
///
/// # Errors
/// Says which rule it breaks.
pub fn name(bytes: &[u8]) -> Result<&str, TopicError> {
    let text = text(bytes)?;
    if bytes.iter().any(|b| matches!(b, b'+' | b'#')) {
        return Err(TopicError::Wildcard);
    }
    Ok(text)
}

/// A topic filter as subscribed to, taken apart: the group of a shared subscription and the filter proper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter<'a> {
    /// The group in `$share/GROUP/FILTER`.
    pub group: Option<&'a str>,
    /// What topics are matched against.
    pub filter: &'a str,
}

/// `text` as a filter one may subscribe to.
///
/// # Errors
/// Says which rule it breaks.
pub fn filter(text: &str) -> Result<Filter<'_>, TopicError> {
    self::text(text.as_bytes())?;
    let Some(shared) = text.strip_prefix("$share/") else {
        levels(text)?;
        return Ok(Filter { group: None, filter: text });
    };
    let (group, filter) = shared.split_once('/').ok_or(TopicError::Share)?;
    if group.is_empty() || filter.is_empty() || group.contains(['+', '#']) {
        return Err(TopicError::Share);
    }
    levels(filter)?;
    Ok(Filter { group: Some(group), filter })
}

/// Whether `filter` (legal, without a `$share` prefix) matches `topic` (legal).
///
/// `+` is any one level, an empty one too; a final `#` is any number of levels, none too, so that `a/#` matches `a`.
/// A filter that begins with a wildcard does not match a topic that begins with `$`.
pub fn matches(filter: &str, topic: &str) -> bool {
    if is_hidden(topic) && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    let mut wanted = filter.split('/');
    loop {
        match (wanted.next(), levels.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(want), Some(level)) if want == level => {}
            _ => return false,
        }
    }
}

/// Whether every topic that `wanted` matches is matched by `filter` too (both legal, without a `$share` prefix).
pub fn covers(filter: &str, wanted: &str) -> bool {
    if is_hidden(wanted) && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut wider = filter.split('/');
    let mut levels = wanted.split('/');
    loop {
        match (wider.next(), levels.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(want), Some(level)) if want == level && level != "+" => {}
            _ => return false,
        }
    }
}

/// Whether wildcards pass over this topic: it begins with `$`, as a server's own topics do.
pub fn is_hidden(topic: &str) -> bool {
    topic.starts_with('$')
}

fn text(bytes: &[u8]) -> Result<&str, TopicError> {
    if bytes.is_empty() {
        return Err(TopicError::Empty);
    }
    if bytes.len() > MAX_BYTES {
        return Err(TopicError::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| TopicError::NotText)?;
    if bytes.contains(&0) {
        return Err(TopicError::Nul);
    }
    Ok(text)
}

fn levels(filter: &str) -> Result<(), TopicError> {
    let mut closed = false;
    for (n, level) in filter.split('/').enumerate() {
        if n == MAX_LEVELS {
            return Err(TopicError::TooDeep);
        }
        if closed {
            return Err(TopicError::EarlyHash);
        }
        match level {
            "#" => closed = true,
            "+" => {}
            _ if level.contains(['+', '#']) => return Err(TopicError::PartialWildcard),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_standards_examples_match_as_it_says() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "sport/tennis", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/uptime", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("a//b", "a//b", true),
            ("a/+/b", "a//b", true),
            ("温度/+", "温度/1", true),
            ("a", "A", false),
            ("+/#", "a", true),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} against {topic}");
        }
    }

    #[test]
    fn filters_are_refused_for_the_rule_they_break() {
        assert_eq!(filter(""), Err(TopicError::Empty));
        assert_eq!(filter("a\0b"), Err(TopicError::Nul));
        assert_eq!(filter("sport/tennis#"), Err(TopicError::PartialWildcard));
        assert_eq!(filter("sport+"), Err(TopicError::PartialWildcard));
        assert_eq!(filter("sport/#/ranking"), Err(TopicError::EarlyHash));
        assert_eq!(filter("$share/g"), Err(TopicError::Share));
        assert_eq!(filter("$share//a"), Err(TopicError::Share));
        assert_eq!(filter("$share/g/"), Err(TopicError::Share));
        assert_eq!(filter("$share/g+/a"), Err(TopicError::Share));
        assert_eq!(filter(&"/".repeat(MAX_LEVELS)), Err(TopicError::TooDeep));
        assert_eq!(filter("$share/g/a/#"), Ok(Filter { group: Some("g"), filter: "a/#" }));
        assert_eq!(filter("+/+/#"), Ok(Filter { group: None, filter: "+/+/#" }));
    }

    #[test]
    fn topics_are_refused_for_the_rule_they_break() {
        assert_eq!(name(b""), Err(TopicError::Empty));
        assert_eq!(name(b"a/+"), Err(TopicError::Wildcard));
        assert_eq!(name(b"#"), Err(TopicError::Wildcard));
        assert_eq!(name(&[0xff]), Err(TopicError::NotText));
        assert_eq!(name(b"a\0"), Err(TopicError::Nul));
        assert_eq!(name(&vec![b'a'; MAX_BYTES + 1]), Err(TopicError::TooLong));
        assert_eq!(name("温度/1".as_bytes()), Ok("温度/1"));
        assert_eq!(name("/".repeat(MAX_BYTES).as_bytes()).map(str::len), Ok(MAX_BYTES));
    }

    #[test]
    fn a_filter_covers_those_that_match_nothing_else() {
        for (filter, wanted, expected) in [
            ("a/#", "a", true),
            ("a/#", "a/+/c", true),
            ("a/#", "a/#", true),
            ("a/+", "a/+", true),
            ("a/+", "a/b", true),
            ("a/+", "a/#", false),
            ("a/b", "a/+", false),
            ("#", "+/a", true),
            ("#", "$SYS/#", false),
            ("$SYS/#", "$SYS/a", true),
            ("+", "#", false),
            ("a/+/+", "a/+", false),
        ] {
            assert_eq!(covers(filter, wanted), expected, "{filter} over {wanted}");
        }
    }

    /// The standard's words, as slow and plain as they come.
    fn naive(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) => true,
            ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => naive(filter, topic),
            ([want, filter @ ..], [level, topic @ ..]) if want == level => naive(filter, topic),
            _ => false,
        }
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["", "a", "b", "ab", "$a", "é"])
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_naive_reading(
            filter in prop::collection::vec(prop_oneof![3 => level(), 2 => Just("+")], 1..6),
            hash in any::<bool>(),
            topic in prop::collection::vec(level(), 1..6),
        ) {
            let mut filter = filter;
            if hash { filter.push("#") }
            let (text, name) = (filter.join("/"), topic.join("/"));
            let hidden = name.starts_with('$') && (text.starts_with('+') || text.starts_with('#'));
            prop_assert_eq!(matches(&text, &name), !hidden && naive(&filter, &topic), "{} against {}", text, name);
        }

        #[test]
        fn what_a_covered_filter_matches_the_wider_one_matches_too(
            wider in prop::collection::vec(prop_oneof![2 => level(), 3 => Just("+")], 1..5),
            wanted in prop::collection::vec(prop_oneof![3 => level(), 2 => Just("+")], 1..5),
            hashes in any::<(bool, bool)>(),
            topics in prop::collection::vec(prop::collection::vec(level(), 1..6), 20),
        ) {
            let text = |levels: &[&str], hash: bool| levels.join("/") + if hash { "/#" } else { "" };
            let (wider, wanted) = (text(&wider, hashes.0), text(&wanted, hashes.1));
            let topics: Vec<String> = topics.iter().map(|topic| topic.join("/")).collect();
            if covers(&wider, &wanted) {
                for topic in topics.iter().filter(|topic| matches(&wanted, topic)) {
                    prop_assert!(matches(&wider, topic), "{} over {}: {}", wider, wanted, topic);
                }
            }
            prop_assert!(covers(&wider, &wider), "each covers itself");
        }

        #[test]
        fn no_input_panics(text in ".*", topic in ".*") {
            let _ = (filter(&text), name(topic.as_bytes()), matches(&text, &topic));
        }

        #[test]
        fn a_topic_without_wildcards_is_a_filter_that_matches_itself(topic in "[a-z/$é]{1,40}") {
            prop_assume!(!topic.starts_with("$share/"));
            prop_assert_eq!(name(topic.as_bytes()), Ok(topic.as_str()));
            prop_assert_eq!(filter(&topic).map(|f| f.filter), Ok(topic.as_str()));
            prop_assert!(matches(&topic, &topic));
        }
    }
}
