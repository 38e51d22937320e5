//! The one table of what can be done on a keyboard. Keymap, bottom line and help are made from it, so that they agree.

use super::keys::Key;

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// One row up.
    Up,
    /// One row down.
    Down,
    /// A screenful up.
    PageUp,
    /// A screenful down.
    PageDown,
    /// To the first row.
    First,
    /// To the last row.
    Last,
    /// Opens what is selected.
    Open,
    /// Back to where one came from.
    Back,
    /// The next view.
    NextView,
    /// The previous view.
    PreviousView,
    /// The fleet.
    Fleet,
    /// The selected car.
    Car,
    /// The episodes.
    Anomalies,
    /// The pipeline.
    Pipeline,
    /// Starts typing a filter.
    Filter,
    /// The next order of the list.
    Sort,
    /// Lets the picture stand, or go on.
    Freeze,
    /// An older episode of the car.
    Older,
    /// A newer episode of the car, then now.
    Newer,
    /// What the lower part of a car's view shows.
    Panel,
    /// Asks which fault to give the car.
    Break,
    /// Repairs the car.
    Repair,
    /// Marks the open episode as seen.
    Acknowledge,
    /// Mutes the car, or ends its mute.
    Mute,
    /// Asks whether to take the car's behaviour as normal.
    Rebaseline,
    /// The next theme.
    Theme,
    /// This list.
    Help,
    /// Draws the whole screen anew.
    Redraw,
    /// Puts the console in the background.
    Suspend,
    /// Ends the program.
    Quit,
    /// Takes the choice, or keeps the filter.
    Confirm,
    /// Leaves without choosing, or clears the filter.
    Cancel,
    /// Takes the last character away.
    Erase,
    /// Takes all that was typed away.
    EraseAll,
}

/// Where keys are pressed: a view, or something that lies over it and takes all keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The fleet's list.
    Fleet,
    /// One car.
    Car,
    /// The episodes' list.
    Anomalies,
    /// The pipeline.
    Pipeline,
    /// Help.
    Help,
    /// Typing a filter.
    Typing,
    /// Choosing a fault.
    Choosing,
    /// A question that wants a yes.
    Asking,
}

use Place::{Anomalies, Asking, Car, Choosing, Fleet, Help, Pipeline, Typing};

const VIEWS: &[Place] = &[Fleet, Car, Anomalies, Pipeline, Help];
const LISTS: &[Place] = &[Fleet, Anomalies];
const CARS: &[Place] = &[Fleet, Car];
const ROWS: &[Place] = &[Fleet, Car, Anomalies, Pipeline, Help, Choosing];

/// What must be there for a command to do anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// A car to act on.
    Car,
    /// A car of a simulated fleet.
    SimulatedCar,
    /// An episode in the open car.
    Episode,
}

/// One thing that can be done.
#[derive(Debug)]
pub struct Command {
    /// What it does.
    pub action: Action,
    /// Its name in help.
    pub name: &'static str,
    /// The keys that do it.
    pub keys: &'static [Key],
    /// Where they do.
    pub places: &'static [Place],
    /// When they do.
    pub needs: Needs,
    /// Its word in the bottom line. Neighbours in the table with the same word share one hint.
    pub hint: Option<&'static str>,
    /// One sentence for help.
    pub doc: &'static str,
}

const fn command(
    action: Action,
    name: &'static str,
    keys: &'static [Key],
    places: &'static [Place],
    doc: &'static str,
) -> Command {
    Command { action, name, keys, places, needs: Needs::Nothing, hint: None, doc }
}

impl Command {
    const fn hint(self, word: &'static str) -> Command {
        Command { hint: Some(word), ..self }
    }

    const fn needs(self, needs: Needs) -> Command {
        Command { needs, ..self }
    }
}

/// Every command, in the order of the bottom line and of help.
pub const TABLE: &[Command] = &[
    command(Action::Up, "up", &[Key::Up, Key::Char('k')], ROWS, "Moves the selection one row up.").hint("select"),
    command(Action::Down, "down", &[Key::Down, Key::Char('j')], ROWS, "Moves the selection one row down.")
        .hint("select"),
    command(Action::PageUp, "page up", &[Key::PageUp, Key::Ctrl('b')], ROWS, "Moves it one screenful up."),
    command(Action::PageDown, "page down", &[Key::PageDown, Key::Ctrl('f')], ROWS, "Moves it one screenful down."),
    command(Action::First, "first", &[Key::Home, Key::Char('g')], ROWS, "Moves it to the first row."),
    command(Action::Last, "last", &[Key::End, Key::Char('G')], ROWS, "Moves it to the last row."),
    command(
        Action::Open,
        "open",
        &[Key::Enter, Key::Right, Key::Char('l')],
        LISTS,
        "Opens the car; from an episode, the car at that time.",
    )
    .hint("open"),
    command(
        Action::Back,
        "back",
        &[Key::Esc, Key::Left, Key::Char('h')],
        VIEWS,
        "Back to now, to where you came from, to the whole list.",
    ),
    command(Action::Filter, "filter", &[Key::Char('/')], LISTS, "Shows only rows that hold each word you type.")
        .hint("filter"),
    command(Action::Sort, "sort", &[Key::Char('s')], &[Fleet, Car, Anomalies], "Goes to the next order of the list.")
        .hint("sort"),
    command(Action::Freeze, "freeze", &[Key::Char(' ')], VIEWS, "Lets the picture stand while the engine goes on.")
        .hint("freeze"),
    command(Action::Older, "older episode", &[Key::Char('n')], &[Car], "Shows the car at its next older episode.")
        .needs(Needs::Episode)
        .hint("episode"),
    command(Action::Newer, "newer episode", &[Key::Char('p')], &[Car], "Shows its next newer episode, then now.")
        .needs(Needs::Episode)
        .hint("episode"),
    command(
        Action::Panel,
        "episodes, raw",
        &[Key::Char('e')],
        &[Car],
        "Shows its sensors, its episodes or its raw last reading.",
    )
    .hint("episodes, raw"),
    command(Action::Break, "break", &[Key::Char('f')], CARS, "Gives a simulated car a fault of your choice.")
        .needs(Needs::SimulatedCar)
        .hint("break this car"),
    command(Action::Repair, "repair", &[Key::Char('F')], CARS, "Repairs a simulated car.")
        .needs(Needs::SimulatedCar)
        .hint("repair"),
    command(Action::Acknowledge, "acknowledge", &[Key::Char('a')], CARS, "Marks the car's open episode as seen.")
        .needs(Needs::Car)
        .hint("acknowledge"),
    command(Action::Mute, "mute", &[Key::Char('m')], CARS, "Opens no episode for it for an hour; again ends that.")
        .needs(Needs::Car),
    command(
        Action::Rebaseline,
        "re-baseline",
        &[Key::Char('b')],
        CARS,
        "Takes its present behaviour as its normal one; asks first.",
    )
    .needs(Needs::Car),
    command(Action::Fleet, "fleet", &[Key::Char('1')], VIEWS, "Which cars need me?"),
    command(Action::Car, "car", &[Key::Char('2')], VIEWS, "What is wrong with the car, and how sure are we?"),
    command(Action::Anomalies, "anomalies", &[Key::Char('3')], VIEWS, "What happened, and when?"),
    command(Action::Pipeline, "pipeline", &[Key::Char('4')], VIEWS, "Can I trust what I see?"),
    command(Action::NextView, "next view", &[Key::Tab], VIEWS, "Goes to the view on the right."),
    command(Action::PreviousView, "previous view", &[Key::BackTab], VIEWS, "Goes to the view on the left."),
    command(Action::Theme, "theme", &[Key::Char('t')], VIEWS, "Goes to the next theme.").hint("theme"),
    command(Action::Help, "help", &[Key::Char('?')], VIEWS, "Shows this list; again to leave it.").hint("help"),
    command(Action::Redraw, "redraw", &[Key::Ctrl('l')], VIEWS, "Draws the whole screen anew."),
    command(
        Action::Suspend,
        "suspend",
        &[Key::Ctrl('z')],
        EVERYWHERE,
        "Puts dashlight in the background; fg brings it back.",
    ),
    command(Action::Quit, "quit", &[Key::Char('q')], VIEWS, "Ends dashlight, once what is in flight has been kept.")
        .hint("quit"),
    command(Action::Quit, "quit", &[Key::Ctrl('c')], EVERYWHERE, "Ends dashlight from anywhere."),
    command(Action::Confirm, "keep", &[Key::Enter], &[Typing], "Keeps the filter.").hint("keep"),
    command(Action::Confirm, "take", &[Key::Enter], &[Choosing], "Gives the car the chosen fault.").hint("break"),
    command(Action::Confirm, "yes", &[Key::Char('y'), Key::Enter], &[Asking], "Answers a question with yes.")
        .hint("yes"),
    command(Action::Cancel, "clear", &[Key::Esc], &[Typing], "Clears the filter.").hint("clear"),
    command(Action::Cancel, "cancel", &[Key::Esc], &[Choosing], "Breaks nothing.").hint("cancel"),
    command(Action::Cancel, "no", &[Key::Char('n'), Key::Esc], &[Asking], "Answers a question with no.").hint("no"),
    command(Action::Erase, "erase", &[Key::Backspace], &[Typing], "Takes the last character of the filter away."),
    command(Action::EraseAll, "erase all", &[Key::Ctrl('u')], &[Typing], "Takes the whole filter away."),
];

const EVERYWHERE: &[Place] = &[Fleet, Car, Anomalies, Pipeline, Help, Typing, Choosing, Asking];

/// The command that `key` means at `place`.
pub fn lookup(place: Place, key: Key) -> Option<&'static Command> {
    TABLE.iter().find(|command| command.places.contains(&place) && command.keys.contains(&key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_means_one_thing_at_one_place() {
        for &place in EVERYWHERE {
            let mut seen = std::collections::HashMap::new();
            for command in TABLE.iter().filter(|c| c.places.contains(&place)) {
                for key in command.keys {
                    if let Some(other) = seen.insert(key, command.name) {
                        panic!("{key} at {place:?} means {other} and {}", command.name);
                    }
                }
            }
        }
    }

    #[test]
    fn every_command_has_a_key_a_place_and_a_sentence() {
        for command in TABLE {
            assert!(!command.keys.is_empty() && !command.places.is_empty(), "{}", command.name);
            assert!(command.doc.ends_with(['.', '?']), "{}", command.name);
            assert!(command.doc.chars().count() <= 58, "{}: help has no room for that", command.name);
        }
    }
}
