//! The console's state and how keys and snapshots change it. No terminal, no clock, no engine: data in, data out.
//!
//! [`App`] is owned by the event loop alone. What the engine must do comes back as an [`Effect`]; what the console wants to
//! see next is [`App::query`]. Times are durations since the console began.

mod act;

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use ratatui::layout::Size;
use rustc_hash::FxHasher;

use super::command::{self, Action, Needs, Place};
use super::keys::{Input, Key};
use super::list::{EpisodeList, FleetList, Scroll};
use super::theme::Theme;
use super::view;
use crate::engine::view::{CarName, CarQuery, CarView, Command, EpisodesQuery, FleetQuery, Millis, Query, Snapshot};

/// The views, in the order of the top line; help lies behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Which cars need me?
    Fleet,
    /// What is wrong with this one?
    Car,
    /// What happened, when?
    Anomalies,
    /// Can I trust what I see?
    Pipeline,
    /// What can I do?
    Help,
}

impl View {
    /// Those in the top line.
    pub const TABS: [View; 4] = [View::Fleet, View::Car, View::Anomalies, View::Pipeline];

    /// Its name on screen.
    pub fn name(self) -> &'static str {
        match self {
            View::Fleet => "Fleet",
            View::Car => "Car",
            View::Anomalies => "Anomalies",
            View::Pipeline => "Pipeline",
            View::Help => "Help",
        }
    }
}

/// What lies over the view and takes all keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlay {
    /// The filter of the list is being typed.
    Typing,
    /// The choice of faults for a car.
    Faults {
        /// The car that will have it.
        car: CarName,
        /// The chosen one.
        scroll: Scroll,
    },
    /// Whether to re-baseline a car.
    Rebaseline {
        /// The car.
        car: CarName,
    },
}

/// What the lower part of a car's view shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Panel {
    /// The sensors, and below them what there is room for.
    Sensors,
    /// Its episodes.
    Episodes,
    /// Its last reading as received.
    Raw,
}

/// In what order a car's sensors stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SensorSort {
    /// As the schema has them.
    Schema,
    /// Farthest from what the model expects first.
    Deviation,
}

/// What the event loop must do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send this to the engine.
    Send(Command),
    /// End the console.
    Quit,
    /// Go to the background.
    Suspend,
    /// Draw everything anew.
    Redraw,
}

/// A sentence shown for a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Toast {
    text: String,
    until: Duration,
}

/// How far a frozen picture is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// Seconds.
    pub seconds: i64,
    /// Readings received since.
    pub readings: u64,
}

#[derive(Debug)]
struct Frozen {
    picture: Arc<Snapshot>,
    behind: Behind,
}

/// Everything the console knows beside the themes' files.
#[derive(Debug)]
pub struct App {
    /// The terminal's size.
    pub size: Size,
    /// The view on screen.
    pub view: View,
    /// What lies over it.
    pub overlay: Option<Overlay>,
    /// The fleet's list.
    pub fleet: FleetList,
    /// The episodes' list.
    pub episodes: EpisodeList,
    /// The open car, the moment it is looked at (`None` is now), and its selected sensor.
    pub car: Option<CarName>,
    /// See `car`.
    pub at: Option<Millis>,
    /// See `car`.
    pub sensor: Scroll,
    /// Order of the open car's sensors.
    pub sensor_sort: SensorSort,
    /// Lower part of the car's view.
    pub panel: Panel,
    /// How far the pipeline's view and help are scrolled.
    pub scrolled: usize,
    latest: Arc<Snapshot>,
    frozen: Option<Frozen>,
    back_to: View,
    help_back_to: View,
    themes: Vec<Theme>,
    theme: usize,
    toast: Option<Toast>,
    heard: Option<u64>,
    held_until: Duration,
    calm: Calm,
}

/// Lists whose numbers change all the time are drawn anew once a second; what an operator must see at once, at once.
#[derive(Debug, Default)]
struct Calm {
    /// What must be seen at once, as it was drawn last.
    seen: u64,
    /// When the numbers were drawn last.
    drawn: Duration,
    /// Whether there are newer ones.
    waiting: bool,
}

const TOAST_FOR: Duration = Duration::from_secs(5);
const HOLD_FOR: Duration = Duration::from_millis(1500);
/// Shortest time between two drawings of a list's numbers.
const CALM: Duration = Duration::from_secs(1);
const MUTE_FOR: Duration = Duration::from_secs(3600);
/// Longest filter, in characters.
const MAX_FILTER: usize = 64;

impl App {
    /// The console at its start. `themes` holds at least one; the first is shown.
    pub fn new(themes: Vec<Theme>, size: Size, latest: Arc<Snapshot>) -> App {
        // What was replied before this console came is not for it.
        let heard = latest.replies.last().map(|(n, _)| *n);
        App {
            size,
            view: View::Fleet,
            overlay: None,
            fleet: FleetList::default(),
            episodes: EpisodeList::default(),
            car: None,
            at: None,
            sensor: Scroll::default(),
            sensor_sort: SensorSort::Schema,
            panel: Panel::Sensors,
            scrolled: 0,
            latest,
            frozen: None,
            back_to: View::Fleet,
            help_back_to: View::Fleet,
            themes,
            theme: 0,
            toast: None,
            heard,
            held_until: Duration::ZERO,
            calm: Calm::default(),
        }
    }

    /// The picture to draw: the newest, or the frozen one.
    pub fn shown(&self) -> &Snapshot {
        self.frozen.as_ref().map_or(&self.latest, |frozen| &frozen.picture)
    }

    /// How far behind the picture is, if it is frozen.
    pub fn behind(&self) -> Option<Behind> {
        self.frozen.as_ref().map(|frozen| frozen.behind)
    }

    /// The theme to draw with.
    pub fn theme(&self) -> &Theme {
        &self.themes[self.theme]
    }

    /// The sentence of the moment.
    pub fn toast(&self) -> Option<&str> {
        self.toast.as_ref().map(|toast| toast.text.as_str())
    }

    /// The open car's view, if the picture has it.
    pub fn car_view(&self) -> Option<&CarView> {
        let view = self.shown().car.as_deref()?;
        (Some(&view.row.car) == self.car.as_ref()).then_some(view)
    }

    /// Where keys are pressed now.
    pub fn place(&self) -> Place {
        match (&self.overlay, self.view) {
            (Some(Overlay::Typing), _) => Place::Typing,
            (Some(Overlay::Faults { .. }), _) => Place::Choosing,
            (Some(Overlay::Rebaseline { .. }), _) => Place::Asking,
            (None, View::Fleet) => Place::Fleet,
            (None, View::Car) => Place::Car,
            (None, View::Anomalies) => Place::Anomalies,
            (None, View::Pipeline) => Place::Pipeline,
            (None, View::Help) => Place::Help,
        }
    }

    /// Whether a command that needs `needs` has it now.
    pub fn has(&self, needs: Needs) -> bool {
        match needs {
            Needs::Nothing => true,
            Needs::Car => self.target().is_some(),
            Needs::SimulatedCar => self.target().is_some() && !self.latest.faults.is_empty(),
            Needs::Episode => self.car_view().is_some_and(|car| !car.episodes.is_empty()),
        }
    }

    /// A command's word in the bottom line, with what it says of the present state.
    pub fn hint_word(&self, action: Action, word: &str) -> String {
        match (action, self.view) {
            (Action::Sort, View::Fleet) => format!("{word}: {}", self.fleet.sort_name()),
            (Action::Sort, View::Anomalies) => format!("{word}: {}", self.episodes.sort_name()),
            (Action::Sort, View::Car) => {
                let order = match self.sensor_sort {
                    SensorSort::Schema => "as built",
                    SensorSort::Deviation => "deviation",
                };
                format!("{word}: {order}")
            }
            (Action::Up, View::Car) if self.overlay.is_none() => "sensor".into(),
            (Action::Up, View::Pipeline | View::Help) if self.overlay.is_none() => "scroll".into(),
            (Action::Freeze, _) if self.frozen.is_some() => "go on".into(),
            _ => word.into(),
        }
    }

    /// What the console wants to see.
    pub fn query(&self, now: Duration) -> Query {
        let rows = view::fleet::rows(self.size);
        let fleet = FleetQuery {
            sort: self.fleet.sort(),
            filter: self.fleet.filter.clone(),
            // A screenful before and after, so that paging has rows to show at once.
            offset: self.fleet.scroll.top.saturating_sub(rows),
            limit: (rows * 3).max(1),
            locate: self.fleet.selected.clone(),
            hold_order: now < self.held_until,
            points: view::fleet::points(self.size),
        };
        let car = self.car.clone().filter(|_| self.view == View::Car).map(|car| CarQuery {
            car,
            points: view::car::points(self.size),
            at: self.at,
        });
        let rows = view::anomalies::rows(self.size);
        let episodes = (self.view == View::Anomalies).then(|| EpisodesQuery {
            sort: self.episodes.sort(),
            filter: self.episodes.filter.clone(),
            offset: self.episodes.scroll.top.saturating_sub(rows),
            limit: (rows * 3).max(1),
        });
        let every = if self.frozen.is_some() { Duration::from_secs(1) } else { Query::default().every };
        Query { fleet, car, episodes, every }
    }

    /// Takes a new snapshot. Whether there is anything new to draw.
    pub fn receive(&mut self, snapshot: Arc<Snapshot>, now: Duration) -> bool {
        let replies = snapshot.replies.iter().filter(|(n, _)| self.heard.is_none_or(|heard| *n > heard));
        let mut changed = false;
        if let Some((n, text)) = replies.max_by_key(|(n, _)| *n) {
            self.toast = Some(Toast { text: text.clone(), until: now + TOAST_FOR });
            self.heard = Some(*n);
            changed = true;
        }
        self.latest = snapshot;
        match &mut self.frozen {
            Some(frozen) => {
                let behind = behind(&frozen.picture, &self.latest);
                // Once a second, or a picture that stands would cost as much as one that moves.
                if behind.seconds != frozen.behind.seconds {
                    frozen.behind = behind;
                    changed = true;
                }
            }
            None => {
                self.follow();
                let seen = self.must_be_seen();
                if !self.is_list() || seen != self.calm.seen || now >= self.calm.drawn + CALM {
                    self.calm = Calm { seen, drawn: now, waiting: false };
                    changed = true;
                } else {
                    self.calm.waiting = true;
                }
            }
        }
        changed
    }

    fn is_list(&self) -> bool {
        matches!(self.view, View::Fleet | View::Anomalies)
    }

    /// A digest of what no operator should wait for: which rows there are in which state, and how many cars are how.
    fn must_be_seen(&self) -> u64 {
        let shown = &self.latest;
        let mut hash = FxHasher::default();
        let path = &shown.pipeline;
        (self.view as u8, shown.states.of, shown.matching, shown.cars, path.trouble.as_deref()).hash(&mut hash);
        (self.fleet.scroll.cursor, self.fleet.scroll.top, shown.fleet_offset).hash(&mut hash);
        for row in &shown.fleet {
            (&row.car, row.state, row.episodes, row.blame.as_ref().map(|blame| blame.sensor)).hash(&mut hash);
        }
        for episode in &shown.episodes {
            (&episode.id, episode.end, episode.acknowledged).hash(&mut hash);
        }
        hash.finish()
    }

    fn follow(&mut self) {
        self.fleet.follow(&self.latest, view::fleet::rows(self.size));
        self.episodes.follow(&self.latest, view::anomalies::rows(self.size));
    }

    /// The terminal has another size.
    pub fn resize(&mut self, size: Size) {
        self.size = size;
        self.fleet.scroll.show(view::fleet::rows(size));
        self.episodes.scroll.show(view::anomalies::rows(size));
        self.sensor.show(view::car::sensor_rows(self));
    }

    /// When [`App::tick`] has something to do next.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let hold = (now < self.held_until).then_some(self.held_until);
        let calm = self.calm.waiting.then(|| self.calm.drawn + CALM);
        let toast = self.toast.as_ref().map(|toast| toast.until);
        [hold, calm, toast].into_iter().flatten().min()
    }

    /// Time has passed. Whether there is anything new to draw.
    pub fn tick(&mut self, now: Duration) -> bool {
        let mut changed = false;
        if self.toast.as_ref().is_some_and(|toast| toast.until <= now) {
            self.toast = None;
            changed = true;
        }
        if self.calm.waiting && now >= self.calm.drawn + CALM {
            self.calm = Calm { drawn: now, waiting: false, ..self.calm };
            changed = true;
        }
        changed
    }

    /// Shows a sentence for a moment.
    pub fn say(&mut self, text: impl Into<String>, now: Duration) {
        self.toast = Some(Toast { text: text.into(), until: now + TOAST_FOR });
    }

    /// Something was typed.
    pub fn input(&mut self, input: &Input, now: Duration) -> Option<Effect> {
        match input {
            Input::Key(key) => self.key(*key, now),
            Input::Paste(text) => {
                if self.place() == Place::Typing {
                    text.chars().filter(|c| !c.is_control()).for_each(|c| self.type_char(c));
                }
                None
            }
        }
    }

    fn key(&mut self, key: Key, now: Duration) -> Option<Effect> {
        let place = self.place();
        if let Some(command) = command::lookup(place, key) {
            return if self.has(command.needs) { self.act(command.action, now) } else { None };
        }
        if let (Place::Typing, Key::Char(c)) = (place, key) {
            self.type_char(c);
        }
        None
    }

    fn type_char(&mut self, c: char) {
        if let Some(filter) = self.filter_mut()
            && filter.chars().count() < MAX_FILTER
        {
            filter.push(c);
            self.filtered();
        }
    }

    /// The filter of the list on screen.
    pub fn filter(&self) -> Option<&str> {
        match self.view {
            View::Fleet => Some(&self.fleet.filter),
            View::Anomalies => Some(&self.episodes.filter),
            _ => None,
        }
    }

    fn filter_mut(&mut self) -> Option<&mut String> {
        match self.view {
            View::Fleet => Some(&mut self.fleet.filter),
            View::Anomalies => Some(&mut self.episodes.filter),
            _ => None,
        }
    }

    fn filtered(&mut self) {
        match self.view {
            View::Fleet => self.fleet.release(),
            View::Anomalies => self.episodes.release(),
            _ => {}
        }
    }

    /// The car that a command would act on.
    pub fn target(&self) -> Option<CarName> {
        match self.view {
            View::Fleet => self.fleet.car(self.shown()),
            View::Car => self.car.clone(),
            _ => None,
        }
    }
}

fn behind(picture: &Snapshot, latest: &Snapshot) -> Behind {
    Behind {
        seconds: (latest.taken.saturating_sub(picture.taken) / 1000).max(0),
        readings: latest.pipeline.counts.received.saturating_sub(picture.pipeline.counts.received),
    }
}
