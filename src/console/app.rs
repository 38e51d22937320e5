//! The console's state and how keys and snapshots change it. No terminal, no clock, no engine: data in, data out.
//!
//! [`App`] is owned by the event loop alone. What the engine must do comes back as an [`Effect`]; what the console wants to
//! see next is [`App::query`]. Times are durations since the console began.

use std::sync::Arc;
use std::time::Duration;

use ratatui::layout::Size;

use super::command::{self, Action, Needs, Place};
use super::keys::{Input, Key};
use super::list::{EpisodeList, FleetList, Scroll};
use super::theme::Theme;
use super::view;
use crate::engine::view::{
    CarName, CarQuery, CarState, CarView, Command, EpisodeSort, EpisodesQuery, FleetQuery, FleetSort, Millis, Query,
    Snapshot,
};

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
}

const TOAST_FOR: Duration = Duration::from_secs(5);
const HOLD_FOR: Duration = Duration::from_millis(1500);
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
                changed = true;
            }
        }
        changed
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
        self.toast.as_ref().map(|toast| toast.until).into_iter().chain(hold).min()
    }

    /// Time has passed. Whether there is anything new to draw.
    pub fn tick(&mut self, now: Duration) -> bool {
        if self.toast.as_ref().is_some_and(|toast| toast.until <= now) {
            self.toast = None;
            return true;
        }
        false
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

    fn act(&mut self, action: Action, now: Duration) -> Option<Effect> {
        match action {
            Action::Up => self.move_by(-1, now),
            Action::Down => self.move_by(1, now),
            Action::PageUp => self.move_by(-self.page(), now),
            Action::PageDown => self.move_by(self.page(), now),
            Action::First => self.move_by(isize::MIN, now),
            Action::Last => self.move_by(isize::MAX, now),
            Action::Open => self.open_selected(),
            Action::Back => self.back(),
            Action::NextView => self.turn(1),
            Action::PreviousView => self.turn(View::TABS.len() - 1),
            Action::Fleet => self.go(View::Fleet),
            Action::Car => self.go(View::Car),
            Action::Anomalies => self.go(View::Anomalies),
            Action::Pipeline => self.go(View::Pipeline),
            Action::Filter => self.overlay = Some(Overlay::Typing),
            Action::Sort => self.sort(),
            Action::Freeze => self.freeze(),
            Action::Older => self.episode(1),
            Action::Newer => self.episode(-1),
            Action::Panel => {
                self.panel = match self.panel {
                    Panel::Sensors => Panel::Episodes,
                    Panel::Episodes => Panel::Raw,
                    Panel::Raw => Panel::Sensors,
                };
            }
            Action::Break => {
                self.overlay = self.target().map(|car| Overlay::Faults { car, scroll: Scroll::default() });
            }
            Action::Repair => return self.target().map(|car| Effect::Send(Command::Repair { car })),
            Action::Acknowledge => return self.target().map(|car| Effect::Send(Command::Acknowledge { car })),
            Action::Mute => return self.mute(),
            Action::Rebaseline => self.overlay = self.target().map(|car| Overlay::Rebaseline { car }),
            Action::Theme => {
                self.theme = (self.theme + 1) % self.themes.len();
                self.say(format!("theme: {}", self.theme().name), now);
                // A background painted over all cells is a whole new picture.
                return Some(Effect::Redraw);
            }
            Action::Help => self.help(),
            Action::Redraw => return Some(Effect::Redraw),
            Action::Suspend => return Some(Effect::Suspend),
            Action::Quit => return Some(Effect::Quit),
            Action::Confirm => return self.confirm(),
            Action::Cancel => {
                if self.overlay.take() == Some(Overlay::Typing) {
                    self.erase_filter();
                }
            }
            Action::Erase => {
                if self.filter_mut().and_then(String::pop).is_some() {
                    self.filtered();
                }
            }
            Action::EraseAll => self.erase_filter(),
        }
        None
    }

    fn erase_filter(&mut self) {
        if let Some(filter) = self.filter_mut() {
            filter.clear();
            self.filtered();
        }
    }

    fn page(&self) -> isize {
        let rows = match self.view {
            View::Fleet => view::fleet::rows(self.size),
            View::Anomalies => view::anomalies::rows(self.size),
            View::Car => view::car::sensor_rows(self),
            View::Pipeline | View::Help => view::body_rows(self.size),
        };
        rows.saturating_sub(1).max(1) as isize
    }

    fn move_by(&mut self, by: isize, now: Duration) {
        if let Some(Overlay::Faults { scroll, .. }) = &mut self.overlay {
            scroll.move_by(by, self.latest.faults.len(), view::popup::fault_rows(self.size));
            return;
        }
        self.held_until = now + HOLD_FOR;
        let shown = self.frozen.as_ref().map_or(&self.latest, |frozen| &frozen.picture).clone();
        match self.view {
            View::Fleet => {
                self.fleet.move_by(by, &shown, view::fleet::rows(self.size), self.frozen.is_some());
            }
            View::Anomalies => {
                self.episodes.move_by(by, &shown, view::anomalies::rows(self.size), self.frozen.is_some());
            }
            View::Car => {
                let sensors = self.car_view().map_or(0, |car| match self.panel {
                    Panel::Sensors => car.sensors.len(),
                    Panel::Episodes => car.episodes.len(),
                    Panel::Raw => 0,
                });
                let rows = view::car::sensor_rows(self);
                self.sensor.move_by(by, sensors, rows);
            }
            View::Pipeline | View::Help => {
                let most = view::scroll_room(self);
                self.scrolled = self.scrolled.saturating_add_signed(by).min(most);
            }
        }
    }

    fn open_selected(&mut self) {
        let (car, at) = match self.view {
            View::Anomalies => match self.episodes.selected_episode(self.shown()) {
                Some(episode) => (Some(episode.car.clone()), Some(episode.peak)),
                None => (None, None),
            },
            _ => (self.target(), None),
        };
        if let Some(car) = car {
            if self.view == View::Fleet {
                self.fleet.selected = Some(car.clone());
            }
            self.back_to = self.view;
            self.enter_car(car, at);
        }
    }

    fn enter_car(&mut self, car: CarName, at: Option<Millis>) {
        if self.car.as_ref() != Some(&car) {
            self.sensor = Scroll::default();
        }
        self.panel = Panel::Sensors;
        self.car = Some(car);
        self.at = at;
        self.view = View::Car;
    }

    fn back(&mut self) {
        match self.view {
            View::Help => self.help(),
            View::Car if self.panel != Panel::Sensors => self.panel = Panel::Sensors,
            View::Car if self.at.is_some() && self.back_to != View::Anomalies => self.at = None,
            View::Car => {
                self.at = None;
                self.view = self.back_to;
            }
            View::Fleet | View::Anomalies => {
                if self.filter().is_some_and(|filter| !filter.is_empty()) {
                    self.erase_filter();
                } else if self.view == View::Fleet {
                    self.fleet.release();
                } else {
                    self.view = View::Fleet;
                }
            }
            View::Pipeline => self.view = View::Fleet,
        }
    }

    fn go(&mut self, view: View) {
        if view == self.view {
            return;
        }
        match (self.view, view) {
            (View::Fleet | View::Anomalies, View::Car) => {
                self.open_selected();
                // Nothing to open: the view says so.
                self.view = View::Car;
            }
            (_, View::Car) => {
                if self.car.is_none() {
                    self.car = self.fleet.car(self.shown());
                }
                self.back_to = View::Fleet;
            }
            _ => {}
        }
        self.view = view;
        self.scrolled = 0;
    }

    fn turn(&mut self, by: usize) {
        let here = if self.view == View::Help { self.help_back_to } else { self.view };
        let at = View::TABS.iter().position(|&view| view == here).unwrap_or(0);
        self.go(View::TABS[(at + by) % View::TABS.len()]);
    }

    fn help(&mut self) {
        if self.view == View::Help {
            self.view = self.help_back_to;
        } else {
            self.help_back_to = self.view;
            self.view = View::Help;
        }
        self.scrolled = 0;
    }

    fn sort(&mut self) {
        match self.view {
            View::Fleet => self.fleet.next_sort(),
            View::Anomalies => self.episodes.next_sort(),
            _ => {
                self.sensor_sort = match self.sensor_sort {
                    SensorSort::Schema => SensorSort::Deviation,
                    SensorSort::Deviation => SensorSort::Schema,
                };
            }
        }
    }

    fn freeze(&mut self) {
        if self.frozen.take().is_some() {
            self.follow();
        } else {
            let picture = self.latest.clone();
            self.frozen = Some(Frozen { picture, behind: Behind { seconds: 0, readings: 0 } });
        }
    }

    /// Goes `by` episodes towards older ones; beyond the newest is now.
    fn episode(&mut self, by: isize) {
        let Some(car) = self.car_view() else { return };
        let here = self.at.and_then(|at| car.episodes.iter().position(|e| e.peak == at));
        let next = here.map_or(-1, |n| n as isize).saturating_add(by).clamp(-1, car.episodes.len() as isize - 1);
        self.at = usize::try_from(next).ok().and_then(|n| car.episodes.get(n)).map(|episode| episode.peak);
    }

    fn mute(&mut self) -> Option<Effect> {
        let car = self.target()?;
        let muted = match self.view {
            View::Car => self.car_view().is_some_and(|view| view.muted_until.is_some()),
            _ => self.fleet.row(self.shown()).is_some_and(|row| row.state == CarState::Muted),
        };
        Some(Effect::Send(if muted { Command::Unmute { car } } else { Command::Mute { car, duration: MUTE_FOR } }))
    }

    fn confirm(&mut self) -> Option<Effect> {
        match self.overlay.take()? {
            Overlay::Typing => None,
            Overlay::Faults { car, scroll } => {
                let (fault, _) = self.latest.faults.get(scroll.cursor)?;
                Some(Effect::Send(Command::Break { car, fault: fault.clone() }))
            }
            Overlay::Rebaseline { car } => Some(Effect::Send(Command::Rebaseline { car })),
        }
    }
}

fn behind(picture: &Snapshot, latest: &Snapshot) -> Behind {
    Behind {
        seconds: (latest.taken.saturating_sub(picture.taken) / 1000).max(0),
        readings: latest.pipeline.counts.received.saturating_sub(picture.pipeline.counts.received),
    }
}

/// The fleet's orders, as `s` goes through them.
pub const FLEET_SORTS: [(FleetSort, &str); 5] = [
    (FleetSort::Severity, "severity"),
    (FleetSort::Name, "name"),
    (FleetSort::Score, "score"),
    (FleetSort::Episodes, "episodes"),
    (FleetSort::LastSeen, "last seen"),
];

/// The episodes' orders, as `s` goes through them.
pub const EPISODE_SORTS: [(EpisodeSort, &str); 2] = [(EpisodeSort::Newest, "newest"), (EpisodeSort::Worst, "worst")];
