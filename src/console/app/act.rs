//! What each action does to the state.

use std::time::Duration;

use super::{App, Behind, Effect, Frozen, HOLD_FOR, MUTE_FOR, Overlay, Panel, SensorSort, View};
use crate::console::command::Action;
use crate::console::list::Scroll;
use crate::console::view;
use crate::engine::view::{CarName, CarState, Command, Millis};

impl App {
    /// Does it.
    pub(super) fn act(&mut self, action: Action, now: Duration) -> Option<Effect> {
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

    pub(super) fn erase_filter(&mut self) {
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
