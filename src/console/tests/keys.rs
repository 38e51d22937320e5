//! State, keys, state.

use super::*;
use crate::console::app::{Overlay, View};
use crate::console::command::{Action, Place, TABLE};
use crate::console::list::FLEET_SORTS;
use crate::engine::view::{CarState, Command, EpisodeSort};

fn seat() -> Seat {
    Seat::new(Sample::new(1_000), 120, 40)
}

fn selected(seat: &Seat) -> String {
    seat.app.target().map(|car| car.to_string()).unwrap_or_default()
}

const DOWN: &str = "\x1b[B";

#[test]
fn arrows_and_letters_move_the_selection() {
    let mut seat = seat();
    assert_eq!(selected(&seat), "electric-vehicle-00042");
    seat.press(DOWN);
    let second = selected(&seat);
    assert_ne!(second, "electric-vehicle-00042");
    seat.press("k");
    assert_eq!(selected(&seat), "electric-vehicle-00042");
    seat.press("j");
    assert_eq!(selected(&seat), second);
    seat.press("\x1b[H");
    assert_eq!(selected(&seat), "electric-vehicle-00042");
}

#[test]
fn the_end_of_a_long_list_is_one_key_away_and_only_a_window_is_asked_for() {
    let mut seat = seat();
    seat.press("G");
    seat.answer();
    assert_eq!(selected(&seat), "electric-vehicle-01000");
    assert!(seat.text().contains("electric-vehicle-01000"));
    assert!(seat.app.query(seat.now).fleet.limit < 200, "a window, not the fleet");
    seat.press("\x1b[5~\x1b[5~");
    assert!(seat.text().contains(&selected(&seat)), "what is selected is on screen");
}

#[test]
fn the_selection_follows_the_car_when_the_order_changes() {
    let mut seat = seat();
    seat.press("jjj");
    let car = selected(&seat);
    let row_before = seat.app.fleet.scroll.cursor;
    seat.sample.trouble = false;
    seat.pass(1);
    assert_eq!(selected(&seat), car);
    assert_ne!(seat.app.fleet.scroll.cursor, row_before, "the car now stands elsewhere");
    seat.press("\r");
    assert_eq!(seat.app.car.as_deref(), Some(car.as_str()), "Enter opens the car, not the row");
}

#[test]
fn until_somebody_moves_it_the_selection_stays_with_the_worst() {
    let mut seat = Seat::new(Sample::new(100).healthy(), 120, 40);
    assert_eq!(selected(&seat), "electric-vehicle-00001");
    seat.sample.trouble = true;
    seat.pass(1);
    assert_eq!(selected(&seat), "electric-vehicle-00042");
}

#[test]
fn the_order_is_held_while_a_key_is_held_and_no_longer() {
    let mut seat = seat();
    assert!(!seat.app.query(seat.now).fleet.hold_order);
    seat.press("j");
    assert!(seat.app.query(seat.now).fleet.hold_order);
    seat.pass(10);
    assert!(!seat.app.query(seat.now).fleet.hold_order);
}

#[test]
fn a_filter_works_while_it_is_typed_and_escape_clears_it() {
    let mut seat = seat();
    seat.press("/00777");
    assert_eq!(seat.app.fleet.filter, "00777");
    assert!(seat.text().contains("1 of 1,000"));
    assert_eq!(selected(&seat), "electric-vehicle-00777");
    seat.key(Key::Backspace);
    assert_eq!(seat.app.fleet.filter, "0077");
    seat.press("\x1b");
    assert_eq!((seat.app.fleet.filter.as_str(), &seat.app.overlay), ("", &None));
}

#[test]
fn a_kept_filter_stays_and_escape_in_the_list_clears_it() {
    let mut seat = seat();
    seat.press("/warn\r");
    assert_eq!(seat.app.place(), Place::Fleet);
    assert!(seat.text().contains("“warn”: 3 of 1,000"));
    seat.press("\x1b");
    assert_eq!(seat.app.fleet.filter, "");
}

#[test]
fn what_is_typed_or_pasted_into_a_filter_is_never_a_command() {
    let mut seat = seat();
    seat.press("/q?F\x1b[200~qqq\x1b[201~");
    assert_eq!(seat.app.fleet.filter, "q?Fqqq");
    assert!(seat.effects.is_empty());
    seat.press("\x1b\x1b[200~q\x1b[201~");
    assert!(seat.effects.is_empty(), "text pasted anywhere else does nothing");
}

#[test]
fn the_sort_key_goes_through_all_orders_and_back() {
    let mut seat = seat();
    let mut seen = Vec::new();
    for _ in 0..FLEET_SORTS.len() {
        seen.push(seat.app.query(seat.now).fleet.sort);
        seat.press("s");
    }
    assert_eq!(seen, FLEET_SORTS.map(|(sort, _)| sort));
    assert_eq!(seat.app.query(seat.now).fleet.sort, FLEET_SORTS[0].0);
    seat.press("3s");
    assert_eq!(seat.app.query(seat.now).episodes.unwrap().sort, EpisodeSort::Worst);
}

#[test]
fn a_frozen_picture_stands_and_says_how_far_behind_it_is() {
    let mut seat = seat();
    seat.press(" ");
    let body = |seat: &Seat| seat.text().lines().skip(1).take(37).collect::<Vec<_>>().join("\n");
    let before = body(&seat);
    seat.pass(60);
    assert_eq!(body(&seat), before, "the picture stands");
    assert!(seat.line(0).contains("FROZEN"), "{}", seat.line(0));
    assert!(seat.line(39).contains("12 s, 60,000 readings behind"), "{}", seat.line(39));
    seat.press(" ");
    assert!(seat.line(0).contains("LIVE"));
    assert_ne!(body(&seat), before);
}

#[test]
fn a_frozen_list_can_be_walked_as_far_as_it_is_known() {
    let mut seat = seat();
    seat.press(" G");
    let known = seat.app.shown().fleet.last().unwrap().car.to_string();
    assert_eq!(selected(&seat), known);
    assert!(seat.text().contains(&known));
}

#[test]
fn enter_opens_a_car_and_escape_goes_back() {
    let mut seat = seat();
    seat.press("\r");
    assert_eq!(seat.app.view, View::Car);
    assert!(seat.text().contains("because"));
    seat.press("\x1b");
    assert_eq!(seat.app.view, View::Fleet);
    assert_eq!(selected(&seat), "electric-vehicle-00042");
}

#[test]
fn an_episode_leads_to_the_car_at_that_time_and_escape_back_to_the_list() {
    let mut seat = seat();
    seat.press("3");
    seat.press("jjjjj\r");
    let peak = seat.app.at.unwrap();
    assert_eq!(seat.app.query(seat.now).car.unwrap().at, Some(peak));
    assert!(seat.line(0).contains("PAST"), "{}", seat.line(0));
    seat.press("\x1b");
    assert_eq!((seat.app.view, seat.app.at), (View::Anomalies, None));
}

#[test]
fn one_can_walk_through_a_cars_episodes_and_back_to_now() {
    let mut seat = seat();
    seat.press("\r");
    let peaks: Vec<_> = seat.app.car_view().unwrap().episodes.iter().map(|e| e.peak).collect();
    assert_eq!(peaks.len(), 2);
    seat.press("n");
    assert_eq!(seat.app.at, Some(peaks[0]));
    seat.press("nn");
    assert_eq!(seat.app.at, Some(peaks[1]), "there is none older");
    seat.press("p");
    assert_eq!(seat.app.at, Some(peaks[0]));
    seat.press("p");
    assert_eq!(seat.app.at, None);
    seat.press("n\x1b");
    assert_eq!((seat.app.at, seat.app.view), (None, View::Car), "escape comes back to now first");
}

#[test]
fn breaking_a_car_takes_a_choice_and_names_the_car_that_was_meant() {
    let mut seat = seat();
    seat.press("f");
    assert!(seat.text().contains("Break electric-vehicle-00042"));
    seat.sample.trouble = false;
    seat.pass(1);
    seat.press("j\r");
    assert_eq!(
        seat.effects,
        [Effect::Send(Command::Break { car: "electric-vehicle-00042".into(), fault: "drive-shaft".into() })]
    );
    seat.press("f\x1b");
    assert_eq!(seat.effects.len(), 1, "escape breaks nothing");
}

#[test]
fn real_cars_cannot_be_broken() {
    let mut seat = Seat::new(Sample::new(10).real(), 160, 50);
    assert!(!seat.text().contains("break this car"));
    seat.press("fF");
    assert!(seat.effects.is_empty() && seat.app.overlay.is_none());
}

#[test]
fn the_operators_marks_go_to_the_selected_car() {
    let car = || "electric-vehicle-00042".into();
    let mut seat = seat();
    seat.press("amF");
    assert_eq!(
        seat.effects,
        [
            Effect::Send(Command::Acknowledge { car: car() }),
            Effect::Send(Command::Mute { car: car(), duration: Duration::from_secs(3600) }),
            Effect::Send(Command::Repair { car: car() }),
        ]
    );
    seat.effects.clear();
    seat.press("b");
    assert_eq!(seat.app.overlay, Some(Overlay::Rebaseline { car: car() }));
    seat.press("n");
    assert!(seat.effects.is_empty());
    seat.press("by");
    assert_eq!(seat.effects, [Effect::Send(Command::Rebaseline { car: car() })]);
}

#[test]
fn muting_a_muted_car_ends_the_mute() {
    let mut seat = seat();
    seat.press("/muted\r");
    assert_eq!(seat.app.shown().fleet[0].state, CarState::Muted);
    seat.press("m\rm");
    let unmute = || Effect::Send(Command::Unmute { car: "electric-vehicle-00051".into() });
    assert_eq!(seat.effects, [unmute(), unmute()], "in the list, and in the car's own view");
}

#[test]
fn a_reply_is_shown_for_a_moment_and_once() {
    let mut seat = seat();
    seat.twist = |snapshot| snapshot.replies = vec![(7, "electric-vehicle-00042 is acknowledged.".into())];
    seat.pass(1);
    assert!(seat.line(39).contains("is acknowledged."), "{}", seat.line(39));
    seat.pass(30);
    assert!(seat.line(39).contains("select"), "the keys are back: {}", seat.line(39));
}

#[test]
fn replies_from_before_the_console_came_are_not_shown() {
    let mut first = Sample::new(3).snapshot(&Query::default(), 0);
    first.replies = vec![(3, "old".into())];
    let first = Arc::new(first);
    let mut app = App::new(theme::choose("dark").unwrap(), Size::new(80, 24), first.clone());
    app.receive(first, Duration::ZERO);
    assert_eq!(app.toast(), None);
}

#[test]
fn tab_goes_round_the_views_and_digits_go_straight_there() {
    let mut seat = seat();
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(seat.app.view);
        seat.press("\t");
    }
    assert_eq!(seen, View::TABS);
    assert_eq!(seat.app.view, View::Fleet);
    seat.press("\x1b[Z");
    assert_eq!(seat.app.view, View::Pipeline);
    for (key, view) in ["1", "2", "3", "4"].iter().zip(View::TABS) {
        seat.press(key);
        assert_eq!(seat.app.view, view);
    }
    seat.press("?");
    assert_eq!(seat.app.view, View::Help);
    seat.press("?");
    assert_eq!(seat.app.view, View::Pipeline);
}

#[test]
fn control_c_ends_it_from_everywhere_and_q_where_it_is_no_letter() {
    for before in ["", "\r", "3", "4", "?", "/", "f", "b"] {
        let mut seat = seat();
        seat.press(before).press("\x03");
        assert_eq!(seat.effects, [Effect::Quit], "after {before:?}");
    }
    for before in ["", "\r", "3", "4", "?"] {
        let mut seat = seat();
        seat.press(before).press("q");
        assert_eq!(seat.effects, [Effect::Quit], "after {before:?}");
    }
}

#[test]
fn themes_go_round() {
    let mut seat = seat();
    let mut names = Vec::new();
    for _ in 0..4 {
        names.push(seat.app.theme().name.clone());
        seat.press("t");
    }
    assert_eq!(names, ["dark", "light", "high-contrast", "mono"]);
    assert_eq!(seat.app.theme().name, "dark");
}

/// Everything a key could have changed.
fn state(seat: &Seat) -> String {
    format!("{}\n{:?}\n{:?}", seat.text(), seat.app.query(seat.now), seat.effects)
}

/// Seats at `place` in which different keys have something to do.
fn seats(place: Place) -> Vec<Seat> {
    let ways: &[&str] = match place {
        Place::Fleet => &["jjj", "G", "", "/vehicle\r"],
        Place::Car => &["\rjjj", "\rn", "\rG"],
        Place::Anomalies => &["3jj", "3G", "3/vehicle\r"],
        Place::Pipeline => &["4", "4jj"],
        Place::Help => &["?", "?jjj"],
        Place::Typing => &["/veh"],
        Place::Choosing => &["f", "fj"],
        Place::Asking => &["b"],
    };
    ways.iter()
        .map(|keys| {
            let mut seat = Seat::new(Sample::new(200), 80, 20);
            seat.press(keys);
            seat.answer();
            assert_eq!(seat.app.place(), place, "{keys:?}");
            seat
        })
        .collect()
}

#[test]
fn every_key_in_the_table_does_something_wherever_help_says_so() {
    for command in TABLE {
        for &place in command.places {
            for &key in command.keys {
                // To go to where one is, is no news; and an erased screen shows the same.
                let here = matches!(
                    (command.action, place),
                    (Action::Fleet, Place::Fleet)
                        | (Action::Car, Place::Car)
                        | (Action::Anomalies, Place::Anomalies)
                        | (Action::Pipeline, Place::Pipeline)
                );
                let did = seats(place).into_iter().any(|mut seat| {
                    let before = state(&seat);
                    seat.key(key);
                    state(&seat) != before
                });
                assert!(did || here, "{key} ({}) does nothing at {place:?}", command.name);
            }
        }
    }
}

#[test]
fn the_bottom_line_offers_only_keys_that_are_bound_there() {
    for place in [Place::Fleet, Place::Car, Place::Anomalies, Place::Pipeline, Place::Help, Place::Choosing] {
        for seat in seats(place) {
            let hints = crate::console::view::hints::hints(&seat.app);
            assert!(!hints.is_empty());
            for hint in hints {
                let bound = TABLE.iter().filter(|c| c.places.contains(&place)).flat_map(|c| c.keys);
                assert!(bound.into_iter().any(|key| hint.keys.contains(&key.to_string())), "{hint:?} at {place:?}");
            }
        }
    }
}
