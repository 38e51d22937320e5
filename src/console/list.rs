//! Lists of which only a window is known: a cursor that follows a car or an episode through every re-sorting.

use crate::engine::view::{CarName, Episode, EpisodeSort, FleetRow, FleetSort, Snapshot};

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

/// A cursor in a list, and the first row on screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scroll {
    /// The selected row.
    pub cursor: usize,
    /// The first row on screen.
    pub top: usize,
}

impl Scroll {
    /// Moves the cursor, within `len` rows of which `rows` are on screen.
    pub fn move_by(&mut self, by: isize, len: usize, rows: usize) {
        self.cursor = self.cursor.saturating_add_signed(by).min(len.saturating_sub(1));
        self.show(rows);
    }

    /// Scrolls as little as it takes to have the cursor on screen.
    pub fn show(&mut self, rows: usize) {
        let rows = rows.max(1);
        self.top = self.top.clamp((self.cursor + 1).saturating_sub(rows), self.cursor);
    }

    /// The list has `len` rows: nothing stands beyond its end.
    fn bound(&mut self, len: usize, rows: usize) {
        self.cursor = self.cursor.min(len.saturating_sub(1));
        self.top = self.top.min(len.saturating_sub(rows.max(1)));
    }
}

/// The fleet's list.
#[derive(Debug, Default)]
pub struct FleetList {
    sort: usize,
    /// Words that rows must hold.
    pub filter: String,
    /// Where the cursor is.
    pub scroll: Scroll,
    /// The car it follows. Until somebody moves it, it stays on the first row, whoever that is.
    pub selected: Option<CarName>,
    /// It was moved beyond the window that is known: whoever turns out to be there is meant.
    wanted: bool,
}

impl FleetList {
    /// The present order.
    pub fn sort(&self) -> FleetSort {
        FLEET_SORTS[self.sort].0
    }

    /// The present order's name.
    pub fn sort_name(&self) -> &'static str {
        FLEET_SORTS[self.sort].1
    }

    /// Goes to the next order.
    pub fn next_sort(&mut self) {
        self.sort = (self.sort + 1) % FLEET_SORTS.len();
        self.scroll.top = 0;
    }

    /// Lets go of the selected car: back to the first row.
    pub fn release(&mut self) {
        *self = FleetList { sort: self.sort, filter: std::mem::take(&mut self.filter), ..FleetList::default() };
    }

    /// The row under the cursor.
    pub fn row<'a>(&self, shown: &'a Snapshot) -> Option<&'a FleetRow> {
        match &self.selected {
            Some(car) => shown.fleet.iter().find(|row| row.car == *car),
            None => window(shown, self.scroll.cursor),
        }
    }

    /// The car under the cursor.
    pub fn car(&self, shown: &Snapshot) -> Option<CarName> {
        self.selected.clone().or_else(|| self.row(shown).map(|row| row.car.clone()))
    }

    /// Moves the cursor. A frozen picture (`only_known`) has no rows beyond its window.
    pub fn move_by(&mut self, by: isize, shown: &Snapshot, rows: usize, only_known: bool) {
        self.scroll.move_by(by, shown.matching, rows);
        if only_known {
            let last = (shown.fleet_offset + shown.fleet.len()).saturating_sub(1);
            self.scroll.cursor = self.scroll.cursor.clamp(shown.fleet_offset.min(last), last);
            self.scroll.show(rows);
        }
        self.selected = window(shown, self.scroll.cursor).map(|row| row.car.clone());
        self.wanted = self.selected.is_none();
    }

    /// Follows the selected car to where it is in a new snapshot. The rows on screen stay: a car that leaves them takes the
    /// cursor along, but not the view of what is worst.
    pub fn follow(&mut self, snapshot: &Snapshot, rows: usize) {
        let answered = &snapshot.query.fleet;
        if answered.filter != self.filter || answered.sort != self.sort() {
            return;
        }
        if self.wanted {
            self.scroll.bound(snapshot.matching, rows);
            if let Some(row) = window(snapshot, self.scroll.cursor) {
                self.selected = Some(row.car.clone());
                self.wanted = false;
            }
        } else if self.selected.is_some() && self.selected == answered.locate {
            match snapshot.located {
                Some(row) => self.scroll.cursor = row,
                None => self.selected = None,
            }
        }
        self.scroll.bound(snapshot.matching, rows);
    }
}

fn window(shown: &Snapshot, row: usize) -> Option<&FleetRow> {
    shown.fleet.get(row.checked_sub(shown.fleet_offset)?)
}

/// The episodes' list.
#[derive(Debug, Default)]
pub struct EpisodeList {
    sort: usize,
    /// Words that rows must hold.
    pub filter: String,
    /// Where the cursor is.
    pub scroll: Scroll,
    /// The episode it follows, by id.
    pub selected: Option<String>,
}

impl EpisodeList {
    /// The present order.
    pub fn sort(&self) -> EpisodeSort {
        EPISODE_SORTS[self.sort].0
    }

    /// The present order's name.
    pub fn sort_name(&self) -> &'static str {
        EPISODE_SORTS[self.sort].1
    }

    /// Goes to the next order.
    pub fn next_sort(&mut self) {
        self.sort = (self.sort + 1) % EPISODE_SORTS.len();
        self.release();
    }

    /// Back to the first row.
    pub fn release(&mut self) {
        self.scroll = Scroll::default();
        self.selected = None;
    }

    /// The episode under the cursor.
    pub fn selected_episode<'a>(&self, shown: &'a Snapshot) -> Option<&'a Episode> {
        match &self.selected {
            Some(id) => shown.episodes.iter().find(|episode| episode.id == *id),
            None => shown.episodes.get(self.scroll.cursor.checked_sub(shown.episodes_offset)?),
        }
    }

    /// Moves the cursor. A frozen picture (`only_known`) has no rows beyond its window.
    pub fn move_by(&mut self, by: isize, shown: &Snapshot, rows: usize, only_known: bool) {
        self.scroll.move_by(by, shown.episodes_matching, rows);
        if only_known {
            let last = (shown.episodes_offset + shown.episodes.len()).saturating_sub(1);
            self.scroll.cursor = self.scroll.cursor.clamp(shown.episodes_offset.min(last), last);
            self.scroll.show(rows);
        }
        self.selected = None;
        self.selected = self.selected_episode(shown).map(|episode| episode.id.clone());
    }

    /// Follows the selected episode to where it is in a new snapshot.
    pub fn follow(&mut self, snapshot: &Snapshot, rows: usize) {
        let Some(answered) = &snapshot.query.episodes else { return };
        if answered.filter != self.filter || answered.sort != self.sort() {
            return;
        }
        if let Some(id) = &self.selected {
            match snapshot.episodes.iter().position(|episode| episode.id == *id) {
                Some(n) => self.scroll.cursor = snapshot.episodes_offset + n,
                None => self.selected = None,
            }
        }
        self.scroll.bound(snapshot.episodes_matching, rows);
    }
}
