//! Topic rules: what a client may publish on and subscribe to, by its user name and client id.
//!
//! Without any rule everybody who is let in may do everything. With rules a client may do what those that fit it allow
//! together, and nothing else. In a rule's filters `%u` stands for the user, `%c` for the client id; a name that holds `+`,
//! `#` or `/`, begins with `$` or is empty fills in nothing, so that no name widens a filter: that filter then allows
//! nothing.

use crate::mqtt::topic;

/// One rule as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Users it is for, `*` standing for any run of characters; `None`: everybody, also who names no user.
    pub user: Option<String>,
    /// Client ids it is for, `*` standing for any run of characters, `%u` for the user; `None`: every one.
    pub client: Option<String>,
    /// Filters of topics that may be published on.
    pub publish: Vec<String>,
    /// Filters that may be subscribed to, these or narrower ones.
    pub subscribe: Vec<String>,
}

/// What one client may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permit {
    /// Everything.
    Everything,
    /// What these filters say.
    Only {
        /// Topics it may publish on.
        publish: Box<[Box<str>]>,
        /// What it may subscribe to.
        subscribe: Box<[Box<str>]>,
    },
}

impl Permit {
    /// What the rules allow this client.
    pub fn of(rules: &[Rule], user: Option<&str>, client: &str) -> Permit {
        if rules.is_empty() {
            return Permit::Everything;
        }
        let (mut publish, mut subscribe) = (Vec::new(), Vec::new());
        for rule in rules.iter().filter(|rule| rule.fits(user, client)) {
            let filled = |filters: &[String]| filters.iter().filter_map(|filter| fill(filter, user, client)).collect();
            let more: Vec<Box<str>> = filled(&rule.publish);
            publish.extend(more);
            let more: Vec<Box<str>> = filled(&rule.subscribe);
            subscribe.extend(more);
        }
        Permit::Only { publish: publish.into(), subscribe: subscribe.into() }
    }

    /// Whether it may publish on this topic (legal).
    pub fn may_publish(&self, topic: &str) -> bool {
        match self {
            Permit::Everything => true,
            Permit::Only { publish, .. } => publish.iter().any(|filter| topic::matches(filter, topic)),
        }
    }

    /// Whether it may subscribe to this filter, with its `$share` prefix if any: one of its own must cover it.
    pub fn may_subscribe(&self, filter: &str) -> bool {
        match self {
            Permit::Everything => true,
            Permit::Only { subscribe, .. } => {
                topic::filter(filter).is_ok_and(|wanted| subscribe.iter().any(|own| topic::covers(own, wanted.filter)))
            }
        }
    }
}

impl Rule {
    fn fits(&self, user: Option<&str>, client: &str) -> bool {
        let user_fits = match (&self.user, user) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(pattern), Some(user)) => fits(pattern, user),
        };
        user_fits
            && self.client.as_deref().is_none_or(|pattern| match (pattern.contains("%u"), user) {
                (false, _) => fits(pattern, client),
                (true, None) => false,
                // A name with `*` in it stands for itself only.
                (true, Some(user)) => !user.contains('*') && fits(&pattern.replace("%u", user), client),
            })
    }
}

/// Whether `text` fits `pattern`, in which `*` stands for any run of characters, none too.
fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on from if what follows the last `*` does not fit: one byte further.
    let mut retry = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            retry = Some((p + 1, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            (p, t) = (p + 1, t + 1);
        } else if let Some((after, from)) = &mut retry {
            *from += 1;
            (p, t) = (*after, *from);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// The filter with the names filled in; `None` if one of them cannot be.
fn fill(filter: &str, user: Option<&str>, client: &str) -> Option<Box<str>> {
    let plain = |name: &str| !name.is_empty() && !name.starts_with('$') && !name.contains(['+', '#', '/']);
    let mut out = String::with_capacity(filter.len() + 32);
    let mut rest = filter;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let name = match rest.as_bytes().get(at + 1) {
            Some(b'u') => user?,
            Some(b'c') => client,
            _ => {
                out.push('%');
                rest = &rest[at + 1..];
                continue;
            }
        };
        if !plain(name) {
            return None;
        }
        out.push_str(name);
        rest = &rest[at + 2..];
    }
    out.push_str(rest);
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(user: Option<&str>, client: Option<&str>, publish: &[&str], subscribe: &[&str]) -> Rule {
        let own = |filters: &[&str]| filters.iter().map(ToString::to_string).collect();
        Rule {
            user: user.map(Into::into),
            client: client.map(Into::into),
            publish: own(publish),
            subscribe: own(subscribe),
        }
    }

    #[test]
    fn without_rules_everything_is_allowed_and_with_rules_only_what_fits() {
        assert!(Permit::of(&[], None, "c").may_publish("a") && Permit::of(&[], None, "c").may_subscribe("#"));
        let rules = [
            rule(Some("truck-*"), None, &["vehicles/%c/#"], &["vehicles/%c/commands"]),
            rule(Some("desk"), None, &[], &["vehicles/#"]),
            rule(None, None, &[], &["public/+"]),
        ];
        let truck = Permit::of(&rules, Some("truck-7"), "7");
        assert!(truck.may_publish("vehicles/7/speed") && truck.may_publish("vehicles/7"));
        assert!(!truck.may_publish("vehicles/8/speed") && !truck.may_publish("public/a"));
        assert!(truck.may_subscribe("vehicles/7/commands") && truck.may_subscribe("$share/g/public/news"));
        assert!(!truck.may_subscribe("vehicles/7/#") && !truck.may_subscribe("#") && !truck.may_subscribe("public/#"));
        let desk = Permit::of(&rules, Some("desk"), "x");
        assert!(desk.may_subscribe("vehicles/+/commands") && desk.may_subscribe("vehicles") && !desk.may_publish("a"));
        let nobody = Permit::of(&rules, None, "truck-7");
        assert!(nobody.may_subscribe("public/+") && !nobody.may_publish("vehicles/truck-7/speed"));
    }

    #[test]
    fn a_name_never_widens_a_filter() {
        let rules = [rule(None, None, &["v/%c/%u", "%c/x"], &["v/%c/#"])];
        for client in ["+", "#", "a/b", "a/#", "", "$SYS", "+/+"] {
            let permit = Permit::of(&rules, Some("u"), client);
            assert_eq!(permit, Permit::Only { publish: [].into(), subscribe: [].into() }, "{client}");
        }
        assert!(!Permit::of(&rules, Some("+"), "c").may_publish("v/c/x"));
        assert!(!Permit::of(&rules, None, "c").may_publish("v/c/"), "whoever names no user has no %u");
        assert!(Permit::of(&rules, Some("50%c"), "c").may_publish("v/c/50%c"), "what is filled in is not filled again");
    }

    #[test]
    fn a_client_id_can_be_bound_to_the_user() {
        let rules = [rule(Some("*"), Some("%u-*"), &["t"], &[])];
        assert!(Permit::of(&rules, Some("a"), "a-1").may_publish("t"));
        assert!(!Permit::of(&rules, Some("a"), "b-1").may_publish("t"));
        assert!(!Permit::of(&rules, Some("*"), "b-1").may_publish("t"), "a user called * is no pattern");
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("truck-*", "truck-", true),
            ("truck-*", "truck", false),
            ("*-7", "truck-7", true),
            ("a*b*c", "a__b_b__c", true),
            ("a*b*c", "a__b_b__", false),
            ("**a", "aa", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_agrees_with_the_naive_reading(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            fn naive(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern, text) {
                    ([], []) => true,
                    ([b'*', rest @ ..], _) => naive(rest, text) || !text.is_empty() && naive(pattern, &text[1..]),
                    ([a, pattern @ ..], [b, text @ ..]) => a == b && naive(pattern, text),
                    _ => false,
                }
            }
            prop_assert_eq!(fits(&pattern, &text), naive(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn no_client_gets_beyond_the_level_its_name_stands_in(client in ".{0,12}", topic in "[a-c/]{1,12}") {
            let permit = Permit::of(&[rule(None, None, &["v/%c"], &["v/%c"])], None, &client);
            if permit.may_publish(&format!("v/{topic}")) {
                prop_assert_eq!(&client, &topic);
            }
            prop_assert!(!permit.may_subscribe("v/+") && !permit.may_subscribe("v/#"));
        }
    }
}
