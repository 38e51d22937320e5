//! What stands on screen, word for word and colour for colour.

use super::*;

#[test]
fn the_worst_car_stands_first_with_its_state_its_sensor_and_by_how_much() {
    let seat = Seat::new(Sample::new(100), 120, 40);
    let first = seat.line(3);
    for said in ["●", "87", "critical", "electric-vehicle-00042", "engine vibration ▲", "2,493.4 mV", "00:41", "now"]
    {
        assert!(first.contains(said), "{said:?} is missing in {first:?}");
    }
}

#[test]
fn each_view_reads_as_it_always_did() {
    for (width, height) in [(80, 24), (120, 40), (160, 50)] {
        for (name, keys) in [
            ("fleet", "j"),
            ("car", "\r"),
            ("car-past", "\rn"),
            ("anomalies", "3"),
            ("pipeline", "4"),
            ("help", "?"),
            ("break", "f"),
            ("filter", "/warn"),
            ("frozen", " "),
        ] {
            let mut seat = Seat::new(Sample::new(100), width, height);
            seat.press(keys);
            seat.pass(10);
            insta::assert_snapshot!(format!("{name}-{width}x{height}"), seat.text());
        }
    }
}

#[test]
fn without_unicode_every_shape_has_its_letter() {
    let seat = Seat::new(Sample::new(100), 100, 24);
    insta::assert_snapshot!("fleet-ascii", lines(&seat.picture(Depth::None, true)).join("\n"));
}

#[test]
fn an_empty_fleet_says_where_devices_publish() {
    let seat = Seat::new(Sample::named(Vec::new()), 80, 24);
    assert!(seat.text().contains("No car has reported yet. Devices publish to mqtt 127.0.0.1:1883."));
}

#[test]
fn a_path_that_is_not_whole_is_said_at_the_top_of_every_view() {
    for way in ["", "\r", "3", "4", "?"] {
        let mut seat = Seat::new(Sample::new(100), 80, 24);
        seat.twist = |snapshot| snapshot.pipeline.trouble = Some("Kafka away for 12 s".into());
        seat.press(way).pass(1);
        assert!(seat.line(0).contains("Kafka away for"), "{way:?}: {}", seat.line(0));
    }
}

#[test]
fn counts_that_do_not_add_up_are_marked() {
    let mut seat = Seat::new(Sample::new(100), 120, 40);
    assert!(!seat.press("4").text().contains('✗'));
    seat.twist = |snapshot| snapshot.pipeline.counts.scored += 5;
    seat.pass(1);
    assert!(seat.text().contains("✗ consumed"), "{}", seat.text());
}

/// The cell in which `what` first stands on line `y`.
fn cell<'a>(picture: &'a Buffer, y: u16, what: &str) -> &'a ratatui::buffer::Cell {
    (0..picture.area.width)
        .map(|x| &picture[(x, y)])
        .find(|c| c.symbol() == what)
        .unwrap_or_else(|| panic!("no {what}"))
}

#[test]
fn trouble_has_its_colour_in_every_theme_and_quiet_has_not() {
    for theme in theme::choose("dark").unwrap() {
        let name = theme.name.clone();
        let styles = theme.styles.clone();
        let mut seat = Seat::new(Sample::new(100), 120, 40);
        while seat.app.theme().name != name {
            seat.press("t");
        }
        let picture = seat.picture(Depth::Truecolor, false);
        for (y, symbol, look) in [(3, "●", styles.critical), (4, "▲", styles.warning), (13, "○", styles.quiet)] {
            let shown = cell(&picture, y, symbol);
            if let Some(fg) = look.fg {
                assert_eq!(shown.fg, fg, "{name}: {symbol}");
            }
            let wanted = look.style().add_modifier;
            assert!(shown.modifier.contains(wanted), "{name}: {symbol} has {:?}", shown.modifier);
        }
        let breach = cell(&picture, 3, "█");
        if let Some(fg) = styles.breach.fg {
            assert_eq!(breach.fg, fg, "{name}: a breach is painted");
        }
        assert!(breach.modifier.contains(styles.breach.style().add_modifier), "{name}");
    }
}

#[test]
fn the_selection_can_be_seen_without_colour() {
    for (depth, ascii, mark) in [(Depth::None, false, "▌"), (Depth::None, true, ">"), (Depth::Ansi16, false, "▌")] {
        let mut seat = Seat::new(Sample::new(100), 80, 24);
        seat.press("j");
        let picture = seat.picture(depth, ascii);
        assert_eq!(picture[(0, 4)].symbol(), mark);
        let (selected, other) = (&picture[(6, 4)], &picture[(6, 5)]);
        assert!(selected.modifier.contains(ratatui::style::Modifier::REVERSED), "{depth:?}");
        assert!(!other.modifier.contains(ratatui::style::Modifier::REVERSED), "{depth:?}");
    }
}
