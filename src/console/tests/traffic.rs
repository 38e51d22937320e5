//! How many bytes the pictures cost: thin links are where this is used.

use super::*;
use crate::console::screen::Screen;

struct Line {
    seat: Seat,
    screen: Screen<std::io::Sink>,
}

impl Line {
    fn new(sample: Sample, width: u16, height: u16) -> Line {
        let seat = Seat::new(sample, width, height);
        let mut screen = Screen::new(std::io::sink(), seat.app.size, Depth::Truecolor, false).unwrap();
        screen.draw(&seat.app).unwrap();
        Line { seat, screen }
    }

    /// Bytes per second over that many seconds at five snapshots a second.
    fn rate(&mut self, seconds: u64) -> u64 {
        let before = self.screen.written();
        for _ in 0..seconds * 5 {
            self.seat.pass(1);
            if std::mem::take(&mut self.seat.dirty) {
                self.screen.draw(&self.seat.app).unwrap();
            }
        }
        (self.screen.written() - before) / seconds
    }
}

#[test]
fn an_unchanged_picture_costs_nothing() {
    for way in ["", "\r", "3", "4", "?"] {
        let mut line = Line::new(Sample::new(100), 120, 40);
        line.seat.press(way);
        line.screen.draw(&line.seat.app).unwrap();
        let before = line.screen.written();
        line.seat.answer();
        line.screen.draw(&line.seat.app).unwrap();
        assert_eq!(line.screen.written(), before, "after {way:?}");
    }
}

#[test]
fn a_live_fleet_of_a_hundred_cars_fits_a_thin_link() {
    let rate = Line::new(Sample::new(100), 120, 40).rate(60);
    println!("fleet view, 120x40, 100 live cars: {rate} bytes/s");
    assert!(rate > 0 && rate < 5_000, "{rate} bytes/s");
}

#[test]
fn every_view_of_a_live_fleet_stays_under_its_budget() {
    for (way, budget) in [("\r", 12_000), ("3", 3_000), ("4", 3_000), ("?", 500)] {
        let mut line = Line::new(Sample::new(100), 120, 40);
        line.seat.press(way);
        line.screen.draw(&line.seat.app).unwrap();
        let rate = line.rate(20);
        println!("{way:?}, 120x40: {rate} bytes/s");
        assert!(rate < budget, "{way:?}: {rate} bytes/s");
    }
}

#[test]
fn a_frozen_picture_costs_next_to_nothing() {
    let mut line = Line::new(Sample::new(100), 120, 40);
    line.seat.press(" ");
    line.rate(1);
    let rate = line.rate(30);
    assert!(rate < 150, "{rate} bytes/s");
}

#[test]
fn a_fleet_in_which_every_car_is_in_trouble_still_fits() {
    let mut line = Line::new(Sample::new(100), 120, 40);
    line.seat.twist = |snapshot| {
        // The worst row's trouble for all, with numbers that never stand still.
        let Some(worst) = snapshot.fleet.first().cloned() else { return };
        let step = snapshot.taken as f32 / 200.0;
        for (n, row) in snapshot.fleet.iter_mut().enumerate() {
            row.state = worst.state;
            row.severity = 70 + ((snapshot.taken / 200 + n as i64) % 30) as u8;
            row.blame = worst.blame.clone();
            if let Some(blame) = &mut row.blame {
                blame.value += (step + n as f32).sin() * 100.0;
                blame.expected += (step - n as f32).cos() * 100.0;
            }
            row.since = worst.since;
        }
    };
    let rate = line.rate(30);
    println!("fleet view, 120x40, every row in trouble: {rate} bytes/s");
    assert!(rate < 5_000, "{rate} bytes/s");
}

#[test]
fn numbers_are_drawn_once_a_second_and_a_change_of_state_at_once() {
    let mut seat = Seat::new(Sample::new(100), 120, 40);
    seat.pass(5);
    let drawn = (0..10)
        .filter(|_| {
            seat.dirty = false;
            seat.pass(1);
            seat.dirty
        })
        .count();
    assert_eq!(drawn, 2, "in two seconds");
    seat.pass(1);
    seat.dirty = false;
    seat.sample.trouble = false;
    seat.pass(1);
    assert!(seat.dirty, "the states are others");
    // Nothing more comes: what was held back is drawn when its second is over.
    seat.pass(1);
    seat.dirty = false;
    let due = seat.app.deadline(seat.now).unwrap();
    assert!(seat.app.tick(due));
    assert!(!seat.app.tick(due));
}
