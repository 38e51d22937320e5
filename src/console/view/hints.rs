//! The bottom line's words: the few keys that work here, from the command table.

use crate::console::app::App;
use crate::console::command::TABLE;
use crate::console::keys::Key;

/// One entry of the bottom line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// Its keys: `↑↓`.
    pub keys: String,
    /// Its word, `sort: severity`.
    pub word: String,
}

/// The bottom line's entries for what is on screen, in order.
pub fn hints(app: &App) -> Vec<Hint> {
    let place = app.place();
    let mut hints: Vec<(&str, Hint)> = Vec::new();
    for command in TABLE.iter().filter(|c| c.places.contains(&place) && app.has(c.needs)) {
        let (Some(word), Some(key)) = (command.hint, command.keys.first()) else { continue };
        match hints.last_mut() {
            Some((last, hint)) if *last == word => {
                hint.keys.push_str(if matches!(key, Key::Char(_)) { "/" } else { "" });
                hint.keys.push_str(&key.to_string());
            }
            _ => hints.push((word, Hint { keys: key.to_string(), word: app.hint_word(command.action, word) })),
        }
    }
    if app.behind().is_some() {
        // How to go on matters more than what else could be done to a picture that stands.
        hints.sort_by_key(|(word, _)| *word != "freeze");
    }
    hints.into_iter().map(|(_, hint)| hint).collect()
}
