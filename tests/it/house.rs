//! The house's rules, read off its sources: who may use whom, where each library may be named, what a file says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each module's floor, as the table in `src/lib.rs` has it. A module may use its own floor and those below.
const FLOORS: [(&str, u8); 17] = [
    ("main", 6),
    ("cli", 5),
    ("commands", 4),
    ("console", 3),
    ("engine", 2),
    ("fleet", 1),
    ("detect", 1),
    ("model", 1),
    ("mqtt", 1),
    ("kafka", 1),
    ("wal", 1),
    ("simulate", 1),
    ("telemetry", 0),
    ("config", 0),
    ("logging", 0),
    ("failure", 0),
    ("text", 0),
];

/// Libraries that only these modules may name.
const LIBRARIES: [(&str, &[&str]); 11] = [
    ("ratatui", &["console"]),
    ("crossterm", &["console"]),
    ("rdkafka", &["kafka"]),
    ("ort", &["model"]),
    ("ort_tract", &["model"]),
    ("tract_onnx", &["model"]),
    ("rumqttc", &["mqtt", "simulate"]),
    ("rustls", &["mqtt"]),
    ("argon2", &["mqtt"]),
    ("blake2", &["mqtt"]),
    ("clap", &["cli", "commands", "main"]),
];

/// Every Rust file below `directory` of this repository, with its text.
fn sources(directory: &str) -> Vec<(PathBuf, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join(directory), &mut found);
    found.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path.strip_prefix(root).unwrap().to_owned(), text)
    };
    found.into_iter().map(read).collect()
}

/// The module at the top of the house that a file below `src` belongs to.
fn module_of(path: &Path) -> String {
    let name = path.components().nth(1).unwrap().as_os_str().to_str().unwrap();
    name.trim_end_matches(".rs").to_owned()
}

/// A file's code without comments and without its own unit tests (which stand at its end and may use what they need).
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The first names after each `root::` in `code`: one, or those of a group in braces.
fn named_after<'a>(code: &'a str, root: &str) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    let first = |text: &'a str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
    for (at, _) in code.match_indices(root) {
        let rest = &code[at + root.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut item) = (0, true);
            for (n, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => item = true,
                    c if item && !c.is_whitespace() => {
                        names.insert(first(&group[n..]));
                        item = false;
                    }
                    _ => {}
                }
            }
        } else {
            names.insert(first(rest));
        }
    }
    names
}

/// Which module names which others, with a file as witness.
fn uses() -> BTreeMap<(String, String), PathBuf> {
    let mut uses = BTreeMap::new();
    for (path, text) in sources("src") {
        let from = module_of(&path);
        if from == "lib" {
            continue;
        }
        for root in ["crate::", "dashlight::"] {
            for to in named_after(&code(&text), root) {
                if to != from && FLOORS.iter().any(|(name, _)| *name == to) {
                    uses.entry((from.clone(), to.to_owned())).or_insert(path.clone());
                }
            }
        }
    }
    uses
}

#[test]
fn names_in_groups_and_alone_are_found() {
    let code = "use crate::config::{Config, Kafka};\nuse crate::{fleet, model::{Model, train}, text};\nfn f() { crate::kafka::x() }";
    assert_eq!(named_after(code, "crate::"), BTreeSet::from(["config", "fleet", "kafka", "model", "text"]));
}

#[test]
fn every_module_has_a_floor() {
    for (path, _) in sources("src") {
        let module = module_of(&path);
        assert!(module == "lib" || FLOORS.iter().any(|(name, _)| *name == module), "{module} has no floor");
    }
}

#[test]
fn nobody_uses_a_floor_above() {
    let floor = |module: &str| FLOORS.iter().find(|(name, _)| *name == module).unwrap().1;
    for ((from, to), path) in uses() {
        assert!(floor(&from) >= floor(&to), "{} ({from}) uses {to}, which is above it", path.display());
    }
}

#[test]
fn there_are_no_circles() {
    let uses = uses();
    let reachable = |start: &str| {
        let mut seen = BTreeSet::new();
        let mut next = vec![start.to_owned()];
        while let Some(module) = next.pop() {
            for (from, to) in uses.keys() {
                if *from == module && seen.insert(to.clone()) {
                    next.push(to.clone());
                }
            }
        }
        seen
    };
    for (module, _) in FLOORS {
        assert!(!reachable(module).contains(module), "{module} uses itself through others: {:?}", reachable(module));
    }
}

#[test]
fn each_library_is_named_only_where_it_belongs() {
    for (path, text) in sources("src") {
        let module = module_of(&path);
        let code = code(&text);
        for (library, homes) in LIBRARIES {
            let named = code.match_indices(&format!("{library}::")).any(|(at, _)| {
                let before = code[..at].chars().next_back().unwrap_or(' ');
                !before.is_alphanumeric() && before != '_' && before != ':'
            });
            assert!(
                !named || homes.contains(&module.as_str()),
                "{} names {library}: that is for {homes:?}",
                path.display()
            );
        }
    }
}

#[test]
fn every_file_says_at_its_head_what_it_is_for() {
    let files = ["src", "tests", "benches"].into_iter().flat_map(sources);
    let silent: Vec<PathBuf> = files.filter(|(_, text)| !text.starts_with("//! ")).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "these begin with no `//!` comment: {silent:?}");
}
