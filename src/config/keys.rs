//! The table of keys: what each configuration key is called, holds and is for, derived from the sections' declaration.

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A path, as a string.
    Path,
    /// `true` or `false`.
    Switch,
    /// A whole number within these bounds, both included.
    Integer(i64, i64),
    /// A number, whole or not.
    Number,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An array of strings.
    Texts,
    /// A table of strings under names of one's own.
    Properties,
    /// A table of keys.
    Section(&'static [Field]),
    /// An array of tables of keys.
    Sections(&'static [Field]),
}

impl Kind {
    /// What must be written, for an error's sentence.
    pub fn wanted(self) -> String {
        match self {
            Kind::Text => "a string in quotes".into(),
            Kind::Path => "a path, a string in quotes".into(),
            Kind::Switch => "`true` or `false`".into(),
            Kind::Integer(0, i64::MAX) => "a whole number, 0 or more".into(),
            Kind::Integer(low, high) => format!("a whole number from {low} to {high}"),
            Kind::Number => "a number".into(),
            Kind::Choice(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                format!("one of {}", words.join(", "))
            }
            Kind::Texts => "an array of strings, `[\"…\", \"…\"]`".into(),
            Kind::Properties => "a table of strings".into(),
            Kind::Section(_) => "a table of keys".into(),
            Kind::Sections(_) => "an array of tables, each begun by its name in double brackets".into(),
        }
    }
}

/// One key as declared in its section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name within the section.
    pub name: &'static str,
    /// Its doc string as declared: lines that begin with a blank.
    pub doc: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it may be left unset, with no default in its place.
    pub optional: bool,
}

impl Field {
    /// The doc string as one paragraph.
    pub fn paragraph(&self) -> String {
        self.doc.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned()
    }
}

/// A type that a key can hold.
pub trait Held {
    /// What is written for it.
    const KIND: Kind;
    /// Whether it may be left unset.
    const OPTIONAL: bool = false;
}

/// A section: its keys in the order of declaration.
pub trait Section {
    /// The keys.
    const FIELDS: &'static [Field];
}

impl Held for String {
    const KIND: Kind = Kind::Text;
}
impl Held for std::path::PathBuf {
    const KIND: Kind = Kind::Path;
}
impl Held for bool {
    const KIND: Kind = Kind::Switch;
}
impl Held for usize {
    const KIND: Kind = Kind::Integer(0, i64::MAX);
}
impl Held for u64 {
    const KIND: Kind = Kind::Integer(0, i64::MAX);
}
impl Held for i32 {
    const KIND: Kind = Kind::Integer(i32::MIN as i64, i32::MAX as i64);
}
impl Held for f64 {
    const KIND: Kind = Kind::Number;
}
impl Held for Vec<String> {
    const KIND: Kind = Kind::Texts;
}
impl<T: Section> Held for Vec<T> {
    const KIND: Kind = Kind::Sections(T::FIELDS);
}
impl<T: Held> Held for Option<T> {
    const KIND: Kind = T::KIND;
    const OPTIONAL: bool = true;
}

/// A key with its full name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its sections and name, joined by dots: `kafka.topics.scores`. Of an array of tables, the array's name: `source.codec`.
    pub path: String,
    /// As declared.
    pub field: Field,
}

impl Key {
    /// The environment variable that sets it; keys of an array of tables have none.
    pub fn variable(&self) -> Option<String> {
        let mut fields = super::Config::FIELDS;
        for name in self.path.split('.') {
            match fields.iter().find(|field| field.name == name)?.kind {
                Kind::Section(inner) => fields = inner,
                Kind::Sections(_) => return None,
                _ => {}
            }
        }
        Some(format!("DASHLIGHT_{}", self.path.replace('.', "_").to_uppercase()))
    }
}

/// Every key that holds a value (no sections), in the order of declaration.
pub fn all() -> Vec<Key> {
    fn walk(fields: &'static [Field], prefix: &str, keys: &mut Vec<Key>) {
        for field in fields {
            let path = format!("{prefix}{}", field.name);
            match field.kind {
                Kind::Section(fields) | Kind::Sections(fields) => walk(fields, &format!("{path}."), keys),
                _ => keys.push(Key { path, field: *field }),
            }
        }
    }
    let mut keys = Vec::new();
    walk(super::Config::FIELDS, "", &mut keys);
    keys
}

/// The known name nearest to a mistyped one, case aside, if any is near.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(name.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Declares sections: structs with a default for each field, read by serde, whose doc strings are kept for people.
macro_rules! sections {
    ($(
        $(#[doc = $about:expr])+
        $section:ident { $( $(#[doc = $doc:expr])+ $field:ident: $type:ty = $default:expr, )+ }
    )+) => { $(
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $section {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl Default for $section {
            fn default() -> Self {
                $section { $( $field: $default, )+ }
            }
        }

        impl $crate::config::keys::Section for $section {
            const FIELDS: &'static [$crate::config::keys::Field] = &[ $(
                $crate::config::keys::Field {
                    name: stringify!($field),
                    doc: concat!($($doc, "\n"),+),
                    kind: <$type as $crate::config::keys::Held>::KIND,
                    optional: <$type as $crate::config::keys::Held>::OPTIONAL,
                },
            )+ ];
        }

        impl $crate::config::keys::Held for $section {
            const KIND: $crate::config::keys::Kind =
                $crate::config::keys::Kind::Section(<$section as $crate::config::keys::Section>::FIELDS);
        }
    )+ };
}
pub(super) use sections;

/// Declares enums whose variants are words in the configuration.
macro_rules! choices {
    ($(
        $(#[doc = $about:expr])+
        $choice:ident { $( $(#[doc = $doc:expr])+ $variant:ident = $word:literal, )+ }
    )+) => { $(
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $choice {
            $( $(#[doc = $doc])+ #[serde(rename = $word)] $variant, )+
        }

        impl $choice {
            /// Every word, in the order of declaration.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// Its word in the configuration.
            pub fn word(self) -> &'static str {
                match self { $( $choice::$variant => $word, )+ }
            }
        }

        impl $crate::config::keys::Held for $choice {
            const KIND: $crate::config::keys::Kind = $crate::config::keys::Kind::Choice($choice::WORDS);
        }
    )+ };
}
pub(super) use choices;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_doc_string_that_is_a_sentence() {
        for key in all() {
            let doc = key.field.paragraph();
            assert!(doc.ends_with('.') && doc.len() > 10, "{}: {doc:?}", key.path);
        }
    }

    #[test]
    fn no_two_keys_share_an_environment_variable() {
        let mut variables: Vec<String> = all().iter().filter_map(Key::variable).collect();
        let count = variables.len();
        variables.sort();
        variables.dedup();
        assert_eq!(variables.len(), count);
    }

    #[test]
    fn keys_of_arrays_of_tables_have_no_environment_variable() {
        for key in all() {
            let repeated = ["source.", "mqtt.rule.", "mqtt.broker."].iter().any(|array| key.path.starts_with(array));
            assert_eq!(key.variable().is_none(), repeated, "{}", key.path);
        }
    }

    #[test]
    fn a_near_name_is_found_and_a_far_one_is_not() {
        assert_eq!(nearest("bootstrp", ["bootstrap", "group"]), Some("bootstrap"));
        assert_eq!(nearest("Listen", ["listen", "connect"]), Some("listen"));
        assert_eq!(nearest("colour", ["color", "theme"]), Some("color"));
        assert_eq!(nearest("zzz", ["listen", "connect"]), None);
    }
}
